"""Videos of a model with all of its blocks in integers, against the model in float."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firmware_model.calibration.calibrate import calibrate_models
from firmware_model.calibration.goal import WEIGHT_BITS, Goal
from firmware_model.capture import Capture
from firmware_model.layer import Layer
from firmware_model.models.block_network import (
    BlockPipeline,
    integer_blocks,
    observe,
    plan_network,
)
from firmware_model.models.models import capture_model
from firmware_model.models.pipeline import Pipeline
from firmware_model.models.replacement import PlannedAttention, PlannedLinear
from firmware_model.program import Attend, Linear, Program, count_tokens
from firmware_model.progress import Progress, Steps
from firmware_model.quality.metrics import finite, finite_mean, psnr_db, ssim
from firmware_model.reference.methods import Method
from paro.config.formats import CODE_BITS, PAPER_BITS

__all__ = ["Budget", "budgets", "calibration_captures", "network_study"]

#: How often captures are taken at most, evenly over the steps, and of which samples.
_TIMES = 10
_CALIBRATED_ON = (0, 1)


@dataclass(frozen=True)
class Budget:
    """A mean width of attention and one of linear layers, or one of all products.

    Parameters
    ----------
    name : str
        In words.
    goal : Goal
        For calibration.
    share : float
        Its cycles on the array, as a share of those of the first budget.
    """

    name: str
    goal: Goal
    share: float


def budgets(pipeline: BlockPipeline) -> list[Budget]:
    """All 8 bit; attention at 4.8 and layers at 4; and half of the cycles of that."""
    blocks, shape = pipeline.block_program(), pipeline.shape
    program = Program(blocks.inputs, (blocks.output,), blocks.steps, {})
    others = {blocks.text: blocks.text_tokens} if blocks.text else {}
    counts = count_tokens(program, shape.tokens, others)
    # Products of a layer and of its attention, QK and PV; cycles are products times bits. Cross
    # attention has 8 bits in every budget, and is left out.
    linear = attention = 0
    for step in blocks.steps:
        if isinstance(step, Linear):
            linear += pipeline.linears[step.layer].weight.numel() * counts[step.result]
        elif isinstance(step, Attend):
            attention += 2 * shape.heads * shape.head_dim * shape.tokens**2
    eight = float(CODE_BITS[-1])
    mean = (PAPER_BITS * attention + WEIGHT_BITS * linear) / (attention + linear)

    def goal(avg_bits: float, weight_bits: float = WEIGHT_BITS, shared: bool = False) -> Goal:
        return Goal(
            avg_bits=avg_bits,
            weight_bits=weight_bits,
            shared=shared,
            relative_to="signal",
            transform="none",
            rotate=False,
        )

    return [
        Budget("all 8 bit", goal(eight, eight), eight / mean),
        Budget(f"attention {PAPER_BITS:g}, layers {WEIGHT_BITS:g} bit", goal(PAPER_BITS), 1.0),
        Budget(f"{mean / 2:.2f} bit for all", goal(mean / 2, shared=True), 0.5),
    ]


def calibration_captures(pipeline: Pipeline) -> tuple[list[Capture], list[Layer]]:
    """Capture attention and linear layers at up to ten times of two samples, in memory."""
    heads: list[Capture] = []
    layers: list[Layer] = []

    def keep(capture: Capture | Layer) -> None:
        if isinstance(capture, Capture):
            heads.append(capture)
        else:
            layers.append(capture)

    times = min(_TIMES, pipeline.shape.steps)
    at = tuple(place / times for place in range(times))
    capture_model(pipeline, Path(), len(_CALIBRATED_ON), at, keep, what="both")
    return heads, layers


def network_study(
    pipeline: BlockPipeline,
    samples: int,
    chosen: Sequence[Budget] | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Quality of videos through the integer network under some budgets.

    Beside each stands the same plan with all that lies between attention and linear layers in
    float: what the vector unit costs.

    Parameters
    ----------
    pipeline : BlockPipeline
        The model.
    samples : int
        Videos, of samples 0, 1, ...; 0 and 1 are those of calibration too.
    chosen : sequence of Budget, optional
        By default `budgets`.
    progress : Progress, optional
        Called after each video.

    Returns
    -------
    list of dict
        For each budget and way ``budget`` and ``between``, in words, ``cycles``, a share,
        ``psnr_db`` in the mean, ``worst_psnr_db`` and ``ssim``.
    """
    chosen = budgets(pipeline) if chosen is None else chosen
    steps = Steps(progress, len(_CALIBRATED_ON) + (1 + 2 * len(chosen)) * samples)
    ranges = observe(pipeline, _CALIBRATED_ON, steps)
    heads, layers = calibration_captures(pipeline)
    own = []
    for sample in range(samples):
        own.append(pipeline.generate(sample))
        steps.advance()
    rows = []
    for budget in chosen:
        (calibrated,) = calibrate_models(heads, layers, budget.goal)
        plan = calibrated.plan
        blocks = integer_blocks(pipeline, plan_network(pipeline, plan, ranges))
        attention = PlannedAttention.of_pipeline(pipeline, plan, Method())
        linear = PlannedLinear(pipeline, plan)
        ways = {
            "integers": lambda sample, blocks=blocks: pipeline.generate(sample, blocks=blocks),
            "float": lambda sample, attention=attention, linear=linear: pipeline.generate(
                sample, attention, linear=linear
            ),
        }
        for name, generate in ways.items():
            found = []
            for sample in range(samples):
                found.append(generate(sample))
                steps.advance()
            quality = [psnr_db(video, exact) for video, exact in zip(found, own, strict=True)]
            rows.append(
                {
                    "budget": budget.name,
                    "between": name,
                    "cycles": budget.share,
                    "psnr_db": finite_mean(quality),
                    "worst_psnr_db": finite(min(quality)),
                    "ssim": finite_mean(map(ssim, found, own)),
                }
            )
    return rows
