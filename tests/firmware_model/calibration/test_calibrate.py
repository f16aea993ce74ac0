import dataclasses
import re
import weakref
from pathlib import Path

import pytest
import torch

from firmware_model.calibration.allocation import text_floor
from firmware_model.calibration.calibrate import Calibration, calibrate, calibrate_models
from firmware_model.calibration.goal import Goal, step_group_starts
from firmware_model.calibration.plan import load_model_plan, save_plan
from firmware_model.calibration.sensitivity import block_sums, model_config
from firmware_model.capture import CaptureFile, load_capture, open_captures
from firmware_model.choices import ORDERS, TRANSFORMS
from firmware_model.codes import density, mean_bits
from firmware_model.layer import Layer
from firmware_model.quality.evaluate import evaluate
from firmware_model.reference.integer import integer_attention
from firmware_model.reference.methods import Method
from firmware_model.reference.quantize import quantize_head
from paro.config import Config, ParoError
from paro.config.formats import CODE_BITS

TARGET_CAPTURES = (
    "dinov2_photo_l1",
    "dinov2_photo_l3",
    "dinov2_video_l3",
    "tiny_video_dit_t03",
)


def plan_of(capture, heads=None, **goal):
    return calibrate([capture], Goal(**goal), heads)[0].for_capture(capture)


def overall_mean(plans):
    """Mean bits over all blocks of some plans, and how many there are."""
    codes = torch.cat([plan.codes.flatten() for plan in plans]).long()
    return torch.tensor(CODE_BITS)[codes].double().mean().item(), len(codes)


def test_calibration_keeps_its_word(make_capture):
    capture = load_capture(make_capture((5, 6, 7), 3))
    calls = []
    goal = Goal(avg_bits=6.0, block=16, per_head=True)
    (model,) = calibrate([capture], goal, (1, 0), lambda done, total: calls.append((done, total)))
    plan = model.for_capture(capture)
    assert plan.heads == (1, 0)
    assert (plan.avg_bits, plan.block) == (6.0, 16)
    assert len({total for _, total in calls}) == 1
    assert calls[-1][0] == calls[-1][1]
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    for head in (0, 1):
        assert 5.9 < mean_bits(plan.head_codes(head)) <= 6.0
    assert (plan_of(capture, (0,), avg_bits=8.0, block=16).codes == 3).all()
    least = text_floor(213, 3, 16, 2)
    kept = plan_of(capture, (0,), avg_bits=0.1, block=16, text_bits=4).codes[0]
    assert torch.equal(kept, least)
    single = load_capture(make_capture((1, 4, 4), 0))
    for bits, code in ((1.0, 1), (2.0, 1), (4.8, 2), (8.0, 3)):
        assert plan_of(single, (0,), avg_bits=bits, block=16).codes.tolist() == [[[code]]]


@pytest.mark.parametrize(
    "goal",
    [
        Goal(block=16),
        Goal(block=16, order="error", per_head=True),
        Goal(block=16, order="WHF", rounding="paper"),
        Goal(block=16, density=0.5),
        Goal(block=16, avg_bits=8.0),
    ],
    ids=["metric", "error", "one order", "masks", "eight bits"],
)
def test_progress_ends_with_all_steps(random_capture, goal):
    captures = [random_capture((3, 4, 4), 2, seed=seed, progress=seed / 3) for seed in range(3)]
    captures.append(random_capture((1, 5, 7), model="b"))
    calls = []
    goal = dataclasses.replace(goal, step_groups=(0.0,))
    calibrate(captures, goal, None, lambda *step: calls.append(step))
    totals = {total for _, total in calls}
    assert len(totals) == 1
    assert calls[-1][0] == totals.pop()
    assert all(0 < done <= total for done, total in calls)


def test_each_head_alone_is_as_with_a_budget_for_each(random_capture):
    captures = [
        random_capture((4, 4, 6), 2, seed=1, layer=0),
        random_capture((4, 4, 6), 2, seed=2, layer=3),
        random_capture((2, 9, 8), 0, seed=3, model="b", heads=3),
    ]
    goal = Goal(avg_bits=5.5, block=16, per_head=True)
    plans = calibrate(captures, goal)
    assert [plan.model for plan in plans] == ["a" * 64, "b"]
    for capture, plan in zip(captures, (plans[0], plans[0], plans[1]), strict=True):
        part = plan.for_capture(capture)
        assert part.heads == tuple(range(capture.heads))
        for head in part.heads:
            alone = plan_of(capture, (head,), avg_bits=5.5, block=16)
            assert torch.equal(part.head_codes(head), alone.codes[0])
            assert part.head_order(head) == alone.orders[0]
            assert mean_bits(alone.codes[0]) <= 5.5


