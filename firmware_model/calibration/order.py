"""Which of the six token orders a head prefers: PAROAttention's metric (their Eq. 3).

The sign of its sparsity term is mended: it counts the blocks that are *not* sparse.
"""

from collections.abc import Sequence

import torch

from firmware_model.capture import Capture, CaptureSource
from firmware_model.choices import ORDERS
from firmware_model.parallel import map_rows
from firmware_model.progress import Steps

#: Weights below this count as negligible.
NEGLIGIBLE = 1e-3
#: Share of negligible weights from which on a block counts as sparse.
SPARSE_SHARE = 0.9
#: Share of the sparsity term; the rest is the quantisation term. The paper does not state it.
#: Chosen of 0, 0.25, 0.5, 0.75, 0.9, 1 on `dinov2_video_l3`: the mean loss against the best order
#: of each head at 3.0 bits is 0.02 dB (at 0.5: 2.5 dB). It is no optimum everywhere: on the two
#: photographs 0.75 would lose 0.4 and 2.2 dB instead of 2.5 and 3.0 dB.
ALPHA = 0.25


#: Density and spread of a head's map in each of the six orders.
OrderTerms = list[tuple[float, float]]


def order_metric(
    captures: Sequence[Capture], head: int, block: int, steps: Steps | None = None
) -> tuple[float, ...]:
    """PAROAttention's metric of the six orders; lower is better.

    For each block of the softmax map (those with text tokens and the last, partial ones are left
    out) the sparsity term asks whether a share `SPARSE_SHARE` of its weights lies below
    `NEGLIGIBLE`, the quantisation term is its largest weight over its mean. Both are averaged over
    the blocks of all captures, normalised by their sum over the orders and mixed `ALPHA` :
    1 - `ALPHA`.

    Parameters
    ----------
    captures : sequence of Capture
        One layer at different times; all of one grid.
    head : int
        Index in the captures.
    block : int
        Tokens on a side of a block.
    steps : Steps, optional
        Advanced by six times the blocks on a side, for each capture.

    Returns
    -------
    tuple of float
        One for each of `choices.ORDERS`; equal ones for orders that permute alike.
    """
    return mixed_terms([order_terms(capture, head, block, steps) for capture in captures])


def order_terms(capture: Capture, head: int, block: int, steps: Steps | None = None) -> OrderTerms:
    """Both terms of the metric for one capture in each order; parameters as `order_metric`."""
    steps = steps or Steps(None, 0)
    terms: OrderTerms = []
    for order, first in enumerate(alike_orders(capture)):
        if first == order:
            terms.append(_terms(capture, head, capture.permutation(order), block, steps))
        else:
            terms.append(terms[first])
            steps.advance(capture.blocks(block))
    return terms


def mixed_terms(terms: Sequence[OrderTerms]) -> tuple[float, ...]:
    """The metric of each order, from the terms of one or more captures."""
    dense, spread = (
        [sum(one[order][term] for one in terms) for order in range(len(ORDERS))] for term in (0, 1)
    )
    dense_sum, spread_sum = sum(dense) or 1.0, sum(spread) or 1.0
    return tuple(
        ALPHA * d / dense_sum + (1 - ALPHA) * s / spread_sum
        for d, s in zip(dense, spread, strict=True)
    )


def alike_orders(capture: CaptureSource) -> list[int]:
    """For each order the first one that permutes the capture's tokens alike."""
    permutations = [capture.permutation(order) for order in range(len(ORDERS))]
    return [
        next(first for first, other in enumerate(permutations) if permutation.equal(other))
        for permutation in permutations
    ]


def _terms(
    capture: Capture, head: int, permutation: torch.Tensor, block: int, steps: Steps
) -> tuple[float, float]:
    """Share of blocks that are not sparse, and mean of largest over mean weight."""
    q, k = (tensor[head].float()[permutation] for tensor in (capture.q, capture.k))
    keys = (k - k.mean(dim=0)).T.contiguous()
    whole = capture.grid_tokens // block

    def terms(row: int) -> tuple[float, float]:
        if row >= whole:
            return 0.0, 0.0
        queries = q[row * block : (row + 1) * block] * capture.scale
        weights = torch.softmax(queries @ keys, dim=1)[:, : whole * block]
        weights = weights.unflatten(1, (whole, block))
        negligible = (weights < NEGLIGIBLE).float().mean(dim=(0, 2))
        largest, mean = weights.amax(dim=(0, 2)), weights.mean(dim=(0, 2))
        dense = (negligible < SPARSE_SHARE).sum().item()
        return dense, torch.where(mean > 0, largest / mean, 1.0).sum().item()

    dense, spread = zip(*map_rows(terms, range(capture.blocks(block)), steps), strict=True)
    free = max(whole, 1) ** 2
    return sum(dense) / free, sum(spread) / free
