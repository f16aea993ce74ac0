"""Damaged files for every reader of the project: each is taken, or refused with one sentence.

``python -m tests.fuzz --files 10000`` reads that many, of all kinds by turns, and tells of those
on which a reader failed in another way: by another error, by a hang, by too much memory, or by
leaving part of an output behind. A file depends on its kind, the seed and its number alone.
"""

import argparse
import io
import json
import random
import re
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import safetensors.torch
import torch

from firmware_model.arrays import Tokens, capture_of, read_arrays
from firmware_model.calibration.calibrate import calibrate
from firmware_model.calibration.goal import Goal
from firmware_model.calibration.layers import BY_LAYER, plan_layer, tile_config
from firmware_model.calibration.plan import ModelPlan, load_model_plan, load_plan, save_plan
from firmware_model.capture import Capture, load_capture, save_capture
from firmware_model.layer import Layer, load_layer, save_layer
from firmware_model.models.diffusers_adapter.loading import read_index
from firmware_model.models.diffusers_adapter.weights import weights_identity
from firmware_model.models.names import is_model
from firmware_model.models.video.checkpoint import load_model, save_model
from firmware_model.models.video.transformer import Shape, VideoTransformer
from fpga.liberty import read_library
from paro.cli.load import load
from paro.cli.main import app
from paro.config import ParoError, load_config
from sim.estimate.workloads import load_workload

#: Seconds that a reader may take, and bytes of memory beyond what is there.
SECONDS, MEMORY = 30, 4 << 30
_HEADER = 8
_WEIGHTS = "diffusion_pytorch_model"

#: What a number or word in a header or text becomes.
ODD = (
    *("0", "-1", "1", "3", "0.5", "9" * 30, "-" + "9" * 30, "9" * 5000, "1e999", "1e-999"),
    *("nan", "inf", "-inf", "null", "true", '""', '"x"', '"\\u0000"', '"' + "x" * 9000 + '"'),
    *("[]", "{}", "[[[1]]]", '[1, "x"]', '{"a": 1}', "1979-05-27", "0x" + "f" * 6000),
    *("[" * 3000, "[" * 3000 + "]" * 3000, '{"a":' * 3000 + "1" + "}" * 3000, "\n", '"a\nb"'),
)


@dataclass(frozen=True)
class Reader:
    """A kind of file.

    Parameters
    ----------
    name : str
        Of the file; its end tells how it is damaged.
    write : callable
        Writes a good one to a path.
    read : callable
        Reads one.
    names_file : bool
        Whether every refusal names the file.
    """

    name: str
    write: Callable[[Path], object]
    read: Callable[[Path], object]
    names_file: bool = True


def _capture(path: Path | None = None) -> Capture:
    generator = torch.Generator().manual_seed(1)
    q, k, v = torch.randn(3, 2, 35, 20, generator=generator).unbind()
    return capture_of(q, k, v, Tokens((2, 4, 4), prefix=3), model="a" * 64, path=path)


def _layer(path: Path) -> Layer:
    generator = torch.Generator().manual_seed(2)
    x, weight, bias = (
        torch.randn(*shape, generator=generator) for shape in ((5, 40), (24, 40), (24,))
    )
    return Layer(path, x, weight, bias, "blocks.0.mlp")


def _write_plan(path: Path) -> None:
    (plan,) = calibrate([_capture()], Goal(avg_bits=4, block=16))
    save_plan(plan, path)


def _write_layer_plan(path: Path) -> None:
    plan = plan_layer(_layer(path), BY_LAYER, tile_config(16, 32))
    save_plan(ModelPlan.of_layers("a" * 64, (), [plan]), path)


def _write_numpy(path: Path) -> None:
    generator = np.random.default_rng(3)
    q, k, v = (generator.normal(size=(2, 8, 20)) for _ in "qkv")
    np.savez(path, q=q, k=k, v=v)


def _write_torch(path: Path) -> None:
    torch.save({"q": torch.zeros(2, 3, 4), "k": torch.ones(5)}, path)


def _write_map(path: Path) -> None:
    """A mask of the capture's blocks, and the capture beside it."""
    np.savez(path, mask=np.ones((2, 3, 3), np.uint8))
    save_capture(_capture(path.with_name("capture.safetensors")))


def _write_report(path: Path) -> None:
    path.write_text('{"bitstream": "board.bit", "board": "ulx3s-85f", "loader": "ulx3s"}\n')
    path.with_name("board.bit").write_bytes(b"bits")


def _read_report(path: Path) -> None:
    try:
        load(path.parent)
    except ParoError as error:
        if "openFPGALoader not found" not in str(error):
            raise


def _write_component(folder: Path) -> None:
    """Weights of a pipeline's component, in two shards."""
    folder.mkdir(exist_ok=True)
    for shard in "ab":
        safetensors.torch.save_file({shard: torch.ones(3)}, folder / f"{shard}.safetensors")


