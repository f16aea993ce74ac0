"""Traces: their totals are the counters of the RTL, their blocks those of the plan."""

import itertools
import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from firmware_model.host.jobs import Job, LayerJob
from paro.config import Config
from paro.config.formats import CODE_BITS, CODE_DIGITS, LANES
from paro.config.registers import STAGES, STATES
from sim.cosim.accelerator import AcceleratorTarget
from sim.cosim.core import CoreTarget
from sim.cosim.session import Session
from sim.cosim.simulators import get_simulator
from sim.cosim.target import Simulation, Target
from sim.cycles.memory import Memory
from sim.trace.events import write_events
from sim.trace.trace import Trace, Track
from sim.verify.layers import LayerShape
from tests.sim.cosim.checks import assert_exact
from tests.sim.inputs import TINY, Shape, make_jobs

SUPERBLOCKS = Config(rows=4, cols=4, block=16, head_dim=32, query_rows=4)
CLUSTER = Config(rows=4, cols=4, block=16, head_dim=32, cores=2, query_rows=2, key_slots=4)
#: Some rows of a head with text, a partial block; another head; a layer with partial blocks.
HEADS = (Shape((3, 4, 4), (3, 4), rows=range(1, 4)), Shape((2, 5, 4), mean_bits=4.8))
LAYER = LayerShape(tokens=40, inputs=50, outputs=40)
STALLS = Memory((5, 40), 3)


def mixed_jobs(config: Config, seed: int) -> list[Job]:
    heads = make_jobs(config, HEADS, seed)
    return [heads[0], LAYER.job(config, seed), heads[1]]


def traced(target: Target, config: Config, jobs: Sequence[Job], simulator: str, folders):
    build_dir, run_dir = folders
    session = Session(get_simulator(simulator), build_dir, run_dir, trace=True)
    simulation = target.simulate(config, jobs, session)
    assert_exact(config, jobs, simulation)
    assert simulation.trace is not None
    return simulation, simulation.trace


@pytest.mark.parametrize(
    ("target", "config", "simulator"),
    [
        pytest.param(CoreTarget(), TINY, "verilator", id="core"),
        pytest.param(CoreTarget(20, 5), SUPERBLOCKS, "verilator", id="core-superblocks-stalls"),
        pytest.param(AcceleratorTarget(STALLS), TINY, "verilator", id="accelerator-stalls"),
        pytest.param(AcceleratorTarget(Memory()), CLUSTER, "verilator", id="cluster"),
        pytest.param(CoreTarget(stall_seed=7), TINY, "icarus", id="core-icarus"),
        pytest.param(
            AcceleratorTarget(Memory()), CLUSTER, "icarus", id="icarus", marks=pytest.mark.slow
        ),
    ],
)
def test_totals_and_blocks(target, config, simulator, build_dir, tmp_path, seed) -> None:
    jobs = mixed_jobs(config, seed % 1000)
    if simulator == "icarus" and target.name == "core":
        jobs = [HEADS[1].job(config, 0, seed % 1000), LAYER.job(config, seed % 1000)]
    simulation, trace = traced(target, config, jobs, simulator, (build_dir, tmp_path / "run"))
    assert_counters(config, simulation, trace)
    assert_plan(config, jobs, trace)
    for core in range(config.cores):
        assert_turns(config, trace, core)
    write_events(tmp_path / "trace.json", trace, [f"job {i}" for i in range(len(jobs))])
    assert_events(config, trace, json.loads((tmp_path / "trace.json").read_text()))


def track_of(trace: Trace, core: int | None, name: str) -> Track:
    (track,) = (track for track in trace.tracks if (track.core, track.name) == (core, name))
    return track


def assert_counters(config: Config, simulation: Simulation, trace: Trace) -> None:
    """The sum of a stage's spans is what the RTL counted."""
    assert trace.cycles == simulation.total_cycles
    counted = simulation.counters.cores if simulation.counters else [simulation.stages]
    assert len(counted) == config.cores
    for core, stages in enumerate(counted):
        assert {name: track_of(trace, core, name).counts() for name in STAGES} == stages
    for track in trace.tracks:
        assert track.starts[0] == 0
        assert (track.lengths > 0).all()
        assert (track.states[1:] != track.states[:-1]).all()
    if simulation.counters is not None:
        moved = [track_of(trace, None, name).counts()["busy"] for name in ("read", "write")]
        assert moved == [simulation.counters.read_beats, simulation.counters.write_beats]


