"""Plans of linear layers in plan files."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from firmware_model.calibration.layers import plan_layer
from firmware_model.calibration.plan import ModelPlan, load_model_plan, save_plan
from firmware_model.layer import Layer
from firmware_model.tensorfile import read_tensors, write_tensors
from paro.config import Config, ParoError

CONFIG = Config(rows=4, cols=4, block=16, head_dim=32)


def layer(name, seed, inputs=96):
    random = torch.Generator().manual_seed(seed)
    x, weight = (torch.randn(shape, generator=random) for shape in ((60, inputs), (40, inputs)))
    return Layer(Path(f"{name}.safetensors"), x, weight, torch.arange(40.0), name)


LAYERS = (layer("a", 0), layer("b", 1, 33))


@pytest.fixture(scope="module")
def plan():
    return ModelPlan.of_layers("m", ("d" * 64,), [plan_layer(own, 3, CONFIG) for own in LAYERS])


def assert_equal(found, wanted):
    """Every field of two layers' plans, tensors by value."""
    for field in dataclasses.fields(wanted):
        a, b = getattr(found, field.name), getattr(wanted, field.name)
        if dataclasses.is_dataclass(b):
            assert_equal(a, b)
        elif isinstance(b, torch.Tensor):
            assert a.dtype == b.dtype
            assert torch.equal(a, b)
        else:
            assert a == b


def test_there_and_back(plan, tmp_path):
    path = tmp_path / "plan.safetensors"
    save_plan(plan, path)
    found = load_model_plan(path)
    assert (found.model, found.calibrated_on, found.has_attention) == ("m", ("d" * 64,), False)
    for own, wanted in zip(found.linear, plan.linear, strict=True):
        assert_equal(own, wanted)
    save_plan(found, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    assert found.weight_bits() == pytest.approx(plan.weight_bits())
    assert 2 < found.weight_bits() <= 3


def test_beside_attention(plan, tmp_path):
    path = tmp_path / "plan.safetensors"
    both = ModelPlan(
        model="m",
        calibrated_on=("d" * 64,),
        block=16,
        grid=(1, 1, 20),
        prefix_tokens=0,
        suffix_tokens=0,
        avg_bits=4.0,
        layers=(3,),
        heads=(1,),
        step_groups=(0.0,),
        orders=torch.zeros(1, 1, dtype=torch.uint8),
        transforms=torch.ones(1, 1, dtype=torch.uint8),
        codes=torch.full((1, 1, 1, 2, 2), 2, dtype=torch.uint8),
        linear=plan.linear,
    )
    save_plan(both, path)
    found = load_model_plan(path)
    assert (found.has_attention, found.heads, found.mean_bits()) == (True, (1,), 4.0)
    assert torch.equal(found.codes, both.codes)
    assert_equal(found.linear[1], plan.linear[1])


def test_the_plan_of_a_layer_is_found(plan):
    assert plan.for_layer(LAYERS[1]) is plan.linear[1]
    renamed = dataclasses.replace(LAYERS[0], name="c")
    with pytest.raises(ParoError, match="the plan has no linear layer c; legal: a, b"):
        plan.for_layer(renamed)
    other = dataclasses.replace(LAYERS[1], name="a")
    with pytest.raises(ParoError, match="the plan of layer a is of another layer than"):
        plan.for_layer(other)
    with pytest.raises(ParoError, match="the plan has linear layers alone; legal: one with att"):
        plan.at(0, 0.0)


@pytest.mark.parametrize(
    ("tensors", "fields", "sentence"),
    [
        ({"w8": torch.full((40, 96), -128, dtype=torch.int8)}, {}, "w8 of layer a is not legal"),
        ({"w8": torch.zeros(40, 96)}, {}, "w8 of layer a"),
        ({"mw": torch.zeros(40, dtype=torch.uint8)}, {}, "mw of layer a"),
        ({"mw": torch.ones(39, dtype=torch.uint8)}, {}, "mw of layer a"),
        ({"bias": torch.zeros(40, dtype=torch.int32)}, {}, "bias of layer a"),
        ({"codes": torch.zeros(3, 2, dtype=torch.uint8)}, {}, "codes of layer a"),
        ({}, {"name": 3}, "a layer has no name"),
        ({}, {"name": "b"}, "two layers have one name"),
        ({}, {"block": 20}, "block of layer a"),
        ({}, {"head_dim": None}, "head_dim of layer a"),
        ({}, {"rotation": 3}, "rotation of layer a"),
        ({}, {"rotation": 64}, "rotation of layer a"),
        ({}, {"input_unit": 0.0}, "input_unit of layer a"),
        ({}, {"output_unit": "x"}, "output_unit of layer a"),
        ({}, {"sum_shift": 64}, "sum_shift of layer a"),
        ({}, {"out_shift": -1}, "out_shift of layer a"),
        ({}, {"digest": 1}, "digest of layer a"),
    ],
)
def test_what_is_not_legal_is_refused(plan, tmp_path, tensors, fields, sentence):
    path = tmp_path / "plan"
    save_plan(plan, path)
    names = tuple(f"linear.{i}.{name}" for i in (0, 1) for name in ("w8", "mw", "codes", "bias"))
    stored, metadata, _ = read_tensors(path, "plan", names)
    stored |= {f"linear.0.{name}": values for name, values in tensors.items()}
    entries = json.loads(metadata["linear"])
    entries[0] |= fields
    write_tensors(path, stored, metadata | {"linear": json.dumps(entries)})
    with pytest.raises(ParoError, match=rf"plan \S+: {sentence}"):
        load_model_plan(path)
    for text in ("{", "3"):
        write_tensors(path, stored, metadata | {"linear": text})
        with pytest.raises(ParoError, match="linear is not legal; legal: a list in JSON"):
            load_model_plan(path)
