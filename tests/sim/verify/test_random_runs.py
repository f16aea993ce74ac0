"""Runs of random cases: short ones here, and that whatever is wrong is found, shrunk and told."""

import json
from dataclasses import replace

import numpy as np
import pytest

import sim.verify.queues
from firmware_model.host.jobs import LayerJob
from firmware_model.reference.outputs import model_outputs
from paro.config import PRESETS, ParoError
from sim.cosim.session import Session
from sim.cosim.simulators import get_simulator
from sim.cosim.verilog import kept_verilog
from sim.cycles.memory import Memory
from sim.verify.cases import BATCH, GROUP, Case, make_case
from sim.verify.faults import FAULT_CLASSES, Fault
from sim.verify.heads import HeadShape
from sim.verify.layers import LayerShape
from sim.verify.plays import play_cases
from sim.verify.queues import Item, Layout
from sim.verify.random_runs import run_cases
from sim.verify.shrink import reductions, shrink
from tests.sim.cosim.network_runs import SHARED
from tests.sim.inputs import TINY


@pytest.fixture
def session(build_dir, tmp_path) -> Session:
    return Session(get_simulator("verilator"), build_dir, tmp_path / "run")


def test_a_batch_of_the_accelerator(session, tmp_path):
    """Eight cases: plain, errors of the bus, resets, refusals; the report is kept as it grows."""
    lines, done, path = [], [], tmp_path / "report.json"
    report = run_cases(
        range(BATCH, 2 * BATCH),
        session,
        config=TINY,
        progress=lambda *now: done.append(now),
        log=lines.append,
        path=path,
    )
    assert report.differences == []
    assert report.passed
    assert len(report.cases) == BATCH
    assert done[-1] == (BATCH, BATCH)
    assert report.words > 10_000
    assert [line for line in lines if line in report.cases] == report.cases
    assert json.loads(path.read_text()) == report.to_dict()
    for kinds in FAULT_CLASSES.values():
        assert any(kind in line for kind in kinds for line in report.cases)
    assert 0 < report.bins["hit"] < report.bins["all"]


def test_a_batch_of_the_core(session):
    seeds = range(4 * GROUP + 2 * BATCH, 4 * GROUP + 2 * BATCH + 3)
    config = PRESETS["tiny"]
    assert make_case(seeds[0], config).target == "core"
    report = run_cases(seeds, session, config=config)
    assert report.differences == []
    assert report.passed


def test_a_read_error_is_told_of_its_job(session):
    """With a vector unit a job's data may still come when the next job is known."""
    items = tuple(
        Item(HeadShape((1, 4, 8), order=3, skips="all but one", width="mixed"), seed)
        for seed in range(3)
    )
    case = Case(0, SHARED, "accelerator", "verilator", Memory(latency=(30, 30)), items)
    cases = [
        replace(case, seed=number, fault=Fault("read error", number / 24, seed=number))
        for number in range(24)
    ]
    outcomes = play_cases(cases, session)
    assert [outcome.objections for outcome in outcomes] == [[]] * len(cases)
    struck = {word for outcome in outcomes for word in outcome.struck}
    assert {"READ_ERROR k", "READ_ERROR v"} <= struck


def short_jobs() -> list[Case]:
    """Layers of which one core of a cluster has all tokens; heads whose descriptors come late."""
    case = Case(0, TINY.changed(cores=2), "accelerator", "verilator", Memory(), ())
    layers = [LayerShape(tokens, 1, 40, codes=1) for tokens in (1, 17, 40)]
    cases = [replace(case, items=(Item(layer, 0),)) for layer in layers]
    heads = tuple(Item(HeadShape((1, 1, 1 + n % 2), width="8", skips="none"), n) for n in range(6))
    memories = [Memory(latency=(200, 200)), Memory(latency=(1, 60), stall_seed=1)]
    return cases + [replace(case, config=SHARED, items=heads, memory=each) for each in memories]


@pytest.mark.parametrize("case", short_jobs(), ids=lambda case: case.line.partition("| ")[2])
def test_cycles_of_short_jobs(case, session):
    assert play_cases([case], session)[0].objections == []


def test_a_wrong_word_is_found_and_shrunk(session, monkeypatch):
    """Of layers of more than two tokens one word is another: the smallest case is one layer."""

    def wrong(config, job):
        words = model_outputs(config, job).copy()
        if isinstance(job, LayerJob) and job.tokens > 2:
            words[2, 0] += 1
        return words

    monkeypatch.setattr(sim.verify.queues, "model_outputs", wrong)
    report = run_cases(range(2, 3), session, config=TINY, shrink_tries=25)
    assert not report.passed
    (difference,) = report.differences
    assert difference.seed == 2
    assert "words differ" in difference.objections[0]
    assert difference.together == []
    assert "read error" in difference.case
    # Neither its fault nor its heads are needed.
    assert "error" not in difference.smallest
    assert "head" not in difference.smallest
    assert "layer" in difference.smallest
    assert "1 of" in difference.smallest_objections[0]


