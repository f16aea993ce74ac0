"""Contracts: what a component asks of its users and promises them, checked wherever it runs.

They are no hardware. Amaranth's simulator, and Verilog that is made for co-simulation, stop with
the sentence of the one that is broken; a proof has to show all of them. Verilog that is made for
anything else has none.
"""

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Assert, Assume, Module, ResetSignal, Signal, Value

from rtl.lib.library import ModuleLibrary

__all__ = ["Contracts", "Proven"]


@dataclass(frozen=True, eq=False)
class Proven:
    """Elaboration platform of a proof.

    Parameters
    ----------
    component : object
        What is proven. Its users are free, but for what it asks of them; what its parts ask of it
        is to be shown.
    """

    component: object


class Contracts:
    """Contracts of one component; in reset none counts.

    Parameters
    ----------
    m : Module
        Module under elaboration.
    platform : object
        As ``elaborate`` was given it.
    component : object
        Whose contracts they are; the name of its class stands before each sentence.

    Members
    -------
    checked : bool
        Whether they are; if not, nothing is added to ``m``.
    """

    def __init__(self, m: Module, platform: Any, component: object):
        self._m, self._name = m, type(component).__name__
        self._proof = isinstance(platform, Proven)
        self._assumed = isinstance(platform, Proven) and platform.component is component
        generated = isinstance(platform, ModuleLibrary) and platform.contracts
        self.checked = platform is None or self._proof or generated

    def holds(self, condition: Any, sentence: str) -> None:
        """Promise a condition, in every cycle, to users who do what they are asked for."""
        self._add(Assert, condition, sentence)

    def asks(self, condition: Any, sentence: str) -> None:
        """Ask the users for a condition, in every cycle."""
        self._add(Assume if self._assumed else Assert, condition, sentence)

    def keeps(self, stream: Any, name: str) -> None:
        """Promise that what is offered on a stream stays until it is taken."""
        self._keep(Assert, stream, name)

    def asks_to_keep(self, stream: Any, name: str) -> None:
        """Ask the users to keep what they offer on a stream until it is taken."""
        self._keep(Assume if self._assumed else Assert, stream, name)

    def has_room(self, stream: Any, name: str) -> None:
        """Promise that a queue takes whatever it is given, though nobody looks at its ``ready``."""
        self._add(Assert, ~stream.valid | stream.ready, f"there is room for {name}")

    def asks_constant(self, value: Any, name: str, *, unless: Any) -> None:
        """Ask the users to change a value only from a cycle in which ``unless`` is 1 or into one.

        So what is taken over in the last such cycle stays as it was in it.
        """
        if not self.checked:
            return
        value = Value.cast(value)
        before = Signal.like(value, name=f"{name}_before")
        self._m.d.sync += before.eq(value)
        kind = Assume if self._assumed else Assert
        self._add(kind, unless | (value == before), f"{name} stays while it is used")

    def _add(self, kind: Any, condition: Any, sentence: str) -> None:
        if not self.checked:
            return
        held = ResetSignal(allow_reset_less=True) | condition
        # Within a cycle of a simulation conditions may be false for a moment.
        domain = "comb" if self._proof else "sync"
        self._m.d[domain] += kind(held, f"{self._name}: {sentence}", src_loc_at=2)

    def _keep(self, kind: Any, stream: Any, name: str) -> None:
        if not self.checked:
            return
        payload = Value.cast(stream.payload)
        refused = Signal(name=f"{name}_refused")
        before = Signal.like(payload, name=f"{name}_before")
        self._m.d.sync += [refused.eq(stream.valid & ~stream.ready), before.eq(payload)]
        kept = ~refused | (stream.valid & (payload == before))
        self._add(kind, kept, f"what is offered as {name} stays until it is taken")
