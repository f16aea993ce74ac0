"""What is answered at once loads nothing heavy; what is not installed is said in a sentence."""

import json
import subprocess
import sys

import pytest

from firmware_model import DEMO_CAPTURE
from paro.cli.main import COMMANDS

#: Modules that take long to load.
HEAVY = ("joblib", "matplotlib", "numba", "PIL", "torch")
#: Modules of the extras.
EXTRAS = (*HEAVY, "cocotb", "cocotb_tools", "cocotbext", "diffusers", "sklearn")
DEMO = str(DEMO_CAPTURE)

REFUSALS = [
    ("cosim", "missing.safetensors", "-o", "out"),
    ("cosim", DEMO, "--sim", "nope", "-o", "out"),
    ("cosim", DEMO, "--latency", "x", "-o", "out"),
    ("cosim", DEMO, "--plan", "missing.safetensors", "-o", "out"),
    ("cosim", DEMO, "--query-blocks", "x", "-o", "out"),
    ("calibrate", "missing.safetensors", "-o", "out.safetensors"),
    ("calibrate", DEMO, "--avg-bits", "9", "-o", "out.safetensors"),
    ("calibrate", DEMO, "--block", "8", "-o", "out.safetensors"),
    ("calibrate", DEMO, "--order", "nope", "-o", "out.safetensors"),
    ("calibrate", DEMO, "--heads", "nope", "-o", "out.safetensors"),
    ("calibrate", DEMO, "--weight-bits", "1", "-o", "out.safetensors"),
    ("calibrate", DEMO, "--head-dim", "48", "-o", "out.safetensors"),
    ("calibrate", DEMO, "--shared", "-o", "out.safetensors"),
    ("calibrate", DEMO, "--sweep", "2,9", "-o", "out"),
    ("convert", "missing.npz", "--grid", "1,2,2", "-o", "out.safetensors"),
    ("convert", DEMO, "--grid", "1,2", "-o", "out.safetensors"),
    ("plan", "missing.npz", "--for", DEMO, "-o", "out.safetensors"),
    ("plan", DEMO, "--for", "missing.safetensors", "-o", "out.safetensors"),
    ("evaluate", "missing.safetensors", "--plan", "missing.safetensors", "-o", "out"),
    ("evaluate", DEMO, "--plan", "missing.safetensors", "-o", "out"),
    ("evaluate", DEMO, "--plan", DEMO, "--format", "nope", "-o", "out"),
    ("evaluate", DEMO, "--plan", DEMO, "--steps", "2", "-o", "out"),
    ("picture", "missing.safetensors", "-o", "out"),
    ("picture", DEMO, "--plan", "missing.safetensors", "-o", "out"),
    ("capture", "missing", "-o", "out"),
    ("capture", "moving-digits", "--what", "nope", "-o", "out"),
    ("study", "nope", DEMO, "-o", "out"),
    ("study", "formats", "missing.safetensors", "-o", "out"),
    ("study", "formats", DEMO, "--bits", "3,9", "-o", "out"),
    ("estimate", "--model", "nope", "-o", "out"),
    ("estimate", "--model", "cogvideox-5b", "--assume-density", "2", "-o", "out"),
    ("estimate", "--model", "cogvideox-5b", "missing.safetensors", "-o", "out"),
    ("estimate", "--model", "cogvideox-5b", "--cores", "0", "-o", "out"),
    ("estimate", "--model", "cogvideox-5b", "--head-dim", "32", "-o", "out"),
    ("estimate", "--model", "cogvideox-5b", "--avg-bits", "9", "-o", "out"),
    ("estimate", "--model", "cogvideox-5b", "--plan", "missing.safetensors", "-o", "out"),
    ("sweep", "--model", "nope", "-o", "out"),
    ("sweep", "--model", "cogvideox-5b", "--jobs", "0", "-o", "out"),
    ("sweep", "--model", "cogvideox-5b", "--bits", "9", "-o", "out"),
    ("benchmark", "missing.safetensors"),
    ("benchmark", "--query-blocks", "4"),
    ("benchmark", "--sim", "nope"),
    ("generate", "--rows", "3", "-o", "out"),
    ("generate", "--preset", "nope", "-o", "out"),
    ("export", DEMO, "--clock-mhz", "0", "-o", "out"),
    ("synth", "--board", "nope", "-o", "out"),
    ("synth", "--board", "ulx3s-85f", "--min-mhz", "0", "-o", "out"),
    ("synth", "--self-test", "--board", "ulx3s-85f", "--min-mhz", "0", "-o", "out"),
    ("run", "missing.safetensors", "--device", "sim", "-o", "out"),
    ("run", DEMO, "--device", "usb", "-o", "out"),
    ("load", "missing"),
]


def run(folder, arguments, missing=()):
    """Run ``paro`` in a process of its own, without some packages; also gives what it loaded."""
    program = f"""
import json, sys
for name in {tuple(missing)}: sys.modules[name] = None
sys.argv = ["paro", *sys.argv[1:]]
from paro.cli.main import run
try:
    run()
finally:
    with open("loaded.json", "w") as file:
        json.dump([name for name in {HEAVY} if sys.modules.get(name)], file)
"""
    outcome = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=folder, capture_output=True, text=True
    )
    loaded = json.loads((folder / "loaded.json").read_text())
    (folder / "loaded.json").unlink()
    return outcome, loaded


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_loads_nothing_heavy(tmp_path, command):
    outcome, loaded = run(tmp_path, [*command.split(), "--help"])
    assert outcome.returncode == 0
    assert "Usage: paro" in outcome.stdout
    assert loaded == []


@pytest.mark.parametrize("arguments", REFUSALS, ids=" ".join)
def test_a_refusal_loads_nothing_heavy(tmp_path, arguments):
    outcome, loaded = run(tmp_path, arguments)
    assert outcome.returncode == 2
    assert outcome.stderr.strip()
    assert "Traceback" not in outcome.stderr
    assert loaded == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("top", ["core", "accelerator"])
def test_verilog_needs_no_extra(tmp_path, top):
    arguments = ["generate", "--preset", "tiny", "--top", top, "-o", "out"]
    outcome, _ = run(tmp_path, arguments, EXTRAS)
    assert outcome.returncode == 0, outcome.stderr
    assert list((tmp_path / "out").glob("*.v"))


def test_a_board_needs_no_extra(tmp_path):
    """All of `paro synth` but the tools that it starts."""
    program = f"""
import sys
for name in {EXTRAS}: sys.modules[name] = None
from fpga import synth
from fpga.selftest import SelfTest
from fpga.tile import make_tile
from paro.config import PRESETS
SelfTest(PRESETS["tiny"], make_tile(PRESETS["tiny"]))
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)


@pytest.mark.parametrize(
    ("missing", "arguments"),
    [
        ("torch", ["calibrate", DEMO, "-o", "out.safetensors"]),
        ("cocotb", ["cosim", DEMO, "-o", "out"]),
        ("numba", ["estimate", "--model", "cogvideox-2b", "--assume-density", "1", "-o", "out"]),
    ],
)
def test_a_package_that_is_not_installed_is_named(tmp_path, missing, arguments):
    outcome, _ = run(tmp_path, arguments, [missing])
    assert outcome.returncode == 2
    assert f"this needs {missing}, which is not installed; get it by: make setup" in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert not list(tmp_path.iterdir())
