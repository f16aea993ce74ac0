"""Scoring attention against float64, and the two files of a run.

`evaluate` runs the integer model or another method; co-simulation scores the RTL's words with the
same functions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from firmware_model.calibration.plan import Plan
from firmware_model.capture import Capture
from firmware_model.choices import ORDERS, TRANSFORMS
from firmware_model.codes import checked_query_blocks, density, mean_bits
from firmware_model.progress import Progress, Steps
from firmware_model.quality.metrics import cosine, finite, finite_mean, relative_l1, rmse, snr_db
from firmware_model.quality.planned import attend_planned
from firmware_model.reference.attention import reference_attention
from firmware_model.reference.methods import Method, in_capture_order
from firmware_model.reference.quantize import QuantizedHead, dequantize
from firmware_model.tensorfile import serialize_tensors
from paro.config.config import Config, blocks_of
from paro.config.errors import ParoError
from paro.config.files import write_atomically, write_json

OUTPUTS_FILE = "outputs.safetensors"
REPORT_FILE = "report.json"


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """Scores of the output of a head or a layer.

    Parameters
    ----------
    snr_db, cosine, relative_l1, rmse : float
        Against float64.
    mean_bits, density : float
        Of the block rows computed, or over the layer's tiles.
    """

    snr_db: float
    cosine: float
    relative_l1: float
    rmse: float
    mean_bits: float
    density: float

    def score_fields(self) -> dict[str, float | None]:
        """Fields of ``report.json``; figures that are not finite are null."""
        return {
            "snr_db": finite(self.snr_db),
            "cosine": round(self.cosine, 9),
            "relative_l1": finite(self.relative_l1),
            "rmse": finite(self.rmse),
            "mean_bits": round(self.mean_bits, 6),
            "density": round(self.density, 6),
        }


@dataclass(frozen=True, eq=False)
class HeadResult(Scores):
    """Scored output of one head.

    Parameters
    ----------
    head : int
        Index in the capture.
    order : int
        Index in `choices.ORDERS`.
    transform : int
        Index in `choices.TRANSFORMS`.
    token_index : torch.Tensor
        int64 [rows], ascending: tokens of the capture.
    output : torch.Tensor
        float32 [rows, captured head_dim], row by row for ``token_index``.
    snr_db, cosine, relative_l1, rmse, mean_bits, density
        See `Scores`; against attention of the same rows.
    """

    head: int
    order: int
    transform: int
    token_index: torch.Tensor
    output: torch.Tensor

    def report(self) -> dict[str, Any]:
        """Entry of this head in ``report.json``; figures that are not finite are null."""
        return {
            "head": self.head,
            "order": ORDERS[self.order],
            "transform": TRANSFORMS[self.transform],
            **self.score_fields(),
        }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Results of a run and its report."""

    results: tuple[HeadResult, ...]
    report: dict[str, Any]


def score(
    capture: Capture,
    head: int,
    order: int,
    codes: torch.Tensor,
    token_index: torch.Tensor,
    output: torch.Tensor,
    transform: int = 0,
) -> HeadResult:
    """Score rows of one head against float64 attention.

    Parameters
    ----------
    capture : Capture
        Source of the head.
    head : int
        Index in the capture.
    order : int
        Index in `choices.ORDERS`.
    codes : torch.Tensor
        uint8 [block rows computed, blocks].
    token_index : torch.Tensor
        int64 [rows], ascending: tokens of the capture.
    output : torch.Tensor
        float32 [rows, head_dim], row by row for ``token_index``.
    transform : int
        Index in `choices.TRANSFORMS`.
    """
    reference = reference_attention(
        capture.q[head], capture.k[head], capture.v[head], capture.scale, token_index
    )
    return HeadResult(
        head=head,
        order=order,
        transform=transform,
        token_index=token_index,
        output=output,
        snr_db=snr_db(output, reference),
        cosine=cosine(output, reference),
        relative_l1=relative_l1(output, reference),
        rmse=rmse(output, reference),
        mean_bits=mean_bits(codes),
        density=density(codes),
    )


def score_words(
    capture: Capture,
    head: int,
    quantized: QuantizedHead,
    codes: torch.Tensor,
    words: torch.Tensor,
    config: Config,
    query_blocks: range,
) -> HeadResult:
    """Score output words, int16 [rows, config.head_dim], in the head's order; otherwise `score`."""
    token_index, output = in_capture_order(
        quantized.permutation, query_blocks, config.block, dequantize(words, quantized)
    )
    computed = codes[list(query_blocks)]
    return score(capture, head, quantized.order, computed, token_index, output, quantized.transform)


def check_plan_config(plan: Plan, config: Config) -> None:
    """Raise ParoError unless the plan's blocks are those of the core."""
    if plan.block != config.block:
        raise ParoError(
            f"block = {config.block} does not fit the plan, whose blocks are {plan.block}; "
            f"legal: {plan.block}"
        )


