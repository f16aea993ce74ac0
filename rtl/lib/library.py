"""Modules that are elaborated and emitted once, however often they are instantiated.

Amaranth emits one Verilog module per instance: a 32 x 32 array would repeat its PE 1024 times. A
parent therefore creates repeated children through `replicate`. When Verilog is generated, the
platform is a `ModuleLibrary`: the child is elaborated once, as a module of its own, and every use
is an `Instance` of that. With any other platform (Amaranth's simulator) the children are
ordinary submodules, so that the same RTL runs in both.

A class with ``DATA_ONLY = True`` declares that its registers carry data alone, whose validity is
known outside. Its Verilog has no reset, which would have to reach thousands of registers.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from amaranth.hdl import ClockSignal, Instance, Module, ResetInserter, ResetSignal, Value
from amaranth.lib import wiring

__all__ = ["ModuleLibrary", "replicate"]

T = TypeVar("T", bound=wiring.Component)


class ModuleLibrary:
    """Elaboration platform that collects each shared component once, by module name.

    Parameters
    ----------
    top : str, optional
        Module that all others belong to: their names begin with it. Without it they have the names
        that `replicate` is given.
    contracts : bool
        Whether contracts are checked, see `rtl.lib.contract`.

    Members
    -------
    components : dict of str to Component
        Collected components, in the order of their first use.
    """

    def __init__(self, top: str | None = None, *, contracts: bool = False) -> None:
        self._prefix = f"{top}__" if top else ""
        self.contracts = contracts
        self.components: dict[str, wiring.Component] = {}

    def module(self, name: str) -> str:
        """Verilog module that stands for the components called ``name``."""
        return self._prefix + name

    def prototype(self, name: str, make: Callable[[], T]) -> T:
        """Return the component that stands for those called ``name``, made at its first use."""
        module = self.module(name)
        if module not in self.components:
            self.components[module] = make()
        return cast(T, self.components[module])


def _reset() -> ResetSignal:
    return ResetSignal(allow_reset_less=True)  # a parent of data alone has none


def replicate(
    m: Module,
    platform: Any,
    name: str,
    make: Callable[[], T],
    count: int,
    *,
    reset: Value | None = None,
) -> list[T]:
    """Add ``count`` copies of a component to ``m``.

    Parameters
    ----------
    m : Module
        Parent under elaboration.
    platform : object
        As ``elaborate`` was given it.
    name : str
        Name of their module; within one design it always stands for the same ``make``.
    make : callable
        Returns a new component.
    count : int
        Number of copies, named ``name_0`` .. in the parent.
    reset : Value, optional
        Resets the copies beside the parent's own reset.

    Returns
    -------
    list
        Objects with the component's ports as attributes, to be wired by the parent.
    """
    if not isinstance(platform, ModuleLibrary):
        copies = [make() for _ in range(count)]
        for index, copy in enumerate(copies):
            added = copy if reset is None else ResetInserter(reset)(copy)
            m.submodules[f"{name}_{index}"] = cast(Any, added)
        return copies
    prototype = platform.prototype(name, make)
    copies = []
    for index in range(count):
        ports = prototype.signature.create(path=(f"{name}_{index}",))
        connections: dict[str, Any] = {
            "i_clk": ClockSignal(),
            "i_rst": _reset() if reset is None else _reset() | reset,
        }
        for path, member, value in prototype.signature.flatten(ports):
            direction = "o" if member.flow is wiring.Out else "i"
            flat = Value.cast(value)
            if len(flat):  # ports of no width do not exist in Verilog
                connections[f"{direction}_{'__'.join(map(str, path))}"] = flat
        m.submodules[f"{name}_{index}"] = Instance(platform.module(name), **connections)
        copies.append(ports)
    return copies
