"""The simulators themselves: builds, messages, and a known trap of generated Verilog."""

from concurrent.futures import ProcessPoolExecutor

import pytest

from gen.verilog import convert
from paro_config import ParoError
from sim.simulators import SIMULATORS, get_simulator
from tests.gen.standin import StandIn

PORTS = [
    "clk",
    "rst",
    "status",
    *(f"{stream}__{part}" for stream in "io" for part in ("payload", "valid", "ready")),
]
BROKEN = "module broken(input clk, output [3:0] y); assign y = missing; endmodule\n"


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_canary(simulator, build_dir, tmp_path):
    """Logic that only registers drive is right from the start (amaranth issue 1629)."""
    chosen = get_simulator(simulator)
    sources = {"standin.v": convert(StandIn(4, 4), "standin")}
    build = chosen.build(sources, "standin", build_dir, visible=PORTS)
    chosen.run(build, "tests.sim.canary_bench", tmp_path)
    assert (tmp_path / "passed").exists(), (tmp_path / "sim.log").read_text()


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_verilog_that_does_not_compile(simulator, tmp_path):
    with pytest.raises(ParoError, match=rf"{simulator} does not compile broken: .*missing"):
        get_simulator(simulator).build({"broken.v": BROKEN}, "broken", tmp_path)
    assert not list(tmp_path.glob("*/complete"))


def _build(folder):
    build = get_simulator("icarus").build({"empty.v": "module empty; endmodule\n"}, "empty", folder)
    return build.folder, (build.folder / "complete").stat().st_mtime_ns


def test_builds_at_one_time_are_one_build(tmp_path):
    with ProcessPoolExecutor(3) as pool:
        assert len(set(pool.map(_build, [tmp_path] * 3))) == 1


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ParoError, match="cannot write"):
        _build(tmp_path / "file")
