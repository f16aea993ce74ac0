"""Timing diagrams: waves recorded from a run of the testbench, drawn by WaveDrom.

The waves are in `gen/data/timing.json`; a test holds them against a simulation.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wavedrom

from gen.names import ACCELERATOR, CORE

__all__ = ["DIAGRAMS", "RECORDED", "Diagram", "draw", "timing_markdown", "waves"]

#: Waves of all diagrams, as WaveDrom reads them, by name.
RECORDED = Path(__file__).with_name("data") / "timing.json"


@dataclass(frozen=True)
class Diagram:
    """What a diagram shows.

    Parameters
    ----------
    top : str
        Module that has the signals.
    title : str
        Of a few words.
    text : str
        What to see in it.
    """

    top: str
    title: str
    text: str


#: All diagrams; those of a module come with it.
DIAGRAMS = {
    "start": Diagram(
        ACCELERATOR,
        "A start and its interrupt",
        "A write of `start` and `interrupt_enable` (5) to CONTROL (008); the accelerator reads the "
        "queue's first descriptor; when all outputs are written, `irq` rises, until the host "
        "clears STATUS.done (2 to 00c).",
    ),
    "read": Diagram(
        ACCELERATOR,
        "Bursts that are read",
        "A second burst is asked for while the first one's beats come. Here the memory answers at "
        "once, a beat a cycle; it may take as long as it likes.",
    ),
    "write": Diagram(
        ACCELERATOR,
        "Bursts that are written",
        "The accelerator has all data when it offers an address, and sends it when the memory is "
        "ready; the memory answers after the last beat. The next address may come before that.",
    ),
    "stream": Diagram(
        CORE,
        "Streams",
        "The core asks for a block of keys, and its request stays until it is taken; then it asks "
        "for values. The beats of the keys come later, as fast as both sides are ready.",
    ),
}


def waves(ports: Mapping[str, Any], top: str) -> dict[str, dict[str, Any]]:
    """Diagrams of a module, as WaveDrom reads them, by name.

    Parameters
    ----------
    ports : mapping
        What `gen.ports.describe_ports` says of the module: the name of its clock.
    top : str
        What it is.
    """
    recorded = json.loads(RECORDED.read_text())
    found = {}
    for name, diagram in DIAGRAMS.items():
        if diagram.top != top:
            continue
        clock, *others = recorded[name]
        found[name] = {
            "signal": [{**clock, "name": ports["clock"]}, *others],
            "head": {"text": diagram.title},
        }
    return found


def draw(diagram: Mapping[str, Any]) -> str:
    """Return a diagram as SVG."""
    drawing = wavedrom.render(json.dumps(diagram))
    assert drawing is not None
    return drawing.tostring() + "\n"


def timing_markdown(module: str, top: str) -> list[str]:
    """Lines of a page with the diagrams of a module, whose files lie beside it."""
    lines = [
        "## Timing",
        "",
        "A column is a cycle, with the values at the rising edge that ends it; a gap leaves cycles "
        "out. Beats are numbered, addresses are their last digits. Recorded from a simulation of "
        "a 4 x 4 array with axi_bits = 64: numbers of cycles and beats are its own, order and "
        "handshakes are those of every configuration.",
    ]
    for name, diagram in DIAGRAMS.items():
        if diagram.top == top:
            picture = f"![{diagram.title}]({module}.{name}.svg)"
            lines += ["", f"### {diagram.title}", "", diagram.text, "", picture]
    return lines
