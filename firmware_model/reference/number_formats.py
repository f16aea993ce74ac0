"""Attention in the number formats of the papers, to measure the integer model against.

All run in float64 on one head and the codes of a plan, block row by block row, through one class.
A format says how the operands of Q K are rounded, how the weights P are, and whether a live block
has the width of its code or one of the format's own; in the latter case the codes are a mask.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from firmware_model.capture import Capture
from firmware_model.choices import check_choice
from firmware_model.codes import check_codes, checked_query_blocks
from firmware_model.parallel import map_rows
from firmware_model.progress import Steps
from firmware_model.reference.digits import key_table, probability_table, short_probability_table
from firmware_model.reference.quantize import QuantizedHead, quantize_head
from paro.config.config import Config, blocks_of
from paro.config.errors import ParoError
from paro.config.formats import CODE_BITS, LOGIT_FRAC, OPERAND_MAX, QUERY_SCALE_SHIFT

#: Tokens that share one scale of uniform weights: a block of the map, or a row of it.
Groups = Literal["block", "row"]


@dataclass(frozen=True, kw_only=True)
class NumberFormat:
    """How attention is rounded.

    Parameters
    ----------
    summary : str
        In words.
    qk : {"float", "int8", "int4"}
        Q and K: as captured; as the accelerator reads them (`quantize_head`); or 4 bits, symmetric,
        a scale for each token, after K smoothing.
    key_table : callable, optional
        Width in bits to the value that each K of -128 .. 127 takes in a block of that width, [256];
        without it K stays as it is.
    weights : {"float", "digit", "uniform"}
        P: exact; one or two signed digits below the power of two above the block's largest weight;
        or 0 .. 2^b - 1 times a scale, which is the group's largest weight over 2^b - 1.
    weight_table : callable
        For "digit": width in bits to the value that each P takes, the last one being 1.0.
    bits : int, optional
        Width b of P in live blocks; without it that of each block's code.
    v : {"float", "int8", "int4"}
        V: as captured, or symmetric with a scale for each channel after its mean is taken off.
    groups : {"block", "row"}
        Range of a scale of uniform P.
    """

    summary: str
    qk: Literal["float", "int8", "int4"]
    weights: Literal["float", "digit", "uniform"]
    v: Literal["float", "int8", "int4"]
    key_table: Callable[[int], torch.Tensor] | None = None
    weight_table: Callable[[int], torch.Tensor] = probability_table
    bits: int | None = None
    groups: Groups = "block"


def truncated_key_table(bits: int) -> torch.Tensor:
    """-128 .. 127 at index value + 128 with ``bits - 1`` leading significant bits kept; int32."""
    values = torch.arange(-OPERAND_MAX - 1, OPERAND_MAX + 1, dtype=torch.int32)
    if bits == 8:
        return values
    lengths = torch.tensor([int(value).bit_length() for value in values.abs()])
    dropped = (lengths - (bits - 1)).clamp(min=0)
    return values.sign() * ((values.abs() >> dropped) << dropped).int()


def linear_key_table(bits: int) -> torch.Tensor:
    """-128 .. 127 at index value + 128 in equal steps, 127 being the largest; float64 [256]."""
    values = torch.arange(-OPERAND_MAX - 1, OPERAND_MAX + 1, dtype=torch.float64)
    step = OPERAND_MAX / (2 ** (bits - 1) - 1)
    return torch.round(values / step) * step


#: The formats by name. "digit" is the contract of `docs/numerics.md` without its fixed-point
#: roundings (exact 2^-f, exact division).
FORMATS: dict[str, NumberFormat] = {
    "float": NumberFormat(
        summary="exact products; the codes are a mask", qk="float", weights="float", v="float"
    ),
    "digit": NumberFormat(
        summary="ours: K and P of 1, 2 or all signed digits, by the block's width",
        qk="int8",
        key_table=key_table,
        weights="digit",
        v="int8",
    ),
    "digit-4": NumberFormat(
        summary="ours with four positions for P as for K: 1.0 is 2^7",
        qk="int8",
        key_table=key_table,
        weights="digit",
        weight_table=short_probability_table,
        v="int8",
    ),
    "paper": NumberFormat(
        summary="PARO: K with its leading bits, uniform P, by the block's width",
        qk="int8",
        key_table=truncated_key_table,
        weights="uniform",
        v="int8",
    ),
    "linear": NumberFormat(
        summary="plain integers: K and P in equal steps, by the block's width",
        qk="int8",
        key_table=linear_key_table,
        weights="uniform",
        v="int8",
    ),
    "int8": NumberFormat(
        summary="PAROAttention: QK and PV in INT8; the codes are a mask",
        qk="int8",
        weights="uniform",
        bits=8,
        v="int8",
    ),
    "int4": NumberFormat(
        summary="PAROAttention: QK and PV in INT4; the codes are a mask",
        qk="int4",
        weights="uniform",
        bits=4,
        v="int4",
    ),
    "pv-int8": NumberFormat(
        summary="only PV in INT8; the codes are a mask",
        qk="float",
        weights="uniform",
        bits=8,
        v="int8",
    ),
    "pv-int4": NumberFormat(
        summary="only PV in INT4; the codes are a mask",
        qk="float",
        weights="uniform",
        bits=4,
        v="int4",
    ),
}


def number_format(name: str, groups: Groups = "block") -> NumberFormat:
    """Look a format up; ``groups`` is the range of a scale of a uniform one.

    Raises
    ------
    ParoError
        If there is no such format, or row groups are asked of one without scales.
    """
    check_choice("format", name, tuple(FORMATS))
    check_choice("groups", groups, get_args(Groups))
    found = FORMATS[name]
    if groups == "row" and found.weights != "uniform":
        uniform = [key for key, value in FORMATS.items() if value.weights == "uniform"]
        raise ParoError(
            f"groups = 'row' is not legal with format {name!r}, which has no scale for a group; "
            f"legal with: {', '.join(uniform)}"
        )
    return replace(found, groups=groups)


class FormatHead:
    """One head in a number format, cut into blocks.

    Parameters
    ----------
    q : torch.Tensor
        float64 [tokens, head_dim], in the head's order.
    keys : torch.Tensor
        float64 [widths, tokens, head_dim]: K at each live width, 2 bits first, or one K for all.
    v, v_mean : torch.Tensor
        float64 [tokens, head_dim] and [head_dim]: V without its mean, and that mean.
    unit : float
        Base-2 logit for each unit of q k.
    block : int
        Tokens on a side of a block.
    number_format : NumberFormat
        How the weights are rounded.

    Attributes
    ----------
    count : int
        Blocks on a side of the attention map.
    """

    def __init__(
        self,
        q: torch.Tensor,
        keys: torch.Tensor,
        v: torch.Tensor,
        v_mean: torch.Tensor,
        unit: float,
        block: int,
        number_format: NumberFormat,
    ) -> None:
        self._tokens, self.count = len(q), blocks_of(len(q), block)

        def blocks(values: torch.Tensor) -> torch.Tensor:
            padding = self.count * block - self._tokens
            return torch.nn.functional.pad(values, (0, 0, 0, padding)).unflatten(-2, (-1, block))

        self._q, self._k, self._v = blocks(q), blocks(keys), blocks(v)
        self._v_mean, self._unit, self._format = v_mean, unit, number_format

    @classmethod
    def from_capture(
        cls,
        capture: Capture,
        head: int,
        order: int,
        config: Config,
        number_format: NumberFormat,
        transform: int = 0,
    ) -> "FormatHead":
        """Round the operands of one head of a capture; errors as `quantize_head`.

        ``transform`` is an index in `choices.TRANSFORMS`; formats whose operands are not those of
        the accelerator do without.
        """
        if number_format.qk == number_format.v == "int8":
            quantized = quantize_head(capture, head, order, config, transform)
            return cls.from_quantized(quantized, config, number_format)
        permutation = capture.permutation(order)
        q, k, v = (
            tensor[head].double()[permutation] for tensor in (capture.q, capture.k, capture.v)
        )
        k, v_mean = k - k.mean(dim=0), v.mean(dim=0)
        v = v - v_mean
        if number_format.qk != "float":
            bits = _INTEGER_BITS[number_format.qk]
            q, k = _symmetric(q, bits, 1), _symmetric(k, bits, 1)
        if number_format.v != "float":
            v = _symmetric(v, _INTEGER_BITS[number_format.v], 0)
        unit = capture.scale * math.log2(math.e)
        return cls(q, k.unsqueeze(0), v, v_mean, unit, config.block, number_format)

    @classmethod
    def from_quantized(
        cls, head: QuantizedHead, config: Config, number_format: NumberFormat
    ) -> "FormatHead":
        """Take the operands as the accelerator reads them. All products are exact."""
        k8, mk = head.k8.long(), head.mk.unsqueeze(1)
        keys = k8.unsqueeze(0)
        if number_format.key_table is not None:
            index = k8 + OPERAND_MAX + 1
            keys = torch.stack([number_format.key_table(bits)[index] for bits in CODE_BITS[1:]])
        channels = len(head.v_scale)
        return cls(
            head.q8.double() * head.mq.unsqueeze(1),
            (keys * mk).double(),
            head.v8[:, :channels].double() * head.v_scale,
            head.v_mean,
            2.0 ** -(config.key_scale_shift + QUERY_SCALE_SHIFT + LOGIT_FRAC),
            config.block,
            number_format,
        )

    def logits(self, row: int, columns: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Base-2 logits of some live blocks of a block row.

        Parameters
        ----------
        row : int
            Query block.
        columns : torch.Tensor
            int64 [n]: key blocks, ascending.
        codes : torch.Tensor
            uint8 [n]: their codes, 1 .. 3.

        Returns
        -------
        torch.Tensor
            float64 [n, keys, queries]; minus infinity after the last token.
        """
        width = codes.long() - 1 if len(self._k) > 1 else torch.zeros_like(columns)
        keys = self._k[width, columns].flatten(0, 1)
        logits = (keys @ self._q[row].T).unflatten(0, (len(columns), -1)) * self._unit
        size = logits.shape[1]
        if (columns[-1] + 1) * size > self._tokens:
            logits[-1, self._tokens - int(columns[-1]) * size :] = -torch.inf
        return logits

    def weights(
        self, logits: torch.Tensor, codes: torch.Tensor, total: torch.Tensor
    ) -> torch.Tensor:
        """P of live blocks as the format rounds them.

        Parameters
        ----------
        logits : torch.Tensor
            float64 [n, keys, queries], all blocks of a row if scales cover rows.
        codes : torch.Tensor
            uint8 [n].
        total : torch.Tensor
            float64 [queries]: logarithm to base 2 of each query's denominator.

        Returns
        -------
        torch.Tensor
            float64 [n, keys, queries], about the softmax weights.
        """
        exact = torch.exp2(logits - total)
        kind = self._format.weights
        if kind == "float":
            return exact
        weights = torch.zeros_like(exact)
        for code in range(1, len(CODE_BITS)):
            chosen = codes == code
            if not chosen.any():
                continue
            bits = self._format.bits or CODE_BITS[code]
            if kind == "digit":
                x = logits[chosen]
                maximum = x.amax(dim=1, keepdim=True).ceil()
                table = self._format.weight_table(bits)
                one = len(table) - 1
                p = table[torch.round(torch.exp2(x - maximum) * one).long()].double() / one
                weights[chosen] = p * torch.exp2(maximum - total)
                continue
            if self._format.groups == "row":
                largest = exact.amax(dim=(0, 1), keepdim=True)
            else:
                largest = exact[chosen].amax(dim=(1, 2), keepdim=True)
            unit = largest / (2**bits - 1)
            weights[chosen] = torch.round(exact[chosen] / unit.clamp(min=1e-300)) * unit
        return weights

    def attend(
        self, codes: torch.Tensor, query_blocks: range | None = None, steps: Steps | None = None
    ) -> torch.Tensor:
        """Attention of the head.

        Parameters
        ----------
        codes : torch.Tensor
            uint8 [count, count]; every row has a live block.
        query_blocks : range, optional
            Block rows to compute; all by default.
        steps : Steps, optional
            Advanced by the block rows.

        Returns
        -------
        torch.Tensor
            float64 [rows, head_dim], in the head's order. A query whose weights all round to 0 gets
            the mean of V.
        """
        check_codes(codes, self.count)

        size = self._q.shape[1]

        def output(row: int) -> torch.Tensor:
            live = codes[row].nonzero().flatten()
            # Queries after the last token would change the scale of a block.
            queries = slice(self._tokens - row * size)
            logits = self.logits(row, live, codes[row, live])[..., queries]
            total = torch.logsumexp(logits.flatten(0, 1) * math.log(2), dim=0) / math.log(2)
            weights = self.weights(logits, codes[row, live], total).flatten(0, 1)
            products = weights.T @ self._v[live].flatten(0, 1)
            sums = weights.sum(dim=0).unsqueeze(1)
            return products / torch.where(sums > 0, sums, 1.0) + self._v_mean

        return torch.cat(map_rows(output, checked_query_blocks(query_blocks, self.count), steps))


#: Width of a symmetric integer format.
_INTEGER_BITS = {"int8": 8, "int4": 4}


def _symmetric(values: torch.Tensor, bits: int, dim: int) -> torch.Tensor:
    """Round to -(2^(bits-1) - 1) .. 2^(bits-1) - 1 times a scale for each slice along ``dim``."""
    largest = 2 ** (bits - 1) - 1
    unit = values.abs().amax(dim=dim, keepdim=True) / largest
    unit[unit == 0] = 1.0
    return torch.round(values / unit) * unit