def test_a_head_that_needs_little_pays_for_one_that_needs_much(random_capture):
    """Head 0 weighs all tokens alike, which 2 bits tell exactly."""
    capture = random_capture((4, 8, 8), heads=2)
    capture.q[0] = 0
    shared = plan_of(capture, avg_bits=4.0, block=16)
    mean, blocks = overall_mean([shared])
    assert 4.0 - 4 / blocks <= mean <= 4.0
    assert mean_bits(shared.head_codes(0)) <= 2.1
    assert mean_bits(shared.head_codes(1)) >= 5.9
    own = plan_of(capture, avg_bits=4.0, block=16, per_head=True)
    assert mean_bits(own.head_codes(1)) <= 4.0
    config = model_config(capture, 16)
    after, before = (evaluate(capture, plan, (1,), config).results[0] for plan in (shared, own))
    assert after.snr_db > before.snr_db + 3


def test_floors_hold(demo):
    heads = tuple(range(0, 16, 3))
    free = plan_of(demo, heads, avg_bits=4.0, block=32)
    assert min(mean_bits(codes) for codes in free.codes) < 3.5
    plan = plan_of(demo, heads, avg_bits=4.0, block=32, floor_bits=3.5)
    assert min(mean_bits(codes) for codes in plan.codes) >= 3.5
    mean, blocks = overall_mean([plan])
    assert 4.0 - 4 / blocks <= mean <= 4.0


def test_one_budget_for_layers_steps_and_models(random_capture, tmp_path):
    def model_a(layer, progress):
        return random_capture(
            (4, 4, 6), 2, 3, seed=int(10 * layer + 4 * progress), layer=layer, progress=progress
        )

    captures = [model_a(layer, progress) for progress in (0.75, 0.0, 0.5) for layer in (5, 2)]
    captures += [
        random_capture((2, 9, 7), heads=3, head_dim=40, gain=1, seed=99, model="b"),
        random_capture((2, 9, 7), heads=3, head_dim=40, gain=1, seed=98, model="b", progress=0.9),
    ]
    goal = Goal(avg_bits=5.5, block=16, step_groups=(0.0, 0.5))
    a, b = calibrate(captures, goal)
    assert (a.model, a.layers, a.heads, a.step_groups) == ("a" * 64, (2, 5), (0, 1), (0.0, 0.5))
    assert (a.grid, a.prefix_tokens, a.suffix_tokens) == ((4, 4, 6), 2, 3)
    assert a.calibrated_on == tuple(capture.digest for capture in captures[:6])
    assert (a.orders.shape, a.codes.shape) == ((2, 2), (2, 2, 2, 7, 7))
    assert (b.model, b.layers, b.heads) == ("b", (0,), (0, 1, 2))
    assert (b.orders.shape, b.codes.shape) == ((1, 3), (2, 1, 3, 8, 8))
    mean, blocks = overall_mean([a, b])
    assert blocks == 2 * 2 * 2 * 49 + 2 * 3 * 64
    assert 5.5 - 4 / blocks <= mean <= 5.5
    means = [overall_mean([plan])[0] for plan in (a, b)]
    assert abs(means[0] - means[1]) > 0.05, "each model got what it needs"
    for capture in captures:
        plan = (a if capture.model == a.model else b).for_capture(capture)
        evaluate(capture, plan, plan.heads, model_config(capture, 16))
    save_plan(a, tmp_path / "plan")
    size = (tmp_path / "plan").stat().st_size
    assert 0 < size - 2 * 2 * 2 * 7 * 2 < 2000
    loaded = load_model_plan(tmp_path / "plan")
    assert torch.equal(loaded.codes, a.codes)


def test_layers_and_step_groups_are_not_mixed_up(random_capture):
    """Each capture's part of a plan is what it gets in a plan of its own."""
    captures = [
        random_capture((4, 4, 6), seed=int(10 * layer + 4 * time), layer=layer, progress=time)
        for time in (0.0, 0.5)
        for layer in (1, 0, 7)
    ]
    goal = Goal(avg_bits=4.0, block=16, order="HWF", transform="balance", per_head=True)
    (plan,) = calibrate(captures, dataclasses.replace(goal, step_groups=(0.0, 0.25)))
    assert (plan.orders == ORDERS.index("HWF")).all()
    assert (plan.transforms == TRANSFORMS.index("balance")).all()
    for capture in captures:
        alone = calibrate([capture], goal)[0].for_capture(capture)
        assert torch.equal(plan.for_capture(capture).codes, alone.codes)


