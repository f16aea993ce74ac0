"""Errors of the blocks of a head's attention map at each width, alone and together."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from firmware_model.capture import Capture, CaptureSource
from firmware_model.choices import INTEGER, Rounding
from firmware_model.parallel import map_rows
from firmware_model.progress import Steps
from firmware_model.reference.integer import BLOCKS_AT_ONCE, BlockedHead, check_exact_products
from firmware_model.reference.methods import Method
from firmware_model.reference.number_formats import FORMATS, FormatHead
from firmware_model.reference.quantize import quantize_head
from paro.config.config import Config, padded_head_dim
from paro.config.formats import CODE_BITS, P_FRAC

#: Share of a denominator below which nothing is left of an output.
LEAST_DENOMINATOR = 1e-3
#: Base-2 logits per natural one, and back.
LOG2_E = math.log2(math.e)
LN_2 = math.log(2)


def model_config(capture: CaptureSource, block: int, rows: int = 4, cols: int = 4) -> Config:
    """Configuration that takes a capture; the integer model does not see ``rows`` and ``cols``."""
    return Config(
        rows=rows,  # type: ignore[arg-type]  # refused if not legal, as are the others
        cols=cols,  # type: ignore[arg-type]
        block=block,  # type: ignore[arg-type]
        head_dim=padded_head_dim(capture.head_dim),  # type: ignore[arg-type]
        max_tokens=max(capture.tokens, Config.model_fields["max_tokens"].default),
    )


def block_sums(
    capture: Capture,
    head: int,
    order: int,
    block: int,
    steps: Steps | None = None,
    rows: Sequence[int] | None = None,
) -> torch.Tensor:
    """Sum of the softmax weights in each block of the map.

    Returns
    -------
    torch.Tensor
        float32 [rows, blocks], for the query blocks of ``rows`` (all by default). ``steps`` is
        advanced by them.
    """
    q, k = (tensor[head].float()[capture.permutation(order)] for tensor in (capture.q, capture.k))
    keys = ((k - k.mean(dim=0)) * capture.scale).T.contiguous()
    count = capture.blocks(block)

    def sums(row: int) -> torch.Tensor:
        weights = torch.softmax(q[row * block : (row + 1) * block] @ keys, dim=1)
        padded = torch.nn.functional.pad(weights.sum(dim=0), (0, count * block - capture.tokens))
        return padded.unflatten(0, (count, block)).sum(dim=1)

    return torch.stack(map_rows(sums, range(count) if rows is None else rows, steps))


def block_errors(
    capture: Capture,
    head: int,
    order: int,
    block: int,
    rounding: Rounding = "digit",
    steps: Steps | None = None,
    transform: int = 0,
    rows: Sequence[int] | None = None,
) -> torch.Tensor:
    """Squared output error that each block adds at each width, all others being exact.

    With p the exact softmax weights of a query, o its exact output and P those that the hardware
    forms at some width, a block moves the output by (sum over its keys of (P - p) (V - o)) over the
    new denominator, 1 + sum (P - p). Where less than `LEAST_DENOMINATOR` is left of it, as without
    the one block that a query looks at, the whole output is lost.

    Parameters
    ----------
    capture : Capture
        Source of the head.
    head : int
        Index in the capture.
    order : int
        Index in `choices.ORDERS`.
    block : int
        Tokens on a side of a block.
    rounding : str
        The widths' number format, one of `choices.ROUNDINGS`; "digit" is the integer model itself.
    steps : Steps, optional
        Advanced by the rows measured.
    transform : int
        Index in `choices.TRANSFORMS`.
    rows : sequence of int, optional
        Query blocks to measure; all by default.

    Returns
    -------
    torch.Tensor
        float32 [4, rows, blocks]: for each code, query block and key block, the square summed
        over the block's queries and all channels.

    Raises
    ------
    BeyondFormatError
        If the head's logits are beyond the number format.
    """
    config = model_config(capture, block)
    rounded = _rounded_weights(capture, head, order, config, rounding, transform)
    exact = _ExactHead(capture, head, order, block)
    chosen = range(exact.count) if rows is None else rows

    def measure(row: int) -> torch.Tensor:
        weights, total = exact.weights(row)
        products = torch.bmm(weights.transpose(1, 2), exact.values)
        output = products.sum(dim=0)[:, :-1]
        errors = torch.empty(len(CODE_BITS), exact.count)
        errors[0] = _squared_error(-products, output)
        for code in range(1, len(CODE_BITS)):
            for part in torch.arange(exact.count).split(BLOCKS_AT_ONCE):
                columns = slice(int(part[0]), int(part[-1]) + 1)
                difference = rounded(row, part, code, total) - weights[columns]
                products = torch.bmm(difference.transpose(1, 2), exact.values[columns])
                errors[code, part] = _squared_error(products, output)
        return errors

    return torch.stack(map_rows(measure, chosen, steps), dim=1)


@dataclass(frozen=True, eq=False)
class RowErrors:
    """Errors of block rows, all blocks of a row together.

    Parameters
    ----------
    error : torch.Tensor
        float64 [blocks]: squared error of the output, summed over each block row.
    signal : torch.Tensor
        float64 [blocks]: squared exact output, summed likewise.
    kept : torch.Tensor
        float32 [blocks]: the least share of its weight that a query of the row keeps, 0 to 1.
    """

    error: torch.Tensor
    signal: torch.Tensor
    kept: torch.Tensor


def row_errors(
    capture: Capture,
    head: int,
    order: int,
    block: int,
    codes: torch.Tensor,
    rounding: Rounding = "digit",
    steps: Steps | None = None,
    transform: int = 0,
) -> RowErrors:
    """Error of a head whose blocks have chosen codes; parameters and errors as `block_errors`.

    ``codes`` are uint8 [blocks, blocks]; every row has a live block.
    """
    method = Method(INTEGER if rounding == "digit" else rounding)
    config = model_config(capture, block)
    _, found = method.attend(capture, head, order, codes, config, transform=transform)
    found = found[capture.permutation(order)]
    exact = _ExactHead(capture, head, order, block)

    def measure(row: int) -> tuple[float, float, float]:
        weights, _ = exact.weights(row)
        output = torch.bmm(weights.transpose(1, 2), exact.values).sum(dim=0)[:, :-1]
        output += exact.v_mean
        moved = found[row * block : (row + 1) * block] - output
        kept = weights[codes[row] != 0].sum(dim=(0, 1)).min()
        return moved.square().sum().item(), output.square().sum().item(), kept.item()

    error, signal, kept = zip(*map_rows(measure, range(exact.count), steps), strict=True)
    return RowErrors(
        torch.tensor(error, dtype=torch.float64),
        torch.tensor(signal, dtype=torch.float64),
        torch.tensor(kept),
    )


class _ExactHead:
    """Exact attention of a head by block rows, in float32.

    Attributes
    ----------
    count : int
        Blocks on a side of the map.
    values : torch.Tensor
        float32 [count, block, channels + 1]: V less its mean, and a channel of ones, which sums the
        weights beside their products with V.
    v_mean : torch.Tensor
        float32 [channels].
    """

    def __init__(self, capture: Capture, head: int, order: int, block: int) -> None:
        self._tokens, self._block = capture.tokens, block
        self.count = capture.blocks(block)
        permutation = capture.permutation(order)
        q, k, v = (x[head].float()[permutation] for x in (capture.q, capture.k, capture.v))
        self._q = q * (capture.scale * LOG2_E)
        self.v_mean = v.mean(dim=0)
        padding = (0, 0, 0, self.count * block - capture.tokens)
        self._k = torch.nn.functional.pad(k - k.mean(dim=0), padding)
        values = torch.cat([v - self.v_mean, torch.ones(capture.tokens, 1)], dim=1)
        self.values = torch.nn.functional.pad(values, padding).unflatten(0, (self.count, block))

    def weights(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights of a block row, float32 [count, keys, queries], and log2 of denominators."""
        queries = self._q[row * self._block : (row + 1) * self._block]
        logits = self._k @ queries.T
        logits[self._tokens :] = -torch.inf
        total = torch.logsumexp(logits * LN_2, dim=0) / LN_2
        return torch.exp2(logits - total).unflatten(0, (self.count, self._block)), total


