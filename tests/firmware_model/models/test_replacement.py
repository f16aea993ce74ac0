import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType

import pytest
import torch

from firmware_model.calibration.layers import plan_layer
from firmware_model.calibration.plan import ModelPlan
from firmware_model.calibration.sensitivity import model_config
from firmware_model.models.pipeline import (
    Attention,
    AttentionCall,
    Linear,
    LinearCall,
    ModelShape,
    Pipeline,
    float_attention,
    replaced_linears,
)
from firmware_model.models.replacement import (
    PlannedAttention,
    PlannedLinear,
    call_capture,
    call_layer,
)
from firmware_model.progress import Progress
from firmware_model.quality.metrics import snr_db
from firmware_model.reference.methods import Method
from paro.config import Config, ParoError

SHAPE = ModelShape(
    layers=2, heads=2, head_dim=16, grid=(2, 3, 4), prefix_tokens=2, suffix_tokens=9, steps=4
)


class FakePipeline:
    identity = "f" * 64
    shape = SHAPE
    linears: Mapping[str, torch.nn.Linear] = MappingProxyType({})

    def generate(
        self,
        sample: int,
        attention: Attention | None = None,
        progress: Progress | None = None,
        linear: Linear | None = None,
    ) -> torch.Tensor:
        raise NotImplementedError


PIPELINE: Pipeline = FakePipeline()


def model_plan(**changes):
    """All blocks at 8 bits; each head has another order."""
    plan = ModelPlan(
        model=PIPELINE.identity,
        calibrated_on=("0" * 64,),
        block=16,
        grid=SHAPE.grid,
        prefix_tokens=2,
        suffix_tokens=9,
        avg_bits=8.0,
        layers=(0, 1),
        heads=(0, 1),
        step_groups=(0.0, 0.5),
        orders=torch.tensor([[4, 1], [0, 3]], dtype=torch.uint8),
        transforms=torch.tensor([[0, 1], [2, 3]], dtype=torch.uint8),
        codes=torch.full((2, 2, 2, 3, 3), 3, dtype=torch.uint8),
    )
    return dataclasses.replace(plan, **changes)


def random_call(layer, step, dtype=torch.float32):
    generator = torch.Generator().manual_seed(10 * step + layer)
    q, k, v = torch.randn(3, 2, 2, SHAPE.tokens, 16, generator=generator).to(dtype).unbind()
    return AttentionCall(layer=layer, step=step, q=2 * q, k=k + 0.5, v=v - 0.25, scale=0.3)


