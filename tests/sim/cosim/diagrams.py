"""Timing diagrams out of a run of the testbench.

``python -m tests.sim.cosim.diagrams`` records `gen/data/timing.json` anew, after a change of the
hardware that changes it.
"""

import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from amaranth.lib import data
from vcd.reader import TokenKind, tokenize

from gen.timing import RECORDED
from paro.config import Config
from paro.config.formats import Operand
from paro.config.registers import find_register
from rtl.interfaces import fetch_signature
from tests.sim.cosim.exports import exported, icarus
from tests.sim.inputs import TINY

#: Where the trace has the ports of accelerator and core.
BENCH, CORE = "testbench", "testbench.accelerator.engine_0.core_0"
#: A column without a cycle: some are left out.
GAP = -1

Trace = dict[str, list[int | None]]


def read_trace(file: Path, clock: str, scopes: Iterable[str]) -> Trace:
    """Values of all signals in some scopes right before each rising edge of a clock."""
    scopes = set(scopes)
    scope: list[str] = []
    places: dict[str, list[str]] = {}
    values: dict[str, int | None] = {}
    changes: dict[str, int | None] = {}
    edges: list[dict[str, int | None]] = []
    with file.open("rb") as stream:
        for token in tokenize(stream):
            if token.kind is TokenKind.SCOPE:
                scope.append(token.scope.ident)
            elif token.kind is TokenKind.UPSCOPE:
                scope.pop()
            elif token.kind is TokenKind.VAR and ".".join(scope) in scopes:
                path = ".".join([*scope, token.var.reference])
                places.setdefault(token.var.id_code, []).append(path)
            elif token.kind is TokenKind.CHANGE_TIME:
                if any(changes.get(code) == 1 for code in places if clock in places[code]):
                    edges.append(values.copy())
                values |= changes
                changes = {}
            elif token.kind is TokenKind.CHANGE_SCALAR:
                changes[token.scalar_change.id_code] = _known(token.scalar_change.value)
            elif token.kind is TokenKind.CHANGE_VECTOR:
                changes[token.vector_change.id_code] = _known(token.vector_change.value)
    return {path: [edge.get(code) for edge in edges] for code in places for path in places[code]}


def _known(value: int | str) -> int | None:
    text = str(value)
    return int(text) if text.isdigit() else None


def record(trace: Trace, config: Config) -> dict[str, list[dict[str, Any]]]:
    """Waves of every diagram."""
    return {
        "start": _start(trace),
        "read": _read(trace),
        "write": _write(trace),
        "stream": _stream(trace, config),
    }


def _start(trace: Trace) -> list[dict[str, Any]]:
    bench = _Signals(trace, BENCH)
    control, status = find_register("CONTROL"), find_register("STATUS")
    start = bench.first("s_axil_awvalid", lambda n: bench["s_axil_awaddr"][n] == control.offset)
    asked = bench.first("m_axi_arvalid", after=start)
    risen = bench.first("irq")
    cleared = bench.first(
        "s_axil_awvalid", lambda n: bench["s_axil_awaddr"][n] == status.offset, after=risen
    )
    fallen = next(n for n in range(cleared, bench.cycles) if not bench["irq"][n])
    columns = [
        *range(start - 1, start + 5),
        *(GAP, *range(asked - 1, asked + 3)),
        *(GAP, *range(risen - 2, risen + 2)),
        *(GAP, *range(cleared - 1, fallen + 2)),
    ]
    return [
        _clock(columns),
        bench.bus(columns, "s_axil_awaddr", "s_axil_awvalid", "{:03x}".format),
        bench.bit(columns, "s_axil_awvalid"),
        bench.bit(columns, "s_axil_awready"),
        bench.bus(columns, "s_axil_wdata", "s_axil_wvalid", str),
        bench.bit(columns, "s_axil_wvalid"),
        bench.bit(columns, "s_axil_wready"),
        bench.bit(columns, "s_axil_bvalid"),
        bench.bit(columns, "s_axil_bready"),
        {},
        bench.bit(columns, "m_axi_arvalid"),
        bench.bus(columns, "m_axi_araddr", "m_axi_arvalid", _last_digits),
        bench.bit(columns, "m_axi_arready"),
        {},
        bench.bit(columns, "irq"),
    ]


