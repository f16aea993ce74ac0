"""Attention in the number formats of the papers, to measure the digit format against.

Both run in floating point on the same quantised head and the same codes:

* ``"digit"``: the contract of `docs/numerics.md` without its fixed-point roundings (exact 2^-f,
  exact division).
* ``"paper"``: in a block of b bits, K keeps its b - 1 leading significant bits after leading-zero
  detection, truncated (8 bits keep all); P is uniform: 0 .. 2^b - 1 times a scale for the block,
  which is the largest weight in it over 2^b - 1.

In both, the denominator is summed from the quantised P.
"""

from typing import Literal

import torch

from firmware_model.digits import P_ONE, key_table, probability_table
from firmware_model.integer import check_codes
from firmware_model.quantize import QuantizedHead
from paro_config.config import Config
from paro_config.formats import CODE_BITS, LOGIT_FRAC, OPERAND_MAX, P_FRAC, QUERY_SCALE_SHIFT

Format = Literal["digit", "paper"]


def truncated_key_table(bits: int) -> torch.Tensor:
    """-128 .. 127 at index value + 128 with ``bits - 1`` leading significant bits kept; int32."""
    values = torch.arange(-OPERAND_MAX - 1, OPERAND_MAX + 1, dtype=torch.int32)
    if bits == 8:
        return values
    lengths = torch.tensor([int(value).bit_length() for value in values.abs()])
    dropped = (lengths - (bits - 1)).clamp(min=0)
    return values.sign() * ((values.abs() >> dropped) << dropped).int()


def format_attention(
    head: QuantizedHead, codes: torch.Tensor, config: Config, number_format: Format
) -> torch.Tensor:
    """Attention of one head with the P and K of a number format.

    Parameters
    ----------
    head : QuantizedHead
        The head, in its order.
    codes : torch.Tensor
        uint8 [blocks, blocks]; every row has a live block.
    config : Config
        The core: ``block`` and ``head_dim`` matter.
    number_format : {"digit", "paper"}
        See the module.

    Returns
    -------
    torch.Tensor
        float64 [tokens, captured head_dim], in the head's order.
    """
    size, tokens = config.block, head.tokens
    count = -(-tokens // size)
    check_codes(codes, count)
    table = key_table if number_format == "digit" else truncated_key_table
    k_index = head.k8.long() + OPERAND_MAX + 1
    keys = torch.stack([table(bits)[k_index] for bits in CODE_BITS[1:]]).float()
    keys *= head.mk.unsqueeze(1)
    unit = 2.0 ** -(config.key_scale_shift + QUERY_SCALE_SHIFT + LOGIT_FRAC)
    values = head.v8.double()
    outputs = []
    for row in range(count):
        queries = slice(row * size, (row + 1) * size)
        width = codes[row].repeat_interleave(size)[:tokens].long()
        q = head.q8[queries].float()
        # Scores are exact in float64; float32 would lose bits of their scales.
        logits = torch.full((len(q), tokens), -torch.inf, dtype=torch.float64)
        for index in range(len(keys)):
            live = width == index + 1
            logits[:, live] = (q.double() @ keys[index, live].double().T) * unit
        logits *= head.mq[queries].unsqueeze(1)
        weights = _quantised_weights(logits, codes[row], size, number_format)
        outputs.append(weights @ values / weights.sum(dim=1, keepdim=True))
    channels = len(head.v_scale)
    return torch.cat(outputs)[:, :channels] * head.v_scale + head.v_mean


def _quantised_weights(
    logits: torch.Tensor, codes: torch.Tensor, size: int, number_format: Format
) -> torch.Tensor:
    """P of a block row, float64 [queries, keys], relative to the largest weight of each query."""
    row_maximum = logits.amax(dim=1, keepdim=True)
    exact = torch.exp2(logits - row_maximum)
    if number_format == "paper":
        exact /= exact.sum(dim=1, keepdim=True)
    weights = torch.zeros_like(exact)
    for column in codes.nonzero().flatten().tolist():
        keys = slice(column * size, (column + 1) * size)
        bits = CODE_BITS[int(codes[column])]
        if number_format == "digit":
            maximum = logits[:, keys].amax(dim=1, keepdim=True).ceil()
            p = torch.round(torch.exp2(logits[:, keys] - maximum + P_FRAC)).long()
            p = probability_table(bits)[p].double() / P_ONE
            weights[:, keys] = p * torch.exp2(maximum - row_maximum)
        else:
            scale = exact[:, keys].max() / (2**bits - 1)
            if scale > 0:
                weights[:, keys] = torch.round(exact[:, keys] / scale) * scale
    return weights
