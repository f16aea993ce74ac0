"""FuseSoC lints and runs an exported folder, from one with nothing of this project."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.cosim.exports import exported, spoil, verilator_environment
from tests.sim.inputs import TINY


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> tuple[Path, str]:
    """An export with AXI's reset, under the default name; folder and name."""
    folder = tmp_path_factory.mktemp("exported")
    return folder, exported(TINY, folder, 1, short=True, aresetn=True)["module"]


def fusesoc(place: Path, root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run FuseSoC in an empty folder, with no settings of the user and none of this project."""
    place.mkdir(exist_ok=True)
    environment = verilator_environment()
    environment.pop("PYTHONPATH", None)
    homes = ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")
    return subprocess.run(
        [Path(sys.executable).with_name("fusesoc"), "--cores-root", root, *arguments],
        cwd=place,
        env=environment | dict.fromkeys(homes, str(place)),
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


@pytest.mark.parametrize("target", ["lint", "sim", "sim_verilator"])
def test_targets(target, folder, tmp_path) -> None:
    root, module = folder
    done = fusesoc(tmp_path / "user", root, "run", "--target", target, f"paro:accelerator:{module}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("PASS: " in done.stdout) == target.startswith("sim")


def test_a_chosen_name_stands_for_the_core(tmp_path) -> None:
    """It is found by that name and has another VLNV; a bench that fails is told."""
    root, place = tmp_path / "exported", tmp_path / "user"
    digest = exported(TINY, root, 2, "mine", short=True)["digest"]
    spoil(root)
    core = f"paro:accelerator:mine_accelerator_4x4_b16_d32_{digest[:8]}"
    shown = fusesoc(place, root, "core", "show", "paro:accelerator:mine")
    assert f"{core}:" in shown.stdout, shown.stdout + shown.stderr
    done = fusesoc(place, root, "run", "--target", "sim", core)
    assert done.returncode != 0
    assert "1 of" in done.stdout
