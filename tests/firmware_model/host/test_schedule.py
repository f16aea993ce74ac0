"""The sequence of a queue: every item's own is kept, and both engines have work."""

from firmware_model.host.schedule import interleave, job_cycles, queue_cycles
from firmware_model.host.tasks import Task
from firmware_model.host.vector_job import VectorJob
from firmware_model.models.compiler import compile_network
from paro.config import Config
from tests.firmware_model.models.small_network import small_items, small_network

CONFIG = Config(rows=8, cols=8, block=16, head_dim=32, vector_channels=256)


def queue(seed: int) -> list[Task]:
    (item,) = small_items(seed, 1)
    network = small_network([item], CONFIG, seed)
    return list(compile_network(network, [item], CONFIG).tasks)


def test_every_item_keeps_its_sequence(seed):
    queues = [queue(seed + item) for item in range(3)]
    made = interleave(queues, CONFIG)
    assert len(made) == sum(map(len, queues))
    for own in queues:
        members = {id(task) for task in own}
        assert [task for task in made if id(task) in members] == own


def test_a_single_item_stays_as_it_is(seed):
    own = queue(seed)
    assert interleave([own], CONFIG) == own


def test_engines_take_turns(seed):
    """Of two items no engine has more than a few jobs in a row, but for heads and their steps."""
    made = interleave([queue(seed), queue(seed + 1)], CONFIG)
    kinds = [isinstance(task.job, VectorJob) for task in made]
    runs = "".join(map(str, map(int, kinds))).replace("01", "0 1").replace("10", "1 0").split()
    assert max(len(run) for run in runs if run[0] == "1") <= 6
    assert all(job_cycles(task, CONFIG) > 0 for task in made)


def test_one_engine_always_works(seed):
    """What one engine has to do fills nearly all of the time of a queue of two items."""
    queues = [queue(seed), queue(seed + 1)]
    made = interleave(queues, CONFIG)
    least = max(
        sum(job_cycles(task, CONFIG) for task in made if isinstance(task.job, VectorJob) == kind)
        for kind in (False, True)
    )
    one_by_one = queue_cycles([*queues[0], *queues[1]], CONFIG)
    assert least <= queue_cycles(made, CONFIG) <= 0.5 * (least + one_by_one)
