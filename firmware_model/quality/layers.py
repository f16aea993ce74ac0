"""A linear layer under its plan, against float64."""

from dataclasses import dataclass
from typing import Any

import torch

from firmware_model.calibration.layer_plan import LayerPlan
from firmware_model.codes import density
from firmware_model.layer import Layer
from firmware_model.quality.metrics import cosine, finite, relative_l1, rmse, snr_db
from firmware_model.reference.linear import dequantize_outputs
from paro.config.config import Config

__all__ = ["LayerResult", "run_layer", "score_layer"]


@dataclass(frozen=True, eq=False)
class LayerResult:
    """Scored output of a layer.

    Parameters
    ----------
    name : str
        Name of the layer in its model.
    words : torch.Tensor
        int16 [tokens, outputs].
    y : torch.Tensor
        float32 [tokens, outputs]: values of the words.
    snr_db, cosine, relative_l1, rmse : float
        Against float64.
    mean_bits, density : float
        Over its tiles.
    """

    name: str
    words: torch.Tensor
    y: torch.Tensor
    snr_db: float
    cosine: float
    relative_l1: float
    rmse: float
    mean_bits: float
    density: float

    def report(self) -> dict[str, Any]:
        """Fields of ``report.json``; figures that are not finite are null."""
        return {
            "layer": self.name,
            "tokens": self.y.shape[0],
            "outputs": self.y.shape[1],
            "snr_db": finite(self.snr_db),
            "cosine": round(self.cosine, 9),
            "relative_l1": finite(self.relative_l1),
            "rmse": finite(self.rmse),
            "mean_bits": round(self.mean_bits, 6),
            "density": round(self.density, 6),
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
