import pytest
import torch

from firmware_model.capture import load_capture
from firmware_model.plan import (
    Plan,
    density,
    load_plan,
    mean_bits,
    pack_codes,
    save_plan,
    uniform_plan,
    unpack_codes,
)
from firmware_model.tensorfile import read_tensors, write_tensors
from paro_config import ParoError


@pytest.fixture
def capture(make_capture):
    return load_capture(make_capture(grid=(5, 6, 7)))


@pytest.fixture
def plan(capture):
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(4, (2, 14, 14), dtype=torch.uint8, generator=generator)
    codes[:, :, 3] = 3
    grid, prefix = capture.grid, capture.prefix_tokens
    return Plan(capture.digest, 16, grid, prefix, 4.8, (1, 0), (5, 2), codes)


def test_round_trip(capture, plan, tmp_path):
    path = tmp_path / "made" / "plan.safetensors"
    save_plan(plan, path)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    loaded = load_plan(path, capture)
    assert torch.equal(loaded.codes, plan.codes)
    for field in (
        "capture_digest",
        "block",
        "grid",
        "prefix_tokens",
        "avg_bits",
        "heads",
        "orders",
    ):
        assert getattr(loaded, field) == getattr(plan, field)
    assert loaded.head_order(0) == 2
    assert torch.equal(loaded.head_codes(1), plan.codes[0])
    with pytest.raises(ParoError, match="the plan has no head 7; legal: 1, 0"):
        loaded.head_codes(7)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 275])
def test_packing(count):
    codes = torch.randint(4, (2, count), dtype=torch.uint8)
    packed = pack_codes(codes)
    assert packed.shape == (2, -(-count // 4))
    assert torch.equal(unpack_codes(packed, count), codes)
    assert int(packed[0, 0]) & 3 == int(codes[0, 0])


def test_means():
    codes = torch.tensor([[0, 1], [2, 3]], dtype=torch.uint8)
    assert mean_bits(codes) == 3.5
    assert density(codes) == 0.75


def test_uniform_plan(capture):
    plan = uniform_plan(capture, (1,), block=32)
    assert plan.codes.shape == (1, 7, 7)
    assert (plan.codes == 3).all()
    with pytest.raises(ParoError, match="block = 48 is not legal; legal: 16, 32, 64"):
        uniform_plan(capture, (0,), block=48)
    with pytest.raises(ParoError, match="code = 0 is not legal"):
        uniform_plan(capture, (0,), code=0)


def test_refuses_plan_of_another_capture(capture, plan, tmp_path, demo):
    save_plan(plan, tmp_path / "plan")
    with pytest.raises(ParoError, match="is of another capture than"):
        load_plan(tmp_path / "plan", demo)


def test_refuses_truncated_and_missing(capture, plan, tmp_path):
    path = tmp_path / "plan"
    with pytest.raises(ParoError, match="does not exist"):
        load_plan(path, capture)
    save_plan(plan, path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ParoError, match="is truncated"):
        load_plan(path, capture)
    with pytest.raises(ParoError, match="has no tensor 'heads'"):
        load_plan(capture.path, capture)


@pytest.mark.parametrize(
    ("tensors", "metadata", "sentence"),
    [
        ({}, {"format": "paro-plan-0"}, "has format 'paro-plan-0'; legal: 'paro-plan-1'"),
        ({}, {"block": "17"}, "block = '17' is not legal"),
        ({}, {"block": ""}, "block = "),
        ({}, {"grid": "6,5,7"}, "another token grid"),
        ({}, {"prefix_tokens": "x"}, "another token grid"),
        ({}, {"avg_bits": "x"}, "avg_bits = 'x' is not legal"),
        ({}, {"avg_bits": "nan"}, "avg_bits = "),
        ({}, {"block": "32"}, "codes are"),
        ({"heads": torch.tensor([0, 0], dtype=torch.int32)}, {}, "heads are not legal"),
        ({"heads": torch.tensor([0, 2], dtype=torch.int32)}, {}, "heads are not legal"),
        ({"heads": torch.tensor([0.0, 1.0])}, {}, "heads are not legal"),
        ({"orders": torch.tensor([6, 0], dtype=torch.uint8)}, {}, "orders are not legal"),
        ({"orders": torch.tensor([0], dtype=torch.uint8)}, {}, "orders are not legal"),
        ({"codes": torch.zeros(2, 14, 4, dtype=torch.uint8)}, {}, "block row 0 of head 1 has no"),
        ({"codes": torch.zeros(2, 14, 4, dtype=torch.int8)}, {}, "codes are"),
    ],
)
def test_refuses_what_is_not_legal(capture, plan, tmp_path, tensors, metadata, sentence):
    path = tmp_path / "plan"
    save_plan(plan, path)
    content = read_tensors(path, "plan", ("heads", "orders", "codes"))
    write_tensors(path, content.tensors | tensors, content.metadata | metadata)
    with pytest.raises(ParoError, match=sentence):
        load_plan(path, capture)
