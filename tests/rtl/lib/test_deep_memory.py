"""Deep memory against a plain list."""

import random
from typing import Any

import pytest

from rtl.lib.deep_memory import BANK_WORDS, DeepMemory
from tests.rtl.simulate import simulate


@pytest.mark.parametrize("depth", [96, BANK_WORDS, 2 * BANK_WORDS + 512])
def test_words_come_back_two_cycles_later(depth: int, seed: int) -> None:
    """Words of every bank, read in any order between writes."""
    rng = random.Random(seed)
    memory = DeepMemory(16, depth=depth)
    written: dict[int, int] = {}
    edges = [bank * BANK_WORDS + side for bank in range(4) for side in (-1, 0)]
    writes = [address for address in edges if 0 <= address < depth] + [
        rng.randrange(depth) for _ in range(300)
    ]

    async def testbench(ctx: Any) -> None:
        expected: list[int | None] = [None] * DeepMemory.READ_LATENCY
        checked = 0
        for address in writes + [0] * DeepMemory.READ_LATENCY:
            word = rng.getrandbits(16)
            read = rng.choice([other for other in written if other != address] or [address])
            ctx.set(memory.write_enable, 1)
            ctx.set(memory.write_address, address)
            ctx.set(memory.write_data, word)
            ctx.set(memory.read_address, read)
            expected.append(written[read] if read != address else None)
            written[address] = word
            due = expected.pop(0)
            if due is not None:
                assert ctx.get(memory.read_data) == due
                checked += 1
            await ctx.tick()
        assert checked > 250

    simulate(memory, testbench)
