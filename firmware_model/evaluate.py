"""Scoring output words against float64 attention, and the two files of a run.

`evaluate` runs the integer model; co-simulation scores the RTL's words with the same functions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from firmware_model.attention import reference_attention
from firmware_model.capture import Capture
from firmware_model.integer import checked_query_blocks, integer_attention
from firmware_model.metrics import cosine, snr_db
from firmware_model.plan import Plan, density, mean_bits
from firmware_model.progress import Progress, Steps
from firmware_model.quantize import QuantizedHead, dequantize, quantize_head
from firmware_model.reorder import ORDERS
from paro_config.config import Config
from paro_config.errors import ParoError
from paro_config.files import write_atomically, write_json

OUTPUTS_FILE = "outputs.safetensors"
REPORT_FILE = "report.json"


@dataclass(frozen=True, eq=False)
class HeadResult:
    """Scored output of one head.

    Parameters
    ----------
    head : int
        Index in the capture.
    order : int
        Index in `reorder.ORDERS`.
    token_index : torch.Tensor
        int64 [rows], ascending: tokens of the capture.
    output : torch.Tensor
        float32 [rows, captured head_dim], row by row for ``token_index``.
    snr_db, cosine : float
        Against float64 attention of the same rows.
    mean_bits, density : float
        Of the block rows computed.
    """

    head: int
    order: int
    token_index: torch.Tensor
    output: torch.Tensor
    snr_db: float
    cosine: float
    mean_bits: float
    density: float

    def report(self) -> dict[str, Any]:
        """Entry of this head in ``report.json``; what is not finite becomes null."""
        return {
            "head": self.head,
            "order": ORDERS[self.order],
            "snr_db": round(self.snr_db, 3) if math.isfinite(self.snr_db) else None,
            "cosine": round(self.cosine, 9),
            "mean_bits": round(self.mean_bits, 6),
            "density": round(self.density, 6),
        }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Results of a run and its report."""

    results: tuple[HeadResult, ...]
    report: dict[str, Any]


def score_head(
    capture: Capture,
    head: int,
    quantized: QuantizedHead,
    codes: torch.Tensor,
    words: torch.Tensor,
    config: Config,
    query_blocks: range | None = None,
) -> HeadResult:
    """Dequantise output words of one head, put them in the capture's order and score them.

    Parameters
    ----------
    capture : Capture
        Source of the head.
    head : int
        Index in the capture.
    quantized : QuantizedHead
        The head as it was computed.
    codes : torch.Tensor
        uint8 [blocks, blocks].
    words : torch.Tensor
        int16 [rows, config.head_dim]: outputs of the query blocks, in the head's order.
    config : Config
        The core.
    query_blocks : range, optional
        Block rows that were computed; all by default.
    """
    rows = checked_query_blocks(query_blocks, len(codes))
    positions = computed_positions(quantized.tokens, rows, config.block)
    token_index, by_token = quantized.permutation[positions].sort()
    output = dequantize(words, quantized)[by_token]
    reference = reference_attention(
        capture.q[head], capture.k[head], capture.v[head], capture.scale, token_index
    )
    computed = codes[list(rows)]
    return HeadResult(
        head=head,
        order=quantized.order,
        token_index=token_index,
        output=output,
        snr_db=snr_db(output, reference),
        cosine=cosine(output, reference),
        mean_bits=mean_bits(computed),
        density=density(computed),
    )


def computed_positions(tokens: int, query_blocks: range, block: int) -> torch.Tensor:
    """Positions (in a head's order) of the queries in some block rows, int64 [rows]."""
    starts = torch.tensor(list(query_blocks)) * block
    positions = (starts.unsqueeze(1) + torch.arange(block)).flatten()
    return positions[positions < tokens]


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
    ``worst_snr_db`` is the smallest of the heads, null if none is finite.
    """
    finite = [result.snr_db for result in results if math.isfinite(result.snr_db)]
    return {
        "capture": capture.name,
        "capture_sha256": capture.digest,
        "config": config.model_dump(),
        "avg_bits": avg_bits,
        "tokens": capture.tokens,
        "rows": len(results[0].token_index),
        "mean_bits": round(sum(result.mean_bits for result in results) / len(results), 6),
        "density": round(sum(result.density for result in results) / len(results), 6),
        "worst_snr_db": round(min(finite), 3) if finite else None,
        "heads": [result.report() for result in results],
    }


def evaluate(
    capture: Capture,
    plan: Plan,
    heads: Sequence[int],
    config: Config,
    query_blocks: range | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Run the integer model and score it.

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
        Told after each block row of each head.

    Raises
    ------
    ParoError
        If plan, configuration, heads or query blocks do not fit.
    """
    check_plan_config(plan, config)
    rows = checked_query_blocks(query_blocks, plan.blocks)
    parts = [(head, plan.head_order(head), plan.head_codes(head)) for head in heads]
    steps = Steps(progress, len(rows) * len(parts))
    results = []
    for head, order, codes in parts:
        quantized = quantize_head(capture, head, order, config)
        words = integer_attention(
            quantized, codes, config, rows, progress=lambda _done, _total: steps.advance()
        )
        results.append(score_head(capture, head, quantized, codes, words, config, rows))
    report = {"bit_exact": None, "outputs_compared": 0, "mismatches": None}
    report |= common_report(capture, config, plan.avg_bits, results)
    return Evaluation(tuple(results), report)


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
    content = safetensors.torch.save(
        {
            "o": torch.stack([result.output for result in results]),
            "token_index": torch.stack([result.token_index for result in results]),
        },
        {"heads": ",".join(str(result.head) for result in results)},
    )

    def write_both(temporary: Path) -> None:
        temporary.write_bytes(content)
        # The outputs move into place only if the report could be written.
        write_json(directory / REPORT_FILE, report)

    write_atomically(directory / OUTPUTS_FILE, write_both)
