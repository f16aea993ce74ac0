"""Damaged files: every reader takes them, or refuses them with one sentence."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from firmware_model.arrays import Tokens, capture_of, read_arrays
from firmware_model.calibration.calibrate import calibrate
from firmware_model.calibration.goal import Goal
from firmware_model.calibration.layers import BY_LAYER, plan_layer, tile_config
from firmware_model.calibration.plan import ModelPlan, load_model_plan, load_plan, save_plan
from firmware_model.capture import Capture, load_capture, save_capture
from firmware_model.layer import Layer, load_layer, save_layer
from firmware_model.models.video.checkpoint import load_model, save_model
from firmware_model.models.video.transformer import Shape, VideoTransformer
from paro.config import ParoError, load_config
from sim.estimate.workloads import load_workload

#: Damaged files of each kind in the quick suite; the slow one has 10,000 in all.
QUICK, SLOW = 60, 1250
#: What a number or word in a header or text becomes.
ODD = (
    "0",
    "-1",
    "1",
    "3",
    "9" * 30,
    "1e999",
    "nan",
    '""',
    "null",
    "[]",
    "{}",
    "true",
    '"x"',
    "0.5",
)
_HEADER = 8


def _capture(path: Path | None = None) -> Capture:
    generator = torch.Generator().manual_seed(1)
    q, k, v = torch.randn(3, 2, 35, 20, generator=generator).unbind()
    return capture_of(q, k, v, Tokens((2, 4, 4), prefix=3), model="a" * 64, path=path)


def _layer(path: Path) -> Layer:
    x, weight = torch.randn(5, 40), torch.randn(24, 40)
    return Layer(path, x, weight, torch.randn(24), "blocks.0.mlp")


def _write_plan(path: Path) -> None:
    (plan,) = calibrate([_capture()], Goal(avg_bits=4, block=16))
    save_plan(plan, path)


def _write_layer_plan(path: Path) -> None:
    plan = plan_layer(_layer(path), BY_LAYER, tile_config(16, 32))
    save_plan(ModelPlan.of_layers("a" * 64, (), [plan]), path)


def _read_plan(path: Path) -> None:
    load_plan(path, _capture())


def _write_numpy(path: Path) -> None:
    np.savez(path, q=np.zeros((2, 3, 4)), k=np.ones(5))


def _write_torch(path: Path) -> None:
    torch.save({"q": torch.zeros(2, 3, 4), "k": torch.ones(5)}, path)


def _read_arrays(path: Path) -> None:
    read_arrays(path, ["q", "k"])


#: By kind: name of the file, what writes a good one, what reads it.
READERS: dict[str, tuple[str, Callable[[Path], object], Callable[[Path], object]]] = {
    "capture": ("c.safetensors", lambda path: save_capture(_capture(path)), load_capture),
    "layer": ("l.safetensors", lambda path: save_layer(_layer(path)), load_layer),
    "plan": ("p.safetensors", _write_plan, _read_plan),
    "layer plan": ("w.safetensors", _write_layer_plan, load_model_plan),
    "model": (
        "m.safetensors",
        lambda path: save_model(VideoTransformer(Shape(layers=1, heads=1, head_dim=8)), path),
        load_model,
    ),
    "npz": ("a.npz", _write_numpy, _read_arrays),
    "pt": ("a.pt", _write_torch, _read_arrays),
    "configuration": (
        "c.toml",
        lambda path: path.write_text("rows = 4\ncols = 8\nblock = 32\nhead_dim = 64\n"),
        lambda path: load_config(file=path),
    ),
    "workload": (
        "m.toml",
        lambda path: path.write_text(
            'title = "mine"\nlayers = 24\nheads = 16\nhead_dim = 64\nffn = 4096\n'
            "prefix_tokens = 77\ngrid = [16, 32, 32]\nsteps = 30\nguidance_passes = 2\n"
        ),
        lambda path: load_workload(str(path)),
    ),
}


def damaged_bytes(content: bytes, chance: random.Random) -> bytes:
    """Bytes flipped, cut, dropped, doubled or overwritten."""
    start = chance.randrange(len(content))
    end = min(len(content), start + chance.choice((1, 1, 2, 8, 64)))
    return chance.choice(
        (
            content[:start],
            content[:start] + content[end:],
            content[:end] + content[start:],
            content[:start] + chance.randbytes(end - start) + content[end:],
            content[:start] + bytes(end - start) + content[end:],
        )
    )


def damaged_text(content: bytes, chance: random.Random) -> bytes:
    """One number or quoted word of a text in place of which an odd one stands."""
    words = list(re.finditer(rb'"[^"]*"|-?\d+(\.\d+)?', content))
    word = chance.choice(words)
    odd = chance.choice((*ODD, word.group().decode(errors="replace") * 2)).encode()
    return content[: word.start()] + odd + content[word.end() :]


def damaged_header(content: bytes, chance: random.Random) -> bytes:
    """A safetensors file whose header is sound JSON, and says something odd of the same tensors."""
    end = _HEADER + int.from_bytes(content[:_HEADER], "little")
    header = json.loads(content[_HEADER:end])
    entry = header[chance.choice(list(header))]
    key = chance.choice(list(entry))
    if isinstance(entry[key], list):
        entry[key][chance.randrange(len(entry[key]))] = chance.choice((0, 1, 7, -1, 10**30, "x"))
    elif chance.random() < 0.2:
        del entry[key]
    elif entry[key] and chance.random() < 0.5 and re.search(r"\d", entry[key]):
        entry[key] = damaged_text(entry[key].encode(), chance).decode()
    else:
        entry[key] = chance.choice((*ODD, "F64", "F16", "BF16", "I64", "BOOL", "4,4,0", "a,b"))
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _HEADER)
    return len(text).to_bytes(_HEADER, "little") + text + content[end:]


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize(
    "cases", [QUICK, pytest.param(SLOW, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_damaged_files(kind, cases, tmp_path, seed):
    name, write, read = READERS[kind]
    good = tmp_path / name
    write(good)
    read(good)
    content = good.read_bytes()
    ways = [damaged_bytes]
    ways += [damaged_header] if name.endswith("safetensors") else []
    ways += [damaged_text] if name.endswith("toml") else []
    chance = random.Random(seed)
    refused = 0
    for case in range(cases):
        damaged = tmp_path / f"damaged_{name}"
        damaged.write_bytes(chance.choice(ways)(content, chance))
        sentence = _refusal(read, damaged)
        if sentence is not None:
            refused += 1
            assert "\n" not in sentence, (case, sentence)
            assert str(damaged) in sentence or name.endswith("toml"), (case, sentence)
    assert refused > cases // 5


def _refusal(read: Callable[[Path], object], path: Path) -> str | None:
    """Why a file is refused, if it is; any other error leaves the file for a closer look."""
    try:
        read(path)
    except ParoError as error:
        return str(error)
    except BaseException as error:
        raise AssertionError(f"not refused, but failed on it: {path}") from error
    return None