def test_captures_of_one_step_group_are_averaged(random_capture):
    first, second = (random_capture((4, 4, 6), seed=seed, progress=seed / 2) for seed in (0, 1))
    goal = Goal(avg_bits=5.0, block=16, order="FHW", transform="none")
    alone = calibrate([first], goal)[0]
    both = calibrate([first, second], goal)[0]
    assert torch.equal(calibrate([first, first], goal)[0].codes, alone.codes)
    assert torch.equal(calibrate([second, first], goal)[0].codes, both.codes)
    assert not torch.equal(both.codes, alone.codes)


@pytest.mark.parametrize("per_head", [False, True])
def test_plans_of_several_widths_come_from_one_measurement(random_capture, per_head):
    captures = [random_capture((4, 4, 6), seed=1), random_capture((1, 9, 9), seed=2, model="b")]

    def goal(**target):
        return Goal(block=16, per_head=per_head, order="FWH", transform="rotate", **target)

    widths, masks = Calibration(captures, goal()), Calibration(captures, goal(density=0.9))
    for made, target in (
        (widths.plans(3.0), {"avg_bits": 3.0}),
        (widths.plans(7.0), {"avg_bits": 7.0}),
        (widths.plans(8.0), {"avg_bits": 8.0}),
        (widths.plans(), {}),
        (masks.plans(density=0.3), {"density": 0.3}),
        (masks.plans(), {"density": 0.9}),
    ):
        for plan, expected in zip(made, calibrate(captures, goal(**target)), strict=True):
            assert torch.equal(plan.codes, expected.codes)
            assert torch.equal(plan.orders, expected.orders)
            assert (plan.avg_bits, plan.model) == (expected.avg_bits, expected.model)
    with pytest.raises(ParoError, match="avg_bits = 9 is not legal"):
        widths.plans(9)
    chosen = Calibration(captures, Goal(block=16))
    assert len(chosen.plans()) == len(chosen.plans(4.8)) == 2
    with pytest.raises(ValueError, match="of a kind that was not measured"):
        chosen.plans(3.0)


def test_most_step_groups_lie_in_the_first_half():
    assert step_group_starts(1) == (0.0,)
    assert step_group_starts(2) == (0.0, 0.5)
    assert step_group_starts(5) == (0.0, 0.125, 0.25, 0.375, 0.5)
    assert Goal(step_groups=step_group_starts(9)).step_groups[-1] == 0.5
    with pytest.raises(ParoError, match="step groups = 0 is not legal; legal: 1 or more"):
        step_group_starts(0)


