"""`paro run MODEL`: a video or image of a model whose blocks a device computes, step by step."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from firmware_model.calibration.calibrate import calibrate_models
from firmware_model.calibration.plan import ModelPlan, load_model_plan, save_plan
from firmware_model.cross import CrossHead
from firmware_model.host.driver import Counters
from firmware_model.host.image import Image
from firmware_model.host.jobs import HeadJob, LayerJob
from firmware_model.host.schedule import queue_cycles
from firmware_model.models.block_network import (
    BlockPipeline,
    BlockProgram,
    check_whole_plan,
    observe,
    plan_network,
)
from firmware_model.models.compiler import check_heads, compile_network
from firmware_model.models.device_program import DeviceProgram, Item
from firmware_model.models.models import open_model
from firmware_model.models.network import IntegerNetwork, run_float, values_of
from firmware_model.models.network_study import budgets, calibration_captures
from firmware_model.progress import Steps
from firmware_model.quality.metrics import finite, psnr_db, snr_db, ssim
from paro.cli.console import format_value, header_table, key_value_table, progress_bar, stdout
from paro.cli.drawing import save_contact_sheet, save_film
from paro.cli.options import ON_MODEL, ON_RTL, ConfigChoice
from paro.config import Config, ParoError
from paro.config.config import fitting_vector_channels, padded_head_dim
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
        Name, checkpoint or folder.
    options : Mapping
        Further arguments of `open_model`.
    plan : Path or None
        By default one is calibrated, of all attention and linear layers.
    device : str
        `paro.cli.options.ON_MODEL`, `ON_RTL` or a board.
    sample : int
        Which video or image.
    on_device : (int, int or None) or None
        First denoising step that the device computes, and the one after its last; the others the
        integer model. All by default.
    simulator : str
        Of the Verilog.
    output : Path
        Folder.
    """

    model: Path
    options: Mapping[str, Any]
    plan: Path | None
    device: str
    sample: int
    on_device: tuple[int, int | None] | None
    simulator: str
    output: Path


