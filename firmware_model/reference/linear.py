"""Linear layers, bit exact: section 7 of `docs/numerics.md`."""

from dataclasses import dataclass

import torch

from firmware_model.reference.digits import key_table
from firmware_model.reference.integer import check_width, rounding_shift
from firmware_model.reference.quantize import round_operands, scale_mantissas
from paro.config.config import Config, blocks_of
from paro.config.errors import ParoError
from paro.config.formats import (
    CODE_BITS,
    INPUTS_MAX,
    KEY_SCALE_BITS,
    LAYER_SCALE_SHIFT,
    OPERAND_MAX,
    OUT_BITS,
    OUT_SHIFTS,
    QUERY_SCALE_BITS,
    SHORT_SUM_BITS,
    SUM_BITS,
)

__all__ = [
    "OutputFormat",
    "QuantizedInputs",
    "QuantizedWeights",
    "cut_words",
    "dequantize_outputs",
    "fit_outputs",
    "fitting_unit",
    "inputs_unit",
    "integer_linear",
    "largest_product",
    "output_format",
    "quantize_inputs",
    "quantize_weights",
    "tile_values",
    "weights_unit",
]

_OUT_MAX = 2 ** (OUT_BITS - 1) - 1
_SHORT_SUM_MAX = 2 ** (SHORT_SUM_BITS - 1) - 1


@dataclass(frozen=True, eq=False)
class QuantizedInputs:
    """Activations as the accelerator reads them.

    Parameters
    ----------
    x8 : torch.Tensor
        int8 [tokens, inputs], -127 .. 127.
    mx : torch.Tensor
        int32 [tokens], 1 .. 2**17 - 1: scale mantissa of each token.
    unit : float
        Value of mantissa 1.
    """

    x8: torch.Tensor
    mx: torch.Tensor
    unit: float


@dataclass(frozen=True, eq=False)
class QuantizedWeights:
    """Weights as the accelerator reads them.

    Parameters
    ----------
    w8 : torch.Tensor
        int8 [outputs, inputs], -127 .. 127.
    mw : torch.Tensor
        int32 [outputs], 1 .. 255: scale mantissa of each output channel.
    unit : float
        Value of mantissa 1.
    codes : torch.Tensor
        uint8 [blocks of outputs, chunks of inputs]: code of each tile of ``block`` outputs times
        ``head_dim`` inputs.
    """

    w8: torch.Tensor
    mw: torch.Tensor
    unit: float
    codes: torch.Tensor


@dataclass(frozen=True, eq=False)
class OutputFormat:
    """How sums become output words.

    Parameters
    ----------
    sum_shift : int
        Right shift of the sums, 0 to `SUM_SHIFT_MAX`: `SHORT_SUM_BITS` hold what is left.
    out_shift : int
        Right shift after the scales, one of `OUT_SHIFTS`.
    bias : torch.Tensor
        int32 [outputs], of `OUT_BITS` signed bits, in the unit of the output.
    unit : float
        Value of an output word of 1.
    """

    sum_shift: int
    out_shift: int
    bias: torch.Tensor
    unit: float


def quantize_inputs(x: torch.Tensor, unit: float | None = None) -> QuantizedInputs:
    """Quantise activations, each token with its own scale.

    Parameters
    ----------
    x : torch.Tensor
        [tokens, inputs].
    unit : float, optional
        Value of mantissa 1; by default the largest token's mantissa becomes 2**16. Values beyond
        the largest mantissa saturate.
    """
    x = x.double()
    largest = x.abs().amax(dim=1, keepdim=True)
    if unit is None:
        unit = inputs_unit(largest.max().item())
    mx = scale_mantissas(largest, unit, QUERY_SCALE_BITS)
    return QuantizedInputs(round_operands(x / (mx * unit)), mx.flatten().int(), unit)


def quantize_weights(weight: torch.Tensor, codes: torch.Tensor) -> QuantizedWeights:
    """Quantise weights to nearest, each output channel with its own scale.

    Parameters
    ----------
    weight : torch.Tensor
        [outputs, inputs].
    codes : torch.Tensor
        uint8 [blocks of outputs, chunks of inputs].
    """
    weight = weight.double()
    largest = weight.abs().amax(dim=1, keepdim=True)
    unit = weights_unit(largest.max().item() / OPERAND_MAX)
    mw = scale_mantissas(largest, unit, KEY_SCALE_BITS)
    return QuantizedWeights(round_operands(weight / (mw * unit)), mw.flatten().int(), unit, codes)


def inputs_unit(largest: float) -> float:
    """Unit of mantissas of inputs up to ``largest``; as if that were 1 where all are 0."""
    return (largest or 1.0) / OPERAND_MAX / 2 ** (QUERY_SCALE_BITS - 1)


def weights_unit(largest: float) -> float:
    """Unit of mantissas of scales up to ``largest``; as if weights reached 1 where all are 0."""
    return (largest or 1 / OPERAND_MAX) / (2**KEY_SCALE_BITS - 1)