def test_captures_that_do_not_belong_together_are_refused(random_capture):
    whole = [random_capture(seed=n, layer=n % 2, progress=n // 2 / 2) for n in range(4)]
    goal = Goal(block=16, step_groups=(0.0, 0.5))
    calibrate(whole, goal)
    with pytest.raises(
        ParoError, match=r"no capture of layer 1 lies in the step group that begins at 0.5; legal:"
    ):
        calibrate(whole[:3], goal)
    with pytest.raises(ParoError, match=r"of layer 0 lies in the step group that begins at 0;"):
        calibrate(whole[1:], goal)
    for name, other in (
        ("grid", random_capture((2, 3, 6), seed=9)),
        ("heads", random_capture(heads=3, seed=9)),
        ("head_dim", random_capture(head_dim=21, seed=9)),
    ):
        with pytest.raises(
            ParoError, match=rf"captures random_0\S+ and random_9\S+ are of one model, .* {name} "
        ):
            calibrate([whole[0], other], Goal(block=16))
        apart = dataclasses.replace(other, model="b")
        assert len(calibrate([whole[0], apart], Goal(block=16))) == 2
    with pytest.raises(ParoError, match=r"random_0.safetensors has no head 2; legal: 0 to 1"):
        calibrate(whole, goal, (0, 2))
    with pytest.raises(ParoError, match=r"random_9\S+ and random_0\S+ .* only the first has text"):
        calibrate([whole[0], random_capture(suffix=1, seed=9)], Goal(block=16))


def test_text_behind_the_grid_is_as_text_before_it(random_capture):
    """The same tokens in another sequence give the same plan and, bit for bit, the same words."""
    suffix = random_capture((4, 4, 6), suffix=7, seed=5)
    moved = torch.cat([torch.arange(96, 103), torch.arange(96)])
    prefix = dataclasses.replace(
        suffix,
        **{name: getattr(suffix, name)[:, moved] for name in "qkv"},
        prefix_tokens=7,
        suffix_tokens=0,
    )
    config = model_config(suffix, 16)
    after, before = (plan_of(capture, avg_bits=4.0, block=16) for capture in (suffix, prefix))
    assert after.orders == before.orders
    assert torch.equal(after.codes, before.codes)
    for order in range(len(ORDERS)):
        assert suffix.permutation(order)[96:].tolist() == list(range(96, 103))
    for head in after.heads:
        words = [
            integer_attention(
                quantize_head(capture, head, plan.head_order(head), config),
                plan.head_codes(head),
                config,
            )
            for capture, plan in ((suffix, after), (prefix, before))
        ]
        assert torch.equal(*words)
    for method in ("integer", "paper"):
        outputs = [
            torch.stack([result.output for result in evaluation.results])
            for evaluation in (
                evaluate(suffix, after, (0, 1), config, method=Method(method)),
                evaluate(prefix, before, (0, 1), config, method=Method(method)),
            )
        ]
        assert torch.equal(outputs[0][:, moved], outputs[1])


@pytest.mark.parametrize("share", [0.3, 0.6])
@pytest.mark.parametrize("per_head", [False, True])
def test_masks_keep_the_largest_sums(random_capture, share, per_head):
    captures = [
        random_capture((4, 8, 8), 3, 2, seed=1),
        random_capture((1, 20, 10), seed=2, gain=0.5, model="b"),
    ]
    plans = calibrate(captures, Goal(density=share, block=16, order="HFW", per_head=per_head))
    parts = [plan.for_capture(capture) for plan, capture in zip(plans, captures, strict=True)]
    cells = []
    for capture, part in zip(captures, parts, strict=True):
        assert part.avg_bits == pytest.approx(8 * share)
        for head in part.heads:
            codes = part.head_codes(head)
            assert set(codes.unique().tolist()) == {0, 3}
            cells.append((codes != 0, block_sums(capture, head, part.head_order(head), 16)))
    groups = [[cell] for cell in cells] if per_head else [cells]
    for group in groups:
        blocks = sum(live.numel() for live, _ in group)
        assert sum(int(live.sum()) for live, _ in group) == int(share * blocks + 1e-6)
        dropped = max(sums[~live].max().item() for live, sums in group)
        for live, sums in group:
            assert live.any(dim=1).all()
            chosen = live & (sums < sums.amax(dim=1, keepdim=True))
            assert (sums[chosen] >= dropped).all()


def test_the_choice_by_error_errs_least(demo):
    """With a budget of its own no single order leaves a head a larger first-order error."""
    heads, config = (3, 8), Config(head_dim=32)
    chosen = plan_of(demo, heads, avg_bits=3.0, order="error", per_head=True)
    found = [result.snr_db for result in evaluate(demo, chosen, heads, config).results]
    for order in ORDERS:
        plan = plan_of(demo, heads, avg_bits=3.0, order=order, per_head=True)
        assert plan.orders == (ORDERS.index(order),) * 2
        for result, best in zip(evaluate(demo, plan, heads, config).results, found, strict=True):
            assert result.snr_db <= best + 3
        for position, head in enumerate(heads):
            if plan.orders[position] == chosen.orders[position]:
                assert torch.equal(plan.head_codes(head), chosen.head_codes(head))


@pytest.mark.parametrize("head", [1, 4, 5])
def test_reordering_helps_masks(shared_capture, head):
    capture = shared_capture("dinov2_video_l3")
    found = {}
    for order in ("metric", "FHW"):
        plan = plan_of(capture, (head,), density=0.3, order=order)
        assert density(plan.codes) == pytest.approx(0.3, abs=1e-3)
        (result,) = evaluate(capture, plan, (head,), Config(), method=Method("float")).results
        found[order] = plan.orders[0], result.cosine
    assert found["metric"][0] != found["FHW"][0] == 0
    assert found["metric"][1] > found["FHW"][1]


def test_a_plan_serves_all_captures_of_its_model(make_capture, tmp_path):
    early = load_capture(make_capture(metadata={"model": "m", "progress": "0.1"}))
    late = load_capture(make_capture(seed=1, metadata={"model": "m", "progress": "0.9"}))
    other = load_capture(make_capture(metadata={"model": "n"}))
    anonymous = load_capture(make_capture())
    (plan,) = calibrate([early], Goal(avg_bits=6.0, block=16))
    assert plan.model == "m"
    assert torch.equal(plan.for_capture(late).codes, plan.for_capture(early).codes)
    config = model_config(late, 16)
    evaluate(late, plan.for_capture(late), (0, 1), config)
    for capture in (other, anonymous):
        with pytest.raises(ParoError, match="is of another capture or model than"):
            plan.for_capture(capture)
    assert len(calibrate([early, other, late, anonymous], Goal(block=16))) == 3


def test_illegal_goals():
    for avg_bits in (0, -1, 8.1, float("nan"), float("inf")):
        with pytest.raises(ParoError, match="legal: above 0, at most 8"):
            Goal(avg_bits=avg_bits)
    for share in (0, -0.1, 1.01, float("nan")):
        with pytest.raises(ParoError, match=r"density = \S+ is not legal; legal: above 0, at most"):
            Goal(density=share)
    with pytest.raises(ParoError, match="block = 8 is not legal; legal: 16, 32, 64"):
        Goal(block=8)
    with pytest.raises(ParoError, match=r"order = 'HHW' is not legal; legal: error, metric, FHW"):
        Goal(order="HHW")
    with pytest.raises(ParoError, match="format = 'int8' is not legal; legal: digit, digit-4"):
        Goal(rounding="int8")  # type: ignore[arg-type]
    for starts in ((), (0.1,), (0.0, 0.5, 0.5), (0.0, 1.0), (0.0, 0.7, 0.3), (0.0, float("nan"))):
        with pytest.raises(ParoError, match=r"step groups \S* are not legal; legal: shares of the"):
            Goal(step_groups=starts)
    with pytest.raises(ParoError, match="transform = 'x' is not legal; legal: error, none, balan"):
        Goal(transform="x")
    with pytest.raises(ParoError, match="text_bits = 3 is not legal; legal: 0, 2, 4, 8"):
        Goal(text_bits=3)
    for floor in (-1, 5.0, float("nan")):
        with pytest.raises(ParoError, match=r"floor_bits = \S+ is not legal; legal: 0 to 4.8"):
            Goal(floor_bits=floor)


@pytest.mark.parametrize(("avg_bits", "floor"), [(8.0, 34), (4.8, 30), (3.0, 20)])
@pytest.mark.parametrize("per_head", [False, True])
def test_quality_of_the_shipped_capture(demo, avg_bits, floor, per_head):
    heads = (0, 5, 10, 15)
    plan = plan_of(demo, heads, avg_bits=avg_bits, per_head=per_head)
    evaluation = evaluate(demo, plan, heads, Config(head_dim=32))
    assert evaluation.report["mean_bits"] == pytest.approx(avg_bits, abs=0.05)
    assert all(result.snr_db >= floor for result in evaluation.results), evaluation.report


@pytest.mark.parametrize(
    ("avg_bits", "floors"), [(8.0, (46.0, 41.4)), (4.8, (38, 38)), (3.0, (20, 33))]
)
def test_quality_of_the_video_capture(shared_capture, avg_bits, floors):
    """Heads 0 and 5 have the least margin at few bits."""
    capture = shared_capture("dinov2_video_l3")
    heads = (0, 5)
    plan = plan_of(capture, heads, avg_bits=avg_bits, per_head=True)
    results = evaluate(capture, plan, heads, Config(), range(0, 32, 3)).results
    assert all(r.snr_db >= floor for r, floor in zip(results, floors, strict=True)), results


@pytest.mark.slow
def test_quality_of_all_heads_under_one_budget(shared_capture):
    """The target: 34 heads of four captures, the integer model; mean and worst in dB."""
    captures = [shared_capture(name) for name in TARGET_CAPTURES]

    def signal_to_noise(avg_bits):
        plans = [
            plan.for_capture(capture)
            for plan, capture in zip(
                calibrate(captures, Goal(avg_bits=avg_bits)), captures, strict=True
            )
        ]
        mean, blocks = overall_mean(plans)
        assert avg_bits - 4 / blocks <= mean <= avg_bits
        return [
            result.snr_db
            for capture, plan in zip(captures, plans, strict=True)
            for result in evaluate(
                capture, plan, range(capture.heads), model_config(capture, 64)
            ).results
        ]

    found = {avg_bits: signal_to_noise(avg_bits) for avg_bits in (8.0, 4.8, 3.0, 2.0)}
    assert len(found[8.0]) == 34
    losses = [best - snr for best, snr in zip(found[8.0], found[4.8], strict=True)]
    assert max(losses) <= 4, losses
    assert sum(losses) / len(losses) <= 0.7
    for avg_bits, mean, worst in ((4.8, 46.0, 38.0), (3.0, 42.5, 32.0), (2.0, 34.5, 24.0)):
        snrs = found[avg_bits]
        assert sum(snrs) / len(snrs) >= mean, snrs
        assert min(snrs) >= worst, snrs


def test_step_groups_count_by_their_length(make_capture):
    """The mean is over the denoising steps, of which the second half is one group."""
    path = make_capture(grid=(8, 8, 8), prefix=0)
    starts = step_group_starts(3)
    captures = [
        dataclasses.replace(
            load_capture(path), model="m", progress=start, q=load_capture(path).q * gain
        )
        for start, gain in zip(starts, (1.0, 1.5, 0.3), strict=True)
    ]
    goal = Goal(avg_bits=4.0, block=16, step_groups=starts)
    (plan,) = calibrate(captures, goal)
    means = [mean_bits(codes) for codes in plan.codes]
    assert max(means) - min(means) > 0.3
    assert plan.mean_bits() == pytest.approx((means[0] + means[1]) / 4 + means[2] / 2)
    assert 4.0 - 0.01 < plan.mean_bits() <= 4.0 + 1e-6
    (mask,) = calibrate(captures, dataclasses.replace(goal, density=0.4))
    assert mask.density() == pytest.approx(0.4, abs=2e-3)


def test_what_errors_are_relative_to(demo):
    """Against its best no head loses much; against its signal the summed error is less."""
    loss = {}
    for what in ("best", "signal"):
        goal = Goal(avg_bits=3.0, relative_to=what, order="FHW", transform="rotate")
        (result,) = Calibration([demo], goal, (2, 3, 6, 10)).results()
        loss[what] = (
            sum(10 ** (head.loss_db / 10) for head in result.heads),
            sum(10 ** (-head.snr_db / 10) for head in result.heads),
        )
    assert loss["best"][0] < loss["signal"][0]
    assert loss["signal"][1] < loss["best"][1]
    with pytest.raises(ParoError, match="relative to 'x' is not legal; legal: best, signal"):
        Goal(relative_to="x")  # type: ignore[arg-type]


def spatial_waves(capture, seed=0):
    """Queries look for keys near them: heads as a network's, with little noise."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.stack(
        torch.meshgrid(*[torch.linspace(0, 1, size) for size in capture.grid], indexing="ij"), -1
    ).reshape(-1, 3)
    text = torch.rand(capture.text_tokens, 3, generator=generator)
    place = torch.cat([text[: capture.prefix_tokens], place, text[capture.prefix_tokens :]])
    shape = (3, capture.head_dim)
    phase = 6.28 * torch.rand(capture.head_dim, generator=generator)
    wave = torch.cos(4 * place @ torch.randn(shape, generator=generator) + phase)

    def noisy(size):
        return wave + size * torch.randn(capture.q.shape, generator=generator)

    return dataclasses.replace(capture, q=4 * noisy(0.1), k=noisy(0.3))


def test_the_only_useful_block_is_never_skipped(random_capture):
    """Queries of head 1 all look at one key: without its block nothing right is left."""
    capture = spatial_waves(random_capture((8, 8, 8), head_dim=32))
    generator = torch.Generator().manual_seed(1)
    pull = torch.nn.functional.normalize(torch.randn(32, generator=generator), dim=0)
    capture.q[1] = 12 * pull + 0.2 * torch.randn(512, 32, generator=generator)
    capture.k[1] = 0.5 * torch.randn(512, 32, generator=generator)
    capture.k[1, 300] = 12 * pull
    for avg_bits in (4.8, 2.0):
        (result,) = Calibration([capture], Goal(avg_bits=avg_bits)).results()
        assert result.heads[1].loss_db < 1, result.heads
        assert result.heads[1].kept > 0.9
        plan = result.plan.for_capture(capture)
        evaluated = evaluate(capture, plan, (0, 1), model_config(capture, 64))
        for found, told in zip(evaluated.results, result.heads, strict=True):
            assert found.snr_db == pytest.approx(told.snr_db, abs=0.1)
            assert found.mean_bits == pytest.approx(told.mean_bits)


def test_blocks_that_harm_only_together_are_repaired(random_capture, monkeypatch):
    """Four keys have a fifth of the weight each and one V, the others the opposite V.

    Without one of the four the others still rule; without all others the output is too large. Both
    errors grow with the square of how many blocks are dropped, and head 1 needs all the bits.
    """
    capture = random_capture((4, 8, 8), heads=2, head_dim=32, gain=1, seed=2)
    shared = torch.tensor([10, 70, 140, 200])
    generator = torch.Generator().manual_seed(1)
    pull = torch.nn.functional.normalize(torch.randn(32, generator=generator), dim=0)
    capture.q[0] = 0.1 * capture.k[0] + 8 * pull
    capture.k[0] *= 0.1
    capture.k[0, shared] += 3.9 * pull
    capture.v[0] = 0.05 * capture.v[0] - 1
    capture.v[0, shared] += 2
    goal = Goal(avg_bits=2.0, block=16, order="FHW", transform="rotate")
    (repaired,) = Calibration([capture], goal).results()
    monkeypatch.setattr("firmware_model.calibration.calibrate.REPAIRS", 1)
    (single,) = Calibration([capture], goal).results()
    assert single.heads[0].snr_db < 15
    assert repaired.heads[0].snr_db > single.heads[0].snr_db + 8
    assert repaired.heads[0].kept > single.heads[0].kept
    worst = [min(head.snr_db for head in result.heads) for result in (single, repaired)]
    assert worst[1] > worst[0]
    assert repaired.plan.mean_bits() <= 2.0 + 1e-6


def test_a_head_beyond_the_format_is_left_out_alone(random_capture):
    captures = [random_capture((4, 4, 4), seed=layer, layer=layer) for layer in (0, 3)]
    captures[1].q[1] *= 1e4
    (result,) = Calibration(captures, Goal(block=16)).results()
    assert [(head.layer, head.head) for head in result.heads] == [(0, 0), (0, 1), (3, 0)]
    (sentence,) = result.left_out
    assert re.match(r"capture random_3\S+, head 1: logits beyond the format; .* legal: ", sentence)
    assert result.plan.held.tolist() == [[True, True], [True, False]]
    assert result.plan.for_capture(captures[1]).heads == (0,)
    assert 4.6 < result.plan.mean_bits() <= 4.8
    with pytest.raises(ParoError, match="head 1: logits beyond the format"):
        calibrate([captures[1]], Goal(block=16), (1,))


def test_an_outlier_channel_costs_nothing(random_capture):
    capture = random_capture((4, 4, 8))
    spoilt = dataclasses.replace(capture, q=capture.q.clone(), k=capture.k.clone())
    spoilt.k[:, :, 9] *= 40
    spoilt.q[:, :, 9] /= 40
    (fine,), (same,) = (
        Calibration([one], Goal(avg_bits=6.0, block=16)).results() for one in (capture, spoilt)
    )
    assert not same.left_out
    for head, other in zip(fine.heads, same.heads, strict=True):
        assert other.snr_db > head.snr_db - 1.5


@pytest.mark.parametrize("avg_bits", [3.0, 4.8])
def test_text_does_not_take_the_budget(random_capture, avg_bits):
    """Two thirds of the tokens are text, which no plan can keep at 8 bits."""
    capture = spatial_waves(random_capture((1, 8, 8), prefix=128, head_dim=32))
    (result,) = Calibration([capture], Goal(avg_bits=avg_bits, block=16)).results()
    assert avg_bits - 0.1 < result.plan.mean_bits() <= avg_bits
    (forced,) = Calibration([capture], Goal(avg_bits=avg_bits, block=16, text_bits=8)).results()
    assert forced.plan.mean_bits() > 6
    text = text_floor(192, 128, 16, 1) > 0
    for own, all_text in zip(result.heads, forced.heads, strict=True):
        assert own.snr_db > all_text.snr_db + (3 if avg_bits > 4 else 0)
    assert mean_bits(result.plan.codes[0, 0, 0][text]) < avg_bits + 1


def prompts(random_capture, *texts):
    """The same picture beside texts of several lengths, behind the grid."""
    whole = spatial_waves(random_capture((4, 4, 9), suffix=max(texts), head_dim=32))
    return [
        dataclasses.replace(
            whole,
            **{name: getattr(whole, name)[:, : 144 + text] for name in "qkv"},
            path=Path(f"prompt_{text}"),
            digest=f"{text:064x}",
            suffix_tokens=text,
        )
        for text in texts
    ]


def test_a_plan_carries_over_to_prompts_of_any_length(random_capture):
    short, medium, long = prompts(random_capture, 5, 21, 50)
    goal = Goal(avg_bits=4.0, block=16)
    (plan,) = calibrate([medium], goal)
    for capture in (short, medium, long):
        part = plan.for_capture(capture)
        count = -(-capture.tokens // 16)
        assert part.codes.shape == (2, count, count)
        assert torch.equal(part.codes[:, :9, :9], plan.for_capture(medium).codes[:, :9, :9])
        (own,) = calibrate([capture], goal)
        config = model_config(capture, 16)
        carried, best = (
            evaluate(capture, found.for_capture(capture), (0, 1), config).results
            for found in (plan, own)
        )
        for result, other in zip(carried, best, strict=True):
            assert result.snr_db > max(30, other.snr_db - 5)


def test_prompts_of_different_length_calibrate_together(random_capture):
    short, medium, long = prompts(random_capture, 5, 21, 50)
    (together,) = calibrate([short, long, medium], Goal(avg_bits=4.0, block=16))
    assert (together.prefix_tokens, together.suffix_tokens) == (0, 50)
    assert together.codes.shape[-1] == 13
    assert together.calibrated_on == tuple(c.digest for c in (short, long, medium))
    for capture in (short, medium, long):
        evaluation = evaluate(
            capture, together.for_capture(capture), (0, 1), model_config(capture, 16)
        )
        assert min(result.snr_db for result in evaluation.results) > 25


def test_captures_are_read_one_at_a_time(make_capture, tmp_path, monkeypatch):
    """No two captures are in memory at once, and the plan is that of captures in memory."""
    for index in range(4):
        path = make_capture(
            (4, 4, 4), 0, seed=index, metadata={"model": "m", "layer": str(index // 2)}
        )
        path.rename(tmp_path / f"part{index}.safetensors")
    sources = open_captures(sorted(tmp_path.glob("part*")))
    in_memory = [source.load() for source in sources]
    alive = weakref.WeakSet()
    most = 0
    load = CaptureFile.load

    def counted(source):
        nonlocal most
        loaded = load(source)
        alive.add(loaded)
        most = max(most, len(alive))
        return loaded

    monkeypatch.setattr(CaptureFile, "load", counted)
    for goal in (Goal(avg_bits=3.0, block=16), Goal(avg_bits=3.0, block=16, order="metric")):
        most = 0
        (streamed,) = calibrate(sources, goal)
        assert most == 1
        (held,) = calibrate(in_memory, goal)
        assert torch.equal(streamed.codes, held.codes)
        assert torch.equal(streamed.transforms, held.transforms)
        assert streamed.calibrated_on == held.calibrated_on


@pytest.fixture
def linear():
    """A layer of the random captures' model; its tokens are what its tiles cost."""

    def build(run_tokens, gain=1.0):
        random = torch.Generator().manual_seed(5)
        x, weight = (torch.randn(shape, generator=random) for shape in ((80, 64), (48, 64)))
        model = "a" * 64
        return Layer(Path("linear"), x, gain * weight, None, "mlp", model, run_tokens)

    return build


SHARED = Goal(avg_bits=3.0, block=16, order="FHW", relative_to="signal", shared=True)


def shared_means(capture, layer, goal=SHARED):
    """Mean bits of attention and of the layer under one budget, and of all by their cycles."""
    (found,) = calibrate_models([capture], [layer], goal)
    attention, weights = found.plan.mean_bits(), found.plan.weight_bits()
    blocks = found.plan.codes.numel() * 2 * 16
    tiles = found.plan.linear[0].weights.codes.numel() * layer.run_tokens
    return attention, weights, (attention * blocks + weights * tiles) / (blocks + tiles)


def test_one_budget_in_cycles(random_capture, linear):
    """It is met whatever the layer costs; the dearer it is, the fewer bits it gets."""
    capture = random_capture(grid=(4, 4, 8))
    found = [shared_means(capture, linear(tokens)) for tokens in (20, 500, 20000)]
    for _, _, mean in found:
        # A bit more of one tile may be beyond what is left.
        assert 2.6 < mean <= 3.0 + 1e-6
    attention, weights, _ = zip(*found, strict=True)
    assert weights[0] > weights[1] >= weights[2]
    assert attention[0] < attention[2]
    # What counts is the error relative to the signal.
    assert shared_means(capture, linear(500, gain=1000.0)) == found[1]
    layers = [linear(500)]
    apart = calibrate_models([capture], layers, Goal(avg_bits=3.0, block=16, order="FHW"))
    assert apart[0].plan.linear[0].mean_bits() == 4


def test_a_shared_budget_spends_better_than_two(random_capture, linear):
    """The error of both together is below that of the same mean for each."""
    capture, layer = random_capture(grid=(4, 4, 8)), linear(500)
    apart = dataclasses.replace(SHARED, shared=False, weight_bits=3.0)

    def error(goal):
        (found,) = calibrate_models([capture], [layer], goal)
        heads = [10 ** (-head.snr_db / 10) for head in found.heads]
        return sum(heads) / len(heads) + 10 ** (-found.layers[0].snr_db / 10)

    assert error(SHARED) < error(apart)


def test_a_shared_budget_is_of_widths_for_all(random_capture):
    for change in ({"relative_to": "best"}, {"per_head": True}, {"density": 0.5}):
        with pytest.raises(ParoError, match="a shared budget is not legal with per_head, a dens"):
            dataclasses.replace(SHARED, **change)
    with pytest.raises(ParoError, match=r"shared avg_bits = 1\.5 is not legal; legal: 2 to 8"):
        dataclasses.replace(SHARED, avg_bits=1.5)


def test_calibrated_on_names_captures_of_both(random_capture, linear):
    layer = dataclasses.replace(linear(80), digest="c" * 64)
    capture = random_capture(grid=(2, 4, 4))
    (found,) = calibrate_models([capture], [layer], Goal(avg_bits=8.0, block=16), head_dim=64)
    assert found.plan.calibrated_on == (capture.digest, "c" * 64)
    assert (found.plan.linear[0].head_dim, found.plan.block) == (64, 16)
    assert len(found.heads) == 2
    other = dataclasses.replace(layer, model="other")
    plans = calibrate_models([capture], [other], Goal(avg_bits=8.0, block=16))
    assert [(p.plan.has_attention, len(p.plan.linear)) for p in plans] == [(True, 0), (False, 1)]
