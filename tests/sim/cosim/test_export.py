"""Exported folders: plain Verilog, that anyone can simulate, holds what the integer model says."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from firmware_model.host.jobs import HeadJob
from firmware_model.reference.outputs import model_outputs
from sim.cosim.export import BASE
from tests.sim.cosim.exports import (
    build_with_verilator,
    exported,
    icarus,
    jobs_of,
    run,
    spoil,
    verilator,
)
from tests.sim.inputs import TINY


@pytest.mark.parametrize("simulate", [icarus, verilator])
@pytest.mark.parametrize("cores", [1, 2])
def test_the_testbench_passes_and_can_fail(cores, simulate, tmp_path, seed) -> None:
    config = TINY.changed(cores=cores)
    facts = exported(config, tmp_path, seed, "mine")
    good = simulate(tmp_path, "mine")
    assert good.returncode == 0, good.stdout + good.stderr
    assert f"PASS: {facts['words_written']} words" in good.stdout

    spoil(tmp_path)
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
    config = TINY.changed(axi_bits=128)  # as device.cpp has it
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
