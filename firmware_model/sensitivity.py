"""What each block of a head's attention map is worth: errors at each width, and sums of weights."""

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch

from firmware_model.capture import Capture
from firmware_model.integer import BLOCKS_AT_ONCE, BlockedHead, check_exact_products
from firmware_model.number_formats import FORMATS, FormatHead
from firmware_model.parallel import map_rows
from firmware_model.progress import Steps
from firmware_model.quantize import padded_head_dim, quantize_head
from paro_config.config import Config
from paro_config.formats import CODE_BITS, P_FRAC

#: Number formats with a choice of widths.
Rounding = Literal["digit", "digit-4", "paper", "linear"]
ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)
#: Base-2 logits per natural one, and back.
LOG2_E = math.log2(math.e)
LN_2 = math.log(2)


def model_config(capture: Capture, block: int) -> Config:
    """Configuration for the integer model alone, which does not see the array."""
    return Config(
        rows=4,
        cols=4,
        block=block,  # type: ignore[arg-type]  # refused if not legal
        head_dim=padded_head_dim(capture.head_dim),  # type: ignore[arg-type]
        max_tokens=max(capture.tokens, Config.model_fields["max_tokens"].default),
    )


def block_sums(
    capture: Capture, head: int, order: int, block: int, steps: Steps | None = None
) -> torch.Tensor:
    """Sum of the softmax weights in each block of the map.

    Returns
    -------
    torch.Tensor
        float32 [blocks, blocks]. ``steps`` is advanced by the blocks on a side.
    """
    q, k = (tensor[head].float()[capture.permutation(order)] for tensor in (capture.q, capture.k))
    keys = ((k - k.mean(dim=0)) * capture.scale).T.contiguous()
    count = -(-capture.tokens // block)

    def sums(row: int) -> torch.Tensor:
        weights = torch.softmax(q[row * block : (row + 1) * block] @ keys, dim=1)
        padded = torch.nn.functional.pad(weights.sum(dim=0), (0, count * block - capture.tokens))
        return padded.unflatten(0, (count, block)).sum(dim=1)

    return torch.stack(map_rows(sums, range(count), steps))


def block_errors(
    capture: Capture,
    head: int,
    order: int,
    block: int,
    rounding: Rounding = "digit",
    steps: Steps | None = None,
) -> torch.Tensor:
    """Squared output error that each block adds at each width, to first order.

    With p the exact softmax weights of a query, o its exact output and P those that the hardware
    forms at some width, a block moves the output by sum over its keys of (P - p) (V - o): the
    second part is what it does to the denominator.

    Parameters
    ----------
    capture : Capture
        Source of the head.
    head : int
        Index in the capture.
    order : int
        Index in `reorder.ORDERS`.
    block : int
        Tokens on a side of a block.
    rounding : str
        The widths' number format, one of `ROUNDINGS`; "digit" is the integer model itself.
    steps : Steps, optional
        Advanced by the blocks on a side.

    Returns
    -------
    torch.Tensor
        float32 [4, blocks, blocks]: for each code, query block and key block, the square summed
        over the block's queries and all channels.
    """
    config = model_config(capture, block)
    rounded = _rounded_weights(capture, head, order, config, rounding)
    steps = steps or Steps(None, 0)
    tokens, count = capture.tokens, -(-capture.tokens // block)
    permutation = capture.permutation(order)

    q, k, v = (tensor[head].float()[permutation] for tensor in (capture.q, capture.k, capture.v))
    q, k, v = q * (capture.scale * LOG2_E), k - k.mean(dim=0), v - v.mean(dim=0)
    # The column of ones sums the weights beside their products with V.
    values = torch.cat([v, torch.ones(tokens, 1)], dim=1)
    padding = count * block - tokens
    k, values = (torch.nn.functional.pad(x, (0, 0, 0, padding)) for x in (k, values))
    values = values.unflatten(0, (count, block))

    errors = torch.empty(len(CODE_BITS), count, count)

    def measure(row: int) -> None:
        queries = q[row * block : (row + 1) * block]
        logits = k @ queries.T
        logits[tokens:] = -torch.inf
        total = torch.logsumexp(logits * LN_2, dim=0) / LN_2
        exact = torch.exp2(logits - total).unflatten(0, (count, block))
        exact_products = torch.bmm(exact.transpose(1, 2), values)
        output = exact_products.sum(dim=0)[:, :-1]
        errors[0, row] = _squared_error(-exact_products, output)
        for code in range(1, len(CODE_BITS)):
            for part in torch.arange(count).split(BLOCKS_AT_ONCE):
                weights = rounded(row, part, code, total)
                columns = slice(int(part[0]), int(part[-1]) + 1)
                difference = (weights - exact[columns]).transpose(1, 2)
                products = torch.bmm(difference, values[columns])
                errors[code, row, part] = _squared_error(products, output)

    map_rows(measure, range(count), steps)
    return errors


def _rounded_weights(
    capture: Capture, head: int, order: int, config: Config, rounding: Rounding
) -> Callable[[int, torch.Tensor, int, torch.Tensor], torch.Tensor]:
    """Rounded weights of some blocks of a row at one code, as shares of each query's denominator.

    The function returned takes (row, columns, code, log2 of the denominators) and returns float32
    [blocks, keys, queries].
    """
    if rounding != "digit":
        formed = FormatHead.from_capture(capture, head, order, config, FORMATS[rounding])

        def format_weights(
            row: int, columns: torch.Tensor, code: int, total: torch.Tensor
        ) -> torch.Tensor:
            codes = torch.full_like(columns, code)
            logits = formed.logits(row, columns, codes)[..., : len(total)]
            return formed.weights(logits, codes, total.double()).float()

        return format_weights

    check_exact_products(config)
    blocked = BlockedHead(quantize_head(capture, head, order, config), config)

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
    moved = products[..., :-1] - products[..., -1:] * output
    return moved.square().sum(dim=(1, 2))
