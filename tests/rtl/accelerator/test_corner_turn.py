"""The corner turn against a transposition in Python, with stalls, and its throughput."""

import random

import pytest

from paro.config import Config
from paro.config.formats import LANES, Operand
from rtl.accelerator.corner_turn import SCALE_BITS, CornerTurn
from tests.rtl.simulate import simulate
from tests.rtl.streams import Receiver, Sender

CONFIGS = [
    Config(rows=4, cols=4, block=16, head_dim=32),  # lt 1
    Config(rows=4, cols=8, block=16, head_dim=32),  # lt 2
    Config(rows=8, cols=8, block=16, head_dim=64),  # lt 4
    Config(rows=8, cols=16, block=16, head_dim=32),  # lt 8 = d / 4
    Config(rows=8, cols=16, block=16, head_dim=128),  # lt 8
    Config(rows=16, cols=16, block=16, head_dim=64),  # lt 16 = d / 4 = B
    Config(rows=32, cols=32, block=64, head_dim=128),  # lt 16
    Config(rows=8, cols=8, block=16, head_dim=256),  # lt 8
]
EACH_CONFIG = pytest.mark.parametrize(
    "config", CONFIGS, ids=lambda c: f"lt{c.load_tokens}-b{c.block}-d{c.head_dim}"
)


class Block:
    """A block of random rows and scales, as units and as beats."""

    def __init__(self, config: Config, operand: Operand, tokens: int, rng: random.Random):
        self.operand, self.tokens, self._config = operand, tokens, config
        rows = [[rng.randrange(-127, 128) for _ in range(config.head_dim)] for _ in range(tokens)]
        scales = [rng.getrandbits(32) for _ in range(tokens)]
        self._rows, self._scales = rows, scales

    @property
    def request(self) -> dict:
        return {"operand": self.operand, "tokens": self.tokens}

    @property
    def units(self) -> list[list[int]]:
        lanes = self._config.load_tokens
        padded = self._scales + [0x5EED5EED] * (-self.tokens % lanes)
        units = [padded[i : i + lanes] for i in range(0, len(padded), lanes)]
        for row in self._rows:
            words = [
                int.from_bytes(bytes(x & 255 for x in row[i : i + 4]), "little")
                for i in range(0, len(row), 4)
            ]
            units += [words[i : i + lanes] for i in range(0, len(words), lanes)]
        return units

    def beats(self) -> list[list[tuple[list[int], int]]]:
        """For each beat the valid tokens' four channels and scale."""
        lanes = self._config.load_tokens
        return [
            [
                (self._rows[t][c : c + LANES], self._scales[t] % 2**SCALE_BITS)
                for t in range(first, min(first + lanes, self.tokens))
            ]
            for first in range(0, self.tokens, lanes)
            for c in range(0, self._config.head_dim, LANES)
        ]


def turn(config: Config, blocks: list[Block], rng: random.Random, stalls: tuple[float, ...]):
    """Check all beats of the blocks; returns the cycles in which they came."""
    turner = CornerTurn(config)
    request_stall, unit_stall, beat_stall = stalls
    expected = [(block.operand, beat) for block in blocks for beat in block.beats()]
    receiver = Receiver(turner.beats, rng, beat_stall)

    async def testbench(ctx) -> None:
        await receiver.receive(ctx, len(expected))
        await ctx.tick()
        assert ctx.get(turner.idle)
        await ctx.tick().repeat(20)
        assert not ctx.get(turner.beats.valid)

    simulate(
        turner,
        testbench,
        Sender(turner.request, [block.request for block in blocks], rng, request_stall).send,
        Sender(turner.units, [unit for b in blocks for unit in b.units], rng, unit_stall).send,
    )
    for index, (payload, (operand, beat)) in enumerate(zip(receiver.items, expected, strict=True)):
        assert payload.operand == operand, f"beat {index}"
        lanes = range(len(beat))
        got = [([payload.data[t][i] for i in range(LANES)], payload.scale[t]) for t in lanes]
        assert got == beat, f"beat {index}"
    return receiver.times


@EACH_CONFIG
@pytest.mark.parametrize(
    "stalls", [(0.5, 0.5, 0.2), (0.1, 0.1, 0.6), (0.95, 0.0, 0.0)], ids=["slow", "full", "late"]
)
def test_blocks(config, stalls, seed) -> None:
    rng = random.Random(seed)
    size = config.block
    counts = [size, 1, size - 1, 1, 1, config.load_tokens, *(rng.randint(1, size) for _ in "....")]
    blocks = [Block(config, rng.choice([Operand.Q, Operand.K]), n, rng) for n in counts]
    turn(config, blocks, rng, stalls)


@EACH_CONFIG
def test_throughput(config, seed) -> None:
    """Units are taken without a stall, so that beats stall only for scale units."""
    rng = random.Random(seed)
    blocks = [Block(config, Operand.K, config.block, rng) for _ in range(4)]
    times = turn(config, blocks, rng, (0.0, 0.0, 0.0))
    units = sum(len(block.units) for block in blocks)
    group = config.head_dim // LANES
    # Request in its queue, then all units; the last group's beats come after its last unit.
    assert times[-1] <= 2 + units + 3 + group
    first = config.block // config.load_tokens + group
    assert times[0] <= 2 + first + 3


@EACH_CONFIG
def test_beats_without_a_stall(config, seed) -> None:
    """A block's beats leave one a cycle, once the first group is there."""
    rng = random.Random(seed)
    times = turn(config, [Block(config, Operand.Q, config.block, rng)], rng, (0.0, 0.0, 0.0))
    assert times[-1] - times[0] == len(times) - 1