def common_report(
    capture: Capture, config: Config, avg_bits: float, results: Sequence[HeadResult]
) -> dict[str, Any]:
    """Fields that the reports of evaluation and co-simulation share.

    ``mean_bits`` and ``density`` are means over the heads, of the block rows computed;
    ``worst_snr_db`` is the smallest of the heads and ``worst_head`` that head; both are null if
    none is finite.
    """
    scored = [result for result in results if math.isfinite(result.snr_db)]
    worst = min(scored, key=lambda result: result.snr_db, default=None)
    return {
        "capture": capture.name,
        "capture_sha256": capture.digest,
        "layer": capture.layer,
        "progress": capture.progress,
        "config": config.model_dump(),
        "avg_bits": avg_bits,
        "tokens": capture.tokens,
        "rows": len(results[0].token_index),
        "mean_bits": round(sum(result.mean_bits for result in results) / len(results), 6),
        "density": round(sum(result.density for result in results) / len(results), 6),
        "worst_head": worst.head if worst else None,
        "worst_snr_db": finite(worst.snr_db) if worst else None,
        "heads": [result.report() for result in results],
    }


def evaluate(
    capture: Capture,
    plan: Plan,
    heads: Sequence[int],
    config: Config,
    query_blocks: range | None = None,
    progress: Progress | None = None,
    method: Method | None = None,
) -> Evaluation:
    """Compute some heads and score them.

    Nothing is compared bit for bit here: in the report ``outputs_compared`` is 0 and ``bit_exact``
    and ``mismatches`` are null, so that no reader takes an evaluation for a co-simulation.

    Parameters
    ----------
    capture : Capture
        Source of the heads.
    plan : Plan
        Orders and codes.
    heads : sequence of int
        Heads to compute, all of them in the plan.
    config : Config
        The core.
    query_blocks : range, optional
        Block rows to compute; all by default.
    progress : Progress, optional
        Called after each block row of each head.
    method : Method, optional
        Attention that computes them; the integer model by default.

    Raises
    ------
    ParoError
        If plan, configuration, heads or query blocks do not fit.
    """
    check_plan_config(plan, config)
    rows = checked_query_blocks(query_blocks, plan.blocks)
    # A head that the plan does not hold is refused before the work.
    orders = [plan.head_order(head) for head in heads]
    steps = Steps(progress, len(rows) * len(orders))
    method = method or Method()
    results = []
    for head, order in zip(heads, orders, strict=True):
        token_index, output = attend_planned(method, capture, head, plan, config, rows, steps)
        codes, transform = plan.head_codes(head)[list(rows)], plan.head_transform(head)
        results.append(score(capture, head, order, codes, token_index, output, transform))
    report = {"bit_exact": None, "outputs_compared": 0, "mismatches": None}
    report |= {"format": method.name, "groups": method.groups}
    report |= common_report(capture, config, plan.avg_bits, results)
    return Evaluation(tuple(results), report)


def summary(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sum up the reports of several evaluations.

    Returns
    -------
    dict
        ``all``: number of heads, mean and worst quality over them, and which one is the worst;
        ``captures``: the reports themselves. Figures that are not finite are left out of means.
    """
    heads = [(report["capture"], head) for report in reports for head in report["heads"]]
    scored = [(capture, head) for capture, head in heads if head["snr_db"] is not None]
    capture, worst = min(scored, key=lambda entry: entry[1]["snr_db"], default=(None, None))
    blocks = [
        (blocks_of(report["tokens"], report["config"]["block"])) ** 2
        for report in reports
        for _ in report["heads"]
    ]

    def over_blocks(name: str) -> float:
        # As the budget counts.
        values = [head[name] for _, head in heads]
        return round(sum(v * n for v, n in zip(values, blocks, strict=True)) / sum(blocks), 6)

    return {
        "all": {
            "heads": len(heads),
            "mean_bits": over_blocks("mean_bits"),
            "density": over_blocks("density"),
            "mean_snr_db": finite_mean(head["snr_db"] for _, head in scored),
            "mean_cosine": finite_mean(head["cosine"] for _, head in heads),
            "worst_snr_db": worst and worst["snr_db"],
            "worst_cosine": min(head["cosine"] for _, head in heads),
            "worst_capture": capture,
            "worst_head": worst and worst["head"],
        },
        "captures": list(reports),
    }


def write_outputs(directory: Path, results: Sequence[HeadResult], report: dict[str, Any]) -> None:
    """Write ``outputs.safetensors`` and ``report.json``, both or neither.

    Parameters
    ----------
    directory : Path
        Made if missing.
    results : sequence of HeadResult
        At least one; all with the same number of rows. The file holds ``o`` float32 [heads, rows,
        head_dim] and ``token_index`` int64 [heads, rows], both in the capture's own token order.
    report : dict
        JSON content of the report.

    Raises
    ------
    ParoError
        If they cannot be written.
    """
    tensors = {
        "o": torch.stack([result.output for result in results]),
        "token_index": torch.stack([result.token_index for result in results]),
    }
    heads = ",".join(str(result.head) for result in results)
    write_both(directory, tensors, {"heads": heads}, report)


def write_both(
    directory: Path,
    tensors: dict[str, torch.Tensor],
    metadata: dict[str, str],
    report: dict[str, Any],
) -> None:
    """Write the two files of a run, both or neither; `ParoError` if that fails."""
    content = serialize_tensors(tensors, metadata)

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)
        # The outputs move into place only if the report could be written.
        write_json(directory / REPORT_FILE, report)

    write_atomically(directory / OUTPUTS_FILE, write)
