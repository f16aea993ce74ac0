"""Formal proofs: a component and its properties, given by `yowasp-sby` to yosys and Bitwuzla."""

import inspect
import linecache
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

from amaranth.back import rtlil  # pyright: ignore[reportAttributeAccessIssue]
from amaranth.hdl import (
    Assert,
    Assume,
    Cat,
    Const,
    Cover,
    Fragment,
    Module,
    ResetSignal,
    Signal,
    Value,
)
from amaranth.hdl._mem import MemoryInstance
from amaranth.lib import data, wiring

from rtl.lib.contract import Proven

__all__ = ["Proof", "Verdict", "check", "mutant", "variant"]

T = TypeVar("T", bound=wiring.Component)

_SHELL = Path(__file__).with_name("bitwuzla_shell.py")

# A component's registers and memories may hold anything before the reset of the first cycle.
_SBY = """\
[options]
mode {mode}
depth {depth}

[engines]
smtbmc bitwuzla

[script]
read_rtlil design.il
setattr -unset init top.dut*/w:*
prep -top top
memory_map
setattr -unset init top.dut*/w:*

[files]
design.il
"""


class Proof:
    """Where a function writes down what holds of a component.

    Everything is said of the cycles after a reset of one cycle, before which registers hold
    anything; `rst` stays 0 after that. Inputs of the component are free, but for what its contracts
    ask of its users; all other contracts (`rtl.lib.contract`) are to be shown, those of its parts
    too.

    Members
    -------
    m : Module
        For what the properties need of their own.
    """

    def __init__(self, component: wiring.Component):
        self.m = Module()
        self._fragment = Fragment.get(component, Proven(component))
        self.m.submodules.dut = self._fragment
        self.ports: list[Signal] = []
        for path, member, port in component.signature.flatten(component):
            value = Value.cast(port)
            if member.flow is wiring.In and isinstance(value, Signal) and len(value):
                value.name = "__".join(map(str, path))
                self.ports.append(value)

    def free(self, shape: Any, name: str) -> Signal:
        """Any value, another one in each cycle."""
        signal = Signal(shape, name=name)
        self.ports.append(signal)
        return signal

    def rigid(self, value: Any) -> None:
        """A value is the same in all cycles."""
        begun = Signal()
        self.m.d.sync += begun.eq(1)
        self.assume(~begun | (Value.cast(value) == self.past(value)))

    def inside(self, path: str, shape: Any = None) -> Any:
        """A signal that the component drives, by its path of names: for induction.

        Of a structure, whose shape must be given, a view.
        """
        *parts, name = path.split(".")
        fragment = self._find(parts)
        found = {
            id(signal): signal
            for statements in fragment.statements.values()
            for statement in statements
            for signal in statement._lhs_signals()
            if signal.name == name
        }
        (signal,) = found.values()
        return signal if shape is None else data.View(shape, signal)

    def word(self, path: str, address: Any) -> Signal:
        """A word of a memory of the component, now; its path ends with the memory's name."""
        memory = self._find(path.split("."))
        assert isinstance(memory, MemoryInstance)
        word = Signal(Value.cast(memory._read_ports[0]._data).shape())
        place = Signal(len(memory._read_ports[0]._addr))
        self.m.d.comb += place.eq(address)
        memory.read_port(domain="comb", addr=place, data=word, en=Const(1), transparent_for=())
        return word

    def _find(self, parts: list[str]) -> Any:
        fragment = self._fragment
        for part in parts:
            fragment = fragment.find_subfragment(part)
        return fragment

    def past(self, value: Any) -> Signal:
        """What a value was in the cycle before; 0 in the first one."""
        value = Value.cast(value)
        before = Signal.like(value, init=0)
        self.m.d.sync += before.eq(value)
        return before

    def kept(self, valid: Any, ready: Any, *payload: Any) -> Value:
        """An offer that was not taken in the cycle before is still there and the same."""
        offered = self.past(valid & ~ready)
        same = Cat(self.past(part) == Value.cast(part) for part in payload).all()
        return ~offered | (valid & same)

    def holds(self, condition: Any) -> None:
        """To be proven of every cycle."""
        self.m.d.comb += Assert(condition, None, src_loc_at=1)

    def assume(self, condition: Any) -> None:
        """What the component's contract asks of those who use it."""
        self.m.d.comb += Assume(condition, None)

    def reach(self, condition: Any) -> None:
        """Must be possible: a proof that no cycle can refute holds of nothing."""
        self.m.d.comb += Cover(condition, None, src_loc_at=1)


