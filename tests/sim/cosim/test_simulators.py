"""The simulators themselves: builds, messages, and a known trap of generated Verilog."""

import os
import re
import shutil
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from gen.verilog import convert
from paro.config import ParoError
from sim.cosim import simulators
from sim.cosim.simulators import SIMULATORS, get_simulator
from tests.gen.standin import StandIn

PORTS = [
    "clk",
    "rst",
    "status",
    *(f"{stream}__{part}" for stream in "io" for part in ("payload", "valid", "ready")),
]
BROKEN = "module broken(input clk, output [3:0] y); assign y = missing; endmodule\n"


#: Names that shells, make, Perl, Verilog or Python might read something into.
ODD = "with space, $HOME, $(x), 'quotes\", #, 100%, a;b and ü"


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_canary(simulator, build_dir, tmp_path):
    """Logic that only registers drive is right from the start (amaranth issue 1629).

    In folders with odd names.
    """
    build_dir, tmp_path = build_dir / ODD, tmp_path / ODD
    chosen = get_simulator(simulator)
    sources = {"standin.v": convert(StandIn(4, 4), "standin")}
    with chosen.build(sources, "standin", build_dir, visible=PORTS) as build:
        chosen.run(build, "tests.sim.cosim.canary_bench", tmp_path)
    assert (tmp_path / "passed").exists(), (tmp_path / "sim.log").read_text()


@pytest.mark.parametrize("folder", ["plain", ODD])
@pytest.mark.parametrize("simulator", SIMULATORS)
def test_verilog_that_does_not_compile(simulator, folder, tmp_path):
    sentence = rf"{simulator} does not compile broken: .*missing.*; see (.*)"
    with (
        pytest.raises(ParoError, match=sentence) as refused,
        get_simulator(simulator).build({"broken.v": BROKEN}, "broken", tmp_path / folder),
    ):
        pass
    assert not list(tmp_path.glob("**/complete"))
    log = re.search(sentence, str(refused.value), re.DOTALL)
    assert log is not None
    assert "missing" in Path(log[1]).read_text()


def _build(folder):
    sources = {"empty.v": "module empty; endmodule\n"}
    with get_simulator("icarus").build(sources, "empty", folder) as build:
        return build.folder, (build.folder / "sim.vvp").stat().st_mtime_ns


def test_builds_at_one_time_are_one_build(tmp_path):
    with ProcessPoolExecutor(3) as pool:
        assert len(set(pool.map(_build, [tmp_path] * 3))) == 1


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ParoError, match="cannot write"):
        _build(tmp_path / "file")


@pytest.mark.parametrize("change", ["flags", "compiler", "version", "source", "ports", "waves"])
def test_all_that_a_build_depends_on_names_it(change, tmp_path, monkeypatch):
    """Nothing is compiled: the name alone is asked for."""
    names = []

    @contextmanager
    def name_alone(folder, name, make):
        names.append(name)
        yield folder

    monkeypatch.setattr(simulators, "kept", name_alone)

    def ask(text="module a; endmodule", ports=(), waves=False):
        simulator = get_simulator("verilator")
        with simulator.build({"a.v": text}, "a", tmp_path, visible=ports, waves=waves):
            return names[-1]

    before = ask()
    assert ask() == before
    given = {}
    if change == "flags":
        monkeypatch.setenv("CXXFLAGS", "-O3")
    elif change == "compiler":
        compiler = tmp_path / "c++"
        compiler.write_text("#!/bin/sh\necho 'c++ 99.1'\n")
        compiler.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    elif change == "version":
        monkeypatch.setattr(simulators.Verilator, "version", lambda self: "99")
    else:
        given = {"source": {"text": ""}, "ports": {"ports": ["x"]}, "waves": {"waves": True}}[
            change
        ]
    assert ask(**given) != before


def test_a_failure_is_told_by_its_cause():
    log = "- V e r i l a t i o n   R e p o r t\nverilated.mk:73: *** Unsupported: spaces. Stop.\n"
    assert simulators._first_message(log) == "verilated.mk:73: *** Unsupported: spaces. Stop."
    assert simulators._first_message("banner\nmakes no sense\n") == "makes no sense"


def test_an_environment_that_make_does_not_take_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(simulators.Verilator, "_root", lambda self: Path("/opt/my tools/verilator"))
    with pytest.raises(ParoError, match=r"cannot work with the folder /opt/my tools/verilator"):
        get_simulator("verilator")


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=4096))
    sentence = "cannot write .*: No space left on device; PARO_CACHE_DIR names another"
    with (
        pytest.raises(ParoError, match=sentence),
        get_simulator("icarus").build({"broken.v": BROKEN}, "broken", tmp_path),
    ):
        pass
