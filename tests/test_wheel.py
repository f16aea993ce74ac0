"""The project as a user installs it: one package, without the checkout."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from firmware_model import DEMO_CAPTURE
from tests.places import ROOT

FOLDERS = ("firmware_model", "fpga", "gen", "rtl", "sim")
CORE = ("--rows", "4", "--cols", "4", "--block", "16")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    subprocess.run(
        [*build, "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT], check=True
    )
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """Programs of an environment that has the wheel, and what it needs from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    paths = {name: Path(path) for name, path in _paths(folder).items()}
    install = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python"]
    python = paths["scripts"] / "python"
    subprocess.run([*install, python, "install", "--quiet", "--no-deps", wheel], check=True)
    # A path in a .pth file brings packages, but not the .pth files there: not this checkout.
    ours = sysconfig.get_path("purelib")
    (paths["purelib"] / "dependencies.pth").write_text(f"{ours}\n")
    return paths["scripts"]


def _paths(environment: Path) -> dict[str, str]:
    base = {"base": str(environment), "platbase": str(environment)}
    return sysconfig.get_paths("venv", vars=base)


def run(installed: Path, folder: Path, *arguments, **settings: str) -> str:
    outcome = subprocess.run(
        [installed / "paro", *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | settings,
    )
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


def test_the_wheel_is_one_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (top,) = (name for name in names if name.endswith("top_level.txt"))
        assert archive.read(top).split() == [b"paro"]
    information = top.partition("/")[0]
    assert {name.partition("/")[0] for name in names} == {"paro", information}
    for folder in FOLDERS:
        sources = {f"paro/{path.relative_to(ROOT)}" for path in (ROOT / folder).rglob("*.py")}
        packed = {name for name in names if name.startswith(f"paro/{folder}/")}
        assert sources
        assert sources == {name for name in packed if name.endswith(".py")}
    assert "paro/firmware_model/data/tiny_video_dit_t03.safetensors" in names


def test_the_folders_are_no_names_of_their_own(installed, tmp_path):
    program = f"""
import importlib.util, sys
for name in {FOLDERS}:
    assert importlib.util.find_spec(name) is None, name
    assert importlib.util.find_spec("paro." + name) is not None, name
import paro.rtl.core.core, paro.gen.verilog, paro.sim.cycles.cycle_model, paro.fpga.synth
assert not {{name.partition(".")[0] for name in sys.modules}} & set({FOLDERS})
"""
    subprocess.run([installed / "python", "-c", program], cwd=tmp_path, check=True)


def test_generate_gives_the_same_bytes(installed, tmp_path):
    from gen.verilog import generate_verilog
    from paro.config import Config

    run(installed, tmp_path, "generate", *CORE, "--head-dim", 32, "--name", "core", "-o", "out")
    config = Config(rows=4, cols=4, block=16, head_dim=32)
    assert (tmp_path / "out/core.v").read_text() == generate_verilog(config, name="core")


def test_a_head_through_all_of_it(installed, tmp_path):
    run(
        installed, tmp_path, "cosim", DEMO_CAPTURE, "--heads", 0, "--query-blocks", "0:1", *CORE,
        "-o", "cosim",
        # One block row is predicted faster than the cycle model is compiled.
        NUMBA_DISABLE_JIT="1",
    )  # fmt: skip
    report = json.loads((tmp_path / "cosim/report.json").read_text())
    assert report["bit_exact"]
    assert report["cycles"] == report["predicted_cycles"] > 0
    chosen = (DEMO_CAPTURE, "--heads", 0)
    run(installed, tmp_path, "calibrate", *chosen, "--block", 16, "-o", "plan.safetensors")
    run(installed, tmp_path, "evaluate", *chosen, "--plan", "plan.safetensors", "-o", "evaluate")
    assert json.loads((tmp_path / "evaluate/report.json").read_text())["heads"]


@pytest.mark.slow
def test_a_model_is_estimated(installed, tmp_path):
    run(
        installed, tmp_path, "estimate", "--model", "cogvideox-2b", "--assume-density", 0.5,
        "-o", "estimate",
    )  # fmt: skip
    assert json.loads((tmp_path / "estimate/estimate.json").read_text())["ours"]