def _read(trace: Trace) -> list[dict[str, Any]]:
    bench = _Signals(trace, BENCH)
    asked = bench.first("m_axi_arvalid")
    begins = bench.first("m_axi_rvalid")
    first = bench.first("m_axi_rlast", after=begins)
    last = bench.first("m_axi_rlast", after=first + 1)
    columns = [
        *range(asked - 1, begins + 2),
        *(GAP, *range(first - 1, first + 3)),
        *(GAP, *range(last - 1, last + 2)),
    ]
    return [
        _clock(columns),
        bench.bus(columns, "m_axi_araddr", "m_axi_arvalid", _last_digits),
        bench.bus(columns, "m_axi_arlen", "m_axi_arvalid", str),
        bench.bit(columns, "m_axi_arvalid"),
        bench.bit(columns, "m_axi_arready"),
        {},
        bench.beats(columns, "m_axi_rdata", "m_axi_rvalid", "m_axi_rready", asked),
        bench.bit(columns, "m_axi_rlast", "m_axi_rvalid"),
        bench.bit(columns, "m_axi_rvalid"),
        bench.bit(columns, "m_axi_rready"),
    ]


def _write(trace: Trace) -> list[dict[str, Any]]:
    bench = _Signals(trace, BENCH)
    asked = bench.first("m_axi_awvalid")
    begins = bench.first("m_axi_wvalid")
    last = bench.first("m_axi_wlast", lambda n: bench["m_axi_wvalid"][n] == 1, after=begins)
    answered = bench.first("m_axi_bvalid")
    taken = bench.first("m_axi_wready")
    columns = [
        *range(min(asked, begins) - 1, taken + 3),
        *(GAP, *range(last - 1, answered + 2)),
    ]
    return [
        _clock(columns),
        bench.bus(columns, "m_axi_awaddr", "m_axi_awvalid", _last_digits),
        bench.bus(columns, "m_axi_awlen", "m_axi_awvalid", str),
        bench.bit(columns, "m_axi_awvalid"),
        bench.bit(columns, "m_axi_awready"),
        {},
        bench.beats(columns, "m_axi_wdata", "m_axi_wvalid", "m_axi_wready", asked),
        bench.bit(columns, "m_axi_wlast", "m_axi_wvalid"),
        bench.bit(columns, "m_axi_wvalid"),
        bench.bit(columns, "m_axi_wready"),
        {},
        bench.bit(columns, "m_axi_bvalid"),
        bench.bit(columns, "m_axi_bready"),
    ]


def _stream(trace: Trace, config: Config) -> list[dict[str, Any]]:
    core = _Signals(trace, CORE)
    layout = fetch_signature(config).members["payload"].shape
    assert isinstance(layout, data.Layout)
    operand, block = layout["operand"], layout["block"]

    def request(payload: int) -> str:
        kind = Operand(payload >> operand.offset & (1 << operand.width) - 1)
        return f"{kind.name} {payload >> block.offset & (1 << block.width) - 1}"

    asked = core.first("fetch__valid", lambda n: not core["fetch__ready"][n])
    taken = core.first("fetch__ready", lambda n: core["fetch__valid"][n] == 1, after=asked)
    answered = core.first("k__valid", after=taken)
    columns = [
        *range(asked - 1, asked + 2),
        *(GAP, *range(taken - 1, taken + 3)),
        *(GAP, *range(answered - 1, answered + 4)),
    ]
    return [
        _clock(columns),
        core.bus(columns, "fetch__payload", "fetch__valid", request),
        core.bit(columns, "fetch__valid"),
        core.bit(columns, "fetch__ready"),
        {},
        core.beats(columns, "k__payload", "k__valid", "k__ready", taken),
        core.bit(columns, "k__valid"),
        core.bit(columns, "k__ready"),
    ]