def test_what_fails_only_after_others_is_told_with_them(session, monkeypatch):
    """A fault that the third case alone does not show."""
    real = sim.verify.random_runs.play_cases

    def failing(cases, session):
        outcomes = real(cases[-1:], session)
        if {case.seed for case in cases} >= {9, 11}:
            outcomes[-1].objections.append("something is left of another case")
        return [*real(cases[:-1], session), *outcomes] if len(cases) > 1 else outcomes

    monkeypatch.setattr(sim.verify.random_runs, "play_cases", failing)
    report = run_cases(range(8, 12), session, config=TINY)
    (difference,) = report.differences
    assert (difference.seed, difference.together) == (11, [9])
    assert difference.smallest == ""


def test_a_bench_that_stops_is_found_alone(session, monkeypatch):
    """Of a batch in which one case stops the bench, the others are still compared."""
    real = sim.verify.random_runs.play_cases

    def stopping(cases, session):
        outcomes = real(cases, session)
        if any(case.seed == 13 for case in cases):
            for outcome in outcomes:
                outcome.stopped, outcome.objections = True, ["the accelerator hangs"]
        return outcomes

    monkeypatch.setattr(sim.verify.random_runs, "play_cases", stopping)
    report = run_cases(range(12, 15), session, config=TINY, shrink_tries=2)
    assert [difference.seed for difference in report.differences] == [13]
    assert len(report.cases) == 3


@pytest.mark.slow
def test_a_fault_in_the_verilog_is_found(session):
    """Of the comparison that chooses a row's running maximum one side is another."""
    text = kept_verilog(TINY, "accelerator", session.build_dir)
    place = text.index("__softmax")
    begin = text.index(" > ", place)
    broken = text[:begin] + " < " + text[begin + 3 :]
    faulty = replace(session, make_verilog=lambda *_: broken)
    report = run_cases(range(4), faulty, config=TINY, shrink_tries=4)
    assert report.differences
    assert all(difference.objections for difference in report.differences)


def test_seeds_that_cannot_be_are_refused(session):
    for seeds in (range(0), range(-1, 3), range(0, 10, 2)):
        with pytest.raises(ParoError, match="are not legal; legal: one or more, from 0 on"):
            run_cases(seeds, session)


def test_words_come_from_the_queue(session):
    """One job of each kind, each compared in full."""
    items = (Item(HeadShape((2, 2, 5)), 1), Item(LayerShape(5, 40, 9), 2))
    case = replace(make_case(0, TINY), items=items, fault=None, again=False, layout=Layout())
    (outcome,) = play_cases([case], session)
    assert outcome.objections == []
    assert outcome.words == 20 * TINY.head_dim + 5 * 9


def test_what_can_be_no_smaller_is_told_as_it_is(session, monkeypatch):
    """Of heads side by side none can be smaller alone."""

    def failing(cases, session):
        outcomes = real(cases, session)
        if cases[0].layout.interleaved and len(cases[0].items) == 2:
            outcomes[0].objections.append("something is wrong")
        return outcomes

    real = sim.verify.random_runs.play_cases
    monkeypatch.setattr(sim.verify.random_runs, "play_cases", failing)
    case = replace(make_case(2, TINY), fault=None, layout=Layout(interleaved=True))
    case = replace(case, items=(Item(HeadShape((1, 1, 20)), 1), Item(HeadShape((1, 2, 10)), 2)))
    monkeypatch.setattr(sim.verify.random_runs, "make_case", lambda *_: case)
    (difference,) = run_cases(range(2, 3), session, config=TINY, shrink_tries=12).differences
    assert difference.smallest


def test_shrinking_ends_with_the_smallest():
    """Whatever fails, nothing simpler does."""
    case = make_case(6, TINY)
    assert case.fault is not None

    def fails(smaller) -> bool:
        heads = [item for item in smaller.items if isinstance(item.shape, HeadShape)]
        return any(head.shape.prefix > 0 and head.shape.width == "8" for head in heads)

    seen = next(number for number in range(6, 2000, 8) if fails(make_case(number, TINY)))
    smallest = shrink(make_case(seen, TINY), fails, 1000)
    assert fails(smallest)
    assert not any(fails(smaller) for smaller in reductions(smallest))
    assert len(smallest.items) == 1
    assert smallest.fault is None
    assert np.prod(smallest.items[0].shape.grid) == 1
