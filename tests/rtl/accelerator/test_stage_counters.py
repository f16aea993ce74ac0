"""The stage counters, and the descriptor's layout as the RTL sees it."""

import random

from amaranth.hdl import Shape

from paro.config.descriptor import DESCRIPTOR, pack_descriptor, unpack_descriptor
from paro.config.registers import STAGES, STATES
from rtl.accelerator.descriptor import descriptor_layout
from rtl.accelerator.stage_counters import StageCounters, counters_layout
from tests.rtl.simulate import simulate


def test_every_counter_counts_its_own(seed: int) -> None:
    rng = random.Random(seed)
    counters = StageCounters()
    want = {stage: dict.fromkeys(STATES, 0) for stage in STAGES}
    highest = 0

    async def testbench(ctx) -> None:
        nonlocal highest
        for _ in range(500):
            clear, enable = rng.random() < 0.01, rng.random() < 0.8
            activity = {stage: {state: rng.getrandbits(1) for state in STATES} for stage in STAGES}
            ctx.set(counters.clear, clear)
            ctx.set(counters.enable, enable)
            ctx.set(counters.activity, list(activity.values()))
            await ctx.tick()
            for stage, states in activity.items():
                for state, flag in states.items():
                    count = want[stage][state] + (flag and enable)
                    want[stage][state] = 0 if clear else count
            got = ctx.get(counters.counters)
            assert {s: {t: got[s][t] for t in STATES} for s in STAGES} == want
            highest = max(highest, *(max(states.values()) for states in want.values()))

    simulate(counters, testbench)
    assert highest > 20


def test_layouts() -> None:
    assert counters_layout().size == 8 * 3 * 32
    fields = {
        field.name: index * 4 + 32 if field.constant is None else field.constant
        for index, field in enumerate(DESCRIPTOR)
    }
    fields |= {"block": 16, "head_dim": 64, "prefix_tokens": 3, "suffix_tokens": 2}
    fields |= {"outer_extent": 4, "middle_extent": 5, "inner_extent": 6, "key_tokens": 125}
    fields |= {"outer_stride": 5, "middle_stride": 1, "inner_stride": 20}
    fields |= {"first_block_row": 1, "query_tokens": 109, "kind": 0, "out_cut": 3}
    fields |= {"chunks": 65, "sum_shift": 11, "out_shift": 2, "after": 1, "overlap": 19}
    fields |= {name: 4 * value for name, value in fields.items() if name.endswith("row_stride")}
    fields |= {n: value << 30 for n, value in fields.items() if n.endswith("address")}
    given = {f.name: fields[f.name] for f in DESCRIPTOR if f.constant is None}
    image = pack_descriptor(**given)
    view = descriptor_layout().from_bits(int.from_bytes(image, "little"))
    assert {name: view[name] for name in fields} == fields == unpack_descriptor(image)
    assert Shape.cast(descriptor_layout()).width == 1024
