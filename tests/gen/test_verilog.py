"""The generated Verilog: deterministic, shared, and taken by every tool."""

import hashlib
import subprocess
import sys

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from gen.verilog import convert
from paro_config import ParoError
from sim.simulators import SIMULATORS
from tests.gen.standin import StandIn


def modules(verilog: str) -> list[str]:
    return [line.split("(")[0].split()[1] for line in verilog.splitlines() if line[:7] == "module "]


def test_same_bytes_in_another_process():
    script = (
        "import hashlib; from gen.verilog import convert; from tests.gen.standin import StandIn;"
        "print(hashlib.sha256(convert(StandIn(4, 4), 'standin').encode()).hexdigest())"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": "."},
    )
    here = hashlib.sha256(convert(StandIn(4, 4), "standin").encode()).hexdigest()
    assert run.stdout.strip() == here


def test_shared_modules_are_emitted_once():
    small, large = (convert(StandIn(n, n), "standin") for n in (8, 32))
    assert modules(small) == ["standin", "standin_cell", "standin_choose", "standin_row8"]
    assert small.count("standin_cell standin_cell_") == 8
    # 16 times the cells; each row's and column's own wiring is written out.
    assert large.count("\n") < 6 * small.count("\n")


def test_submodules_have_plain_names():
    class Outer(wiring.Component):
        def __init__(self):
            super().__init__(StandIn(4, 4).signature.members)

        def elaborate(self, platform):
            m = Module()
            m.submodules.inner = inner = StandIn(4, 4)
            wiring.connect(m, wiring.flipped(self), inner)
            return m

    verilog = convert(Outer(), "outer")
    assert "outer__inner" in modules(verilog)
    assert "module \\" not in verilog


def test_clock_and_reset_everywhere():
    for line in convert(StandIn(4, 4), "standin").splitlines():
        if line.startswith("module "):
            ports = line.partition("(")[2].removesuffix(");").split(", ")
            assert {"clk", "rst"} <= set(ports), line


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_simulators_take_it_without_a_warning(simulator, tmp_path):
    verilog = tmp_path / "standin.v"
    verilog.write_text(convert(StandIn(4, 8), "standin"))
    SIMULATORS[simulator]().lint(verilog, "standin")


def test_empty_module_is_refused():
    class Nothing(wiring.Component):
        a: In(1)  # type: ignore[valid-type]

        def elaborate(self, platform):
            return Module()

    with pytest.raises(ParoError, match="module nothing has no logic"):
        convert(Nothing(), "nothing")
