"""Captures from arrays in memory and in files."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from firmware_model.arrays import Tokens, capture_of, read_arrays
from paro.config import ParoError

TOKENS = Tokens(grid=(2, 3, 4), prefix=1, suffix=2)
HEADS, CHANNELS = 4, 8


@pytest.fixture
def arrays(seed):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((3, HEADS, TOKENS.count, CHANNELS)).astype(np.float32)


def captured(arrays, **options):
    q, k, v = arrays
    return capture_of(q, k, v, TOKENS, **options)


def write(path, arrays):
    """The same arrays in a file of any kind."""
    named = dict(zip("qkv", arrays, strict=True))
    tensors = {name: torch.from_numpy(values.copy()) for name, values in named.items()}
    if path.suffix == ".npz":
        np.savez(path, **named)
    elif path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".pth", ".safetensors"])
def test_files_of_every_kind(tmp_path, arrays, suffix):
    path = write(tmp_path / f"x{suffix}", arrays)
    read = read_arrays(path, ["v", "q"])
    assert np.array_equal(read[0].numpy(), arrays[2])
    assert np.array_equal(read[1].numpy(), arrays[0])
    with pytest.raises(ParoError, match="has no array 'query'; it has "):
        read_arrays(path, ["query"])
    content = path.read_bytes()
    for length in (0, 8, len(content) // 2):
        path.write_bytes(content[:length])
        with pytest.raises(ParoError, match="is truncated, or holds more than") as error:
            read_arrays(path, ["q"])
        assert "\n" not in str(error.value)


def test_a_list_is_named_by_position(tmp_path, arrays):
    torch.save([torch.from_numpy(values) for values in arrays], tmp_path / "x.pt")
    assert np.array_equal(read_arrays(tmp_path / "x.pt", ["1"])[0].numpy(), arrays[1])


class Trap:
    """What unpickling would run."""

    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


def test_nothing_in_a_file_is_executed(tmp_path):
    np.savez(tmp_path / "x.npz", q=np.array([Trap()], dtype=object))
    torch.save({"q": Trap()}, tmp_path / "x.pt")
    (tmp_path / "x.pth").write_bytes(pickle.dumps({"q": Trap()}))
    for suffix in ("npz", "pt", "pth"):
        with pytest.raises(ParoError, match="holds more than"):
            read_arrays(tmp_path / f"x.{suffix}", ["q"])


def test_other_files(tmp_path):
    (tmp_path / "x.csv").touch()
    np.save(tmp_path / "one.npy", np.zeros(2))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    torch.save(torch.zeros(2), tmp_path / "one.pt")
    np.savez(tmp_path / "text.npz", q=np.array(["a"]))
    for name, sentence in (
        ("none.npz", "does not exist"),
        ("x.csv", "is of no known kind; legal: .npz, .pt, .pth, .safetensors"),
        ("one.npz", "holds more than arrays"),
        ("one.pt", "it holds a Tensor; legal: a dict of tensors by name"),
        ("text.npz", "q has <U1; legal: numbers"),
    ):
        with pytest.raises(ParoError, match=sentence):
            read_arrays(tmp_path / name, ["q"])


def test_layouts_are_the_same_capture(arrays):
    plain = captured(arrays)
    others = [
        captured(arrays.swapaxes(1, 2), tokens_first=True),
        captured(arrays[:, None]),
        captured(np.stack([0 * arrays, arrays], 1), item=1),
        captured(arrays.astype(">f8")),
        captured(torch.from_numpy(arrays).requires_grad_()),
    ]
    for other in others:
        assert all(torch.equal(getattr(plain, name), getattr(other, name)) for name in "qkv")
        assert (other.grid, other.prefix_tokens, other.suffix_tokens) == ((2, 3, 4), 1, 2)
        assert other.scale == pytest.approx(CHANNELS**-0.5)


def test_heads_of_k_and_v_serve_several(arrays):
    q, k, v = arrays
    capture = capture_of(q, k[:2], v[:1], TOKENS)
    assert np.array_equal(capture.k.numpy(), k[[0, 0, 1, 1]])
    assert np.array_equal(capture.v.numpy(), v[[0, 0, 0, 0]])
    with pytest.raises(ParoError, match="k has 3 heads of 8 channels, q 4 of 8; legal: the chan"):
        capture_of(q, k[:3], v, TOKENS)


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((4, 26, 8), r"v has shape \[4, 26, 8\], 26 tokens as \[heads, tokens, ch.* legal: 27"),
        ((27, 4, 8), r"v has shape \[27, 4, 8\], with 27 tokens first; legal: .*--tokens-first"),
        ((27, 8), r"v has shape \[27, 8\]; legal: \[heads, tokens, channels\], or a batch"),
        ((2, 4, 27, 8), "v has a batch of 2 items; legal: one, by its number .* 0 to 1"),
        ((4, 27, 9), "v has 4 heads of 9 channels, q 4 of 8"),
        ((4, 27, 257), "v has 257 channels a head; legal: 1 to 256"),
        ((0, 27, 8), "none of them 0"),
    ],
)
def test_arrays_that_do_not_fit(arrays, shape, sentence):
    with pytest.raises(ParoError, match=sentence):
        capture_of(arrays[0], arrays[1], np.zeros(shape, np.float32), TOKENS)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"scale": 0.0}, "scale = 0.0 is not legal"),
        ({"layer": -1}, "layer = -1"),
        ({"progress": 1.0}, "progress = 1.0"),
        ({"item": 1}, "no batch; legal: item 0"),
    ],
)
def test_options_that_are_not_legal(arrays, options, sentence):
    with pytest.raises(ParoError, match=sentence):
        captured(arrays, **options)


@pytest.mark.parametrize(
    "fields", [{"grid": (0, 2, 2)}, {"grid": (2, 2)}, {"grid": (1, 2, 2), "prefix": -1}]
)
def test_tokens_that_cannot_be(fields):
    with pytest.raises(ParoError, match="not legal"):
        Tokens(**fields)
