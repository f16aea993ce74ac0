"""The integer model: sections 2 to 6 of `docs/numerics.md`, bit exact and vectorised.

One block row (64 queries against all live key blocks) is computed at a time. Matrix products run
in float32, where they are exact: `check_exact_products` shows that no partial sum reaches 2**24.
All else is int32 or int64.
"""

from functools import cache

import torch

from firmware_model.codes import check_codes, checked_query_blocks
from firmware_model.parallel import map_rows
from firmware_model.progress import Progress, Steps
from firmware_model.reference.digits import key_table, probability_table
from firmware_model.reference.quantize import QuantizedHead
from paro.config.config import Config, blocks_of
from paro.config.formats import (
    CODE_BITS,
    DENOMINATOR_FRAC,
    EXP_FRAC,
    EXP_SLOPE_FRAC,
    LOGIT_FRAC,
    LOGIT_MAX,
    MAX_BITS,
    NUMERATOR_FRAC,
    OPERAND_MAX,
    OUT_BITS,
    OUT_FRAC,
    P_FRAC,
    QUERY_SCALE_SHIFT,
    RECIPROCAL_BITS,
    RESCALE_MAX,
    SCALED_SCORE_BITS,
    exp2_table,
)

#: Key blocks that go through sections 3 and 4 together; keeps the intermediates in the cache.
BLOCKS_AT_ONCE = 32
#: 2**-t vanishes from here on (t in units of 2**-LOGIT_FRAC).
T_VANISHED = (EXP_FRAC - P_FRAC + 4) << LOGIT_FRAC
#: Bits of a signed numerator after alignment: |O| <= L, so it is at most 2 in units of 2**e.
ALIGNED_BITS = 1 + OPERAND_MAX.bit_length() + 1 + NUMERATOR_FRAC
#: Bits of a float32 significand: integers up to 2**24 are exact.
FLOAT32_EXACT = 2**24


def check_exact_products(config: Config) -> None:
    """Prove that float32 matrix products are exact for ``config``.

    Whatever the order of summation, a partial sum is at most the sum of the magnitudes of all
    products, which is below 2**24 for both Q K and P V.
    """
    largest = max(config.score_max, config.partial_max)
    if largest >= FLOAT32_EXACT:
        raise OverflowError(f"products up to {largest} are not exact in float32")


def rounding_shift(x: torch.Tensor, shift: torch.Tensor | int) -> torch.Tensor:
    """``rshift`` of the contract: shift right by ``shift``, rounding half up."""
    if isinstance(shift, int):
        return (x + (1 << shift >> 1)) >> shift
    half = torch.where(shift > 0, 1 << (shift - 1).clamp(min=0), 0)
    return (x + half) >> shift


@cache
def softmax_table(exp_segments: int) -> torch.Tensor:
    """``p`` of section 4 for t = 0 .. `T_VANISHED`: int64 [T_VANISHED + 1], 0 .. 512."""
    t = torch.arange(T_VANISHED)
    k, f = t >> LOGIT_FRAC, t & (2**LOGIT_FRAC - 1)
    rest_bits = LOGIT_FRAC - (exp_segments.bit_length() - 1)
    segment, rest = f >> rest_bits, f & (2**rest_bits - 1)
    base, slope = torch.tensor(exp2_table(exp_segments)).T
    e = base[segment] - rounding_shift(slope[segment] * rest, EXP_SLOPE_FRAC)
    p = rounding_shift(e, EXP_FRAC - P_FRAC + k)
    return torch.cat([p, torch.zeros(1, dtype=p.dtype)])


@cache
def _weight_table(exp_segments: int) -> torch.Tensor:
    """``P`` for each live code and t: float32, row ``code - 1``, flattened."""
    p = softmax_table(exp_segments)
    return torch.cat([probability_table(bits)[p] for bits in CODE_BITS[1:]]).float()