def _rounded_weights(
    capture: Capture, head: int, order: int, config: Config, rounding: Rounding, transform: int
) -> Callable[[int, torch.Tensor, int, torch.Tensor], torch.Tensor]:
    """Rounded weights of some blocks of a row at one code, as shares of each query's denominator.

    The function returned takes (row, columns, code, log2 of the denominators) and returns float32
    [blocks, keys, queries].
    """
    if rounding != "digit":
        formed = FormatHead.from_capture(capture, head, order, config, FORMATS[rounding], transform)

        def format_weights(
            row: int, columns: torch.Tensor, code: int, total: torch.Tensor
        ) -> torch.Tensor:
            codes = torch.full_like(columns, code)
            logits = formed.logits(row, columns, codes)[..., : len(total)]
            return formed.weights(logits, codes, total.double()).float()

        return format_weights

    check_exact_products(config)
    blocked = BlockedHead(quantize_head(capture, head, order, config, transform), config)

    def integer_weights(
        row: int, columns: torch.Tensor, code: int, total: torch.Tensor
    ) -> torch.Tensor:
        m, weights = blocked.weights(row, columns, torch.full_like(columns, code))
        unit = torch.exp2(m[:, : len(total)] - P_FRAC - total)
        return weights[..., : len(total)] * unit.unsqueeze(1)

    return integer_weights


def _squared_error(products: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """Square of the output's move for each block: float32 [blocks].

    ``products`` [blocks, queries, channels + 1] are weight changes times V, their sums last.
    """
    change = products[..., -1:]
    left = 1 + change
    moved = (products[..., :-1] - change * output) / left
    return torch.where(left < LEAST_DENOMINATOR, output, moved).square().sum(dim=(1, 2))
