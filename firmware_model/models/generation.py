"""Videos of a model under a planned attention: quality against float attention."""

from dataclasses import dataclass
from typing import Any

import torch

from firmware_model.calibration.plan import ModelPlan
from firmware_model.choices import ORDERS
from firmware_model.models.pipeline import Pipeline
from firmware_model.models.replacement import PlannedAttention
from firmware_model.progress import Progress, Steps
from firmware_model.quality.metrics import finite, finite_mean, psnr_db, ssim
from firmware_model.reference.methods import Method
from paro.config.errors import ParoError


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
        Attention of each head.
    samples : int
        Samples 0, 1, ...
    progress : Progress, optional
        Called after each denoising step.

    Raises
    ------
    ParoError
        If ``samples`` is below 1 or the plan is not one of this model, whole.
    """
    if samples < 1:
        raise ParoError(f"samples = {samples} is not legal; legal: 1 or more")
    attention = PlannedAttention(pipeline, plan, method, measure=True)
    own, planned = [], []
    quality, likeness = [], []
    steps = Steps(progress, 2 * samples * pipeline.shape.steps)

    def count(_done: int, _total: int) -> None:
        steps.advance()

    for sample in range(samples):
        own.append(pipeline.generate(sample, None, count))
        planned.append(pipeline.generate(sample, attention, count))
        for video, through in ((own[-1], "its own"), (planned[-1], "the planned")):
            if not torch.isfinite(video).all():
                raise ParoError(f"sample {sample} through {through} attention is not finite")
        quality.append(psnr_db(planned[-1], own[-1]))
        likeness.append(ssim(planned[-1], own[-1]))
    by_step = [
        {
            "step": step,
            "layer": layer,
            "snr_db": finite_mean(snr for snr, _ in found),
            "cosine": finite_mean(cosine for _, cosine in found),
        }
        for (step, layer), found in sorted(attention.errors.items())
    ]
    report = {
        "format": method.name,
        "groups": method.groups,
        "avg_bits": plan.avg_bits,
        "mean_bits": round(plan.mean_bits(), 6),
        "density": round(plan.density(), 6),
        "orders": [[ORDERS[order] for order in layer] for layer in plan.orders.tolist()],
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
        "attention": by_step,
    }
    return Generation(own, planned, report)
