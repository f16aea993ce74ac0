"""What a planned attention does to the videos of a model: quality against float attention."""

import math
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch

from firmware_model.methods import Method
from firmware_model.metrics import psnr_db, ssim
from firmware_model.pipeline import Pipeline
from firmware_model.plan import ModelPlan, density, mean_bits
from firmware_model.progress import Progress, Steps
from firmware_model.reorder import ORDERS
from firmware_model.replacement import PlannedAttention
from paro_config.errors import ParoError


@dataclass(frozen=True, eq=False)
class Generation:
    """Videos through both attentions, and the report.

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
    """Generate some samples through the model's own attention and through the planned one.

    Parameters
    ----------
    pipeline : Pipeline
        The model.
    plan : ModelPlan
        Its plan, whole.
    method : Method
        What computes each head.
    samples : int
        Samples 0, 1, ...
    progress : Progress, optional
        Told after each denoising step.

    Raises
    ------
    ParoError
        If ``samples`` is below 1 or the plan is not one of this model, whole.
    """
    if samples < 1:
        raise ParoError(f"samples = {samples} is not legal; legal: 1 or more")
    attention = PlannedAttention(pipeline, plan, method, measure=True)
    own, planned, entries = [], [], []
    steps = Steps(progress, 2 * samples * pipeline.shape.steps)

    def tell(_done: int, _total: int) -> None:
        steps.advance()

    for sample in range(samples):
        own.append(pipeline.generate(sample, None, tell))
        planned.append(pipeline.generate(sample, attention, tell))
        entries.append(
            {
                "sample": sample,
                "psnr_db": _finite(psnr_db(planned[-1], own[-1])),
                "ssim": round(ssim(planned[-1], own[-1]), 6),
            }
        )
    by_step = [
        {
            "step": step,
            "layer": layer,
            "snr_db": _finite(fmean(snr for snr, _ in found)),
            "cosine": round(fmean(cosine for _, cosine in found), 9),
        }
        for (step, layer), found in sorted(attention.errors.items())
    ]
    worst = min(entries, key=lambda entry: _value(entry["psnr_db"]))
    report = {
        "format": method.name,
        "groups": method.groups,
        "avg_bits": plan.avg_bits,
        "mean_bits": round(mean_bits(plan.codes), 6),
        "density": round(density(plan.codes), 6),
        "orders": [[ORDERS[order] for order in layer] for layer in plan.orders.tolist()],
        "samples": samples,
        "denoising_steps": pipeline.shape.steps,
        "psnr_db": _finite(fmean(_value(entry["psnr_db"]) for entry in entries)),
        "ssim": round(fmean(entry["ssim"] for entry in entries), 6),
        "worst_sample": worst["sample"],
        "worst_psnr_db": worst["psnr_db"],
        "per_sample": entries,
        "attention": by_step,
    }
    return Generation(own, planned, report)


def _finite(value: float) -> float | None:
    """Null in JSON for the infinite ratio of equal videos."""
    return round(value, 3) if math.isfinite(value) else None


def _value(value: float | None) -> float:
    return math.inf if value is None else value
