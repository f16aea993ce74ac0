"""The bench of mutants: a program of its own, in which every mutant plays a script."""

import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from firmware_model.parallel import thread_pool
from gen.names import ACCELERATOR, module_name
from paro.config import Config, ParoError
from paro.config.programs import run_program
from sim.cache import entry_name, kept
from sim.cosim.accelerator_harness import BENCH_TOP, SETTINGS, harness_verilog
from sim.cosim.axi_memory import BURSTS_FILE
from sim.cosim.simulators import COVERAGE_FILE, Verilator
from sim.verify.mutants import MUTANT
from sim.verify.script import MEMORY_BYTES, Script, check_reference

__all__ = ["Bench", "Outcome", "mutation_bench"]

_MAIN = Path(__file__).with_name("templates") / "mutation_bench.cpp"
_PROGRAM = "bench"
#: Signals of the memory port that the bench sees, in the harness.
_WIRES = tuple(
    f"m_axi_{way}{part}"
    for way in ("ar", "aw")
    for part in ("valid", "ready", "addr", "len", "id", "cache", "prot")
)
_CONTENTS = ("paro_axi_memory", "contents")
#: Counters of 32 bits in the device, and in its parts that count what stages do.
_COUNTERS = ("read_bursts", "read_beats", "write_bursts", "write_beats")
_STAGE_COUNTERS = "counters"
_SCRIPT, _DATA, _REFERENCE, _OUTCOMES = "script.txt", "data.bin", "reference.txt", "outcomes.txt"
#: Seconds between two looks at how far the mutants are.
_POLL_SECONDS = 0.3


@dataclass(frozen=True)
class Outcome:
    """What a mutant did.

    Parameters
    ----------
    number : int
        Its number.
    verdict : str
        ``killed``: something differs that does not depend on time; ``timing``: cycles, or the
        order of bursts, alone; ``survived``.
    step : int
        Line of the script at which it differs first.
    what : str
        What differs.
    wanted, found : str
        Values in hexadecimal digits.
    cycles : int
        Cycles that it was simulated.
    seconds : float
        Wall-clock time.
    """

    number: int
    verdict: str
    step: int
    what: str
    wanted: str
    found: str
    cycles: int
    seconds: float

    @classmethod
    def parse(cls, line: str) -> "Outcome":
        """Read a line of the bench."""
        number, verdict, step, rest = line.split(maxsplit=3)
        what, wanted, found, cycles, seconds = rest.rsplit(maxsplit=4)
        return cls(
            int(number), verdict, int(step), what, wanted, found, int(cycles), float(seconds)
        )


@dataclass(frozen=True)
class Bench:
    """A compiled bench.

    Parameters
    ----------
    program : Path
        The program.
    """

    program: Path

    def play(
        self,
        script: Script,
        numbers: Sequence[int],
        folder: Path,
        *,
        processes: int = 1,
        limit: float = 60.0,
        progress: Callable[[Outcome], None] | None = None,
    ) -> tuple[int, float, list[Outcome]]:
        """Play a script without a mutant, and with each of some.

        Parameters
        ----------
        script : Script
            What to do.
        numbers : sequence of int
            Mutants.
        folder : Path
            Receives files; emptied first.
        processes : int
            Mutants at a time.
        limit : float
            Seconds that a mutant may take.
        progress : callable, optional
            Called with each outcome, soon after it is there.

        Returns
        -------
        cycles : int
            Of the script without a mutant.
        seconds : float
            That it took.
        outcomes : list of Outcome
            One of each mutant, in the order in which they ended.

        Raises
        ------
        ParoError
            If the device without a mutant does not do what the script says.
        """
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        script.save(folder / _SCRIPT, folder / _DATA)
        # The memory's list of bursts is of no use here.
        (folder / BURSTS_FILE).symlink_to("/dev/null")
        path = folder / _OUTCOMES
        command = [
            *(self.program, _SCRIPT, _DATA, _REFERENCE, str(processes), str(limit)),
        ]
        outcomes: list[Outcome] = []

        def follow() -> list[str]:
            """Pass on what is new; returns all whole lines."""
            lines = path.read_text().splitlines(keepends=True)
            lines = [line for line in lines if line.endswith("\n")]
            for line in lines[1 + len(outcomes) :]:
                outcomes.append(Outcome.parse(line))
                if progress is not None:
                    progress(outcomes[-1])
            return lines

        with (
            path.open("w") as output,
            (folder / "errors.log").open("w") as errors,
            thread_pool(1) as pool,
        ):
            future = pool.submit(
                run_program,
                command,
                input="\n".join(map(str, numbers)) + "\n",
                cwd=folder,
                stdout=output,
                stderr=errors,
                text=True,
            )
            while wait([future], timeout=_POLL_SECONDS).not_done:
                follow()
            code = future.result().returncode
        lines = follow()
        if code or not lines:
            message = (folder / "errors.log").read_text().strip()
            raise ParoError(f"the bench of mutants stopped: {message or code}; see {folder}")
        check_reference(script, folder / _REFERENCE)
        _, cycles, seconds = lines[0].split()
        return int(cycles), float(seconds), outcomes