def _clock(columns: list[int]) -> dict[str, Any]:
    return {"name": "clk", "wave": _wave("|" if column == GAP else "p" for column in columns)}


class _Signals:
    """Signals of one scope, as lines of a diagram."""

    def __init__(self, trace: Trace, scope: str) -> None:
        self._trace = trace
        self._scope = scope
        self.cycles = len(next(iter(trace.values())))

    def __getitem__(self, name: str) -> list[int | None]:
        return self._trace[f"{self._scope}.{name}"]

    def first(
        self, name: str, holds: Callable[[int], bool] = lambda _: True, *, after: int = 0
    ) -> int:
        """First cycle, from one on, in which a signal is 1 and something holds."""
        return next(n for n in range(after, self.cycles) if self[name][n] == 1 and holds(n))

    def bit(self, columns: list[int], name: str, valid: str | None = None) -> dict[str, Any]:
        """A signal of one bit; unknown where it is not valid."""

        def state(n: int) -> str:
            known = self[name][n] is not None and (valid is None or self[valid][n] == 1)
            return str(self[name][n]) if known else "x"

        return {"name": name, "wave": _wave("|" if n == GAP else state(n) for n in columns)}

    def bus(
        self, columns: list[int], name: str, valid: str, label: Callable[[int], str]
    ) -> dict[str, Any]:
        """A signal of several bits where it is valid: a label where it changes."""
        return self._labelled(columns, name, valid, lambda n: label(self[name][n] or 0))

    def beats(
        self, columns: list[int], name: str, valid: str, ready: str, first: int
    ) -> dict[str, Any]:
        """Beats of a channel, counted from a cycle on."""

        def label(n: int) -> str:
            taken = range(first, n)
            return str(sum(self[valid][m] == self[ready][m] == 1 for m in taken))

        return self._labelled(columns, name, valid, label)

    def _labelled(
        self, columns: list[int], name: str, valid: str, label: Callable[[int], str]
    ) -> dict[str, Any]:
        states, labels = [], []
        shown: str | None = None
        for n in columns:
            if n == GAP:
                states.append("|")
                continue
            new = label(n) if self[valid][n] == 1 else None
            if new is None:
                states.append("x")
            elif new == shown:
                states.append("=.")
            else:
                states.append("=")
                labels.append(new)
            shown = new
        return {"name": name, "wave": _wave(states), "data": labels}


def _last_digits(address: int) -> str:
    return f"..{address & 0xFFF:03x}"


def _wave(states: Iterable[str]) -> str:
    """WaveDrom's text: a state that goes on is a dot."""
    wave, last = "", ""
    for state in states:
        if state == "|":
            wave += "|"
        elif state == "=." or (state == last and state != "="):
            wave += "."
        else:
            wave += state
            last = state
    return wave


def simulate(folder: Path) -> Trace:
    """Trace of a short head on a small accelerator."""
    exported(TINY, folder, 1, "mine", short=True)
    bench = folder / "testbench.v"
    everything, needed = "$dumpvars(0, testbench)", f"$dumpvars(1, {BENCH}, {CORE})"
    assert everything in bench.read_text()
    bench.write_text(bench.read_text().replace(everything, needed))
    done = icarus(folder, "mine", "-DVCD")
    assert "PASS" in done.stdout, done.stdout
    return read_trace(folder / "testbench.vcd", f"{BENCH}.clk", (BENCH, CORE))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        waves = record(simulate(Path(folder)), TINY)
    RECORDED.write_text(json.dumps(waves, indent=1) + "\n")


if __name__ == "__main__":
    main()