@dataclass
class StepRow:
    """What became of a run of the blocks: a denoising step, or one of two calls that make it.

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
class _Error:
    """Signal and noise of a tensor so far, and its worst ratio in a run."""

    signal: float = 0.0
    noise: float = 0.0
    worst_db: float = math.inf

    def add(self, found: torch.Tensor, exact: torch.Tensor) -> None:
        """Take note of a run."""
        exact = exact.double()
        self.signal += exact.square().sum().item()
        self.noise += (found - exact).square().sum().item()
        self.worst_db = min(self.worst_db, snr_db(found, exact))

    @property
    def snr_db(self) -> float:
        """Ratio over all runs."""
        if self.noise == 0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf


@dataclass
class _Blocks:
    """Blocks of every step: on the device, compared with the integer model, or there alone.

    The same tokens go through the blocks in float, to tell how far the integers are off.
    """

    pipeline: BlockPipeline
    program: BlockProgram
    network: IntegerNetwork
    config: Config
    compute: Compute | None
    on_device: range
    rows: list[StepRow] = field(default_factory=list)
    tokens: dict[str, _Error] = field(default_factory=dict)
    added: dict[str, _Error] = field(default_factory=dict)

    def at(self, step: int) -> Callable[[Sequence[Item]], list[torch.Tensor]]:
        share = step / self.pipeline.shape.steps
        output = self.program.output

        def run(items: Sequence[Item]) -> list[torch.Tensor]:
            wanted = [self._integers(item, share) for item in items]
            words: Sequence[torch.Tensor] = wanted
            if self.compute is not None and step in self.on_device:
                words = self._on_device(step, share, items, wanted, output)
            made = self.network.program.formats[output]
            return [values_of(own, made) for own in words]

        return run

    def _integers(self, item: Item, share: float) -> torch.Tensor:
        """Words of the output; takes note of each block's tokens against those in float."""
        found = self.network.run(item.inputs, item.parameters, share)
        exact = run_float(self.program.steps, item.inputs, item.parameters)
        start = item.inputs[self.program.source]
        for name in self.program.blocks:
            own = values_of(found[name], self.network.program.formats[name])
            self.tokens.setdefault(name, _Error()).add(own, exact[name])
            self.added.setdefault(name, _Error()).add(own - start, exact[name] - start)
        return found[self.program.output]

    def _on_device(
        self,
        step: int,
        share: float,
        items: Sequence[Item],
        wanted: Sequence[torch.Tensor],
        output: str,
    ) -> list[torch.Tensor]:
        assert self.compute is not None
        program = compile_network(self.network, items, self.config, share)
        outputs, counters = self.compute(program, program.image())
        words = [program.words(outputs, item, output) for item in range(len(items))]
        wrong = sum(int((got != want).sum()) for got, want in zip(words, wanted, strict=True))
        row = StepRow(step, len(program.tasks), sum(map(torch.numel, wanted)), wrong)
        if counters is not None:
            jobs = [task.job for task in program.tasks]
            heads = [job for job in jobs if isinstance(job, HeadJob | LayerJob)]
            row.cycles = counters.cycles
            row.expected_cycles = round(queue_cycles(program.tasks, self.config))
            lanes = sum(ideal_cycles(self.config, job) for job in heads)
            row.ideal_cycles = math.ceil(lanes / self.config.cores)
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
    pipeline = open_model(request.model, **request.options)
    program = pipeline.block_program()
    check_heads(program.steps)
    steps = pipeline.shape.steps
    first, end = request.on_device or (0, None)
    if max(first + 1, end or 0) > steps:
        raise ParoError(f"--on-device {first}:{end or ''} is not legal; legal: up to 0:{steps}")
    on_device = range(first, end or steps)
    plan = None if request.plan is None else load_model_plan(request.plan)
    if plan is not None:
        check_whole_plan(pipeline, plan)
    with ExitStack() as stack:
        config, compute = _device(request, choice, pipeline, program, plan, stack)
        _check_fits(pipeline, program, config, plan)
        _show_split(program, config)
        network = _network(pipeline, request, plan, config.block)
        with progress_bar("run") as progress:
            counter = Steps(progress, 2 * steps)
            own = pipeline.generate(request.sample, progress=lambda *_: counter.advance())
            blocks = _Blocks(pipeline, program, network, config, compute, on_device)
            video = pipeline.generate(
                request.sample, progress=lambda *_: counter.advance(), blocks=blocks.at
            )
    return _report(request, blocks, own, video)


def _network(
    pipeline: BlockPipeline, request: NetworkRequest, plan: ModelPlan | None, block: int
) -> IntegerNetwork:
    """Make and keep a plan, if there is none; and find the units of all tensors."""
    if plan is None:
        heads, layers = calibration_captures(pipeline)
        goal = replace(budgets(pipeline)[1].goal, block=block)
        with progress_bar("calibrate") as progress:
            (made,) = calibrate_models(heads, layers, goal, progress=progress)
        plan = made.plan
        save_plan(plan, request.output / "plan.safetensors")
    with progress_bar("observe") as progress:
        ranges = observe(pipeline, _OBSERVED, Steps(progress, len(_OBSERVED)))
    return plan_network(pipeline, plan, ranges)


def _widest(pipeline: BlockPipeline, program: BlockProgram) -> int:
    """Channels of the longest row that the vector unit must hold: what a layer reads or makes."""
    layers = [pipeline.linears[name] for name in program.layers]
    if not layers:
        raise ParoError("the model has no transformer block; legal: one or more")
    return max(max(layer.in_features, layer.out_features) for layer in layers)


