"""The video transformer: its data, its network, its training, its file, its sampler."""

import sys

import pytest
import torch

from firmware_model.models.pipeline import float_attention
from firmware_model.models.video.checkpoint import load_model, save_model
from firmware_model.models.video.dataset import CLASSES, DIGIT, FRAMES, HEIGHT, WIDTH, MovingDigits
from firmware_model.models.video.pipeline import VideoPipeline
from firmware_model.models.video.train import train
from firmware_model.models.video.transformer import (
    GRID,
    TOKENS,
    Shape,
    VideoTransformer,
    _from_patches,
    _to_patches,
    rotary_angles,
    rotate,
)
from firmware_model.tensorfile import read_tensors, write_tensors
from paro.config import ParoError

SMALL = Shape(layers=2, heads=2, head_dim=16)


@pytest.fixture
def model_path(tmp_path):
    torch.manual_seed(0)
    model = VideoTransformer(SMALL)
    torch.nn.init.normal_(model.output.weight, std=0.2)
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    return path


def test_digits_keep_their_shape_and_move_within_the_frame():
    videos, classes = MovingDigits(3).batch(64)
    assert videos.shape == (64, FRAMES, HEIGHT, WIDTH)
    assert videos.min() == -1
    assert videos.max() == 1
    assert 0 <= classes.min() <= classes.max() < CLASSES
    ink = (videos + 1).sum(dim=(2, 3))
    # Nothing of a digit is ever cut off.
    assert torch.allclose(ink, ink[:, :1].expand_as(ink), atol=1e-3)
    assert (videos[:, 0] != videos[:, -1]).any(dim=(1, 2)).float().mean() > 0.7
    again, _ = MovingDigits(3).batch(64)
    assert torch.equal(videos, again)


def test_a_path_reflects_at_the_walls():
    path = MovingDigits(0)._path(200, HEIGHT - DIGIT)
    assert path.min() == 0
    assert path.max() == HEIGHT - DIGIT
    assert path.diff(dim=1).abs().max() == 2


def test_digits_need_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ParoError, match=r"scikit-learn is not installed.*\[train\]"):
        MovingDigits(0)


def test_patches_come_back():
    videos = torch.randn(2, FRAMES, HEIGHT, WIDTH)
    patches = _to_patches(videos)
    assert patches.shape == (2, TOKENS, 4)
    assert torch.equal(patches[0, 9], videos[0, 0, 2:4, 2:4].flatten())
    assert torch.equal(_from_patches(patches), videos)


def test_rotation_sees_only_distances():
    angles = rotary_angles(32)
    assert angles.shape == (TOKENS, 16)
    q, k = torch.randn(2, 32).unbind()
    turned_q, turned_k = (rotate(x.expand(TOKENS, -1), angles).unflatten(0, GRID) for x in (q, k))
    near = (turned_q[1, 2, 3] * turned_k[2, 4, 3]).sum()
    assert torch.allclose(near, (turned_q[4, 5, 6] * turned_k[5, 7, 6]).sum(), atol=1e-4)


def test_training_learns(capsys):
    model, losses = train(Shape(layers=1, heads=2, head_dim=16), 60, 4, 7)
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    again, same = train(Shape(layers=1, heads=2, head_dim=16), 60, 4, 7)
    assert losses == same
    assert all(map(torch.equal, model.parameters(), again.parameters()))


def test_model_comes_back(model_path):
    model, digest = load_model(model_path)
    assert model.shape == SMALL
    assert len(digest) == 64
    stored = read_tensors(model_path, "model", ("output.weight",)).tensors["output.weight"]
    assert torch.equal(model.output.weight, stored.float())


@pytest.mark.parametrize(
    ("metadata", "drop", "sentence"),
    [
        ({"format": "x"}, None, "has format 'x'; legal: 'paro-video-1'"),
        ({"shape": "2,2"}, None, "shape = '2,2' is not legal"),
        ({"shape": "2,2,12"}, None, "shape = '2,2,12' is not legal"),
        ({"shape": "9999,2,16"}, None, "shape = "),
        ({"shape": "2,4,16"}, None, "positions has shape"),
        ({}, "output.bias", "has no tensor 'output.bias'"),
    ],
)
def test_bad_models_are_refused(model_path, metadata, drop, sentence):
    names = tuple(VideoTransformer(SMALL).state_dict())
    content = read_tensors(model_path, "model", names)
    tensors = {name: value for name, value in content.tensors.items() if name != drop}
    write_tensors(model_path, tensors, content.metadata | metadata)
    with pytest.raises(ParoError, match=sentence):
        load_model(model_path)


def test_pipeline(model_path):
    pipeline = VideoPipeline(model_path, steps=3)
    calls, told = [], []

    def record(call):
        calls.append((call.step, call.layer, tuple(call.q.shape)))
        return float_attention(call)

    video = pipeline.generate(4, record, lambda *done: told.append(done))
    assert video.shape == (FRAMES, HEIGHT, WIDTH, 1)
    assert 0 <= video.min() < video.max() <= 1
    assert calls == [(s, layer, (2, 2, TOKENS, 16)) for s in range(3) for layer in range(2)]
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert (video - pipeline.generate(4)).abs().max() < 1e-5
    assert (video - pipeline.generate(5)).abs().max() > 0.1
    nothing = pipeline.generate(4, lambda call: torch.zeros_like(call.q))
    assert (video - nothing).abs().max() > 1e-3
    with pytest.raises(ParoError, match="steps = 0 is not legal"):
        VideoPipeline(model_path, steps=0)
