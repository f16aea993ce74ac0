"""A contract that is broken ends a co-simulation, with a sentence that says where and which."""

import json

import pytest

import rtl.core.core
from gen.verilog import convert, generate_verilog
from rtl.core.sequencer import ArraySequencer
from sim.cosim.core import CoreTarget
from sim.cosim.session import Harness, Session
from sim.cosim.simulators import SIMULATORS, get_simulator
from tests.formal.prove import mutant
from tests.rtl.lib.counter import Counter
from tests.sim.inputs import TINY, Shape

PORTS = ("clk", "rst", "step", "offer", "scale")


@pytest.mark.parametrize(
    ("steps", "failure"),
    [
        ([3, 0, 3], None),
        ([3, 0, 4, 3], 'contract broken in counter: Counter: a step is short, "100%" sure'),
    ],
    ids=["kept", "broken"],
)
@pytest.mark.parametrize("simulator", SIMULATORS)
def test_a_broken_one_ends_the_run(simulator, steps, failure, build_dir, tmp_path):
    verilog = convert(Counter(), "counter", contracts=True)
    harness = Harness({"counter.v": verilog}, "counter", PORTS, "tests.sim.cosim.contract_bench")
    session = Session(get_simulator(simulator), build_dir, tmp_path / "run")

    def prepare():
        session.run_dir.mkdir()
        (session.run_dir / "steps.json").write_text(json.dumps(steps))

    session.play(harness, prepare, lambda: 0, 1)
    ended = (session.run_dir / "ended").exists()
    assert ended == (failure is None)
    assert ended or session.stopped == failure


@pytest.mark.slow
@pytest.mark.parametrize("simulator", SIMULATORS)
def test_a_broken_core_says_what_is_wrong(simulator, build_dir, tmp_path, seed, monkeypatch):
    """QK runs ahead as far as it can: words would differ much later, if at all."""
    broken = mutant(ArraySequencer, "lead != SLOTS,", "1,")
    monkeypatch.setattr(rtl.core.core, "ArraySequencer", broken)
    session = Session(
        get_simulator(simulator),
        build_dir,
        tmp_path,
        make_verilog=lambda config, top, cache: generate_verilog(config, top, contracts=True),
    )
    jobs = [Shape((4, 4, 3), mean_bits=4.8).job(TINY, 0, seed % 1000)]
    simulation = CoreTarget().simulate(TINY, jobs, session)
    assert simulation.failure is not None
    assert simulation.failure.startswith("contract broken in paro_bench.core.")
    assert simulation.failure.endswith(": at most two blocks lie between QK and PV")
