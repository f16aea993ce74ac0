"""`paro convert`: a file of arrays becomes a capture that the other commands take."""

import numpy as np
import pytest
import torch

from firmware_model.capture import load_capture

GRID = ("--grid", "2,4,4", "--prefix", "1")


@pytest.fixture
def arrays(tmp_path, seed):
    generator = np.random.default_rng(seed)
    q, k, v = generator.standard_normal((3, 2, 33, 16)).astype(np.float32)
    np.savez(tmp_path / "x.npz", q=q, k=k[:1], v=v[:1])
    tokens_first = [torch.from_numpy(values.swapaxes(0, 1)) for values in (q, k, v)]
    torch.save(dict(zip("abc", tokens_first, strict=True)), tmp_path / "x.pt")
    return q, k, v


def test_a_file_becomes_a_capture_that_gets_a_plan(paro, arrays, tmp_path):
    path = tmp_path / "capture.safetensors"
    outcome = paro("convert", tmp_path / "x.npz", "-o", path, *GRID, "--layer", "3")
    assert outcome.status == 0, outcome.err
    assert "2 heads of 16, 33 tokens, layer 3" in outcome.out
    capture = load_capture(path)
    assert np.array_equal(capture.q.numpy(), arrays[0])
    assert np.array_equal(capture.k[1].numpy(), arrays[1][0])
    assert (capture.grid, capture.prefix_tokens, capture.layer) == ((2, 4, 4), 1, 3)
    assert len(capture.model) == 64
    plan = tmp_path / "plan.safetensors"
    assert paro("calibrate", path, "--block", "16", "-o", plan).status == 0
    assert paro("evaluate", path, "--plan", plan, "-o", tmp_path / "e").status == 0


def test_tokens_first_under_other_names(paro, arrays, tmp_path):
    path = tmp_path / "capture.safetensors"
    options = ("--names", "a,b,c", "--tokens-first", "--scale", "0.5", "--model", "vit")
    outcome = paro("convert", tmp_path / "x.pt", "-o", path, *GRID, *options)
    assert outcome.status == 0, outcome.err
    capture = load_capture(path)
    assert np.array_equal(capture.v.numpy(), arrays[2])
    assert (capture.scale, capture.model) == (0.5, "vit")


@pytest.mark.parametrize(
    ("sentence", "file", "options"),
    [
        ("grid = '2,4' is not legal; legal: frames, height, width", "x.npz", ["--grid", "2,4"]),
        ("names = 'a,b' are not legal", "x.npz", ["--names", "a,b"]),
        ("x.csv does not exist", "x.csv", []),
        ("has no array 'q'; it has a, b, c", "x.pt", []),
        ("with 33 tokens first; legal: [heads, tokens", "x.pt", ["--names", "a,b,c"]),
        ("33 tokens as [heads, tokens, channels]; legal: 34", "x.npz", ["--prefix", "2"]),
    ],
)
def test_what_does_not_fit_is_one_sentence(refused, arrays, tmp_path, sentence, file, options):
    refused(sentence, "convert", tmp_path / file, "-o", tmp_path / "out", *GRID, *options)


@pytest.mark.parametrize("command", ["calibrate", "cosim"])
def test_other_files_are_shown_the_way(refused, arrays, tmp_path, command):
    for file, sentence in (
        ("x.npz", "not a safetensors file (Error while deserializing header"),
        ("x.pt", "`paro convert` makes captures of npz, pt and other safetensors files"),
    ):
        refused(sentence, command, tmp_path / file, "-o", tmp_path / "out")
