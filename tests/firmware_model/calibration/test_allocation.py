import itertools

import pytest
import torch

from firmware_model.calibration.allocation import (
    HeadErrors,
    allocate_codes,
    allocate_masks,
    text_floor,
)
from firmware_model.choices import check_avg_bits
from firmware_model.codes import density, mean_bits
from paro.config import ParoError

BITS = torch.tensor([0, 2, 4, 8])


def random_head(blocks, seed, size=1.0, least=None):
    """Convex falling errors, as those of real blocks nearly are; no floor by default."""
    g = torch.Generator().manual_seed(seed)
    skipped = size * torch.rand(blocks, blocks, generator=g, dtype=torch.float64) ** 4
    errors = torch.stack([skipped * ratio for ratio in (1.0, 0.2, 0.02, 0.001)])
    return HeadErrors(errors, torch.zeros(blocks, blocks).byte() if least is None else least)


def steady_head(blocks, ratios=(1.0, 0.2, 0.02, 0.001)):
    """A head whose blocks are all alike."""
    errors = torch.tensor(ratios).double().view(4, 1, 1).expand(4, blocks, blocks)
    return HeadErrors(errors.contiguous(), torch.zeros(blocks, blocks).byte())


def total_error(heads, codes):
    return sum(
        head.errors.gather(0, chosen.long().unsqueeze(0)).sum().item()
        for head, chosen in zip(heads, codes, strict=True)
    )


def total_bits(codes):
    return sum(int(BITS[chosen.long()].sum()) for chosen in codes)


def overall_mean(codes):
    return total_bits(codes) / sum(chosen.numel() for chosen in codes)


def every_choice(count):
    """All codes of ``count`` heads of 2 x 2 blocks whose rows all live: int64 [n, count, 2, 2]."""
    row = [pair for pair in itertools.product(range(4), repeat=2) if any(pair)]
    rows = torch.tensor(list(itertools.product(row, repeat=2 * count)))
    return rows.view(-1, count, 2, 2)


@pytest.mark.parametrize("avg_bits", [0.7, 2.0, 3.3, 4.8, 7.0])
@pytest.mark.parametrize("seeds", [(0,), (1,), (2,), (3, 4), (5, 6)])
def test_allocation_is_optimal_to_within_a_block(avg_bits, seeds):
    heads = [random_head(2, seed, size=1 + 3 * n) for n, seed in enumerate(seeds)]
    found = torch.stack(allocate_codes(heads, avg_bits)).long()
    choices = every_choice(len(heads))
    errors = torch.stack([head.errors for head in heads], dim=1)
    totals = torch.stack(
        [
            head.errors.flatten(1).gather(0, choices[:, n].flatten(1)).sum(dim=1)
            for n, head in enumerate(heads)
        ]
    ).sum(dim=0)
    spent = BITS[choices].flatten(1).sum(dim=1)
    assert (choices == found).flatten(1).all(dim=1).any(), "every row keeps a live block"
    own, own_bits = total_error(heads, found), total_bits(found)
    legal = spent <= max(avg_bits * 4 * len(heads), 4 * len(heads))
    assert own_bits <= spent[legal].max()
    # The Lagrangian finds the best choice for the bits spent before the rest is shared out.
    assert own <= totals[legal].min() + max((errors[0] - errors[1]).max().item(), 0)
    assert (own <= totals[spent <= own_bits - 4] + 1e-12).all()


def test_allocation_meets_the_mean():
    for code in range(4):
        least = text_floor(30 * 16 - 1, 20, 16, code)
        head = random_head(30, 0, least=least)
        for avg_bits in (1.8, 3.0, 4.8, 7.9):
            codes = allocate_codes([head], avg_bits)[0]
            assert avg_bits - 2 / 900 - 1e-9 <= mean_bits(codes) <= avg_bits
            assert (codes >= least).all()


def test_allocation_keeps_what_must_be_kept():
    head = random_head(6, 0)
    codes = allocate_codes([head], 0.01)[0]
    assert ((codes != 0).sum(dim=1) == 1).all()
    assert codes.max() == 1
    # The block kept is the one that gains most.
    assert torch.equal(codes.argmax(dim=1), (head.errors[0] - head.errors[1]).argmax(dim=1))
    least = text_floor(6 * 16 - 1, 1, 16, 3)
    codes = allocate_codes([HeadErrors(head.errors, least)], 0.5)[0]
    assert torch.equal(codes, least)
    assert allocate_codes([head], 8.0)[0].min() == 3


@pytest.mark.parametrize("avg_bits", [1.8, 3.0, 4.8, 7.9])
def test_heads_of_any_size_share_one_mean(avg_bits):
    least = text_floor(9 * 16 - 1, 20, 16, 3)
    heads = [random_head(30, 0), random_head(9, 1, 5.0, least), random_head(17, 2, 0.1)]
    codes = allocate_codes(heads, avg_bits)
    blocks = 900 + 81 + 289
    assert [chosen.shape for chosen in codes] == [(30, 30), (9, 9), (17, 17)]
    assert all(chosen.dtype == torch.uint8 for chosen in codes)
    assert avg_bits - 2 / blocks - 1e-9 <= overall_mean(codes) <= avg_bits
    assert (codes[1] >= least).all()
    alone = [allocate_codes([head], avg_bits)[0] for head in heads]
    assert total_error(heads, codes) <= total_error(heads, alone) + 1e-12


