"""Calibration of one head at a time: its token order, then the width of every block.

The order minimises PAROAttention's metric (their Eq. 3 with the sign of the sparsity mended). The
widths minimise the summed output error at a mean width, by Lagrangian; the error of each block at
each width is measured with the hardware's own formats.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from firmware_model.capture import Capture
from firmware_model.integer import BLOCKS_AT_ONCE, BlockedHead, check_exact_products
from firmware_model.parallel import map_rows
from firmware_model.plan import Plan, check_block, mean_bits
from firmware_model.progress import Progress, Steps
from firmware_model.quantize import padded_head_dim, quantize_head
from firmware_model.reorder import ORDERS, token_permutation
from paro_config.config import Config
from paro_config.errors import ParoError
from paro_config.formats import CODE_BITS, P_FRAC

#: Code of an 8-bit block.
EIGHT_BITS = len(CODE_BITS) - 1
#: Weights below this count as negligible in the order metric.
NEGLIGIBLE = 1e-3
#: Share of negligible weights from which on a block counts as sparse.
SPARSE_SHARE = 0.9
#: Share of the sparsity term in the order metric; the rest is the quantisation term. The paper
#: does not tell. Chosen of 0, 0.25, 0.5, 0.75, 0.9, 1 on `dinov2_video_l3`: the mean loss against
#: the best order of each head at 3.0 bits is 0.02 dB (at 0.5: 2.5 dB). It is no optimum everywhere:
#: on the two photographs 0.75 would lose 0.4 and 2.2 dB instead of 2.5 and 3.0 dB.
ALPHA = 0.25
#: Halvings of the multiplier's interval; resolves errors that span 30 orders of magnitude.
BISECTIONS = 100


@dataclass(frozen=True, eq=False)
class HeadCalibration:
    """What calibration found for one head.

    Parameters
    ----------
    order : int
        Index in `reorder.ORDERS`.
    codes : torch.Tensor
        uint8 [blocks, blocks].
    order_metric : tuple of float
        Metric of each of the six orders, lower is better; the order is the lowest (of equal ones
        the first).
    mean_bits : float
        Mean width reached. It exceeds the one asked for only if the blocks that must be kept cost
        more.
    """

    order: int
    codes: torch.Tensor
    order_metric: tuple[float, ...]
    mean_bits: float


def calibrate(
    capture: Capture,
    heads: Sequence[int],
    avg_bits: float = 4.8,
    block: int = 64,
    progress: Progress | None = None,
) -> Plan:
    """Calibrate some heads of a capture.

    Parameters
    ----------
    capture : Capture
        Source of the heads.
    heads : sequence of int
        Heads to calibrate; each gets the same mean width.
    avg_bits : float
        Mean width over all blocks of a head's map, above 0, at most 8.
    block : int
        16, 32 or 64.
    progress : Progress, optional
        Told as the work goes on.

    Raises
    ------
    ParoError
        If a parameter is not legal or a head's logits are beyond the number format.
    """
    check_block(block)
    check_avg_bits(avg_bits)
    steps = Steps(progress, len(heads) * _steps_of_head(capture, block))
    found = [_calibrate_head(capture, head, avg_bits, block, steps) for head in heads]
    return Plan(
        capture_digest=capture.digest,
        block=block,
        grid=capture.grid,
        prefix_tokens=capture.prefix_tokens,
        avg_bits=float(avg_bits),
        heads=tuple(heads),
        orders=tuple(result.order for result in found),
        codes=torch.stack([result.codes for result in found]),
    )


def calibrate_head(
    capture: Capture,
    head: int,
    avg_bits: float = 4.8,
    block: int = 64,
    progress: Progress | None = None,
) -> HeadCalibration:
    """Calibrate one head; parameters and errors as `calibrate`."""
    check_block(block)
    check_avg_bits(avg_bits)
    steps = Steps(progress, _steps_of_head(capture, block))
    return _calibrate_head(capture, head, avg_bits, block, steps)


def check_avg_bits(avg_bits: float) -> None:
    """Raise ParoError unless ``avg_bits`` is a legal mean width."""
    if not 0 < avg_bits <= CODE_BITS[EIGHT_BITS]:
        raise ParoError(
            f"avg_bits = {avg_bits} is not legal; legal: above 0, at most {CODE_BITS[EIGHT_BITS]}"
        )


def _steps_of_head(capture: Capture, block: int) -> int:
    return (len(ORDERS) + 1) * -(-capture.tokens // block)


def _calibrate_head(
    capture: Capture, head: int, avg_bits: float, block: int, steps: Steps
) -> HeadCalibration:
    forced = forced_blocks(capture.tokens, capture.prefix_tokens, block)
    metric = order_metric(capture, head, block, steps)
    order = metric.index(min(metric))
    if avg_bits == CODE_BITS[EIGHT_BITS] or forced.all():
        codes = torch.full(forced.shape, EIGHT_BITS, dtype=torch.uint8)
        steps.advance(len(forced))
    else:
        errors = block_errors(capture, head, order, block, steps)
        codes = allocate_codes(errors, forced, avg_bits)
    return HeadCalibration(order, codes, metric, mean_bits(codes))


def forced_blocks(tokens: int, prefix_tokens: int, block: int) -> torch.Tensor:
    """Blocks that stay at 8 bits: bool [blocks, blocks].

    They are the rows and columns of blocks with prefix tokens, the last row and column if the last
    block is partial, and a map of a single block.
    """
    count = -(-tokens // block)
    side = torch.zeros(count, dtype=torch.bool)
    side[: -(-prefix_tokens // block)] = True
    if tokens % block or count == 1:
        side[-1] = True
    return side.unsqueeze(0) | side.unsqueeze(1)


# -- order ---------------------------------------------------------------------------------------


def order_metric(
    capture: Capture, head: int, block: int, steps: Steps | None = None
) -> tuple[float, ...]:
    """PAROAttention's metric of the six orders; lower is better.

    For each block of the softmax map (those that `forced_blocks` keeps are left out) the
    sparsity term asks whether a share `SPARSE_SHARE` of its weights lies below `NEGLIGIBLE`, the
    quantisation term is its largest weight over its mean. Both are averaged over the blocks,
    normalised by their sum over the orders and mixed `ALPHA` : 1 - `ALPHA`.

    Parameters
    ----------
    capture : Capture
        Source of the head.
    head : int
        Index in the capture.
    block : int
        Tokens on a side of a block.
    steps : Steps, optional
        Advanced by six times the blocks on a side.

    Returns
    -------
    tuple of float
        One for each of `reorder.ORDERS`; equal ones for orders that permute alike.
    """
    steps = steps or Steps(None, 0)
    dense: list[float] = []
    spread: list[float] = []
    permutations: list[torch.Tensor] = []
    blocks = -(-capture.tokens // block)
    for order in range(len(ORDERS)):
        permutation = token_permutation(capture.grid, capture.prefix_tokens, order)
        same = [index for index, other in enumerate(permutations) if permutation.equal(other)]
        permutations.append(permutation)
        if same:
            dense.append(dense[same[0]])
            spread.append(spread[same[0]])
            steps.advance(blocks)
        else:
            terms = _order_terms(capture, head, permutation, block, steps)
            dense.append(terms[0])
            spread.append(terms[1])
    dense_sum, spread_sum = sum(dense) or 1.0, sum(spread) or 1.0
    return tuple(
        ALPHA * d / dense_sum + (1 - ALPHA) * s / spread_sum
        for d, s in zip(dense, spread, strict=True)
    )


def _order_terms(
    capture: Capture, head: int, permutation: torch.Tensor, block: int, steps: Steps
) -> tuple[float, float]:
    """Share of blocks that are not sparse, and mean of largest over mean weight."""
    q, k = (tensor[head].float()[permutation] for tensor in (capture.q, capture.k))
    keys = (k - k.mean(dim=0)).T.contiguous()
    first = -(-capture.prefix_tokens // block)
    last = capture.tokens // block

    def terms(row: int) -> tuple[float, float]:
        if not first <= row < last:
            return 0.0, 0.0
        queries = q[row * block : (row + 1) * block] * capture.scale
        weights = torch.softmax(queries @ keys, dim=1)[:, first * block : last * block]
        weights = weights.unflatten(1, (last - first, block))
        negligible = (weights < NEGLIGIBLE).float().mean(dim=(0, 2))
        largest, mean = weights.amax(dim=(0, 2)), weights.mean(dim=(0, 2))
        dense = (negligible < SPARSE_SHARE).sum().item()
        return dense, torch.where(mean > 0, largest / mean, 1.0).sum().item()

    dense, spread = zip(*map_rows(terms, range(-(-capture.tokens // block)), steps), strict=True)
    free = max(last - first, 1) ** 2
    return sum(dense) / free, sum(spread) / free


# -- widths --------------------------------------------------------------------------------------


def block_errors(
    capture: Capture, head: int, order: int, block: int, steps: Steps | None = None
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
    steps : Steps, optional
        Advanced by the blocks on a side.

    Returns
    -------
    torch.Tensor
        float64 [4, blocks, blocks]: for each code, query block and key block, the square summed
        over the block's queries and all channels.
    """
    config = Config(
        rows=4,
        cols=4,
        block=block,  # type: ignore[arg-type]  # checked against the legal values
        head_dim=padded_head_dim(capture.head_dim),  # type: ignore[arg-type]
        max_tokens=max(capture.tokens, 64),
    )
    check_exact_products(config)
    quantized = quantize_head(capture, head, order, config)
    blocked = BlockedHead(quantized, config)
    steps = steps or Steps(None, 0)
    tokens, count = capture.tokens, blocked.count

    q, k, v = (
        tensor[head].float()[quantized.permutation] for tensor in (capture.q, capture.k, capture.v)
    )
    q, k, v = q * (capture.scale * LOG2_E), k - k.mean(dim=0), v - v.mean(dim=0)
    # The column of ones sums the weights beside their products with V.
    values = torch.cat([v, torch.ones(tokens, 1)], dim=1)
    padding = count * block - tokens
    k, values = (torch.nn.functional.pad(x, (0, 0, 0, padding)) for x in (k, values))
    values = values.unflatten(0, (count, block))

    errors = torch.empty(len(CODE_BITS), count, count, dtype=torch.float64)

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
                m, weights = blocked.weights(row, part, torch.full_like(part, code))
                weights, m = weights[..., : len(queries)], m[:, : len(queries)]
                unit = torch.exp2(m - P_FRAC - total).unsqueeze(1)
                columns = slice(int(part[0]), int(part[-1]) + 1)
                difference = (weights * unit - exact[columns]).transpose(1, 2)
                products = torch.bmm(difference, values[columns])
                errors[code, row, part] = _squared_error(products, output)

    map_rows(measure, range(count), steps)
    return errors