@contextmanager
def mutation_bench(
    config: Config, verilog: str, cache: Path, verilator: Verilator | None = None
) -> Iterator[Bench]:
    """Compile a bench, unless that is done; it stays during the body.

    Parameters
    ----------
    config : Config
        The accelerator.
    verilog : str
        Its Verilog, with mutants: see `sim.verify.mutants.mutated_verilog`.
    cache : Path
        Folder that keeps it, see `sim.cache`.
    verilator : Verilator, optional
        Compiles it; one that counts coverage lets each play leave `COVERAGE_FILE` in its folder.

    Raises
    ------
    ParoError
        If it does not compile.
    """
    verilator = verilator or Verilator()
    harness = harness_verilog(config, MEMORY_BYTES)
    name = entry_name(
        "mutants",
        type(verilator).__name__,
        verilator.version(),
        sys.version,
        _MAIN.read_text(),
        harness,
        verilog,
    )

    def make(folder: Path) -> None:
        (folder / "accelerator.v").write_text(verilog)
        (folder / "harness.v").write_text(harness)
        (folder / "visible.vlt").write_text(_visible(config))
        (folder / "bench.h").write_text(_names(config, verilog))
        shutil.copy(_MAIN, folder)
        sources = ["visible.vlt", "accelerator.v", "harness.v", _MAIN.name]
        verilator.compile_program(
            [folder / name for name in sources], BENCH_TOP, folder, _PROGRAM, cache
        )

    with kept(cache, name, make) as folder:
        yield Bench(folder / _PROGRAM)


def _stage_counters(device: str, verilog: str) -> list[str]:
    """Names that Verilator gives the parts that count what stages do."""
    found = re.findall(rf"^  {device}__counters\w* (\S+) +\(", verilog, re.MULTILINE)
    assert found, "no counters of stages"
    return [name.removeprefix("\\").replace("$", "__024") for name in found]


def _visible(config: Config) -> str:
    """What Verilator keeps, and names, beside ports; and what it need not warn of."""
    module, contents = _CONTENTS
    device = module_name(config, ACCELERATOR)
    lines = [f'public_flat_rd -module "{BENCH_TOP}" -var "{wire}"' for wire in _WIRES]
    lines.append(f'public_flat_rw -module "{module}" -var "{contents}"')
    lines += [f'public_flat_rw -module "{device}" -var "{name}"' for name in _COUNTERS]
    lines.append(f'public_flat_rw -module "{device}__counters*" -var "{_STAGE_COUNTERS}"')
    # A mutant that depends on another bit of its port may close a circle over the bits of a signal.
    lines.append("lint_off -rule UNOPTFLAT")
    return "\n".join(["`verilator_config", *lines]) + "\n"


def _names(config: Config, verilog: str) -> str:
    """Header of the bench: settings by name, and names of what is visible."""
    settings = [
        f'{{"{name}", [](Top& top, uint64_t value) {{ top.{name} = value; }}}}' for name in SETTINGS
    ]
    device = f"root.{BENCH_TOP}__DOT__accelerator__DOT__"
    stages = [
        f"for (auto& word : {device}{part}__DOT__{_STAGE_COUNTERS}.m_storage) word = value;"
        for part in _stage_counters(module_name(config, ACCELERATOR), verilog)
    ]
    lines = [
        f'#define PARO_MUTANT "+{MUTANT}="',
        f'#define PARO_COVERAGE "{COVERAGE_FILE}"',
        f"#define PARO_SETTINGS {', '.join(settings)}",
        f"#define PARO_CONTENTS {BENCH_TOP}__DOT__memory__DOT__{_CONTENTS[1]}",
        f"#define PARO_COUNTED(value) {' '.join(stages)} "
        + " ".join(f"{device}{name} = value;" for name in _COUNTERS),
        f"#define PARO_WIRE(name) root.{BENCH_TOP}__DOT__m_axi_##name",
    ]
    return "\n".join(lines) + "\n"