def tile_values(weights: QuantizedWeights, config: Config) -> torch.Tensor:
    """Values that the weights take at their tiles' widths, float64 [outputs, inputs].

    Raises
    ------
    ParoError
        If the codes do not fit weights and configuration.
    """
    outputs, inputs = weights.w8.shape
    if not 1 <= inputs <= INPUTS_MAX:
        raise ParoError(f"a layer of {inputs} inputs is not legal; legal: 1 to {INPUTS_MAX:,}")
    shape = (config.blocks_of(outputs), blocks_of(inputs, config.head_dim))
    codes = weights.codes
    if codes.dtype != torch.uint8 or codes.shape != shape or codes.max() >= len(CODE_BITS):
        raise ParoError(
            f"codes of a layer are {codes.dtype} {list(codes.shape)}; "
            f"legal: torch.uint8 {list(shape)}, 0 to {len(CODE_BITS) - 1}"
        )
    each = codes.repeat_interleave(config.block, 0).repeat_interleave(config.head_dim, 1)
    each = each[:outputs, :inputs]
    index = weights.w8.long() + OPERAND_MAX + 1
    values = torch.zeros(outputs, inputs, dtype=torch.float64)
    for code, bits in enumerate(CODE_BITS):
        if bits:
            values = torch.where(each == code, key_table(bits)[index].double(), values)
    return values


def fit_outputs(
    inputs: QuantizedInputs,
    weights: QuantizedWeights,
    bias: torch.Tensor | None,
    config: Config,
) -> OutputFormat:
    """Choose the shifts of a layer.

    That of the sums holds for any activations. That after the scales is the least one at which
    nothing here saturates, with a factor of 2 in reserve for other activations.
    """
    largest = largest_product(inputs, weights, config)
    return output_format(largest, inputs.unit, weights, bias, config)


def largest_product(inputs: QuantizedInputs, weights: QuantizedWeights, config: Config) -> float:
    """Largest magnitude of a sum times its scales, before the last shift.

    Raises
    ------
    ParoError
        If the codes do not fit weights and configuration.
    """
    short = _short_sums(inputs, weights, _sum_shift(weights, config), config)
    return (short * _scales(inputs, weights)).abs().max().item()


def fitting_unit(
    largest: float,
    unit: float,
    weights: QuantizedWeights,
    bias: torch.Tensor | None,
    config: Config,
) -> float:
    """Unit of the inputs at which the bias has room beside the products, ``unit`` or more.

    A larger one leaves the inputs' mantissas fewer bits, which a bias that is so much larger than
    all products hides.

    Parameters
    ----------
    largest : float
        `largest_product` of inputs of ``unit``.
    """
    if bias is None:
        return unit
    step = weights.unit * 2.0 ** (_sum_shift(weights, config) + LAYER_SCALE_SHIFT)
    reached = largest * unit * step + bias.double().abs().max().item()
    return max(unit, 2 * reached / (_OUT_MAX * 2.0 ** OUT_SHIFTS[-1] * step))


def output_format(
    largest: float,
    input_unit: float,
    weights: QuantizedWeights,
    bias: torch.Tensor | None,
    config: Config,
) -> OutputFormat:
    """Output format of a layer whose `largest_product` is known, as `fit_outputs`."""
    sum_shift = _sum_shift(weights, config)
    step = input_unit * weights.unit * 2.0 ** (sum_shift + LAYER_SCALE_SHIFT)
    if bias is not None:
        largest += bias.double().abs().max().item() / step
    out_shift = next((s for s in OUT_SHIFTS if 2 * largest <= _OUT_MAX * 2.0**s), OUT_SHIFTS[-1])
    unit = step * 2.0**out_shift
    outputs = weights.w8.shape[0]
    values = torch.zeros(outputs) if bias is None else bias
    rounded = torch.round(values.double() / unit).clamp(-_OUT_MAX, _OUT_MAX)
    return OutputFormat(sum_shift, out_shift, rounded.int(), unit)


def integer_linear(
    inputs: QuantizedInputs, weights: QuantizedWeights, output: OutputFormat, config: Config
) -> torch.Tensor:
    """Output words of a layer, int16 [tokens, outputs].

    Raises
    ------
    ParoError
        If the codes do not fit weights and configuration.
    """
    short = _short_sums(inputs, weights, output.sum_shift, config)
    words = rounding_shift(short * _scales(inputs, weights), output.out_shift)
    return (words + output.bias.long()).clamp(-_OUT_MAX, _OUT_MAX).to(torch.int16)


def cut_words(words: torch.Tensor, cut: int) -> torch.Tensor:
    """INT8 of output words of a layer or a head, shifted right by ``cut`` bits: int8, same shape.

    Their unit is that of the words times ``2**cut``.
    """
    return rounding_shift(words.long(), cut).clamp(-OPERAND_MAX, OPERAND_MAX).to(torch.int8)


def dequantize_outputs(words: torch.Tensor, output: OutputFormat) -> torch.Tensor:
    """Values of output words, float64 [tokens, outputs]."""
    return words.double() * output.unit


def _sum_shift(weights: QuantizedWeights, config: Config) -> int:
    """Least shift at which no activations make sums beyond `SHORT_SUM_BITS`."""
    largest = OPERAND_MAX * int(tile_values(weights, config).abs().sum(dim=1).max().item())
    return next(shift for shift in range(SUM_BITS) if largest >> shift <= _SHORT_SUM_MAX)


def _short_sums(
    inputs: QuantizedInputs, weights: QuantizedWeights, sum_shift: int, config: Config
) -> torch.Tensor:
    """Sums of products, cut to `SHORT_SUM_BITS`: int64 [tokens, outputs]."""
    # Exact in float64, which holds integers of `SUM_BITS`.
    sums = (inputs.x8.double() @ tile_values(weights, config).T).long()
    check_width("sums of a layer", sums, SUM_BITS)
    short = sums >> sum_shift
    check_width("shifted sums of a layer", short, SHORT_SUM_BITS)
    return short


def _scales(inputs: QuantizedInputs, weights: QuantizedWeights) -> torch.Tensor:
    """Products of the tokens' and the weights' mantissas, int64 [tokens, outputs]."""
    return inputs.mx.long().unsqueeze(1) * weights.mw.long() >> LAYER_SCALE_SHIFT
