"""Videos of a model under a plan: quality against the model in float."""

from dataclasses import dataclass
from typing import Any

import torch

from firmware_model.calibration.plan import ModelPlan
from firmware_model.choices import INTEGER, ORDERS
from firmware_model.models.pipeline import Pipeline
from firmware_model.models.replacement import PlannedAttention, PlannedLinear
from firmware_model.progress import Progress, Steps
from firmware_model.quality.metrics import finite, finite_mean, psnr_db, ssim
from firmware_model.reference.methods import Method
from paro.config.errors import ParoError


@dataclass(frozen=True, eq=False)
class Generation:
    """Videos of the model in float and under the plan, and the report.

    Parameters
    ----------
    own, planned : list of torch.Tensor
        For each sample float32 [frames, height, width, colours], 0 .. 1.
    report : dict
        JSON content.
    """

    own: list[torch.Tensor]
    planned: list[torch.Tensor]
    report: dict[str, Any]


def compare_generation(
    pipeline: Pipeline,
    plan: ModelPlan,
    method: Method,
    samples: int,
    progress: Progress | None = None,
) -> Generation:
    """Generate some samples as the model does, and with what a plan holds as it says.

    Parameters
    ----------
    pipeline : Pipeline
        The model.
    plan : ModelPlan
        Its plan: attention, whole, or linear layers, or both.
    method : Method
        Attention of each head; the integer model's if the plan has none.
    samples : int
        Samples 0, 1, ...
    progress : Progress, optional
        Called after each denoising step.

    Raises
    ------
    ParoError
        If ``samples`` is below 1, the plan is not one of this model, or the method is for attention
        that it does not hold.
    """
    if samples < 1:
        raise ParoError(f"samples = {samples} is not legal; legal: 1 or more")
    if not plan.has_attention and method.name != INTEGER:
        raise ParoError(
            f"format = {method.name!r} is for attention, and the plan has none; legal: {INTEGER}"
        )
    attention = (
        PlannedAttention.of_pipeline(pipeline, plan, method, measure=True)
        if plan.has_attention
        else None
    )
    linear = PlannedLinear(pipeline, plan, measure=True) if plan.linear else None
    own, planned = [], []
    quality, likeness = [], []
    steps = Steps(progress, 2 * samples * pipeline.shape.steps)

    def count(_done: int, _total: int) -> None:
        steps.advance()

    for sample in range(samples):
        own.append(pipeline.generate(sample, None, count))
        planned.append(pipeline.generate(sample, attention, count, linear))
        for video, through in ((own[-1], "the model's own"), (planned[-1], "the planned")):
            if not torch.isfinite(video).all():
                raise ParoError(f"sample {sample} through {through} arithmetic is not finite")
        quality.append(psnr_db(planned[-1], own[-1]))
        likeness.append(ssim(planned[-1], own[-1]))
    report = {
        **_plan_report(plan, method),
        "samples": samples,
        "denoising_steps": pipeline.shape.steps,
        "psnr_db": finite_mean(quality),
        "ssim": finite_mean(likeness),
        "worst_sample": quality.index(min(quality)),
        "worst_psnr_db": finite(min(quality)),
        "per_sample": [
            {"sample": sample, "psnr_db": finite(psnr), "ssim": finite(like)}
            for sample, (psnr, like) in enumerate(zip(quality, likeness, strict=True))
        ],
        "attention": _attention_errors(attention) if attention else [],
        "linear": _linear_errors(linear) if linear else [],
    }
    return Generation(own, planned, report)


def _plan_report(plan: ModelPlan, method: Method) -> dict[str, Any]:
    """Fields about a plan; null for what it does not hold."""
    report: dict[str, Any] = dict.fromkeys(
        ("format", "groups", "avg_bits", "mean_bits", "density", "orders", "weight_bits")
    )
    if plan.has_attention:
        report |= {
            "format": method.name,
            "groups": method.groups,
            "avg_bits": plan.avg_bits,
            "mean_bits": round(plan.mean_bits(), 6),
            "density": round(plan.density(), 6),
            "orders": [[ORDERS[order] for order in layer] for layer in plan.orders.tolist()],
        }
    if plan.linear:
        report["weight_bits"] = round(plan.weight_bits(), 6)
    return report


def _attention_errors(attention: PlannedAttention) -> list[dict[str, Any]]:
    """Errors that were measured, by step and layer."""
    return [
        {
            "step": step,
            "layer": layer,
            "snr_db": finite_mean(snr for snr, _ in found),
            "cosine": finite_mean(cosine for _, cosine in found),
        }
        for (step, layer), found in sorted(attention.errors.items())
    ]


def _linear_errors(linear: PlannedLinear) -> list[dict[str, Any]]:
    """Errors that were measured, by step and name of the layer."""
    return [
        {"step": step, "layer": name, "snr_db": finite_mean(found)}
        for (step, name), found in sorted(linear.errors.items())
    ]
