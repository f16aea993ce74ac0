"""The softmax lane's exponential against the golden table, over the whole range."""

import pytest

from firmware_model.reference.digits import probability_value
from firmware_model.reference.integer import softmax_table
from paro.config import Config
from paro.config.formats import LOGIT_MAX
from rtl.core.exponential import ExponentialLane
from tests.rtl.simulate import simulate


@pytest.mark.parametrize("segments", [4, 8, 16])
def test_every_distance(segments: int) -> None:
    lane = ExponentialLane(Config(exp_segments=segments))
    table = softmax_table(segments).tolist()
    distances = [*range(len(table) + 300), 2 * LOGIT_MAX]

    async def testbench(ctx) -> None:
        ctx.set(lane.code, 2)  # two digits: the value shows every weight's nearest, in order
        got = []
        for distance in distances:
            # Spread the maxima over their range; m * 256 - x is what counts.
            maximum = 2047 if distance == 2 * LOGIT_MAX else distance % 2048 - 1023
            ctx.set(lane.maximum, maximum)
            ctx.set(lane.logit, maximum * 256 - distance)
            ctx.set(lane.absent, 0)
            await ctx.tick().repeat(lane.LATENCY)
            got.append(ctx.get(lane.value))
        ctx.set(lane.maximum, 0)
        ctx.set(lane.logit, 0)
        ctx.set(lane.absent, 1)
        await ctx.tick().repeat(lane.LATENCY)
        assert ctx.get(lane.value) == 0
        weights = [table[min(distance, len(table) - 1)] for distance in distances]
        expected = [probability_value(weight, 4) for weight in weights]
        assert got == expected

    simulate(lane, testbench)