def _write_shards(path: Path) -> None:
    _write_component(path.parent)
    shards = {shard: f"{shard}.safetensors" for shard in "ab"}
    path.write_text(json.dumps({"metadata": {"total_size": 24}, "weight_map": shards}))


def _write_weights(path: Path) -> None:
    safetensors.torch.save_file({"w": torch.ones(3, 4), "b": torch.zeros(4)}, path)


def _read_weights(path: Path) -> None:
    weights_identity(path.parent.parent, {path.parent.name: ""})


_CELLS = """\
library (cells) {
  capacitive_load_unit (1, pf);
  cell (BUF1) {
    area : 1.25;
    pin (A) { direction : input;
      capacitance : 0.002;
    }
    pin (Y) { direction : output;
      function : "(A)";
      timing () { related_pin : "A"; }
    }
  }
  cell (FF1) {
    area : 4.5;
    ff (IQ, IQN) { clocked_on : "C"; }
  }
}
"""
_WORKLOAD = (
    'title = "mine"\nlayers = 24\nheads = 16\nhead_dim = 64\nffn = 4096\nprefix_tokens = 77\n'
    "grid = [16, 32, 32]\nsteps = 30\nguidance_passes = 2\n"
)
_INDEX = json.dumps(
    {
        "_class_name": "DiTPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "transformer": ["diffusers", "DiTTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
)


def _command(*arguments: str) -> None:
    """Run a command of `paro` that writes one file; a refused one leaves nothing."""
    output = Path(arguments[-1])
    output.unlink(missing_ok=True)
    before = set(output.parent.iterdir())
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            app(list(arguments), standalone_mode=False)
    except click.ClickException as error:
        raise ParoError(error.format_message()) from error
    except ParoError:
        left = set(output.parent.iterdir()) - before
        assert not left, f"a refused command left {left}"
        raise
    assert output.exists(), "nothing is refused, and nothing written"


def _convert(path: Path) -> None:
    output = path.with_name("converted.safetensors")
    _command("convert", str(path), "--grid", "2,2,2", "--output", str(output))
    load_capture(output)


def _plan_map(path: Path) -> None:
    output, capture = path.with_name("planned.safetensors"), path.with_name("capture.safetensors")
    arguments = ("--map", "mask", "--order", "WHF", "--for", str(capture), "--output", str(output))
    _command("plan", str(path), *arguments)
    load_plan(output, _capture())


READERS: dict[str, Reader] = {
    "capture": Reader("c.safetensors", lambda path: save_capture(_capture(path)), load_capture),
    "layer": Reader("l.safetensors", lambda path: save_layer(_layer(path)), load_layer),
    "plan": Reader("p.safetensors", _write_plan, lambda path: load_plan(path, _capture())),
    "layer plan": Reader("w.safetensors", _write_layer_plan, load_model_plan),
    "model": Reader(
        "m.safetensors",
        lambda path: save_model(VideoTransformer(Shape(layers=1, heads=1, head_dim=8)), path),
        load_model,
    ),
    "kind of model": Reader("k.safetensors", _write_weights, is_model),
    "npz": Reader("a.npz", _write_numpy, lambda path: read_arrays(path, ["q", "k"])),
    "pt": Reader("a.pt", _write_torch, lambda path: read_arrays(path, ["q", "k"])),
    "arrays": Reader("b.safetensors", _write_weights, lambda path: read_arrays(path, ["w", "b"])),
    "convert": Reader("v.npz", _write_numpy, _convert, names_file=False),
    "map": Reader("m.npz", _write_map, _plan_map, names_file=False),
    "configuration": Reader(
        "c.toml",
        lambda path: path.write_text("rows = 4\ncols = 8\nblock = 32\nhead_dim = 64\n"),
        lambda path: load_config(file=path),
        names_file=False,
    ),
    "workload": Reader(
        "m.toml",
        lambda path: path.write_text(_WORKLOAD),
        lambda path: load_workload(str(path)),
        names_file=False,
    ),
    "cells": Reader("c.lib", lambda path: path.write_text(_CELLS), read_library),
    "report of synthesis": Reader("report.json", _write_report, _read_report, names_file=False),
    "pipeline": Reader(
        "model_index.json",
        lambda path: path.write_text(_INDEX),
        lambda path: read_index(path.parent),
        names_file=False,
    ),
    "shards": Reader(
        f"{_WEIGHTS}.safetensors.index.json", _write_shards, _read_weights, names_file=False
    ),
    "weights": Reader(f"{_WEIGHTS}.safetensors", _write_weights, _read_weights),
}


# -- damage -------------------------------------------------------------------------------------


def damaged_bytes(content: bytes, chance: random.Random) -> bytes:
    """Bits flipped, bytes cut, dropped, doubled or overwritten."""
    start = chance.randrange(len(content))
    end = min(len(content), start + chance.choice((1, 1, 2, 8, 64)))
    flipped = bytes(byte ^ 1 << chance.randrange(8) for byte in content[start:end])
    return chance.choice(
        (
            content[:start],
            content[:start] + content[end:],
            content[:end] + content[start:],
            content[:start] + flipped + content[end:],
            content[:start] + chance.randbytes(end - start) + content[end:],
            content[:start] + bytes(end - start) + content[end:],
        )
    )


def damaged_text(content: bytes, chance: random.Random) -> bytes:
    """One number or quoted word of a text in place of which an odd one stands."""
    words = list(re.finditer(rb'"[^"]*"|-?\d+(\.\d+)?', content))
    if not words:
        return damaged_bytes(content, chance)
    word = chance.choice(words)
    odd = chance.choice((*ODD, word.group().decode(errors="replace") * 2)).encode()
    return content[: word.start()] + odd + content[word.end() :]


def damaged_lines(content: bytes, chance: random.Random) -> bytes:
    """Lines dropped, doubled, in another sequence, or odd ones between them."""
    lines = content.splitlines(keepends=True)
    place = chance.randrange(len(lines))
    odd = chance.choice((*ODD, "[table]", "x = 1", "# \u00e9", "\ufeff", "\x00")).encode() + b"\n"
    return b"".join(
        chance.choice(
            (
                lines[:place] + lines[place + 1 :],
                lines[: place + 1] + lines[place:],
                chance.sample(lines, len(lines)),
                [*lines[:place], odd, *lines[place:]],
            )
        )
    )


def damaged_header(content: bytes, chance: random.Random) -> bytes:
    """A safetensors file whose header is sound JSON, and says something odd of the same tensors."""
    end = _HEADER + int.from_bytes(content[:_HEADER], "little")
    header = json.loads(content[_HEADER:end])
    name = chance.choice(list(header))
    entry = header[name]
    key = chance.choice(list(entry))
    if chance.random() < 0.1:
        header[name] = chance.choice(([], 1, None, "x", {}))
    elif isinstance(entry[key], list) and entry[key]:
        entry[key][chance.randrange(len(entry[key]))] = chance.choice((0, 1, 7, -1, 10**30, "x"))
    elif chance.random() < 0.2:
        del entry[key]
    elif isinstance(entry[key], str) and chance.random() < 0.5 and re.search(r"\d", entry[key]):
        entry[key] = damaged_text(entry[key].encode(), chance).decode()
    else:
        entry[key] = chance.choice((*ODD, "F64", "F16", "BF16", "I64", "BOOL", "4,4,0", "a,b"))
    return _with_header(header, content[end:])


def _with_header(header: Any, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _HEADER)
    return len(text).to_bytes(_HEADER, "little") + text + data


def other_tensors(content: bytes, chance: random.Random) -> bytes:
    """A sound safetensors file of other tensors: type, shape, values, names, metadata."""
    end = _HEADER + int.from_bytes(content[:_HEADER], "little")
    metadata = json.loads(content[_HEADER:end]).get("__metadata__")
    tensors = safetensors.torch.load(content)
    name = chance.choice(sorted(tensors))
    tensor = _other_tensor(tensors.pop(name), chance)
    if chance.random() < 0.9:
        tensors[name] = tensor
    if metadata and chance.random() < 0.2:
        del metadata[chance.choice(sorted(metadata))]
    return safetensors.torch.save(
        {key: values.contiguous() for key, values in tensors.items()}, metadata
    )


def _other_tensor(tensor: torch.Tensor, chance: random.Random) -> torch.Tensor:
    kinds = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8)
    values = (float("nan"), float("inf"), -float("inf"), 1e38, -1.0, 0.0, 255.0)
    filled = tensor.clone()
    if filled.numel():
        place = chance.randrange(filled.numel())
        value = chance.choice(values)
        if not filled.is_floating_point():
            value = chance.choice((-1, 0, 1, 3, 4, 100, 127, 255))
            value = value % 256 if filled.dtype == torch.uint8 else value
            value = bool(value) if filled.dtype == torch.bool else min(value, 127)
        filled.view(-1)[place] = value
    return chance.choice(
        (
            filled,
            filled,
            torch.full_like(tensor, 0) if not tensor.is_floating_point() else tensor * 1e30,
            tensor.to(chance.choice(kinds)),
            tensor.to(torch.bool),
            tensor[:0],
            tensor[:1],
            tensor.unsqueeze(0),
            tensor.reshape(-1),
            torch.cat([tensor, tensor]) if tensor.dim() else tensor,
            torch.zeros(()),
        )
    )


