"""The output cut: words as they are, or rounded to 8 bits, two beats joined to one."""

import random

import pytest
import torch

from firmware_model.reference.linear import cut_words
from paro.config import PRESETS
from paro.config.descriptor import OUT_CUT_MAX
from rtl.accelerator.output_cut import OutputCut
from tests.rtl.simulate import simulate
from tests.rtl.streams import Receiver, Sender


@pytest.mark.parametrize("cut", range(OUT_CUT_MAX + 1))
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_words(cut, stall, seed) -> None:
    rng = random.Random(seed + cut)
    config = PRESETS["ulx3s"]
    unit = OutputCut(config)
    extremes = (2**15 - 1, -(2**15), 127 << cut, (127 << cut) + (1 << cut) // 2, 0, -1)
    words = [
        rng.choice((rng.choice(extremes), rng.randint(-(2**15), 2**15 - 1)))
        for _ in range(40 * config.output_words)
    ]
    per_beat = config.output_words
    beats = [words[i : i + per_beat] for i in range(0, len(words), per_beat)]
    receiver = Receiver(unit.output, rng, stall)

    async def testbench(ctx) -> None:
        ctx.set(unit.cut, cut)
        await receiver.receive(ctx, len(beats) // (2 if cut else 1))

    simulate(unit, testbench, Sender(unit.input, beats, rng, stall).send)
    got = [word for beat in receiver.items for word in beat]
    if cut:
        got = [(word >> low & 255) for word in got for low in (0, 8)]
        want = [word & 255 for word in cut_words(torch.tensor(words), cut).tolist()]
    else:
        want = words
    assert got == want
