import dataclasses
import subprocess
import sys

import pytest
import torch

from firmware_model.calibration.plan import (
    ModelPlan,
    fit_codes,
    load_model_plan,
    load_plan,
    save_plan,
    step_group,
    uniform_plan,
)
from firmware_model.capture import load_capture
from firmware_model.codes import mean_bits, pack_codes
from firmware_model.tensorfile import read_tensors, write_tensors
from paro.config import ParoError

NAMES = ("layers", "heads", "step_groups", "orders", "transforms", "codes")
TENSORS = ("orders", "transforms", "codes")
SCALARS = tuple(field.name for field in dataclasses.fields(ModelPlan) if field.name not in TENSORS)


def random_codes(*shape):
    codes = torch.randint(4, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    codes[..., 3] = 3
    return codes


@pytest.fixture
def capture(make_capture):
    return load_capture(make_capture(grid=(5, 6, 7)))


@pytest.fixture
def plan(capture):
    """Two step groups, layers 0 and 4, heads 1 and 0."""
    return ModelPlan(
        model=capture.model,
        calibrated_on=(capture.digest, "b" * 64),
        block=16,
        grid=capture.grid,
        prefix_tokens=3,
        suffix_tokens=0,
        avg_bits=4.8,
        layers=(0, 4),
        heads=(1, 0),
        step_groups=(0.0, 0.3),
        orders=torch.tensor([[5, 2], [1, 0]], dtype=torch.uint8),
        transforms=torch.tensor([[0, 3], [2, 1]], dtype=torch.uint8),
        codes=random_codes(2, 2, 2, 14, 14),
    )


def test_round_trip(capture, plan, tmp_path):
    path = tmp_path / "made" / "plan.safetensors"
    save_plan(plan, path)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    whole = load_model_plan(path)
    for name in TENSORS:
        assert torch.equal(getattr(whole, name), getattr(plan, name))
    for field in SCALARS:
        assert getattr(whole, field) == getattr(plan, field)
    loaded = load_plan(path, capture)
    assert (loaded.block, loaded.avg_bits, loaded.blocks) == (16, 4.8, 14)
    assert (loaded.heads, loaded.orders) == ((1, 0), (5, 2))
    assert (loaded.head_order(0), loaded.head_transform(0)) == (2, 3)
    assert torch.equal(loaded.head_codes(1), plan.codes[0, 0, 0])
    with pytest.raises(ParoError, match="the plan has no head 7; legal: 1, 0"):
        loaded.head_codes(7)


def test_selects_the_layer_and_the_step_group(capture, plan):
    late = dataclasses.replace(capture, layer=4, progress=0.3)
    part = plan.for_capture(late)
    assert part.orders == (1, 0)
    assert torch.equal(part.codes, plan.codes[1, 1])
    assert torch.equal(plan.at(4, 0.2999).codes, plan.codes[0, 1])
    assert torch.equal(plan.at(0, 0.999).codes, plan.codes[1, 0])
    for progress, group in ((0, 0), (0.19, 0), (0.2, 1), (0.5, 2), (0.99, 2)):
        assert step_group((0.0, 0.2, 0.5), progress) == group


def test_refuses_what_it_is_not_for(capture, plan):
    for change, sentence in (
        ({"model": "b"}, "is of another capture or model than"),
        ({"grid": (6, 5, 7)}, "has another token grid than"),
        ({"layer": 1}, "the plan has no layer 1; legal: 0, 4"),
        (
            {name: getattr(capture, name)[:1] for name in "qkv"},
            r"the plan has a head 1, but capture \S+ only heads 0 to 0",
        ),
    ):
        with pytest.raises(ParoError, match=sentence):
            plan.for_capture(dataclasses.replace(capture, **change))


@pytest.mark.parametrize("blocks", [14, 33, 275])
def test_size_of_the_file(plan, tmp_path, blocks):
    shape = (3, 4, 2, blocks, blocks)
    large = dataclasses.replace(
        plan,
        block=64,
        grid=(1, 1, 64 * blocks),
        prefix_tokens=0,
        layers=(0, 1, 2, 3),
        step_groups=(0.0, 0.2, 0.9),
        orders=torch.zeros(4, 2, dtype=torch.uint8),
        transforms=torch.zeros(4, 2, dtype=torch.uint8),
        codes=random_codes(*shape),
    )
    save_plan(large, tmp_path / "plan")
    packed = 3 * 4 * 2 * blocks * -(-blocks // 4)
    assert packed <= (tmp_path / "plan").stat().st_size <= packed + 1500
    assert torch.equal(load_model_plan(tmp_path / "plan").codes, large.codes)


def test_uniform_plan(capture):
    plan = uniform_plan(capture, (1,), block=32)
    assert plan.codes.shape == (1, 7, 7)
    assert (plan.codes == 3).all()
    with pytest.raises(ParoError, match="block = 48 is not legal; legal: 16, 32, 64"):
        uniform_plan(capture, (0,), block=48)
    with pytest.raises(ParoError, match="code = 0 is not legal"):
        uniform_plan(capture, (0,), code=0)


def test_a_head_without_codes_is_left_out(capture, plan, tmp_path):
    """Head 0 of layer 0 alone; its means count no block of it."""
    plan.codes[:, 0, 1] = 0
    save_plan(plan, tmp_path / "plan")
    loaded = load_model_plan(tmp_path / "plan")
    assert loaded.held.tolist() == [[True, False], [True, True]]
    part = loaded.for_capture(capture)
    assert (part.heads, part.orders, part.transforms) == ((1,), (5,), (0,))
    assert torch.equal(part.codes, plan.codes[0, :1, 0])
    with pytest.raises(ParoError, match="the plan has no head 0; legal: 1"):
        part.head_order(0)
    assert loaded.at(4, 0.0).heads == (1, 0)
    live = plan.codes[:, [0, 1, 1], [0, 0, 1]]
    assert loaded.mean_bits() == pytest.approx(0.3 * mean_bits(live[0]) + 0.7 * mean_bits(live[1]))


def test_the_same_plan_is_the_same_bytes(plan, tmp_path):
    """In any process: the hash of strings, which differs, must not decide the sequence."""
    script = (
        "import sys, torch; from pathlib import Path; "
        "from firmware_model.calibration.plan import load_model_plan, save_plan; "
        "save_plan(load_model_plan(Path(sys.argv[1])), Path(sys.argv[2]))"
    )
    save_plan(plan, tmp_path / "plan")
    for index in range(2):
        copy = tmp_path / f"copy{index}"
        subprocess.run([sys.executable, "-c", script, tmp_path / "plan", copy], check=True)
        assert copy.read_bytes() == (tmp_path / "plan").read_bytes()


@pytest.mark.parametrize("wanted", [0, 1, 20, 47])
def test_codes_fit_texts_of_any_length(wanted):
    """35 tokens of grid are 2 blocks and a part; the codes are for 9 of text, in blocks 2."""
    generator = torch.Generator().manual_seed(wanted)
    codes = torch.randint(1, 4, (2, 3, 3), dtype=torch.uint8, generator=generator)
    codes[:, 0] = torch.tensor([0, 0, 2])
    fitted = fit_codes(codes, 16, 35, 9, wanted)
    count = -(-(35 + wanted) // 16)
    assert fitted.shape == (2, count, count)
    assert torch.equal(fitted[:, :2, :2], codes[:, :2, :2])
    for row in range(count):
        for column in range(count):
            assert torch.equal(fitted[:, row, column], codes[:, min(row, 2), min(column, 2)])
    assert fit_codes(codes, 16, 35, 9, 9) is codes


def test_rows_that_only_text_kept_alive_keep_themselves():
    """32 tokens of grid are whole blocks: without the text nothing is left of row 0."""
    codes = torch.tensor([[[0, 0, 2], [1, 0, 0], [1, 1, 1]]], dtype=torch.uint8)
    assert fit_codes(codes, 16, 32, 5, 0).tolist() == [[[3, 0], [1, 0]]]
    with pytest.raises(ParoError, match="calibrated without text tokens, and there are 4; legal"):
        fit_codes(codes, 16, 48, 0, 4)


def test_a_text_takes_the_widest_of_all_text():
    codes = torch.zeros(1, 4, 4, dtype=torch.uint8)
    codes[0, :, 0] = 1
    codes[0, 2] = torch.tensor([1, 0, 2, 0], dtype=torch.uint8)
    codes[0, 3] = torch.tensor([0, 3, 0, 0], dtype=torch.uint8)
    assert fit_codes(codes, 16, 32, 20, 1)[0].tolist() == [[1, 0, 0], [1, 0, 0], [1, 3, 2]]


def test_refuses_plan_of_another_capture(plan, tmp_path, demo):
    save_plan(plan, tmp_path / "plan")
    with pytest.raises(ParoError, match=r"plan \S+: the plan is of another capture or model than"):
        load_plan(tmp_path / "plan", demo)


def test_refuses_truncated_and_missing(capture, plan, tmp_path):
    path = tmp_path / "plan"
    with pytest.raises(ParoError, match="does not exist"):
        load_plan(path, capture)
    save_plan(plan, path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ParoError, match="is truncated"):
        load_plan(path, capture)
    with pytest.raises(ParoError, match="has format None; legal: 'paro-plan-4'"):
        load_plan(capture.path, capture)


def integers(*values):
    return torch.tensor(values, dtype=torch.int32)


@pytest.mark.parametrize(
    ("tensors", "metadata", "sentence"),
    [
        ({}, {"format": "paro-plan-1"}, "has format 'paro-plan-1'; legal: 'paro-plan-4'"),
        ({}, {"block": "17"}, "block = 17 is not legal"),
        ({}, {"block": ""}, "block = "),
        ({}, {"grid": "6,5,7"}, "another token grid"),
        ({}, {"grid": "6,5"}, "grid = '6,5' is not legal"),
        ({}, {"grid": "5,6,8"}, "codes are"),
        ({}, {"prefix_tokens": "x"}, "prefix_tokens = 'x' is not legal"),
        ({}, {"suffix_tokens": "-1"}, "suffix_tokens = '-1' is not legal"),
        ({}, {"avg_bits": "x"}, "avg_bits = 'x' is not legal"),
        ({}, {"avg_bits": "nan"}, "avg_bits = "),
        ({}, {"avg_bits": "8.5"}, "avg_bits = "),
        ({}, {"block": "32"}, "codes are"),
        ({}, {"model": "b"}, "another capture or model"),
        ({"heads": integers(0, 0)}, {}, "heads are not legal; legal: int32"),
        ({"heads": integers(0, 2)}, {}, "has a head 2, but capture"),
        ({"heads": integers(0, -1)}, {}, "heads are not legal"),
        ({"heads": integers(0)}, {}, "orders are not legal"),
        ({"heads": torch.tensor([0.0, 1.0])}, {}, "heads are not legal"),
        ({"layers": integers(1, 1)}, {}, "layers are not legal"),
        ({"layers": integers(1, 2)}, {}, "has no layer 0; legal: 1, 2"),
        ({"layers": integers(0, 1, 2)}, {}, "orders are not legal"),
        ({"step_groups": torch.tensor([0.0, 0.3])}, {}, "step_groups are not legal"),
        ({"step_groups": torch.tensor([0.1, 0.3]).double()}, {}, "step_groups are not legal"),
        ({"step_groups": torch.tensor([0.0, 0.0]).double()}, {}, "step_groups are not legal"),
        ({"step_groups": torch.tensor([0.0, 1.0]).double()}, {}, "step_groups are not legal"),
        ({"step_groups": torch.tensor([0.0, torch.nan]).double()}, {}, "step_groups are not"),
        ({"step_groups": torch.tensor([0.0]).double()}, {}, "codes are"),
        ({"orders": torch.tensor([[6, 0], [0, 0]]).byte()}, {}, "orders are not legal"),
        ({"orders": torch.tensor([0, 1]).byte()}, {}, "orders are not legal"),
        ({"transforms": torch.tensor([[4, 0], [0, 0]]).byte()}, {}, "transforms are not legal"),
        ({"codes": torch.zeros(2, 2, 2, 14, 4).byte()}, {}, "holds no head; legal: one or more"),
        (
            {
                "codes": torch.from_numpy(
                    pack_codes(random_codes(2, 2, 2, 14, 14) * (torch.arange(14) > 0).view(-1, 1))
                )
            },
            {},
            "block row 0 of head 1 in layer 0 has no live block",
        ),
        ({"codes": torch.zeros(2, 2, 2, 14, 4).char()}, {}, "codes are"),
        ({"codes": torch.zeros(2, 2, 2, 14, 14).byte()}, {}, "codes are"),
    ],
)
def test_refuses_what_is_not_legal(capture, plan, tmp_path, tensors, metadata, sentence):
    path = tmp_path / "plan"
    save_plan(plan, path)
    content = read_tensors(path, "plan", NAMES)
    write_tensors(path, content.tensors | tensors, content.metadata | metadata)
    with pytest.raises(ParoError, match=sentence) as error:
        load_plan(path, capture)
    assert "\n" not in str(error.value)
