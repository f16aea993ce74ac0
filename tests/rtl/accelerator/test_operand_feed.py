"""Operands of passes from tables and second rows: their order, and when the first one is there."""

import random
from typing import Any

from amaranth.hdl import unsigned
from amaranth.lib import data

from paro.config.vector_program import SECOND_ROW
from rtl.accelerator.operand_feed import OperandFeed
from tests.rtl.simulate import simulate
from tests.rtl.streams import Receiver, Sender

DEPTH, BANKS = 8, 2


def test_beats_of_passes(seed):
    rng = random.Random(seed)
    feed = OperandFeed(data.ArrayLayout(unsigned(16), 2), DEPTH, BANKS)
    passes = [
        {"source": rng.choice((0, 1, 3, SECOND_ROW)), "bank": n % 2, "beats": rng.randrange(DEPTH)}
        for n in range(20)
    ]
    passes[0]["source"] = 2  # nothing holds up a table's first beat
    seconds: list[list[list[int]]] = [[], []]
    wanted: list[list[int]] = []
    for own in passes:
        for beat in range(own["beats"] + 1):
            if own["source"] == SECOND_ROW:
                seconds[own["bank"]].append([rng.randrange(2**16), 7])
                wanted.append(seconds[own["bank"]][-1])
            else:
                wanted.append([own["source"] * DEPTH + beat, 1])
    output = Receiver(feed.output, rng, 0.0)
    senders = [Sender(feed.passes, passes, rng, 0.0)]
    senders += [Sender(feed.seconds[bank], seconds[bank], rng, 0.3) for bank in range(BANKS)]

    async def tables(ctx: Any) -> None:
        while True:
            _, _, address = await ctx.tick().sample(feed.address)
            ctx.set(feed.words, [address, 1])

    async def take(ctx: Any) -> None:
        await output.receive(ctx, len(wanted))

    simulate(feed, take, tables, *(sender.send for sender in senders))
    assert [list(beat) for beat in output.items] == wanted
    assert output.times[0] == OperandFeed.LATENCY
