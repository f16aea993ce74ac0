"""Files of linear layers."""

import pytest
import torch

from firmware_model.capture import open_captures
from firmware_model.layer import (
    Layer,
    load_layer,
    open_layer,
    open_sources,
    save_layer,
    weights_digest,
)
from firmware_model.tensorfile import write_tensors
from paro.config import ParoError

X = torch.arange(35).reshape(5, 7) / 7 - 2
WEIGHT = torch.arange(21).reshape(3, 7) / 5 - 1
BIAS = torch.tensor([1.0, -2.0, 0.5])


@pytest.mark.parametrize("bias", [None, BIAS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_there_and_back(tmp_path, bias, dtype):
    path = tmp_path / "layer.safetensors"
    bias = None if bias is None else bias.to(dtype)
    save_layer(Layer(path, X.to(dtype), WEIGHT.T.contiguous().T.to(dtype), bias, "blocks.0.mlp"))
    layer = load_layer(path)
    assert (layer.tokens, layer.inputs, layer.outputs) == (5, 7, 3)
    assert layer.name == "blocks.0.mlp"
    assert torch.equal(layer.x, X.to(dtype))
    assert torch.equal(layer.weight, WEIGHT.to(dtype))
    assert (layer.bias is None) == (bias is None)
    expected = X.to(dtype).double() @ WEIGHT.to(dtype).double().T
    assert torch.allclose(layer.reference(), expected if bias is None else expected + bias.double())


@pytest.mark.parametrize(
    ("tensors", "kind", "sentence"),
    [
        ({"x": X}, "linear", "has no tensor 'weight'; needed: x, weight"),
        ({"x": X, "weight": WEIGHT}, None, "kind = None is not legal; legal: linear"),
        ({"x": X, "weight": WEIGHT}, "conv", "kind = 'conv' is not legal"),
        ({"x": X[0], "weight": WEIGHT}, "linear", r"x has shape \[7\]; legal: two extents"),
        ({"x": X[:0], "weight": WEIGHT}, "linear", r"x has shape \[0, 7\]"),
        ({"x": X, "weight": WEIGHT[:, :6]}, "linear", "x has 7 inputs and weight 6"),
        (
            {"x": X, "weight": WEIGHT, "bias": torch.ones(7)},
            "linear",
            r"bias has shape \[7\]; legal: \[3\]",
        ),
        ({"x": X, "weight": WEIGHT.int()}, "linear", "weight is int32; legal: float16"),
        ({"x": X / 0, "weight": WEIGHT}, "linear", "x holds NaN or infinity"),
        ({"x": X, "weight": WEIGHT, "bias": BIAS / 0}, "linear", "bias holds NaN or infinity"),
        (
            {"x": torch.ones(1, 32769), "weight": torch.ones(1, 32769)},
            "linear",
            "has 32769 inputs; legal: 1 to 32,768",
        ),
    ],
)
def test_what_is_not_legal_is_refused(tmp_path, tensors, kind, sentence):
    path = tmp_path / "layer.safetensors"
    contiguous = {name: values.contiguous() for name, values in tensors.items()}
    write_tensors(path, contiguous, {} if kind is None else {"kind": kind})
    with pytest.raises(ParoError, match=sentence):
        load_layer(path)


def test_a_header_tells_what_a_layer_is(tmp_path):
    path = tmp_path / "layer.safetensors"
    save_layer(Layer(path, X, WEIGHT, BIAS, "mlp", model="m", run_tokens=77))
    found = open_layer(path)
    assert (found.tokens, found.inputs, found.outputs, found.run_tokens) == (5, 7, 3, 77)
    assert (found.name, found.model, found.biased) == ("mlp", "m", True)
    layer = found.load()
    assert (layer.model, layer.run_tokens, len(layer.digest)) == ("m", 77, 64)
    save_layer(Layer(path, X, WEIGHT, None, "mlp"))
    assert (open_layer(path).model, open_layer(path).run_tokens) == ("", 5)
    for text in ("0", "x", "-1"):
        write_tensors(path, {"x": X, "weight": WEIGHT}, {"kind": "linear", "run_tokens": text})
        with pytest.raises(ParoError, match=f"run_tokens = '{text}' is not legal; legal: 1 or"):
            open_layer(path)


def test_layers_and_attention_are_told_apart(tmp_path, make_capture):
    layer = tmp_path / "b.safetensors"
    save_layer(Layer(layer, X, WEIGHT, BIAS, "mlp"))
    with pytest.raises(ParoError, match="holds captures of linear layers alone, none of attention"):
        open_captures([tmp_path])
    attention = make_capture()
    captures, layers = open_sources([tmp_path])
    assert [capture.path for capture in captures] == [attention]
    assert [found.path for found in layers] == [layer]
    assert [capture.path for capture in open_captures([tmp_path])] == [attention]
    with pytest.raises(ParoError, match="has no tensor 'q'"):
        open_captures([layer])


def test_the_digest_is_of_values_and_shape():
    known = weights_digest(WEIGHT, BIAS)
    assert known == weights_digest(WEIGHT.clone(), BIAS.double())
    half = WEIGHT.half()
    assert weights_digest(half, None) == weights_digest(half.float(), None)
    others = [(WEIGHT, None), (WEIGHT, BIAS + 1), (WEIGHT + 1e-3, BIAS), (WEIGHT.view(7, 3), BIAS)]
    assert known not in {weights_digest(*other) for other in others}