def assert_plan(config: Config, jobs: Sequence[Job], trace: Trace) -> None:
    """Every live block of the plan was issued once (of a layer: for each block of tokens)."""
    assert len(trace.maps) == len(jobs)
    for number, (job, each) in enumerate(zip(jobs, trace.maps, strict=True)):
        if isinstance(job, LayerJob):
            codes = job.device_codes()
        else:
            codes = job.codes[list(job.rows(config))]
        assert codes.shape == (each.rows, each.columns)
        wanted = {
            (each.first_row + row, column, visit, codes[row, column])
            for row, column in np.argwhere(codes).tolist()
            for visit in range(each.visits)
        }
        own = trace.blocks[trace.blocks["job"] == number]
        found = own[["row", "column", "visit", "code"]].tolist()
        assert len(found) == len(wanted)
        assert set(found) == wanted


def assert_turns(config: Config, trace: Trace, core: int) -> None:
    """Blocks go through the array one after the other, each as long as its width says."""
    blocks = trace.blocks[trace.blocks["core"] == core]
    linear = np.array([trace.maps[job].linear for job in blocks["job"]])
    assert len(blocks) > linear.sum() > 0
    assert (blocks["issued"] < blocks["qk"]).all()
    assert (blocks["qk_end"] <= blocks["pv"])[~linear].all()
    assert (blocks[["pv", "pv_end"]][linear].tolist()) == [(-1, -1)] * int(linear.sum())
    turns = []
    for name, own in (("qk", blocks), ("pv", blocks[~linear])):
        track, spans = track_of(trace, core, name), (own[name], own[f"{name}_end"])
        worked = track.counts_until(spans[1])[0] - track.counts_until(spans[0])[0]
        tokens = np.array(
            [config.layer_tokens if trace.maps[job].linear else config.block for job in own["job"]]
        )
        products = config.block * tokens * config.head_dim * np.array(CODE_DIGITS)[own["code"]]
        cycles = products // (LANES * config.rows * config.cols)
        # The last output may come while the array works on queries that are none.
        whole = spans[1] < trace.cycles
        assert (~whole).sum() <= 1
        assert (worked == cycles)[whole].all()
        assert (worked <= cycles).all()
        assert worked.sum() == track.counts()["busy"]
        turns += zip(*(ends.tolist() for ends in spans), strict=True)
    turns.sort()
    assert all(end <= following for (_, end), (following, _) in itertools.pairwise(turns))
    assert turns[-1][1] <= trace.cycles


def assert_events(config: Config, trace: Trace, content: dict) -> None:
    """Slices of the file add up to the same."""
    events = content["traceEvents"]
    threads = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in events
        if event["name"] == "thread_name"
    }
    sums: Counter = Counter()
    for event in events:
        if event["ph"] == "X":
            assert 0 <= event["ts"] <= event["ts"] + event["dur"] <= trace.cycles
        if event.get("cat") == "stage":
            sums[event["pid"], threads[event["pid"], event["tid"]], event["name"]] += event["dur"]
    for track in trace.tracks:
        process = config.cores + 1 if track.core is None else track.core + 1
        name = track.name.replace("_", " ")
        assert {state: sums[process, name, state] for state in STATES} == track.counts()
    widths = Counter(event["args"]["bits"] for event in events if event["name"].startswith("QK "))
    assert widths == Counter(CODE_BITS[code] for code in trace.blocks["code"])
    arrows = Counter(event["ph"] for event in events if event["name"] == "block")
    assert arrows["s"] == arrows["f"] == (trace.blocks["pv"] >= 0).sum() > 0


def test_a_run_that_is_begun_anew(build_dir, tmp_path, seed) -> None:
    """After a reset in its midst the trace is that of the run without."""
    jobs = make_jobs(TINY, HEADS[1:], seed)
    blocks, cycles = [], []
    for reset_at in (None, 500):
        target = CoreTarget(reset_at=reset_at)
        folders = (build_dir, tmp_path / f"{reset_at}")
        simulation, trace = traced(target, TINY, jobs, "verilator", folders)
        assert_counters(TINY, simulation, trace)
        blocks.append(trace.blocks.tolist())
        cycles.append(trace.cycles)
    assert cycles[0] == cycles[1] > 500
    assert blocks[0] == blocks[1]


def test_nothing_is_recorded_unasked(build_dir, tmp_path, seed) -> None:
    jobs = make_jobs(TINY, HEADS[1:], seed)
    session = Session(get_simulator("verilator"), build_dir, tmp_path)
    assert CoreTarget().simulate(TINY, jobs, session).trace is None
    assert not list(tmp_path.glob("recording*"))
