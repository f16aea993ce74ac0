"""Weights rounded with error feedback: errors of a column go into the columns after it.

The errors are weighted by second moments of real activations, as GPTQ does (Frantar et al., 2022).
"""

from functools import cache

import torch

from firmware_model.reference.digits import key_table
from firmware_model.reference.linear import QuantizedWeights, weights_unit
from firmware_model.reference.quantize import scale_mantissas
from paro.config.config import Config
from paro.config.formats import CODE_BITS, KEY_SCALE_BITS, OPERAND_MAX

__all__ = ["DAMPING", "feedback_weights", "second_moments"]

#: Ridge on the second moments, as a share of their mean.
DAMPING = 0.003
#: Times that all columns are rounded once more, each for what all others are off by.
SWEEPS = 2
#: Scales of an output that are tried, from the least that holds it to twice that.
_SCALES = 16
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
    squares. Then all of them are rounded again, `SWEEPS` times, each to what is best beside all
    others as they are. The scale of each output is the one of a few at which plain rounding errs
    least.

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
    """
    order = moments.diagonal().argsort(descending=True, stable=True)
    moments = moments[order][:, order]
    # Without any activation every order and every rounding is as good.
    moments.diagonal().add_(damping * moments.diagonal().mean() or 1.0)
    each = codes.repeat_interleave(config.block, 0)[: len(weight), order // config.head_dim]
    sorted_weight = weight.double()[:, order]
    mw, unit = _scales(sorted_weight, each, moments.diagonal())
    target = sorted_weight / (mw.double().unsqueeze(1) * unit)
    stored, values = _fed_back(target, each, moments)
    for _ in range(SWEEPS):
        _sweep(target, each, moments, stored, values)
    w8 = torch.empty_like(stored)
    w8[:, order] = stored
    return QuantizedWeights(w8, mw, unit, codes)


def _scales(
    weight: torch.Tensor, codes: torch.Tensor, power: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """Mantissas of outputs, int32 [outputs], and their unit: those at which rounding errs least.

    ``power`` [inputs] weighs the squares of errors.
    """
    least = weight.abs().amax(dim=1) / OPERAND_MAX
    best, lowest = least.clone(), torch.full_like(least, torch.inf)
    for step in range(_SCALES):
        scale = least * (1 + step / _SCALES)
        target = weight / torch.where(scale > 0, scale, 1.0).unsqueeze(1)
        _, values = _nearest(target, codes)
        error = ((values - target).square() @ power) * scale.square()
        better = error < lowest
        best[better], lowest[better] = scale[better], error[better]
    unit = weights_unit(best.max().item())
    return scale_mantissas(best * OPERAND_MAX, unit, KEY_SCALE_BITS).int(), unit


def _fed_back(
    target: torch.Tensor, codes: torch.Tensor, moments: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Operands int8 and their values float64, [outputs, inputs], columns in their sequence."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
    factor = torch.linalg.cholesky(inverse, upper=True)
    target, count = target.clone(), target.shape[1]
    stored, values = torch.empty_like(target, dtype=torch.int8), torch.empty_like(target)
    for start in range(0, count, _COLUMNS):
        end = min(start + _COLUMNS, count)
        errors = torch.empty(len(target), end - start, dtype=torch.float64)
        for column in range(start, end):
            found = _nearest(target[:, column], codes[:, column])
            stored[:, column], values[:, column] = found
            error = (target[:, column] - values[:, column]) / factor[column, column]
            target[:, column + 1 : end] -= error.outer(factor[column, column + 1 : end])
            errors[:, column - start] = error
        target[:, end:] -= errors @ factor[start:end, end:]
    return stored, values


def _sweep(
    target: torch.Tensor,
    codes: torch.Tensor,
    moments: torch.Tensor,
    stored: torch.Tensor,
    values: torch.Tensor,
) -> None:
    """Round each column anew, in place, to what is best beside all others as they are."""
    slopes = (values - target) @ moments
    count = target.shape[1]
    for start in range(0, count, _COLUMNS):
        block = slice(start, min(start + _COLUMNS, count))
        own, within = slopes[:, block].clone(), moments[block, block]
        before = values[:, block].clone()
        for index in range(within.shape[0]):
            column = start + index
            wanted = values[:, column] - own[:, index] / within[index, index]
            stored[:, column], found = _nearest(wanted, codes[:, column])
            own += (found - values[:, column]).outer(within[index])
            values[:, column] = found
        slopes += (values[:, block] - before) @ moments[block]


def _nearest(wanted: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Operands whose values at some codes are nearest: int8 and float64, of one shape with both."""
    operands = torch.zeros(wanted.shape, dtype=torch.int8)
    values = torch.zeros(wanted.shape, dtype=torch.float64)
    for code, bits in enumerate(CODE_BITS):
        places = codes == code
        if bits and places.any():
            levels, stored, bounds = _levels(bits)
            at = torch.bucketize(wanted[places], bounds)
            operands[places], values[places] = stored[at], levels[at]
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