class BlockedHead:
    """A head cut into blocks, tokens padded with zeros to whole blocks.

    Parameters
    ----------
    head : QuantizedHead
        The head, in its order.
    config : Config
        The core.

    Attributes
    ----------
    count : int
        Blocks on a side of the attention map.
    last_tokens : int
        Tokens in the last block.
    q, v : torch.Tensor
        float32 [count, block, head_dim]: integers.
    """

    def __init__(self, head: QuantizedHead, config: Config) -> None:
        size = config.block
        self._config = config
        self.count = blocks_of(head.tokens, size)
        padding = self.count * size - head.tokens
        self.last_tokens = size - padding

        def blocks(values: torch.Tensor) -> torch.Tensor:
            pad = (0, 0) * (values.dim() - 1) + (0, padding)
            return torch.nn.functional.pad(values, pad).reshape(self.count, size, *values.shape[1:])

        self.q, self.v = blocks(head.q8).float(), blocks(head.v8).float()
        k_index = blocks(head.k8).long() + OPERAND_MAX + 1
        # K at each live width: row (code - 1) * count + key block.
        self._k = torch.cat([key_table(bits)[k_index] for bits in CODE_BITS[1:]]).float()
        self._mq, self._mk = blocks(head.mq).long(), blocks(head.mk)

    def weights(
        self, row: int, columns: torch.Tensor, codes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sections 3 and 4 for some live blocks of one block row.

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
        m : torch.Tensor
            int64 [n, queries].
        weights : torch.Tensor
            float32 [n, keys, queries]: P, integers 0 .. 512.
        """
        config, width = self._config, codes.long() - 1
        keys = self._k[width * self.count + columns].flatten(0, 1)
        score = (keys @ self.q[row].T).int().unflatten(0, (len(columns), config.block))
        y = rounding_shift(score * self._mk[columns].unsqueeze(2), config.key_scale_shift)
        x = rounding_shift(y * self._mq[row], QUERY_SCALE_SHIFT).clamp_(-LOGIT_MAX, LOGIT_MAX)
        beyond = slice(config.block, None)
        if columns[-1] == self.count - 1:
            beyond = slice(self.last_tokens, None)
        x[-1, beyond] = -LOGIT_MAX
        m = (x.amax(dim=1) + 2**LOGIT_FRAC - 1) >> LOGIT_FRAC
        t = ((m << LOGIT_FRAC).unsqueeze(1) - x).clamp_(max=T_VANISHED)
        t += (width * (T_VANISHED + 1)).view(-1, 1, 1)
        weights = _weight_table(config.exp_segments).take(t)
        weights[-1, beyond] = 0
        check_width("score", score, config.score_bits)
        check_width("scaled score", y, SCALED_SCORE_BITS)
        return m, weights


def integer_attention(
    head: QuantizedHead,
    codes: torch.Tensor,
    config: Config,
    query_blocks: range | None = None,
    progress: Progress | None = None,
) -> torch.Tensor:
    """Compute block rows of one head exactly as the accelerator does.

    Parameters
    ----------
    head : QuantizedHead
        The head, in its order.
    codes : torch.Tensor
        uint8 [blocks, blocks]: 2-bit code of each (query block, key block); 0 skips it.
    config : Config
        The core; only ``block``, ``head_dim``, ``max_tokens`` and ``exp_segments`` matter.
    query_blocks : range, optional
        Block rows to compute; all by default.
    progress : Progress, optional
        Called after each block row.

    Returns
    -------
    torch.Tensor
        int16 [queries of those block rows, head_dim]: signed, `OUT_FRAC` fractional bits, in units
        of the channel's V scale.

    Raises
    ------
    ParoError
        If ``codes`` do not fit the head, a computed row has no live block or ``query_blocks`` do
        not lie in the head.
    """
    check_exact_products(config)
    blocks = BlockedHead(head, config)
    rows = checked_query_blocks(query_blocks, blocks.count)
    check_codes(codes, blocks.count)

    def output(row: int) -> torch.Tensor:
        maxima, sums, products = _attend(blocks, row, codes[row], config)
        denominator, numerator = _accumulate(maxima, sums, products, config)
        out = _normalise(denominator, numerator)
        return out[: blocks.last_tokens] if row == blocks.count - 1 else out

    return torch.cat(map_rows(output, rows, Steps(progress, len(rows))))


def _attend(
    blocks: BlockedHead, row: int, codes: torch.Tensor, config: Config
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sections 3 and 4 and the product P V for the live blocks of one row, in ascending order.

    Returns m and l, int64 [live, block], and o, int64 [live, block, head_dim].
    """
    live = codes.nonzero().flatten()
    maxima, sums, products = [], [], []
    for part in live.split(BLOCKS_AT_ONCE):
        m, weights = blocks.weights(row, part, codes[part])
        maxima.append(m)
        sums.append(weights.sum(dim=1).long())
        products.append(torch.bmm(weights.transpose(1, 2), blocks.v[part]).long())
    return torch.cat(maxima), torch.cat(sums), torch.cat(products)


def _accumulate(
    maxima: torch.Tensor, sums: torch.Tensor, products: torch.Tensor, config: Config
) -> tuple[torch.Tensor, torch.Tensor]:
    """Section 5: denominators int64 [block] and numerators int64 [block, head_dim] of a row.

    The running maxima are known beforehand, so every block's own shift ``c`` is taken at once;
    only the shifts ``a`` of the state, where a maximum rises, are taken in sequence.
    """
    check_width("row maximum", maxima, MAX_BITS)
    check_width("block sum", sums, config.block_sum_bits + 1)
    check_width("block product", products, config.accumulator_bits)
    running = maxima.cummax(dim=0).values
    a = running.diff(dim=0, prepend=running[:1]).clamp(max=RESCALE_MAX)
    c = (running - maxima).clamp(max=RESCALE_MAX)
    sums, products = (
        rounding_shift(sums << DENOMINATOR_FRAC, c),
        rounding_shift(products, c.unsqueeze(2)),
    )
    rises = a.any(dim=1).nonzero().flatten().tolist()
    starts, ends = [0, *rises], [*rises, len(maxima)]
    denominator, numerator = torch.zeros_like(sums[0]), torch.zeros_like(products[0])
    for start, end in zip(starts, ends, strict=True):
        denominator = rounding_shift(denominator, a[start]) + sums[start:end].sum(dim=0)
        numerator = rounding_shift(numerator, a[start].unsqueeze(1))
        numerator += products[start:end].sum(dim=0)
    check_width("denominator", denominator, config.denominator_bits + 1)
    check_width("numerator", numerator, config.numerator_bits)
    if (numerator.abs().amax(dim=1) > denominator).any():
        raise OverflowError("a numerator is larger than its denominator")
    return denominator, numerator


def _normalise(denominator: torch.Tensor, numerator: torch.Tensor) -> torch.Tensor:
    """Section 6: output words int16 [block, head_dim]."""
    # frexp gives a significand in 0.5 .. 1; float64 holds every denominator exactly.
    e = torch.frexp(denominator.double()).exponent.long() - 1
    least = P_FRAC - 1 + DENOMINATOR_FRAC
    if e.min() < least:
        raise OverflowError("a row's largest weight is below one half")
    reciprocal = ((1 << (e + RECIPROCAL_BITS)) // denominator).clamp(max=2**RECIPROCAL_BITS - 1)
    aligned = (2 * numerator) >> (e - least).unsqueeze(1)
    check_width("aligned numerator", aligned, ALIGNED_BITS)
    shift = RECIPROCAL_BITS + NUMERATOR_FRAC - OUT_FRAC
    out = rounding_shift(aligned * reciprocal.unsqueeze(1), shift).clamp(
        max=2 ** (OUT_BITS - 1) - 1
    )
    check_width("output", out, OUT_BITS)
    return out.short()


def check_width(name: str, values: torch.Tensor, bits: int) -> None:
    """Raise OverflowError unless ``values`` fit signed words of ``bits`` bits."""
    low, high = torch.aminmax(values)
    if low < -(2 ** (bits - 1)) or high >= 2 ** (bits - 1):
        raise OverflowError(f"{name}: {int(low)} .. {int(high)} does not fit {bits} bits")
