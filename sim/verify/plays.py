"""Cases in simulation: those that share a memory in one process, each against the models."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from firmware_model.host.image import Image
from paro.config import Config
from sim.cosim.accelerator import AcceleratorRun, play_steps
from sim.cosim.accelerator_scenario import Step, StepResult
from sim.cosim.core import CoreTarget
from sim.cosim.session import Session
from sim.cosim.work import job_work
from sim.cycles.cycle_model import predict, predict_accelerator
from sim.cycles.memory import Memory
from sim.verify.bins import hit_bins
from sim.verify.cases import Case
from sim.verify.checks import counters_wrong, cycles_wrong, words_wrong
from sim.verify.faults import Ending, disturbed
from sim.verify.images import owners
from sim.verify.queues import Queue, make_queue

__all__ = ["Outcome", "play_cases"]


@dataclass
class Outcome:
    """What came of a case.

    Parameters
    ----------
    objections : list of str
        What was not as it must be.
    words : int
        Output words, and mantissas, that were compared.
    cycles : int
        Cycles of its queue, undisturbed.
    struck : list of str
        What each fault met: cause of an error, and of the bus what the burst moved.
    stopped : bool
        Whether the bench stopped, for whatever reason, so that nothing was compared.
    bins : set of str
        Those of `sim.verify.bins` that it has met; none if the bench stopped.
    """

    objections: list[str] = field(default_factory=list)
    words: int = 0
    cycles: int = 0
    struck: list[str] = field(default_factory=list)
    stopped: bool = False
    bins: set[str] = field(default_factory=set)


def play_cases(cases: Sequence[Case], session: Session) -> list[Outcome]:
    """Play cases of one configuration, target and memory in one process.

    Parameters
    ----------
    cases : sequence of Case
        Which; of the core alone they follow one another without a pause.
    session : Session
        Where and how.

    Returns
    -------
    list of Outcome
        Of each. What makes the bench stop is an objection to all of them.

    Raises
    ------
    ParoError
        If the Verilog does not compile or the folders cannot be written.
    """
    queues = [make_queue(case.config, case.items) for case in cases]
    play = _play_core if cases[0].target == "core" else _play_accelerator
    outcomes = play(cases, queues, session)
    for case, queue, outcome in zip(cases, queues, outcomes, strict=True):
        if not outcome.stopped:
            outcome.bins = hit_bins(case, queue.tasks, outcome.struck)
    return outcomes


# -- the core alone -----------------------------------------------------------------------------


def _play_core(cases: Sequence[Case], queues: Sequence[Queue], session: Session) -> list[Outcome]:
    config, memory = cases[0].config, cases[0].memory
    jobs = [job for queue in queues for job in queue.core_jobs]
    target = CoreTarget(memory.latency[0], memory.stall_seed)
    expected = target.predict(config, jobs)
    # A reset is of all of them: everything is then done again.
    fault = next((case.fault for case in cases if case.fault), None)
    if fault is not None:
        target = replace(target, reset_at=2 + int(fault.share * expected.total_cycles))
    found = target.simulate(config, jobs, session)
    outcomes, first = [], 0
    for queue in queues:
        outcome, end = Outcome(), first + len(queue.tasks)
        if found.failure is not None:
            outcome.objections.append(found.failure)
            outcome.stopped = True
        else:
            for number, (got, want) in enumerate(
                zip(found.words[first:end], queue.words, strict=True)
            ):
                outcome.words += want.size
                outcome.objections += words_wrong(f"job {number}", got, want.ravel())
            taken, wanted = found.cycles[first:end], expected.cycles[first:end]
            if taken != wanted:
                outcome.objections.append(f"cycles {taken} instead of {wanted}")
            outcome.cycles = sum(filter(None, taken))
        outcomes.append(outcome)
        first = end
    together = found.total_cycles, found.stages
    if found.failure is None and together != (expected.total_cycles, expected.stages):
        outcomes[0].objections.append("cycles of all jobs, or of a stage, are not the model's")
    return outcomes


# -- the accelerator ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Played:
    """A step of a case: its image, what is asked of it, and how it must end."""

    image: Image
    step: Step
    ending: Ending
    #: Whether it begins as the cycle model has it.
    predicted: bool = False


def _play_accelerator(
    cases: Sequence[Case], queues: Sequence[Queue], session: Session
) -> list[Outcome]:
    config, memory = cases[0].config, cases[0].memory
    plans = [_plan(case, queue) for case, queue in zip(cases, queues, strict=True)]
    images, steps = [], []
    for played in (played for plan in plans for played in plan):
        # Equal images are one: the bench knows what it did with each.
        if not images or images[-1] is not played.image:
            images.append(played.image)
        steps.append(replace(played.step, image=len(images) - 1))
    run = play_steps(config, images, steps, session, memory, keeps_bursts=True)
    outcomes, number = [], 0
    for queue, plan in zip(queues, plans, strict=True):
        outcome = Outcome()
        if run.failure is not None:
            outcome.objections.append(run.failure)
            outcome.stopped = True
        else:
            good = plan[-1].image
            for played in plan:
                check = _StepCheck(config, memory, queue, good, played, outcome)
                check.all(run, number)
                number += 1
        outcomes.append(outcome)
    return outcomes


def _plan(case: Case, queue: Queue) -> list[_Played]:
    """Steps of a case: with its fault if it has one, then whole, then again if it asks for it."""
    image, keeps = case.layout.place(case.config, queue), queue.has_steps
    whole, fault = Step(keeps_memory=keeps), case.fault
    first = _Played(image, replace(whole, resets=True), Ending(), not queue.has_steps)
    if fault is None:
        return [first, _Played(image, whole, Ending())] if case.again else [first]
    cycles = _least_cycles(case.config, queue, image, case.memory)
    wrong, step, ending = disturbed(case.config, queue.tasks, image, cycles, fault)
    plan = [
        _Played(wrong, replace(step, keeps_memory=keeps, resets=True), ending),
        _Played(image, whole, Ending()),
    ]
    # Where a byte is moved is known from a step before.
    return [first, *plan] if step.address is not None else plan


def _least_cycles(config: Config, queue: Queue, image: Image, memory: Memory) -> int:
    """Cycles of a queue; of one with vector steps those of its heads and layers alone."""
    works = [job_work(config, job) for job in queue.core_jobs]
    if not works:
        return 1
    if queue.has_steps:
        return predict(config, works).total_cycles
    return predict_accelerator(config, works, image, memory).total_cycles


@dataclass(frozen=True, eq=False)
class _StepCheck:
    """Holds a step against what it must be."""

    config: Config
    memory: Memory
    queue: Queue
    #: The queue as it is without a fault.
    image: Image
    played: _Played
    outcome: Outcome

    def all(self, run: AcceleratorRun, number: int) -> None:
        """Note what is wrong of a step of a run."""
        result, ending, outcome = run.steps[number], self.played.ending, self.outcome
        outcome.objections += self._error(result)
        if not ending.outputs:
            return
        outcome.objections += self._words(run, number)
        if self.played.step.disturb == "start_again" and result.error is None:
            return  # it was a second run, whose counters are not told apart
        outcome.objections += counters_wrong(self.config, self.image, self.queue.core_jobs, result)
        if self.played.predicted:
            outcome.objections += cycles_wrong(
                self.config, self.image, self.queue.core_jobs, self.memory, result
            )
        if result.counters is not None:
            outcome.cycles = result.counters.cycles

    def _error(self, result: StepResult) -> Iterator[str]:
        """What is wrong of the error that was reported, or of that there is none."""
        ending, error = self.played.ending, result.error
        if error is None:
            if ending.cause is not None and ending.certain:
                yield f"no error is reported instead of {ending.cause}"
            return
        told = f"{error.cause} of job {error.head}"
        self.outcome.struck.append(error.cause)
        if error.cause != ending.cause:
            yield f"{told} is reported instead of {ending.cause or 'no error'}"
        elif ending.head is not None:
            if error.head != ending.head:
                yield f"{told} is reported instead of job {ending.head}"
        else:
            yield from self._burst_error(result, told)
        jobs = len(self.queue.tasks)
        most = jobs if self.queue.has_steps or ending.outputs else error.head
        if not 0 <= error.heads_done <= most:
            yield f"{told}: {error.heads_done} jobs are done"

    def _burst_error(self, result: StepResult, told: str) -> Iterator[str]:
        """What is wrong of an error of the bus: its address is the burst's, its job one of its."""
        error, burst = result.error, result.disturbed_burst
        assert error is not None
        if burst is None or error.address != burst:
            yield f"{told} at {error.address:#x}: the burst that failed began at {burst}"
            return
        direction = "read" if error.cause == "READ_ERROR" else "write"
        found = owners(self.config, self.image, self.queue.tasks, burst, direction)
        if error.head not in found:
            yield f"{told} at {burst:#x}: the burst is of {found}"
            return
        self.outcome.struck[-1] += f" {found[error.head]}"

    def _words(self, run: AcceleratorRun, number: int) -> Iterator[str]:
        """Words and mantissas that are not those of the model."""
        got = run.outputs[number]
        if len(got) != len(self.queue.words):
            yield f"{len(got)} jobs have outputs instead of {len(self.queue.words)}"
            return
        for job, (words, want) in enumerate(zip(got, self.queue.words, strict=True)):
            self.outcome.words += want.size
            yield from words_wrong(f"job {job}", words, want)
        memory = run.memories[number]
        for job, want in enumerate(self.queue.mantissas):
            if want is None:
                continue
            start = self.image.outputs[job].mantissas.start - self.image.base
            found = np.frombuffer(memory, "<i4", len(want), start)
            self.outcome.words += want.size
            yield from words_wrong(f"mantissas of job {job}", found, want)
