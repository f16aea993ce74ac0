"""What the bench of the accelerator is asked to do, and what it answers."""

from dataclasses import dataclass, field
from typing import Any, Literal

from firmware_model.host.driver import Counters
from paro.config.registers import PAGE_BYTES
from rtl.bus.axi_lite import Response

__all__ = [
    "PROGRESS_FILE",
    "RESULT_FILE",
    "SCENARIO_FILE",
    "BusError",
    "Disturbance",
    "ReportedError",
    "Result",
    "Scenario",
    "Step",
    "StepResult",
    "memory_file",
    "memory_start",
    "outputs_file",
]

#: The bench reads a `Scenario` from this file and leaves a `Result` in the other.
SCENARIO_FILE, RESULT_FILE = "scenario.json", "result.json"
#: Number of heads done, as long as the bench runs.
PROGRESS_FILE = "progress"

BusError = Literal["read_error", "write_error"]
Disturbance = Literal["control_reset", "hard_reset", "start_and_reset", "start_again", BusError]

#: The memory of an image below this address begins at 0.
_NEAR = 1 << 32


def outputs_file(step: int) -> str:
    """File with the outputs of a step that ended: ``head_0``, ``head_1``, ..."""
    return f"outputs_{step}.safetensors"


def memory_file(step: int) -> str:
    """File with all bytes of the image after a step that ended, if it keeps them."""
    return f"memory_{step}.bin"


def memory_start(base: int) -> int:
    """Where the memory begins that holds an image from ``base`` on."""
    return 0 if base < _NEAR else base // PAGE_BYTES * PAGE_BYTES


@dataclass(frozen=True)
class Step:
    """One queue of heads.

    Parameters
    ----------
    image : int
        Index of the image.
    disturb : Disturbance, optional
        A reset by register or by wire, or a second start, in clock ``after`` of the work; a start
        and a reset by register, as soon after one another as can be; or an error of the read beat,
        of the write response number ``after``, from 1.
    after : int
        When.
    response : Response
        AXI's code of the error.
    keeps_memory : bool
        Whether all bytes of the image are kept, as they are in the end.
    resets : bool
        Whether it begins with a reset, as the cycle model has it; one with a bus error always does.
    address : int, optional
        The error is of the beat (response) that first moved this byte in the last step of the same
        image that ended; of number ``after`` if none did.
    probes : bool
        Whether every register, and some places without one, are read and written before.
    """

    image: int = 0
    disturb: Disturbance | None = None
    after: int = 0
    response: Response = Response.SLVERR
    keeps_memory: bool = False
    resets: bool = False
    address: int | None = None
    probes: bool = False


@dataclass(frozen=True)
class Scenario:
    """Steps, one after the other, and how memory and buses behave.

    Parameters
    ----------
    configuration : dict
        Fields of the accelerator's `Config`, which it must tell of itself.
    images : list of str
        Files of the images.
    memory_bytes : int
        Size of the memory, from `memory_start` of the image that is played on.
    latency_low, latency_span : int
        Least cycles to an answer of the memory, and how many more there may be.
    stall_seed : int, optional
        Random stalls of every channel of memory and registers; ``None`` for none.
    stall_rates : dict of str to int
        Those of the memory's channels, see `sim.cycles.stalls.stall_rates`.
    idle_limit : int
        Cycles without a beat on the memory port after which the accelerator counts as hung.
    keeps_bursts : bool
        Whether the result has every burst that the memory saw.
    steps : list of Step
        What to do.
    """

    configuration: dict[str, Any]
    images: list[str]
    memory_bytes: int
    latency_low: int
    latency_span: int
    stall_seed: int | None
    stall_rates: dict[str, int]
    idle_limit: int
    keeps_bursts: bool
    steps: list[Step]


@dataclass(frozen=True)
class ReportedError:
    """Error that the accelerator reported.

    Parameters
    ----------
    cause : str
        Name of the `paro.config.registers.Cause`.
    head, address : int
        See `firmware_model.host.driver.AcceleratorError`.
    sentence : str
        The driver's.
    heads_done : int
        Heads whose outputs were written.
    """

    cause: str
    head: int
    address: int
    sentence: str
    heads_done: int


@dataclass(frozen=True)
class StepResult:
    """What happened in a step.

    Parameters
    ----------
    error : ReportedError, optional
        If one was reported.
    disturbed_burst : int, optional
        Address of the burst that an error was given to.
    counters : Counters, optional
        If the step ended.
    bursts : dict of str to list of (int, int)
        If it ended and they are kept, for ``read`` and ``write`` address and beats of all.
    """

    error: ReportedError | None = None
    disturbed_burst: int | None = None
    counters: Counters | None = None
    bursts: dict[str, list[tuple[int, int]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What the bench saw.

    Parameters
    ----------
    failure : str or None
        Its objection.
    steps : list of StepResult
        One for each step; none after a failure.
    """

    failure: str | None
    steps: list[StepResult] = field(default_factory=list)
