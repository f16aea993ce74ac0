"""Contracts, in Amaranth's simulator, in a proof and in Verilog."""

from typing import Any

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from gen.verilog import BROKEN_CONTRACT, convert
from tests.formal.prove import check
from tests.rtl.lib.counter import Counter
from tests.rtl.simulate import simulate


def run(**inputs: list[int]) -> None:
    """Give a counter its inputs, cycle by cycle; what is not given is 0."""
    counter = Counter()

    async def bench(ctx: Any) -> None:
        for values in zip(*inputs.values(), strict=True):
            for name, value in zip(inputs, values, strict=True):
                port = counter.count.ready if name == "ready" else getattr(counter, name)
                ctx.set(port, value)
            await ctx.tick()

    simulate(counter, bench)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"step": [3, 4]}, 'a step is short, "100%" sure'),
        ({"step": [3] * 33 + [4]}, "a step is short"),
        ({"offer": [1, 1], "ready": [1, 1], "scale": [0, 1]}, "scale stays while it is used"),
        ({"offer": [1], "ready": [0]}, "there is room for every count"),
    ],
)
def test_a_broken_one_ends_the_simulation(inputs, sentence):
    with pytest.raises(AssertionError, match=f"Counter: {sentence}"):
        run(**inputs)


def test_kept_ones_do_not():
    run(
        step=[3, 1, 0, 2] * 20,
        offer=[0, 1, 1, 0] * 20,
        ready=[0, 1, 1, 0] * 20,
        scale=[1, 1, 1, 2] * 20,
    )


class Parent(wiring.Component):
    """Gives a counter any steps, and offers nothing."""

    given: In(4)

    def elaborate(self, platform):
        m = Module()
        m.submodules.counter = counter = Counter()
        m.d.comb += counter.step.eq(self.given)
        return m


@pytest.mark.parametrize(
    ("component", "ready", "status", "failed"),
    [
        (Counter, 1, "PASS", None),
        (Counter, 0, "FAIL", 'contracts.has_room(count, "every count")'),
        (Parent, None, "FAIL", "contracts.asks(self.step <= 3, 'a step is short, \"100%\" sure')"),
    ],
    ids=["own", "promise", "part"],
)
def test_a_proof_assumes_what_is_asked_and_shows_the_rest(
    component, ready, status, failed, tmp_path
):
    def properties(proof, made):
        if ready is not None:
            proof.assume(made.count.ready == ready)

    verdict = check(component(), properties, tmp_path, mode="prove", depth=2)
    assert verdict.status == status, verdict
    assert verdict.failed == ([failed] if failed else [])


def test_only_verilog_for_simulation_has_them():
    assert convert(Counter(), "counter") == convert(Counter(checked=False), "counter")
    checked = convert(Counter(), "counter", contracts=True)
    assert checked.count(BROKEN_CONTRACT) == 5
    assert 'Counter: a step is short, \\"100%%\\" sure' in checked
    assert "assert" not in checked