def other_arrays(content: bytes, chance: random.Random) -> bytes:
    """A sound npz file of other arrays: type, shape, values, names."""
    arrays = dict(np.load(io.BytesIO(content)))
    name = chance.choice(sorted(arrays))
    array = arrays.pop(name)
    filled = array.copy()
    filled.flat[chance.randrange(filled.size)] = chance.choice((0, 1, 2, 4, 8, 9, 100, 255))
    if array.dtype.kind == "f":
        filled.flat[chance.randrange(filled.size)] = chance.choice((np.nan, np.inf, -1e300, 1e300))
    other = chance.choice(
        (
            filled,
            filled,
            array.astype(chance.choice(("f4", "f2", "i8", "i1", "u1", "u8", "?", "c16", "U8"))),
            array.astype(object),
            np.array("text"),
            np.array([b"a", b"b"]),
            np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]),
            np.array(["2020-01-01"], "M8[D]"),
            array[:0],
            array[:1],
            array[..., :1],
            array[None],
            array.ravel(),
            np.asfortranarray(array),
            np.array(0.0),
        )
    )
    if chance.random() < 0.9:
        arrays[name if chance.random() < 0.9 else "x"] = other
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def ways(name: str) -> list[Callable[[bytes, random.Random], bytes]]:
    """How files of a name are damaged."""
    return {
        ".safetensors": [damaged_bytes, damaged_header, other_tensors],
        ".npz": [damaged_bytes, other_arrays],
        ".pt": [damaged_bytes],
    }.get(Path(name).suffix, [damaged_bytes, damaged_text, damaged_text, damaged_lines])


