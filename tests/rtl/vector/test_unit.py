"""The vector unit against the golden reference: chains of operations, under stalls."""

import random
from typing import Any

import pytest

from paro.config import Config
from paro.config.formats import LANES
from rtl.vector.unit import VectorUnit
from tests.rtl.simulate import simulate
from tests.rtl.streams import Receiver, Sender
from tests.rtl.vector.rows import block_rows, random_row, streams

CHANNELS, HEAD = 64, 16


def run(
    unit: VectorUnit,
    rows: list[Any],
    rng: random.Random,
    stalls: dict[str, float],
    turn: int = 2,
) -> int:
    """Play rows; returns cycles. All that is sent is compared."""
    play = streams(rows, len(unit.mantissas), turn)
    senders = [
        Sender(getattr(unit, name), beats, rng, stalls.get(name, 0.0))
        for name, beats in {"commands": play.commands, **play.inputs}.items()
    ]
    results = Receiver(unit.results, rng, stalls.get("results", 0.0))
    scales = [Receiver(port, rng, stalls.get("mantissas", 0.0)) for port in unit.mantissas]
    cycles = []

    async def take(ctx: Any) -> None:
        await results.receive(ctx, len(play.sent))
        cycles.append(results.times[-1])
        for _ in range(300):
            await ctx.tick()
        assert ctx.get(unit.idle)

    def take_of(bank: int) -> Any:
        async def take_mantissas(ctx: Any) -> None:
            await scales[bank].receive(ctx, len(play.mantissas[bank]))

        return take_mantissas

    takers = [take_of(bank) for bank in range(len(scales))]
    simulate(unit, take, *takers, *(sender.send for sender in senders))
    assert [list(beat) for beat in results.items] == play.sent
    assert tuple(receiver.items for receiver in scales) == play.mantissas
    return cycles[0]


@pytest.mark.parametrize("slow", ["nothing", "words", "others", "commands", "results", "all"])
def test_chains(slow, seed):
    """Every word and mantissa, whatever stalls."""
    rng = random.Random(seed)
    config = Config(rows=8, cols=8)
    unit = VectorUnit(config, CHANNELS)
    rows = [random_row(CHANNELS, HEAD, config.vector_lanes, n % 2, rng) for n in range(16)]
    names = ("words", "others", "addends", "commands", "results", "mantissas")
    stalls = {name: 0.5 for name in names if slow in (name, "all")}
    run(unit, rows, rng, stalls)


@pytest.mark.parametrize(
    ("rows", "cols", "lanes", "channels", "head"),
    [(4, 4, 2, 64, 16), (8, 16, 8, 32, 32), (8, 16, 8, 16, 16), (16, 16, 16, 64, 32)],
)
def test_other_arrays(rows, cols, lanes, channels, head, seed):
    """Rows of a few beats too, whose words are still on their way when the next pass asks."""
    rng = random.Random(seed)
    config = Config(rows=rows, cols=cols)
    assert config.vector_lanes == lanes
    # The longest rows: two of them are in progress.
    banks = (0, config.vector_rows // 2)
    played = [random_row(channels, head, lanes, banks[n % 2], rng) for n in range(12)]
    run(VectorUnit(config, channels), played, rng, {"results": 0.2, "words": 0.2})


@pytest.mark.parametrize(("rows", "cols", "turn"), [(8, 16, 4), (16, 16, 8), (16, 16, 4)])
def test_short_rows_in_all_banks(rows, cols, turn, seed):
    """As many rows in progress as fit, of every place or of every other one."""
    rng = random.Random(seed)
    config = Config(rows=rows, cols=cols)
    step = config.vector_rows // turn
    channels = config.vector_lanes * 2 * step
    lanes = config.vector_lanes
    played = [random_row(channels, channels, lanes, n % turn * step, rng) for n in range(2 * turn)]
    unit = VectorUnit(config, channels * turn // 2)
    run(unit, played, rng, {"results": 0.2, "words": 0.2}, turn)


def test_lanes_are_never_too_many():
    assert Config(rows=64, cols=64).vector_lanes == 32


def test_a_block_in_less_than_the_arrays_time(seed):
    """All of a token that a block of `moving-digits` has, at a beat a cycle but for its roots."""
    rng = random.Random(seed)
    config = Config(rows=8, cols=8, head_dim=32)
    width, tokens, seen = 128, 6, 512
    chains = [block_rows(width, 32, config.vector_lanes, n % 2, rng) for n in range(tokens)]
    pairs = zip(chains[::2], chains[1::2], strict=True)
    rows = [row for pair in pairs for both in zip(*pair, strict=True) for row in both]
    beats = sum(command["beats"] + 1 for row in rows for command in row.passes) / tokens
    cycles = run(VectorUnit(config, 4 * width), rows, rng, {}) / tokens
    # Digits of the products of a token, two for weights of 4 bits and 2.4 for attention of 4.8.
    digits = 2 * 12 * width**2 + 2.4 * 2 * seen * width
    array = digits / (LANES * config.rows * config.cols)
    print(f"{beats:.0f} beats, {cycles:.0f} cycles a token; the array {array:.0f}")
    assert beats == 1280
    assert cycles < 1.3 * beats
    assert cycles < 0.6 * array
