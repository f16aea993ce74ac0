"""Weights rounded with error feedback: errors of a column go into the columns after it.

The errors are weighted by second moments of real activations, as GPTQ does (Frantar et al., 2022).
"""

from functools import cache

import torch

from firmware_model.reference.digits import key_table
from firmware_model.reference.linear import QuantizedWeights, quantize_weights
from paro.config.config import Config
from paro.config.formats import CODE_BITS, OPERAND_MAX

__all__ = ["DAMPING", "feedback_weights", "second_moments"]

#: Ridge on the second moments, as a share of their mean.
DAMPING = 0.01
#: Columns whose errors reach the rest of the matrix at once: for speed alone.
_COLUMNS = 128


def second_moments(x: torch.Tensor) -> torch.Tensor:
    """Sums over tokens of products of channels, of x [tokens, inputs]: float64 [inputs, inputs]."""
    x = x.double()
    return x.T @ x


def feedback_weights(
    moments: torch.Tensor,
    weight: torch.Tensor,
    codes: torch.Tensor,
    config: Config,
    *,
    damping: float = DAMPING,
) -> QuantizedWeights:
    """Quantise the weights of a layer, so that its outputs change little.

    Columns (input channels) are rounded one after the other, those of the largest second moment
    first. What a column is off by is taken from the columns that are not rounded yet, by least
    squares.

    Parameters
    ----------
    moments : torch.Tensor
        float64 [inputs, inputs]: `second_moments` of activations as the layer will see them, in any
        unit.
    weight : torch.Tensor
        [outputs, inputs].
    codes : torch.Tensor
        uint8 [blocks of outputs, chunks of inputs], see `QuantizedWeights`.
    config : Config
        The core.
    damping : float
        Ridge on the second moments, as a share of their mean; above 0.

    Returns
    -------
    QuantizedWeights
        Scales are those of `quantize_weights`.
    """
    plain = quantize_weights(weight, codes)
    target = weight.double() / (plain.mw.double().unsqueeze(1) * plain.unit)
    factor, order = _inverse_factor(moments, damping)
    target = target[:, order]
    each = codes.repeat_interleave(config.block, 0)[: len(weight)]
    stored = torch.empty_like(target, dtype=torch.int8)
    for start in range(0, len(order), _COLUMNS):
        end = min(start + _COLUMNS, len(order))
        errors = torch.empty(len(weight), end - start, dtype=torch.float64)
        for column in range(start, end):
            widths = each[:, order[column] // config.head_dim]
            stored[:, column], values = _nearest(target[:, column], widths)
            error = (target[:, column] - values) / factor[column, column]
            target[:, column + 1 : end] -= error.outer(factor[column, column + 1 : end])
            errors[:, column - start] = error
        target[:, end:] -= errors @ factor[start:end, end:]
    w8 = torch.empty_like(stored)
    w8[:, order] = stored
    return QuantizedWeights(w8, plain.mw, plain.unit, codes)


def _inverse_factor(moments: torch.Tensor, damping: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Upper Cholesky factor of the inverse second moments, and the columns' order: [inputs]."""
    order = moments.diagonal().argsort(descending=True, stable=True)
    moments = moments[order][:, order]
    # Without any activation every order and every rounding is as good.
    ridge = damping * moments.diagonal().mean() or 1.0
    moments.diagonal().add_(ridge)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
    return torch.linalg.cholesky(inverse, upper=True), order


def _nearest(column: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Operands whose values at some codes are nearest to a column: int8 and float64 [outputs]."""
    operands = torch.zeros(len(column), dtype=torch.int8)
    values = torch.zeros(len(column), dtype=torch.float64)
    for code, bits in enumerate(CODE_BITS):
        rows = codes == code
        if bits and rows.any():
            levels, stored, bounds = _levels(bits)
            at = torch.bucketize(column[rows], bounds)
            operands[rows], values[rows] = stored[at], levels[at]
    return operands, values


@cache
def _levels(bits: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values at a width, ascending, an operand of each, and the bounds between them."""
    operand_of = {
        int(key_table(bits)[operand + OPERAND_MAX + 1]): operand
        for operand in range(-OPERAND_MAX, OPERAND_MAX + 1)
    }
    levels = torch.tensor(sorted(operand_of), dtype=torch.float64)
    stored = torch.tensor([operand_of[value] for value in sorted(operand_of)], dtype=torch.int8)
    return levels, stored, (levels[1:] + levels[:-1]) / 2
