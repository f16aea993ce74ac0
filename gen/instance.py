"""An instance of a generated module, for users to paste."""

from collections.abc import Mapping
from typing import Any

from gen.shell import OPTIONAL_SIGNALS
from gen.texts import render

__all__ = ["instance"]


def instance(ports: Mapping[str, Any]) -> str:
    """Verilog for the inside of a module: a wire for each port, and an instance that has them all.

    Signals of AXI that the module does not have are wires too, with the standard's default where it
    would drive them.

    Parameters
    ----------
    ports : mapping
        What `gen.ports.describe_ports` says of the module.
    """
    names = {port["name"] for port in ports["ports"]}
    return render(
        "instance.vh.j2",
        module=ports["module"],
        ports=[{**port, "bits": _bits(port["width"])} for port in ports["ports"]],
        absent=[
            {"name": f"{bus}_{name}", "bits": _bits(width), "driven": bus == "m_axi"}
            for bus, signals in OPTIONAL_SIGNALS.items()
            for name, width in signals.items()
            if f"{bus}_araddr" in names and f"{bus}_{name}" not in names
        ],
    )


def _bits(width: int) -> str:
    """Range of a wire; a single bit has none."""
    return f"[{width - 1}:0]" if width > 1 else ""