def _check_fits(
    pipeline: BlockPipeline, program: BlockProgram, config: Config, plan: ModelPlan | None
) -> None:
    """Refuse an accelerator that cannot run the blocks, or this plan, before the long work."""
    shape, widest = pipeline.shape, _widest(pipeline, program)
    head_dim = padded_head_dim(shape.head_dim)
    if config.head_dim != head_dim:
        raise ParoError(f"head_dim = {config.head_dim} does not fit the model; legal: {head_dim}")
    for name in program.layers:
        layer = pipeline.linears[name]
        for channels in (layer.in_features, layer.out_features):
            if channels % head_dim:
                raise ParoError(
                    f"layer {name} has rows of {channels} channels, which the vector unit does not "
                    f"take; legal: multiples of head_dim = {head_dim}"
                )
    if config.vector_channels < widest:
        raise ParoError(
            f"vector_channels = {config.vector_channels} does not fit the model; legal: {widest} "
            "or more"
        )
    needed = shape.tokens
    if program.text:
        needed = CrossHead(shape.tokens, program.text_tokens, config.block).count
    if config.max_tokens < needed:
        raise ParoError(
            f"max_tokens = {config.max_tokens} does not fit the model; legal: {needed} or more"
        )
    for layer in () if plan is None else plan.linear:
        layer.check_config(config)


def _device(
    request: NetworkRequest,
    choice: ConfigChoice,
    pipeline: BlockPipeline,
    program: BlockProgram,
    plan: ModelPlan | None,
    stack: ExitStack,
) -> tuple[Config, Compute | None]:
    """The accelerator, and what computes queues; nothing does for the integer model alone."""
    if request.device not in (ON_MODEL, ON_RTL):
        return _board(request.device, stack)
    widest = _widest(pipeline, program)
    config = choice.build(
        **({} if plan is None else {"block": plan.block}),
        head_dim=padded_head_dim(pipeline.shape.head_dim),
        vector_channels=fitting_vector_channels(widest),
    )
    if request.device == ON_MODEL:
        return config, None
    session = Setup(request.simulator, request.output).session()

    def simulate(
        _program: DeviceProgram, image: Image
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


def _show_split(program: BlockProgram, config: Config) -> None:
    """Print what the device computes and what stays on the host."""
    kinds: dict[str, int] = {}
    for step in program.steps:
        kinds[type(step).__name__] = kinds.get(type(step).__name__, 0) + 1
    rows = {f"device: {name}": count for name, count in kinds.items()}
    rows |= {f"host: {part}": "" for part in program.host}
    stdout.print(key_value_table("steps of the network", rows))
    lanes = f"{config.vector_lanes} vector lanes"
    stdout.print(f"accelerator: {config.rows} x {config.cols}, {lanes}, {config.digest()}")


def _report(
    request: NetworkRequest, blocks: _Blocks, own: torch.Tensor, video: torch.Tensor
) -> bool:
    """Write and print what was found."""
    rows = blocks.rows
    exact = all(row.mismatches == 0 for row in rows)
    counted: list[Mapping[str, Any]] = [asdict(row) for row in rows]
    errors: list[Mapping[str, Any]] = [
        {
            "block": name,
            "snr_db": finite(blocks.tokens[name].snr_db),
            "worst_snr_db": finite(blocks.tokens[name].worst_db),
            "added_snr_db": finite(blocks.added[name].snr_db),
        }
        for name in blocks.program.blocks
    ]
    report = {
        "model": str(request.model),
        "device": request.device,
        "sample": request.sample,
        "configuration": blocks.config.model_dump(),
        "mean_bits": blocks.network.attention.avg_bits,
        "bit_exact": exact if rows else None,
        "words_compared": sum(row.words_compared for row in rows),
        "mismatches": sum(row.mismatches for row in rows),
        "snr_db": finite(snr_db(video, own)),
        "psnr_db": finite(psnr_db(video, own)),
        "ssim": finite(ssim(video, own)),
        "blocks": errors,
        "steps": counted,
    }
    write_json(request.output / "report.json", report)
    save_film([own], [video], request.output / "film.gif")
    save_contact_sheet([own], [video], request.output / "contact_sheet.png")
    for title, content in (("blocks against float", errors), ("steps on the device", counted)):
        if content:
            table = header_table(title, content[0])
            for row in content:
                table.add_row(*map(format_value, row.values()))
            stdout.print(table)
    names = ("bit_exact", "words_compared", "mismatches", "snr_db", "psnr_db", "ssim")
    shown = {name.replace("_", " "): report[name] for name in names}
    stdout.print(key_value_table(f"output {request.output}", shown))
    return exact
