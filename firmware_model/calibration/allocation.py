"""Choosing the code of every block of many heads at once: one budget for all of them.

By Lagrangian: at a price for a bit each block takes the code of least error + price x bits, and the
price is bisected until the mean is met. No solver is needed, and the result is optimal to within
a block. Heads that need little so pay for those that need much.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from firmware_model.calibration.goal import Goal
from firmware_model.capture import CaptureSource
from paro.config.config import blocks_of
from paro.config.formats import CODE_BITS, EIGHT_BITS

#: Halvings of the logarithm of the price.
BISECTIONS = 50
#: Prices tried, relative to the largest error: 2**-100 is below what float32 resolves.
PRICE_OCTAVES = 100
#: Bits that a block gains at least when it is widened.
LEAST_GAIN = 2
#: Largest miss of a budget, in bits: above the rounding of sums.
SLACK = 1e-6

_BITS = torch.tensor(CODE_BITS)


@dataclass(frozen=True, eq=False)
class HeadErrors:
    """Errors and floors of one head.

    Parameters
    ----------
    errors : torch.Tensor
        float32 [4, rows, blocks]: error of each block at each code.
    least : torch.Tensor
        uint8 [rows, blocks]: code that each block has at least, 0 for no floor.
    weight : float
        Weight of its blocks in budgets: its share of the denoising steps.
    """

    errors: torch.Tensor
    least: torch.Tensor
    weight: float = 1.0

    def scaled(self, factor: torch.Tensor | float) -> "HeadErrors":
        """Multiply all errors by a factor, or those of each row by its own, [rows]."""
        factor = torch.as_tensor(factor, dtype=self.errors.dtype)
        return replace(self, errors=self.errors * factor.view(-1, 1))


def text_floor(tokens: int, text_tokens: int, block: int, code: int) -> torch.Tensor:
    """Least codes of a head's blocks: ``code`` in rows and columns of blocks with text tokens.

    Returns
    -------
    torch.Tensor
        uint8 [blocks, blocks], 0 elsewhere.
    """
    count = blocks_of(tokens, block)
    text = torch.zeros(count, dtype=torch.bool)
    if text_tokens:
        text[(tokens - text_tokens) // block :] = True
    return (text.unsqueeze(0) | text.unsqueeze(1)).byte() * code


def least_codes(capture: CaptureSource, goal: Goal) -> torch.Tensor:
    """Least codes of a capture's blocks under a goal: uint8 [blocks, blocks]."""
    code = CODE_BITS.index(goal.text_bits)
    return text_floor(capture.tokens, capture.text_tokens, goal.block, code)


def allocate(heads: Sequence[HeadErrors], goal: Goal) -> list[torch.Tensor]:
    """Codes of some heads under one budget, for a goal without a density."""
    if goal.fixed:
        return [torch.full_like(head.least, EIGHT_BITS) for head in heads]
    return allocate_codes(heads, goal.avg_bits, goal.floor_bits)


def allocate_codes(
    heads: Sequence[HeadErrors], avg_bits: float, floor_bits: float = 0.0
) -> list[torch.Tensor]:
    """Choose the width of every block of some heads: least summed error at one mean width.

    Bits left over by the Lagrangian go to the blocks that gain most per bit.

    Parameters
    ----------
    heads : sequence of HeadErrors
        They share the budget.
    avg_bits : float
        Mean bits over all blocks of all heads, weighted by the heads' weights.
    floor_bits : float
        Mean bits that no head may fall below, as long as more would lessen its error.

    Returns
    -------
    list of torch.Tensor
        For each head uint8 [rows, blocks]. Every row keeps a live block. The mean is at most
        ``avg_bits`` unless floors and the live block of each row need more.
    """
    budget = avg_bits * sum(head.weight * head.least.numel() for head in heads) + SLACK
    floors = [_floor_codes(head, floor_bits) for head in heads]
    price = _price(heads, budget, floors)
    codes = [_codes_at(head, price, floor) for head, floor in zip(heads, floors, strict=True)]
    left = budget - sum(map(_cost, heads, codes))
    return [chosen.byte() for chosen in _spend(heads, codes, left)]


def allocate_masks(
    heads: Sequence[HeadErrors], sums: Sequence[torch.Tensor], density: float
) -> list[torch.Tensor]:
    """Keep the blocks with the largest sums of weights: a density for all heads together.

    Parameters
    ----------
    heads : sequence of HeadErrors
        Blocks with a floor are kept.
    sums : sequence of torch.Tensor
        For each head float32 [rows, blocks], as `sensitivity.block_sums`.
    density : float
        Share of all blocks to keep, those with a floor included.

    Returns
    -------
    list of torch.Tensor
        For each head uint8 [rows, blocks]: 0 or 3. Every row keeps its largest block.
    """
    kept = []
    for head, weights in zip(heads, sums, strict=True):
        mask = head.least > 0
        mask[torch.arange(len(mask)), weights.argmax(dim=1)] = True
        kept.append(mask)
    weights = [head.weight for head in heads]
    left = SLACK + sum(
        weight * (density * mask.numel() - int(mask.sum()))
        for weight, mask in zip(weights, kept, strict=True)
    )
    open_sums = torch.cat([w[~mask] for w, mask in zip(sums, kept, strict=True)])
    costs = torch.cat(
        [
            torch.full((int((~mask).sum()),), weight, dtype=torch.float64)
            for weight, mask in zip(weights, kept, strict=True)
        ]
    )
    best = open_sums.argsort(descending=True, stable=True)
    chosen = torch.zeros(len(open_sums), dtype=torch.bool)
    chosen[best[costs[best].cumsum(0) <= left]] = True
    for mask, part in zip(kept, chosen.split([int((~m).sum()) for m in kept]), strict=True):
        mask[~mask] = part
    return [mask.byte() * EIGHT_BITS for mask in kept]