#: Base-2 logits per natural one, and back.
LOG2_E = 1.4426950408889634
LN_2 = 0.6931471805599453


def _squared_error(products: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """Square of the output's move for each block: float64 [blocks].

    ``products`` [blocks, queries, channels + 1] are weight changes times V, their sums last.
    """
    moved = products[..., :-1] - products[..., -1:] * output
    return moved.square().sum(dim=(1, 2)).double()


def allocate_codes(errors: torch.Tensor, forced: torch.Tensor, avg_bits: float) -> torch.Tensor:
    """Choose the width of every block: least summed error at a mean width.

    For a multiplier, each block takes the code of least error + multiplier * bits; the multiplier
    is bisected until the mean is met. Bits left over then go to the blocks that gain most per bit.

    Parameters
    ----------
    errors : torch.Tensor
        float64 [4, blocks, blocks]: error of each block at each code, as `block_errors`.
    forced : torch.Tensor
        bool [blocks, blocks]: blocks that stay at 8 bits.
    avg_bits : float
        Mean bits over all blocks, forced ones included.

    Returns
    -------
    torch.Tensor
        uint8 [blocks, blocks]. Every row keeps a live block. The mean is at most ``avg_bits``
        unless forced blocks and the live block of each row alone need more.
    """
    bits = torch.tensor(CODE_BITS)
    budget = int(avg_bits * forced.numel() + 1e-6)

    def spent(codes: torch.Tensor) -> int:
        return int(bits[codes].sum())

    low, high = 0.0, errors.max().item()
    codes = _codes_at(errors, forced, low)
    if spent(codes) > budget:
        codes = _codes_at(errors, forced, high)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            candidate = _codes_at(errors, forced, middle)
            if spent(candidate) > budget:
                low = middle
                continue
            high, codes = middle, candidate
            if spent(codes) == budget:
                break
    return _spend(errors, codes, budget - spent(codes)).byte()


def _codes_at(errors: torch.Tensor, forced: torch.Tensor, multiplier: float) -> torch.Tensor:
    """Best codes for one price of a bit, int64 [blocks, blocks]; every row has a live block."""
    cost = errors + multiplier * torch.tensor(CODE_BITS).view(-1, 1, 1)
    codes = cost.argmin(dim=0)
    codes[forced] = EIGHT_BITS
    dead = (codes == 0).all(dim=1).nonzero().flatten()
    live_cost, live_codes = cost[1:, dead].min(dim=0)
    cheapest = (live_cost - cost[0, dead]).argmin(dim=1)
    codes[dead, cheapest] = 1 + live_codes[torch.arange(len(dead)), cheapest]
    return codes


def _spend(errors: torch.Tensor, codes: torch.Tensor, left: int) -> torch.Tensor:
    """Widen blocks by falling gain per bit until no widening that helps fits into ``left``."""
    bits = torch.tensor(CODE_BITS)
    codes = codes.clone()
    while left > 0:
        gain = errors.gather(0, codes.unsqueeze(0)) - errors
        extra = bits.view(-1, 1, 1) - bits[codes]
        index = ((gain > 0) & (extra > 0) & (extra <= left)).nonzero()
        if not len(index):
            break
        rate = gain[tuple(index.T)] / extra[tuple(index.T)]
        widened = set()
        for code, row, column in index[rate.argsort(descending=True, stable=True)].tolist():
            cost = int(extra[code, row, column])
            if cost <= left and (row, column) not in widened:
                codes[row, column] = code
                widened.add((row, column))
                left -= cost
    return codes