def test_a_call_becomes_a_capture():
    call = random_call(1, 3)
    capture = call_capture(call, 1, SHAPE.layout, SHAPE.steps, "m")
    assert (capture.heads, capture.tokens, capture.head_dim) == (2, 35, 16)
    assert (capture.grid, capture.prefix_tokens, capture.suffix_tokens) == ((2, 3, 4), 2, 9)
    assert (capture.model, capture.layer, capture.progress) == ("m", 1, 0.75)
    assert capture.scale == 0.3
    assert torch.equal(capture.k, call.k[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float_with_all_blocks_is_the_models_own(dtype):
    planned = PlannedAttention.of_pipeline(PIPELINE, model_plan(), Method("float"))
    for layer in (0, 1):
        for step in range(4):
            call = random_call(layer, step, dtype)
            output = planned(call)
            assert output.dtype == dtype
            tolerance = 1e-5 if dtype == torch.float32 else 2e-2
            assert torch.allclose(output, float_attention(call), atol=tolerance)
    assert planned.errors == {}


def test_the_integer_model_is_close_and_measured():
    planned = PlannedAttention.of_pipeline(PIPELINE, model_plan(), Method(), measure=True)
    first, second = random_call(0, 0), random_call(1, 2)
    outputs = [planned(first), planned(second), planned(second)]
    assert set(planned.errors) == {(0, 0), (2, 1)}
    assert [len(planned.errors[key]) for key in ((0, 0), (2, 1))] == [2, 4]
    exact = float_attention(first)
    for sample, (snr, cosine) in enumerate(planned.errors[0, 0]):
        assert snr == pytest.approx(snr_db(outputs[0][sample], exact[sample]))
        assert 30 < snr < 60
        assert 0.999 < cosine < 1
    assert planned.errors[2, 1][:2] == planned.errors[2, 1][2:]
    assert torch.equal(outputs[1], outputs[2])


def test_each_step_layer_and_head_has_its_own_codes():
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(4, (2, 2, 2, 3, 3), generator=generator, dtype=torch.uint8)
    codes[..., 0] = 3
    plan = model_plan(codes=codes)
    planned = PlannedAttention.of_pipeline(PIPELINE, plan, Method("float"))
    for step, group in enumerate((0, 0, 1, 1)):
        for layer in (0, 1):
            call = random_call(layer, step)
            output = planned(call)
            for sample in (0, 1):
                capture = call_capture(call, sample, SHAPE.layout, SHAPE.steps, PIPELINE.identity)
                for head in (0, 1):
                    _, expected = Method("float").attend(
                        capture,
                        head,
                        int(plan.orders[layer, head]),
                        codes[group, layer, head],
                        model_config(capture, 16),
                    )
                    assert torch.equal(output[sample, head], expected)


def test_perfect_output_has_no_finite_error():
    planned = PlannedAttention.of_pipeline(PIPELINE, model_plan(), Method("float"), measure=True)
    call = random_call(0, 1)
    call = dataclasses.replace(call, v=torch.zeros_like(call.v))
    planned(call)
    assert planned.errors == {(1, 0): [(math.inf, 1.0)] * 2}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": "e" * 64}, "the plan is of another model; legal: one calibrated on captures"),
        (
            {"grid": (3, 2, 4)},
            r"is for 24 tokens \(3 x 2 x 4\), not for 24 tokens \(2 x 3 x 4\); legal: the same",
        ),
        (
            {"prefix_tokens": 0, "suffix_tokens": 0},
            "calibrated without text tokens, and there are 11; legal: a plan calibrated on",
        ),
        ({"layers": (0, 2)}, "the plan lacks layer 1 of the model's 2"),
        ({"heads": (1, 3)}, "the plan lacks head 0 of the model's 2"),
    ],
)
def test_a_wrong_plan_is_refused(changes, sentence):
    with pytest.raises(ParoError, match=sentence):
        PlannedAttention.of_pipeline(PIPELINE, model_plan(**changes), Method())


def test_a_plan_may_hold_more_than_the_model_needs():
    plan = model_plan(
        layers=(0, 1, 5),
        heads=(0, 1, 2),
        orders=torch.zeros(3, 3, dtype=torch.uint8),
        transforms=torch.zeros(3, 3, dtype=torch.uint8),
        codes=torch.full((2, 3, 3, 3, 3), 3, dtype=torch.uint8),
    )
    call = random_call(1, 3)
    output = PlannedAttention.of_pipeline(PIPELINE, plan, Method("float"))(call)
    assert torch.allclose(output, float_attention(call), atol=1e-5)


def test_a_head_that_the_plan_leaves_out_stays_in_float():
    plan = model_plan()
    plan.codes[:, 1, 0] = 0
    planned = PlannedAttention.of_pipeline(PIPELINE, plan, Method())
    call = random_call(1, 0)
    output, exact = planned(call), float_attention(call)
    torch.testing.assert_close(output[:, 0], exact[:, 0], rtol=0, atol=2e-6)
    assert snr_db(output[:, 1], exact[:, 1]) < 60
    assert snr_db(output[:, 1], exact[:, 1]) > 30


