import dataclasses
import struct

import pytest
import torch

from firmware_model.capture import load_capture, load_captures, save_capture
from paro.config import ParoError


def refused(path, sentence):
    with pytest.raises(ParoError, match=sentence) as error:
        load_capture(path)
    assert "\n" not in str(error.value)


def test_legal_captures(make_capture):
    capture = load_capture(make_capture())
    assert (capture.heads, capture.tokens, capture.head_dim) == (2, 33, 20)
    assert capture.grid == (2, 3, 5)
    assert capture.prefix_tokens == 3
    assert capture.scale == 20**-0.5
    assert capture.name == "capture"
    assert len(capture.digest) == 64
    other = load_capture(make_capture(metadata={"scale": "0.25", "source": "here"}))
    assert (other.scale, other.source) == (0.25, "here")
    assert other.digest != capture.digest


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_legal_dtypes(make_capture, dtype):
    tensors = {name: torch.ones(1, 33, 8, dtype=dtype) for name in "qkv"}
    assert load_capture(make_capture(tensors=tensors)).q.dtype == dtype


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_not_finite(make_capture, name, bad):
    tensor = torch.ones(2, 33, 20).half()
    tensor[1, 32, 19] = bad
    refused(make_capture(tensors={name: tensor}), f": {name} holds NaN or infinity")


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"k": None}, "has no tensor 'k'; needed: q, k, v"),
        ({"v": torch.ones(2, 33, 21).half()}, r"\[2, 33, 20\], \[2, 33, 20\] and \[2, 33, 21\]"),
        ({"k": torch.ones(2, 32, 20).half()}, "legal: all equal"),
        ({"q": torch.ones(33, 20).half()}, r"q has shape \[33, 20\]; legal: \[heads, tokens"),
        ({"q": torch.ones(2, 33, 0).half()}, r"q has shape \[2, 33, 0\]"),
        ({"v": torch.ones(2, 33, 20).double()}, "v is float64; legal: float16, bfloat16, float32"),
        ({"q": torch.ones(2, 33, 20, dtype=torch.int8)}, "q is int8; legal"),
        ({name: torch.ones(1, 33, 257).half() for name in "qkv"}, "head_dim 257; legal: 1 to 256"),
    ],
)
def test_bad_tensors(make_capture, tensors, sentence):
    refused(make_capture(tensors=tensors), sentence)


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"grid": None}, "has no metadata 'grid'"),
        ({"prefix_tokens": None}, "has no metadata 'prefix_tokens'"),
        ({"grid": "2,3"}, "grid = '2,3' is not legal; legal: three positive integers"),
        ({"grid": "2,3,0"}, "grid = "),
        ({"grid": "2,3,x"}, "grid = "),
        ({"grid": "-2,-3,5"}, "grid = "),
        ({"grid": "2,3," + "9" * 5000}, "grid = "),
        ({"grid": "٢,3,5"}, "grid = "),
        ({"grid": "2,3,6"}, "has 33 tokens, but its metadata tell 3 prefix tokens"),
        ({"prefix_tokens": "-1"}, "prefix_tokens = '-1' is not legal"),
        ({"prefix_tokens": "3.0"}, "prefix_tokens = "),
        ({"prefix_tokens": "3,4"}, "prefix_tokens = "),
        ({"prefix_tokens": ""}, "prefix_tokens = "),
        ({"scale": "0"}, "scale = 0.0 is not legal; legal: above 0"),
        ({"scale": "-1"}, "scale = "),
        ({"scale": "nan"}, "scale = "),
        ({"scale": "inf"}, "scale = "),
        ({"scale": "big"}, "scale = 'big' is not legal; legal: a finite number"),
        ({"suffix_tokens": "2"}, r"\+ 2 suffix tokens = 35"),
        ({"layer": "-1"}, "layer = '-1' is not legal; legal: an integer, 0 or more"),
        ({"progress": "1"}, "progress = 1.0 is not legal; legal: 0 or more, below 1"),
    ],
)
def test_bad_metadata(make_capture, metadata, sentence):
    refused(make_capture(metadata=metadata), sentence)


def test_bad_files(make_capture, tmp_path):
    refused(tmp_path / "none.safetensors", "does not exist")
    refused(tmp_path, "is not a file")
    content = make_capture().read_bytes()
    path = tmp_path / "bad.safetensors"
    for length in (0, 4, 8, 100, len(content) - 1):
        path.write_bytes(content[:length])
        refused(path, "is truncated or not a safetensors file")
    for header in (b"[]", b'{"q": 1}', b'{"__metadata__": {"grid": 3}}', b"\xff\xff"):
        path.write_bytes(struct.pack("<Q", len(header)) + header)
        refused(path, "is truncated or not a safetensors file")
    path.write_bytes(struct.pack("<Q", 2) + b"{}")
    refused(path, "has no tensor")


def test_round_trip(make_capture, tmp_path):
    read = load_capture(make_capture(metadata={"prefix_tokens": "1", "suffix_tokens": "2"}))
    assert (read.model, read.text_tokens) == (read.digest, 3)
    written = dataclasses.replace(
        read, path=tmp_path / "b.safetensors", model="m", layer=4, progress=0.3, source="here"
    )
    save_capture(written)
    again = load_capture(written.path)
    assert torch.equal(again.q, read.q)
    for field in ("grid", "prefix_tokens", "suffix_tokens", "scale", "source", "model", "layer"):
        assert getattr(again, field) == getattr(written, field)
    assert again.progress == 0.3
    both = load_captures([tmp_path])
    assert [capture.path.name for capture in both] == ["b.safetensors", "capture.safetensors"]
    with pytest.raises(ParoError, match="two captures are named capture"):
        load_captures([tmp_path, read.path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ParoError, match="holds no capture"):
        load_captures([tmp_path / "empty"])