def test_a_head_that_needs_little_pays_for_one_that_needs_much():
    needy, easy = random_head(16, 0), random_head(16, 1, 1e-3)
    codes = allocate_codes([needy, easy], 4.0)
    assert mean_bits(codes[0]) > 5
    assert mean_bits(codes[1]) < 3
    assert ((codes[1] != 0).sum(dim=1) >= 1).all()


@pytest.mark.parametrize("floor", [1.0, 2.5, 4.0])
def test_no_head_falls_below_its_floor(floor):
    heads = [random_head(16, 0), random_head(12, 1, 1e-6)]
    without = allocate_codes(heads, 4.0)
    assert mean_bits(without[1]) < 1
    codes = allocate_codes(heads, 4.0, floor)
    assert mean_bits(codes[1]) >= floor
    assert 4.0 - 2 / 400 - 1e-9 <= overall_mean(codes) <= 4.0


@pytest.mark.parametrize("avg_bits", [1.3, 3.3, 5.1])
def test_the_mean_is_met_where_all_blocks_are_alike(avg_bits):
    codes = allocate_codes([steady_head(16), steady_head(8)], avg_bits)
    assert avg_bits - 4 / 320 - 1e-9 <= overall_mean(codes) <= avg_bits


def test_a_floor_holds_where_all_blocks_are_alike():
    """No price of a bit yields this mean: all blocks change at once."""
    codes = allocate_codes([random_head(16, 0, 1e6), steady_head(16)], 5.0, 3.0)
    assert mean_bits(codes[1]) >= 3.0
    assert overall_mean(codes) <= 5.0


def test_scaled_errors_weigh_heads_and_rows():
    head = random_head(8, 0)
    rows = torch.tensor([1.0, 2.0, 1.0, 1.0, 5.0, 1.0, 1.0, 1.0])
    assert torch.equal(head.scaled(2.0).errors, 2 * head.errors)
    assert torch.equal(head.scaled(rows).errors[:, 4], 5 * head.errors[:, 4])
    assert torch.equal(head.scaled(rows).errors[:, 1, 3], 2 * head.errors[:, 1, 3])
    fair = [one.scaled(1 / one.errors[3].sum()) for one in (head, random_head(8, 1, 1e-6))]
    assert all(3.5 < mean_bits(codes) < 4.5 for codes in allocate_codes(fair, 4.0))
    strict = head.scaled(torch.tensor([1e6] + [1.0] * 7))
    before, after = (allocate_codes([one], 4.0)[0] for one in (head, strict))
    assert mean_bits(after[:1]) > mean_bits(before[:1])
    assert mean_bits(after[1:]) < mean_bits(before[1:])


def test_heads_without_any_error():
    none = HeadErrors(torch.zeros(4, 3, 3), torch.zeros(3, 3).byte())
    codes = allocate_codes([none, random_head(3, 0)], 4.8)
    assert ((codes[0] != 0).sum(dim=1) >= 1).all()
    assert overall_mean(codes) <= 4.8


def test_floors_of_text():
    assert text_floor(130, 0, 64, 3).sum() == 0
    assert (text_floor(64, 1, 64, 2) == 2).all()
    least = text_floor(150, 33, 32, 1)
    assert (least[[3, 4]] == 1).all()
    assert (least[:, [3, 4]] == 1).all()
    assert least.sum() == 25 - 9


@pytest.mark.parametrize("share", [0.2, 0.5, 0.85])
def test_masks_keep_the_largest_sums(share):
    g = torch.Generator().manual_seed(0)
    sums = [torch.rand(size, size, generator=g) ** 4 for size in (12, 20)]
    sums[0][3] *= 1e-6
    least = [torch.zeros(12, 12).byte(), text_floor(20 * 16, 20, 16, 1)]
    forced = [floor > 0 for floor in least]
    heads = [HeadErrors(torch.zeros(4, *floor.shape), floor) for floor in least]
    masks = allocate_masks(heads, sums, share)
    assert all(set(mask.unique().tolist()) == {0, 3} for mask in masks)
    live = [mask != 0 for mask in masks]
    assert sum(int(mask.sum()) for mask in live) == int(share * (144 + 400) + 1e-6)
    assert live[1][forced[1]].all()
    largest_dropped = max(s[~mask].max().item() for s, mask in zip(sums, live, strict=True))
    for weights, mask, must in zip(sums, live, forced, strict=True):
        assert mask.any(dim=1).all(), "no row is dead"
        assert mask[torch.arange(len(mask)), weights.argmax(dim=1)].all()
        free = mask & ~must & (weights < weights.amax(dim=1, keepdim=True))
        assert (weights[free] >= largest_dropped).all()


def test_masks_of_any_density():
    heads = [HeadErrors(torch.zeros(4, 5, 5), text_floor(80, 1, 16, 3))]
    sums = [torch.rand(5, 5, generator=torch.Generator().manual_seed(0))]
    assert (allocate_masks(heads, sums, 1.0)[0] == 3).all()
    least = allocate_masks(heads, sums, 0.01)[0]
    assert (least[heads[0].least > 0] == 3).all()
    assert density(least) <= (9 + 4) / 25
    assert (least != 0).any(dim=1).all()


def test_illegal_means():
    for avg_bits in (0, -1, 8.1, float("nan"), float("inf")):
        with pytest.raises(ParoError, match="legal: above 0, at most 8"):
            check_avg_bits(avg_bits)