@pytest.mark.parametrize("suffix_tokens", [1, 30])
def test_a_plan_of_another_length_of_text(suffix_tokens):
    """The plan's 24 tokens of grid are a block and a part; its text reaches the third."""
    plan = model_plan(suffix_tokens=suffix_tokens)
    count = -(-(24 + 2 + suffix_tokens) // 16)
    plan = dataclasses.replace(plan, codes=torch.full((2, 2, 2, count, count), 3).byte())
    call = random_call(0, 0)
    output = PlannedAttention.of_pipeline(PIPELINE, plan, Method("float"))(call)
    assert torch.allclose(output, float_attention(call), atol=1e-5)


@pytest.fixture
def linear_call():
    random = torch.Generator().manual_seed(3)
    layer = torch.nn.Linear(40, 24)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(24, 40, generator=random))
        layer.bias.copy_(torch.randn(24, generator=random))
    return LinearCall("a", 2, torch.randn(2, 30, 40, generator=random), layer)


class LayeredPipeline(FakePipeline):
    def __init__(self, call):
        self.linears: Mapping[str, torch.nn.Linear] = {call.name: call.layer}


def layer_plan(call, bits=8):
    config = Config(rows=4, cols=4, block=16, head_dim=32)
    plan = plan_layer(call_layer(call, 1000, PIPELINE.identity), bits, config)
    return ModelPlan.of_layers(PIPELINE.identity, (), [plan])


def test_a_linear_call_becomes_a_capture(linear_call):
    layer = call_layer(linear_call, 7, "m")
    assert torch.equal(layer.x, linear_call.x[1, torch.arange(7) * 30 // 7])
    assert torch.equal(layer.weight, linear_call.layer.weight)
    assert not layer.weight.requires_grad
    assert (layer.name, layer.model, layer.run_tokens) == ("a", "m", 30)
    assert layer.path.name == "a_step_002"
    assert torch.equal(call_layer(linear_call, 30, "m").x, linear_call.x[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_planned_layer_is_close_and_measured(linear_call, dtype):
    plan = layer_plan(linear_call)
    call = dataclasses.replace(
        linear_call, x=linear_call.x.to(dtype), layer=linear_call.layer.to(dtype)
    )
    planned = PlannedLinear(LayeredPipeline(call), plan, measure=True)
    output = planned(call)
    exact = torch.nn.functional.linear(call.x, call.layer.weight, call.layer.bias)
    assert (output.dtype, output.shape) == (dtype, exact.shape)
    assert planned.errors == {(2, "a"): [pytest.approx(snr_db(output, exact))]}
    assert 35 < planned.errors[2, "a"][0] < 60
    # Other layers are the model's own.
    other = dataclasses.replace(call, name="b")
    assert torch.equal(planned(other), exact)


def test_layers_of_another_model_are_refused(linear_call):
    plan = layer_plan(linear_call)
    with pytest.raises(ParoError, match="the plan has a layer a of 24 x 40 weights, and the model"):
        PlannedLinear(PIPELINE, plan)
    wide = dataclasses.replace(linear_call, layer=torch.nn.Linear(41, 24))
    with pytest.raises(ParoError, match="the plan has a layer a of 24 x 40 weights"):
        PlannedLinear(LayeredPipeline(wide), plan)
    with pytest.raises(ParoError, match="the plan is of another model"):
        PlannedLinear(LayeredPipeline(linear_call), dataclasses.replace(plan, model="e" * 64))


def test_layers_are_replaced_for_a_while(linear_call):
    layer, x, seen = linear_call.layer, linear_call.x, []
    own = layer(x)

    def nothing(call):
        seen.append((call.name, call.step))
        return torch.zeros(*call.x.shape[:-1], 24)

    with replaced_linears({"a": layer}, nothing, lambda: 5):
        assert not layer(x).any()
        # One vector is no token.
        assert torch.allclose(layer(x[:, :1]), own[:, :1], atol=1e-5)
        assert torch.allclose(layer(x[0, 0]), own[0, 0], atol=1e-5)
    assert seen == [("a", 5)]
    assert torch.equal(layer(x), own)


def test_a_replacement_that_fails_leaves_nothing_behind(linear_call):
    layer, x = linear_call.layer, linear_call.x
    own = layer(x)

    def run():
        with replaced_linears({"a": layer}, lambda call: call.x[0, 0, 99], lambda: 5):
            layer(x)

    with pytest.raises(IndexError):
        run()
    assert torch.equal(layer(x), own)
