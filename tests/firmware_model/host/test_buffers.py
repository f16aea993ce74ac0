"""Places of buffers and waits of jobs: nothing that is needed is overwritten, little is waited."""

import itertools
import random

from firmware_model.host.dependences import Access, Accesses, Wait, done_before, find_waits
from firmware_model.host.memory import Lifetime, place_lifetimes
from paro.config.descriptor import OVERLAP_MAX

ALIGNMENT = 64


def random_lives(rng: random.Random, count: int, jobs: int) -> list[Lifetime]:
    lives = []
    for _ in range(count):
        first = rng.randrange(jobs)
        last = min(jobs, first + rng.choice((0, 1, 3, jobs)))
        lives.append(
            Lifetime(rng.choice((1, 4, 64, 1000, 4096, rng.randrange(1, 9999))), first, last)
        )
    return lives


def test_live_buffers_never_share_memory(seed):
    rng = random.Random(seed)
    for _ in range(50):
        lives = random_lives(rng, rng.randrange(1, 40), rng.choice((1, 5, 30)))
        places = place_lifetimes(lives, ALIGNMENT)
        assert all(place % ALIGNMENT == 0 for place in places)
        for (a, life), (b, other) in itertools.combinations(zip(places, lives, strict=True), 2):
            if life.first <= other.last and other.first <= life.last:
                assert a + life.size <= b or b + other.size <= a


def test_memory_is_used_again():
    """A chain needs the two that a job reads and writes, whatever its length."""
    chain = [Lifetime(1000, place, place + 1) for place in range(20)]
    places = place_lifetimes(chain, ALIGNMENT)
    assert max(places) + 1000 == 1024 + 1000
    # Small ones lie in the gaps of large ones.
    lives = [Lifetime(1024, 0, 9), Lifetime(1024, 0, 4), Lifetime(64, 5, 9), Lifetime(512, 5, 9)]
    assert sorted(place_lifetimes(lives, ALIGNMENT)) == [0, 1024, 1024, 1024 + 512]


def touched(access: Access) -> set[int]:
    return {
        access.start + row * access.stride + byte
        for row in range(access.rows)
        for byte in range(access.width)
    }


def random_access(rng: random.Random) -> Access:
    stride = rng.choice((12, 12, 20))
    width = rng.randrange(4, stride + 1, 4)
    return Access(4 * rng.randrange(40), stride, rng.randrange(1, 6), width)


def test_rows_that_meet(seed):
    """What shares a byte meets; columns of one buffer do not meet those beside them."""
    rng = random.Random(seed)
    for _ in range(2000):
        own, other = random_access(rng), random_access(rng)
        if touched(own) & touched(other):
            assert own.meets(other)
            assert other.meets(own)
        assert own.stop == max(touched(own)) + 1
    left, right = Access(100, 24, 5, 8), Access(108, 24, 5, 16)
    assert not left.meets(right)
    assert not right.meets(left)
    assert left.meets(Access(104, 24, 5, 8))


def test_waits(seed):
    """Each job has what it conflicts with behind it, and waits for no more than the last of it."""
    rng = random.Random(seed)
    for _ in range(60):
        jobs = [
            Accesses(
                tuple(random_access(rng) for _ in range(rng.randrange(3))),
                tuple(random_access(rng) for _ in range(rng.randrange(2))),
            )
            for _ in range(rng.randrange(1, 60))
        ]
        done = 0
        for index, (own, wait) in enumerate(zip(jobs, find_waits(jobs), strict=True)):
            conflicts = [place for place in range(index) if own.conflicts(jobs[place])]
            last = max(conflicts, default=-1)
            assert wait.after == int(last >= done)
            assert wait.overlap == (min(index - 1 - last, OVERLAP_MAX) if wait.after else 0)
            done = done_before(wait, index, done)
            assert done > last


def test_what_orders_jobs():
    """Reading after writing, writing after reading, writing after writing; not reading twice."""
    here, there = Access(0, 8, 4, 8), Access(32, 8, 4, 8)
    reads, writes = Accesses(reads=(here,)), Accesses(writes=(here,))
    other = Accesses((there,), (there,))
    assert find_waits([writes, other, reads, reads]) == [Wait(), Wait(), Wait(1, 1), Wait()]
    assert find_waits([reads, other, Accesses(), writes])[3] == Wait(1, 2)
    assert find_waits([writes, writes])[1] == Wait(1, 0)
    assert find_waits([reads, reads]) == [Wait(), Wait()]
    # What the second waits for is done for the third as well.
    assert find_waits([writes, reads, reads])[2] == Wait()
    far = [writes, *[Accesses((there,))] * 40, reads]
    assert find_waits(far)[-1] == Wait(1, OVERLAP_MAX)