@dataclass(frozen=True)
class Verdict:
    """What came out.

    Parameters
    ----------
    status : str
        ``PASS``; ``FAIL``: refuted, or a cover that nothing reaches; ``UNKNOWN``: no counterexample
        within the depth, but the induction does not close; ``ERROR``: the tools failed.
    failed : list of str
        Source lines of the properties that were refuted or not reached.
    trace : Path, optional
        Counterexample, a VCD file.
    log : Path
        What the tools printed.
    """

    status: str
    failed: list[str]
    trace: Path | None
    log: Path


def check(
    component: wiring.Component,
    properties: Callable[[Proof, Any], None],
    folder: Path,
    *,
    mode: Literal["bmc", "prove", "cover"],
    depth: int,
) -> Verdict:
    """Try to refute properties, or to reach covers.

    Parameters
    ----------
    component : Component
        Not elaborated yet.
    properties : callable
        Given a `Proof` and the component, adds what holds of it.
    folder : Path
        Where the tools run and leave the trace.
    mode : str
        ``bmc``: the properties, in ``depth`` cycles after reset; ``prove``: in all cycles, by
        k-induction with k at most ``depth``; ``cover``: the covers, within ``depth`` cycles.
    depth : int
        Cycles.
    """
    (folder / "design.il").write_text(_design(component, properties), encoding="utf-8")
    (folder / "proof.sby").write_text(_SBY.format(mode=mode, depth=depth + 1))
    solver = folder / "bitwuzla"
    solver.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{_SHELL}"\n')
    solver.chmod(0o755)
    scripts = sysconfig.get_path("scripts")
    tools = {"YOSYS": "yosys", "SMTBMC": "yosys-smtbmc", "WITNESS": "yosys-witness"}
    run = subprocess.run(
        [f"{scripts}/yowasp-sby", "proof.sby"],
        cwd=folder,
        env=os.environ
        | {variable: f"yowasp-{tool}" for variable, tool in tools.items()}
        | {"PATH": os.pathsep.join((str(folder), scripts, os.environ["PATH"]))}
        | {"PYTHONWARNINGS": "ignore"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    log = folder / "proof.log"
    log.write_text(run.stdout)
    status = re.search(r"DONE \((\w+), rc=\d+\)", run.stdout)
    trace = re.search(r"counterexample trace(?: \[basecase\])?: (\S+)", run.stdout)
    # An unfinished induction names the properties that it could not carry on.
    places = re.findall(r"summary:   (?:failed assertion )?top\S+ at (.+?):(\d+)", run.stdout)
    return Verdict(
        status=status[1] if status else "ERROR",
        failed=sorted({linecache.getline(file, int(line)).strip() for file, line in places}),
        trace=folder / trace[1] if trace else None,
        log=log,
    )


def _design(component: wiring.Component, properties: Callable[[Proof, Any], None]) -> str:
    """RTLIL of a component and what is said of it, the whole in a module ``top``."""
    proof = Proof(component)
    first = Signal(init=1, reset_less=True)
    proof.m.d.sync += first.eq(0)
    proof.assume(ResetSignal() == first)
    with proof.m.If(~ResetSignal()):
        properties(proof, component)
    return rtlil.convert(proof.m, ports=proof.ports)


def mutant(component: type[T], old: str, new: str) -> type[T]:
    """Copy of a component's class, with one place of its file replaced."""
    return variant(component, old, new)


def variant(component: type[T], old: str = "", new: str = "", **names: Any) -> type[T]:
    """Copy of a component's class, in whose file one place is replaced and names mean others.

    A number takes the place of what the file gives to its name; anything else that of an import.
    """
    module = sys.modules[component.__module__]
    source = inspect.getsource(module)
    if old:
        assert source.count(old) == 1, f"{module.__name__} has not one {old!r} to break"
        source = source.replace(old, new)
    for name, value in names.items():
        if isinstance(value, int):
            source, count = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value}", source)
            assert count == 1, f"{module.__name__} gives no value to {name}"
    copy = ModuleType(f"{module.__name__}_variant")
    exec(compile(source, str(module.__file__), "exec"), copy.__dict__)
    for name, value in names.items():
        assert hasattr(copy, name), f"{module.__name__} knows no {name}"
        setattr(copy, name, value)
    return getattr(copy, component.__name__)
