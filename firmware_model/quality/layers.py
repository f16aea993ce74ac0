"""A linear layer under its plan, against float64, and the two files of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from firmware_model.calibration.layer_plan import LayerPlan
from firmware_model.codes import density
from firmware_model.layer import Layer
from firmware_model.quality.evaluate import Scores, write_both
from firmware_model.quality.metrics import (
    cosine,
    finite_mean,
    relative_l1,
    rmse,
    snr_db,
)
from firmware_model.reference.linear import dequantize_outputs
from paro.config.config import Config

__all__ = [
    "LayerResult",
    "layer_report",
    "layer_summary",
    "run_layer",
    "score_layer",
    "write_layer_outputs",
]


@dataclass(frozen=True, eq=False)
class LayerResult(Scores):
    """Scored output of a layer.

    Parameters
    ----------
    name : str
        Name of the layer in its model.
    words : torch.Tensor
        int16 [tokens, outputs].
    y : torch.Tensor
        float32 [tokens, outputs]: values of the words.
    snr_db, cosine, relative_l1, rmse, mean_bits, density
        See `Scores`.
    """

    name: str
    words: torch.Tensor
    y: torch.Tensor

    def report(self) -> dict[str, Any]:
        """Fields of ``report.json``; figures that are not finite are null."""
        return {
            "layer": self.name,
            "tokens": self.y.shape[0],
            "outputs": self.y.shape[1],
            **self.score_fields(),
        }


def run_layer(layer: Layer, plan: LayerPlan, config: Config) -> LayerResult:
    """Compute a layer's captured inputs as a plan says, bit exact, and score it.

    Raises
    ------
    ParoError
        If the plan is of another layer, or its tiles are not the core's.
    """
    plan.check(layer)
    return score_layer(layer, plan, plan.words(layer.x, config))


def score_layer(layer: Layer, plan: LayerPlan, words: torch.Tensor) -> LayerResult:
    """Score output words, int16 [tokens, outputs], of a layer's captured inputs."""
    exact, values = layer.reference(), dequantize_outputs(words, plan.output)
    return LayerResult(
        name=layer.name,
        words=words,
        y=values.float(),
        snr_db=snr_db(values, exact),
        cosine=cosine(values, exact),
        relative_l1=relative_l1(values, exact),
        rmse=rmse(values, exact),
        mean_bits=plan.mean_bits(),
        density=density(plan.weights.codes),
    )


def layer_report(
    layer: Layer, plan: LayerPlan, config: Config, result: LayerResult
) -> dict[str, Any]:
    """Fields that the reports of evaluation and co-simulation share."""
    return {
        "capture": layer.path.stem,
        "capture_sha256": layer.digest,
        "config": config.model_dump(),
        "avg_bits": plan.avg_bits,
        "inputs": layer.inputs,
        "rotation": plan.rotation,
        **result.report(),
    }


def layer_summary(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sum up the reports of some layers; figures that are not finite are left out of means."""
    scored = [report for report in reports if report["snr_db"] is not None]
    worst = min(scored, key=lambda report: report["snr_db"], default=None)
    weights = [report["outputs"] * report["inputs"] for report in reports]
    bits = sum(w * report["mean_bits"] for w, report in zip(weights, reports, strict=True))
    return {
        "layers": len(reports),
        "mean_bits": round(bits / sum(weights), 6),
        "mean_snr_db": finite_mean(report["snr_db"] for report in scored),
        "worst_snr_db": worst and worst["snr_db"],
        "worst_capture": worst and worst["capture"],
    }


def write_layer_outputs(directory: Path, result: LayerResult, report: dict[str, Any]) -> None:
    """Write ``outputs.safetensors``, with ``y`` as of the result, and ``report.json``.

    Both or neither, into a folder that is made if missing.

    Raises
    ------
    ParoError
        If they cannot be written.
    """
    write_both(directory, {"y": result.y}, {"layer": result.name}, report)
