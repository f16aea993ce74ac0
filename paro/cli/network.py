"""`paro run MODEL`: a video of a model whose blocks a device computes, step by step."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from firmware_model.calibration.calibrate import calibrate_models
from firmware_model.calibration.plan import ModelPlan, load_model_plan, save_plan
from firmware_model.host.driver import Counters
from firmware_model.host.image import Image
from firmware_model.host.jobs import HeadJob, LayerJob
from firmware_model.host.schedule import queue_cycles
from firmware_model.models.device_program import DeviceProgram, Item, device_program
from firmware_model.models.models import open_model
from firmware_model.models.network import IntegerNetwork, values_of
from firmware_model.models.network_study import budgets, calibration_captures
from firmware_model.models.video.network import check_whole_plan, observe, plan_network, video_items
from firmware_model.models.video.pipeline import VideoPipeline
from firmware_model.models.video.program import HOST
from firmware_model.models.video.transformer import Blocks
from firmware_model.program import Attend
from firmware_model.progress import Steps
from firmware_model.quality.metrics import finite, psnr_db, ssim
from paro.cli.console import format_value, header_table, key_value_table, progress_bar, stdout
from paro.cli.drawing import save_contact_sheet, save_film
from paro.cli.options import ON_MODEL, ON_RTL, ConfigChoice
from paro.config import Config, ParoError
from paro.config.config import padded_head_dim
from paro.config.files import write_json
from sim.cosim.accelerator import play_steps
from sim.cosim.accelerator_scenario import Step
from sim.cosim.run import Setup
from sim.cosim.work import ideal_cycles
from sim.cycles.memory import Memory

__all__ = ["NetworkRequest", "run_network"]

#: Memory of the simulated accelerator.
_MEMORY = Memory((20, 60))
#: Samples whose ranges give the tensors their units.
_OBSERVED = (0, 1)

#: Computes a queue: outputs of all its jobs, and what the device has counted, if it counts.
Compute = Callable[[DeviceProgram, Image], tuple[Sequence[np.ndarray], Counters | None]]


@dataclass(frozen=True)
class NetworkRequest:
    """What `run_network` is asked for.

    Parameters
    ----------
    model : Path
        Name or checkpoint.
    plan : Path or None
        By default one is calibrated, of all attention and linear layers.
    device : str
        `paro.cli.options.ON_MODEL`, `ON_RTL` or a board.
    sample : int
        Video.
    steps : int or None
        Denoising steps, by default the model's.
    on_device : (int, int or None) or None
        First one that the device computes, and the one after its last; the others the integer
        model. All by default.
    simulator : str
        Of the Verilog.
    output : Path
        Folder.
    """

    model: Path
    plan: Path | None
    device: str
    sample: int
    steps: int | None
    on_device: tuple[int, int | None] | None
    simulator: str
    output: Path


@dataclass
class StepRow:
    """What became of a denoising step that the device computed.

    Expected cycles are those by which the sequence of the jobs was chosen.
    """

    step: int
    jobs: int
    words_compared: int
    mismatches: int
    cycles: int | None = None
    expected_cycles: int | None = None
    ideal_cycles: int | None = None
    utilisation: float | None = None
    read_beats: int | None = None
    write_beats: int | None = None


@dataclass
class _Blocks:
    """Blocks of every step: on the device, compared with the integer model, or there alone."""

    pipeline: VideoPipeline
    network: IntegerNetwork
    config: Config
    compute: Compute | None
    on_device: range
    progress: Steps
    rows: list[StepRow] = field(default_factory=list)

    def at(self, step: int) -> Blocks:
        share = step / self.pipeline.shape.steps

        def run(tokens: torch.Tensor, modulation: torch.Tensor) -> torch.Tensor:
            items = video_items(self.pipeline.model, tokens, modulation)
            (output,) = self.network.program.outputs
            wanted = [
                self.network.run(item.inputs, item.parameters, share)[output] for item in items
            ]
            words: Sequence[torch.Tensor] = wanted
            if self.compute is not None and step in self.on_device:
                words = self._on_device(step, share, items, wanted, output)
            self.progress.advance()
            made = self.network.program.formats[output]
            return torch.stack([values_of(own, made) for own in words])

        return run

    def _on_device(
        self,
        step: int,
        share: float,
        items: Sequence[Item],
        wanted: Sequence[torch.Tensor],
        output: str,
    ) -> list[torch.Tensor]:
        assert self.compute is not None
        program = device_program(self.network, items, self.config, share)
        outputs, counters = self.compute(program, program.image())
        words = [program.words(outputs, item, output) for item in range(len(items))]
        wrong = sum(int((got != want).sum()) for got, want in zip(words, wanted, strict=True))
        row = StepRow(step, len(program.tasks), sum(map(torch.numel, wanted)), wrong)
        if counters is not None:
            jobs = [task.job for task in program.tasks]
            heads = [job for job in jobs if isinstance(job, HeadJob | LayerJob)]
            row.cycles = counters.cycles
            row.expected_cycles = round(queue_cycles(program.tasks, self.config))
            row.ideal_cycles = sum(ideal_cycles(self.config, job) for job in heads)
            row.utilisation = round(row.ideal_cycles / counters.cycles, 4)
            row.read_beats, row.write_beats = counters.read_beats, counters.write_beats
        self.rows.append(row)
        return words


def run_network(request: NetworkRequest, choice: ConfigChoice) -> bool:
    """Generate a video and compare it, word by word and with the model in float.

    Writes ``report.json``, ``film.gif`` (above float, below the device), ``contact_sheet.png`` and,
    if it makes one, ``plan.safetensors``.

    Parameters
    ----------
    request : NetworkRequest
        What is asked for.
    choice : ConfigChoice
        The accelerator, but for what model and plan determine.

    Returns
    -------
    bool
        Whether every word is that of the integer model.

    Raises
    ------
    ParoError
        If model, plan, device and options do not fit each other.
    """
    pipeline = open_model(request.model, steps=request.steps)
    if not isinstance(pipeline, VideoPipeline):
        raise ParoError(f"no rule makes a program of model {request.model}; legal: moving-digits")
    steps = pipeline.shape.steps
    first, end = request.on_device or (0, None)
    if max(first + 1, end or 0) > steps:
        raise ParoError(f"--on-device {first}:{end or ''} is not legal; legal: up to 0:{steps}")
    on_device = range(first, end or steps)
    network = _plan(pipeline, request)
    with ExitStack() as stack:
        config, compute = _device(request, choice, network, stack)
        _show_split(network, config)
        with progress_bar("video") as progress:
            counter = Steps(progress, 2 * steps)
            own = pipeline.generate(request.sample, progress=lambda *_: counter.advance())
            blocks = _Blocks(pipeline, network, config, compute, on_device, counter)
            video = pipeline.generate(request.sample, blocks=blocks.at)
    return _report(request, config, network, blocks.rows, own, video)


def _plan(pipeline: VideoPipeline, request: NetworkRequest) -> IntegerNetwork:
    """Read a plan, or make and keep one; and find the units of all tensors."""
    plan: ModelPlan
    if request.plan is not None:
        plan = load_model_plan(request.plan)
        check_whole_plan(pipeline, plan)
    else:
        heads, layers = calibration_captures(pipeline)
        with progress_bar("calibrate") as progress:
            (made,) = calibrate_models(heads, layers, budgets(pipeline)[1].goal, progress=progress)
        plan = made.plan
        save_plan(plan, request.output / "plan.safetensors")
    with progress_bar("observe") as progress:
        ranges = observe(pipeline, _OBSERVED, Steps(progress, len(_OBSERVED)))
    return plan_network(pipeline, plan, ranges)


def _channels(network: IntegerNetwork) -> int:
    """Longest row that the vector unit must hold, as a legal value."""
    widest = max(made.channels for made in network.program.formats.values())
    return 1 << (widest - 1).bit_length()


def _device(
    request: NetworkRequest, choice: ConfigChoice, network: IntegerNetwork, stack: ExitStack
) -> tuple[Config, Compute | None]:
    """The accelerator, and what computes queues; nothing does for the integer model alone."""
    if request.device not in (ON_MODEL, ON_RTL):
        return _board(request.device, stack)
    head_dims = (step.head_dim for step in network.program.steps if isinstance(step, Attend))
    config = choice.build(
        block=network.attention.block,
        head_dim=padded_head_dim(max(head_dims)),
        vector_channels=_channels(network),
    )
    if request.device == ON_MODEL:
        return config, None
    session = Setup(request.simulator, request.output).session()

    def simulate(
        program: DeviceProgram, image: Image
    ) -> tuple[Sequence[np.ndarray], Counters | None]:
        run = play_steps(config, [image], [Step()], session, _MEMORY)
        error = run.failure or (run.steps[0].error and run.steps[0].error.sentence)
        if error:
            raise ParoError(f"the simulation failed: {error}")
        return run.outputs[0], run.steps[0].counters

    return config, simulate


def _board(device: str, stack: ExitStack) -> tuple[Config, Compute]:
    from firmware_model.host.board_run import run_on_board
    from fpga.soc.device import STILLNESS, connect

    target = stack.enter_context(connect(device))

    def on_board(
        program: DeviceProgram, image: Image
    ) -> tuple[Sequence[np.ndarray], Counters | None]:
        run = run_on_board(target.transport, program.config, image, stillness=STILLNESS)
        return run.outputs, run.counters

    return target.config, on_board


def _show_split(network: IntegerNetwork, config: Config) -> None:
    """Print what the device computes and what stays on the host."""
    kinds: dict[str, int] = {}
    for step in network.program.steps:
        kinds[type(step).__name__] = kinds.get(type(step).__name__, 0) + 1
    rows = {f"device: {name}": count for name, count in kinds.items()}
    rows |= {f"host: {part}": "" for part in HOST}
    stdout.print(key_value_table("steps of the network", rows))
    lanes = f"{config.vector_lanes} vector lanes"
    stdout.print(f"accelerator: {config.rows} x {config.cols}, {lanes}, {config.digest()}")


def _report(
    request: NetworkRequest,
    config: Config,
    network: IntegerNetwork,
    rows: Sequence[StepRow],
    own: torch.Tensor,
    video: torch.Tensor,
) -> bool:
    """Write and print what was found."""
    exact = all(row.mismatches == 0 for row in rows)
    counted: list[Mapping[str, Any]] = [asdict(row) for row in rows]
    report = {
        "model": str(request.model),
        "device": request.device,
        "sample": request.sample,
        "configuration": config.model_dump(),
        "mean_bits": network.attention.avg_bits,
        "bit_exact": exact if rows else None,
        "words_compared": sum(row.words_compared for row in rows),
        "mismatches": sum(row.mismatches for row in rows),
        "psnr_db": finite(psnr_db(video, own)),
        "ssim": ssim(video, own),
        "steps": counted,
    }
    write_json(request.output / "report.json", report)
    save_film([own], [video], request.output / "film.gif")
    save_contact_sheet([own], [video], request.output / "contact_sheet.png")
    if rows:
        steps = header_table("steps on the device", counted[0])
        for row in counted:
            steps.add_row(*map(format_value, row.values()))
        stdout.print(steps)
    names = ("bit_exact", "words_compared", "mismatches", "psnr_db", "ssim")
    shown = {name.replace("_", " "): report[name] for name in names}
    stdout.print(key_value_table(f"video {request.output}", shown))
    return exact