# -- reading ------------------------------------------------------------------------------------


@contextmanager
def limits() -> Iterator[None]:
    """Let whoever takes too long, or too much memory, fail."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"it takes more than {SECONDS} s")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    before = signal.signal(signal.SIGALRM, late)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class Fuzz:
    """Damaged files of one kind, in a folder of its own.

    Parameters
    ----------
    kind : str
        One of `READERS`.
    folder : Path
        Where its files lie; what a reader fails on stays there.
    seed : int
        Of all damage.
    """

    def __init__(self, kind: str, folder: Path, seed: int) -> None:
        self.kind, self.reader, self.seed = kind, READERS[kind], seed
        # A folder within: some readers look at what is beside their file.
        self.path = folder / "files" / self.reader.name
        self.path.parent.mkdir(parents=True)
        self.reader.write(self.path)
        self.content = self.path.read_bytes()
        self.reader.read(self.path)
        self.refused = 0

    def objection(self, number: int) -> str | None:
        """Read damaged file ``number``; returns what is wrong with how that ended, if anything."""
        chance = random.Random(f"{self.kind} {self.seed} {number}")
        content = self.content
        for _ in range(chance.choice((1, 1, 1, 2))):
            try:
                with np.errstate(all="ignore"):
                    content = chance.choice(ways(self.reader.name))(content, chance)
            except Exception:
                # What is damaged already may not be told apart any more.
                content = damaged_bytes(content, chance) if content else content
        self.path.write_bytes(content)
        signal.alarm(SECONDS)
        try:
            self.reader.read(self.path)
        except ParoError as error:
            self.refused += 1
            return self._wrong_sentence(str(error))
        except (Exception, SystemExit) as error:
            return f"{type(error).__name__}: {str(error)[:200]}"
        finally:
            signal.alarm(0)
        return None

    def _wrong_sentence(self, sentence: str) -> str | None:
        if not sentence.strip() or "\n" in sentence:
            return f"its refusal is no sentence: {sentence[:200]!r}"
        if len(sentence) > 2000:
            return f"its refusal has {len(sentence)} letters: {sentence[:200]!r}"
        if self.reader.names_file and str(self.path) not in sentence:
            return f"its refusal does not name the file: {sentence[:200]!r}"
        return None

    def keep(self, number: int) -> Path:
        """Keep the file that was read last."""
        kept = self.path.parent.parent / f"failed_{number}{''.join(self.path.suffixes)}"
        kept.write_bytes(self.path.read_bytes())
        return kept


def run(files: int, seed: int, folder: Path) -> int:
    """Read damaged files of all kinds; returns on how many a reader failed."""
    failures = 0
    with limits():
        for place, kind in enumerate(READERS):
            own = (files + place) // len(READERS)
            fuzz = Fuzz(kind, folder / kind.replace(" ", "_"), seed)
            for number in range(own):
                wrong = fuzz.objection(number)
                if wrong is not None:
                    failures += 1
                    print(f"{kind} {number}: {wrong}; see {fuzz.keep(number)}")
            print(f"{kind}: {own} files, {fuzz.refused} refused", flush=True)
    return failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10000, help="how many, of all kinds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where failures are kept; a temporary one")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp())
    failures = run(arguments.files, arguments.seed, folder)
    print(f"{arguments.files} files, {failures} on which a reader failed")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