def _bits(codes: torch.Tensor) -> int:
    counts = codes.flatten().bincount(minlength=len(CODE_BITS))
    return int(_BITS @ counts)


def _cost(head: HeadErrors, codes: torch.Tensor) -> float:
    return head.weight * _bits(codes)


def _floor_codes(head: HeadErrors, floor_bits: float) -> torch.Tensor | None:
    """Best codes of a head at the least mean it may have; ``None`` without a floor."""
    if floor_bits <= 0:
        return None
    need = math.ceil(floor_bits * head.least.numel() - 1e-6)
    head = replace(head, weight=1.0)
    codes = _codes_at(head, _price([head], need, [None]), None)
    # Rather a widening too much than a mean below the floor.
    for slack in (0, *CODE_BITS[1:]):
        if _bits(codes) < need:
            codes = _spend([head], [codes], need - _bits(codes) + slack)[0]
    return codes


def _price(
    heads: Sequence[HeadErrors], budget: float, floors: Sequence[torch.Tensor | None]
) -> float:
    """Lowest price of a bit at which the heads together cost at most ``budget``."""
    largest = max(head.errors.max().item() for head in heads)

    def spent(price: float) -> float:
        return sum(
            _cost(head, _codes_at(head, price, floor))
            for head, floor in zip(heads, floors, strict=True)
        )

    if spent(0.0) <= budget:
        return 0.0
    low, high = -float(PRICE_OCTAVES), 0.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        cost = spent(largest * 2**middle)
        low, high = (middle, high) if cost > budget else (low, middle)
        if cost == budget:
            break
    return largest * 2**high


def _codes_at(head: HeadErrors, price: float, floor: torch.Tensor | None) -> torch.Tensor:
    """Best codes for one price of a bit, int64 [rows, blocks]; every row has a live block.

    They are those of the floor where the price would lead below it.
    """
    codes = head.least.long()
    cost = head.errors[0]
    if codes.any():
        cost = head.errors.gather(0, codes.unsqueeze(0))[0] + price * _BITS[codes]
    # Much faster than a minimum over a first dimension of four.
    for code in range(1, len(CODE_BITS)):
        wider = head.errors[code] + price * CODE_BITS[code]
        better = (wider < cost) & (head.least < code)
        codes.masked_fill_(better, code)
        cost = torch.where(better, wider, cost)
    dead = (codes.amax(dim=1) == 0).nonzero().flatten()
    cost = head.errors[:, dead] + price * _BITS.view(-1, 1, 1)
    live_cost, live_codes = cost[1:].min(dim=0)
    cheapest = (live_cost - cost[0]).argmin(dim=1)
    codes[dead, cheapest] = 1 + live_codes[torch.arange(len(dead)), cheapest]
    return codes if floor is None or _bits(codes) >= _bits(floor) else floor


def _spend(
    heads: Sequence[HeadErrors], codes: Sequence[torch.Tensor], left: float
) -> list[torch.Tensor]:
    """Widen blocks by falling gain per bit until no widening that helps fits into ``left``."""
    codes = [chosen.clone() for chosen in codes]
    cheapest = LEAST_GAIN * min(head.weight for head in heads)
    while left >= cheapest:
        widenings: list[tuple[float, int, int, int]] = []
        for index, (head, chosen) in enumerate(zip(heads, codes, strict=True)):
            gain = head.errors.gather(0, chosen.unsqueeze(0)) - head.errors
            extra = _BITS.view(-1, 1, 1) - _BITS[chosen]
            paid = (extra > 0) & (extra * head.weight <= left)
            rate = torch.where((gain > 0) & paid, gain / extra, 0.0)
            # No more than these can be paid for.
            best = rate.flatten(1).topk(min(int(left / cheapest), chosen.numel()))
            for code in range(1, len(CODE_BITS)):
                pairs = zip(best.values[code].tolist(), best.indices[code].tolist(), strict=True)
                widenings += [(r, index, code, block) for r, block in pairs if r > 0]
        if not widenings:
            break
        widened = set()
        for _, index, code, block in sorted(widenings, key=lambda entry: -entry[0]):
            flat = codes[index].view(-1)
            cost = heads[index].weight * (CODE_BITS[code] - CODE_BITS[int(flat[block])])
            if cost <= left and (index, block) not in widened:
                flat[block] = code
                widened.add((index, block))
                left -= cost
    return codes
