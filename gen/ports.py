"""Ports, read from the signatures: a table for people, JSON for programs."""

import inspect
import re
from collections.abc import Callable
from typing import Any

from amaranth.hdl import Shape
from amaranth.lib import data, stream, wiring

from gen.names import ACCELERATOR, CORE, module_name
from gen.shell import OPTIONAL_SIGNALS
from gen.timing import timing_markdown
from gen.values import formats_markdown, port_markdown
from paro.config import Config, formats
from rtl import interfaces
from rtl.accelerator.accelerator import Accelerator, accelerator_signature
from rtl.core.core import Core, core_signature

__all__ = ["describe_ports", "ports_markdown"]


#: Component and signature of each top module.
_TOPS: dict[str, tuple[type, Callable[[Config], wiring.Signature]]] = {
    CORE: (Core, core_signature),
    ACCELERATOR: (Accelerator, accelerator_signature),
}
_STREAM_RULE = (
    "Streams: a beat is transferred on each rising edge of `clk` at which `valid` and `ready`"
    " are both high. `valid` does not wait for `ready`; while `valid` is high and `ready` is"
    " low, `payload` and `valid` stay."
)
#: Meaning of each reset.
_RESETS = {
    "rst": "Synchronous reset, active high; one cycle is enough.",
    "aresetn": "Reset, active low, synchronised within: it may fall and rise at any time.",
}
#: Direction and meaning of the optional signals of each bus.
_OPTIONAL = {"m_axi": ("out", "Always 0."), "s_axil": ("in", "Ignored.")}


def describe_ports(
    config: Config, top: str = CORE, name: str | None = None, *, aresetn: bool = False
) -> dict[str, Any]:
    """Every port of the generated module, in order, with the layout of every payload.

    With ``aresetn``, those of `gen.shell`.

    Returns
    -------
    dict
        ``module``, ``clock``, ``reset``, ``reset_active`` (``high`` or ``low``), ``ports`` (each
        ``name``, ``direction``, ``width``, ``meaning`` and, for a stream's port, ``stream``) and
        ``streams`` (each ``name``, ``direction``, ``meaning`` and the ``payload``'s layout, bit 0
        lowest).
    """
    component, signature = _TOPS[top]
    module = module_name(config, top, name, aresetn=aresetn)
    member_docs = _member_docs(component)
    clock, reset = ("aclk", "aresetn") if aresetn else ("clk", "rst")
    ports: list[dict[str, Any]] = [
        _port(clock, "in", 1, "Clock; everything happens on its rising edge."),
        _port(reset, "in", 1, _RESETS[reset]),
    ]
    streams = []
    for name, member in signature(config).members.items():
        direction = "in" if member.flow is wiring.In else "out"
        if member.is_port:
            width = Shape.cast(member.shape).width
            ports.append(_port(name, direction, width, _meaning(name, member_docs)))
            continue
        assert isinstance(member.signature, stream.Signature)
        meaning = _plain(inspect.getdoc(getattr(interfaces, f"{name}_signature")) or "")
        payload = _describe_layout(member.signature.members["payload"].shape)
        streams.append(
            {"name": name, "direction": direction, "meaning": meaning, "payload": payload}
        )
        for part, role in (
            ("payload", meaning.partition("\n")[0]),
            ("valid", "The sender offers `payload`."),
            ("ready", "The receiver takes it."),
        ):
            width = payload["width"] if part == "payload" else 1
            flow = direction if part != "ready" else {"in": "out", "out": "in"}[direction]
            ports.append({**_port(f"{name}__{part}", flow, width, role), "stream": name})
    return {
        "module": module,
        "clock": clock,
        "reset": reset,
        "reset_active": "low" if aresetn else "high",
        "ports": _with_optional_signals(ports) if aresetn else ports,
        "streams": streams,
    }


def ports_markdown(
    config: Config, top: str = CORE, name: str | None = None, *, aresetn: bool = False
) -> str:
    """The same as a page: a table of ports, then every payload bit by bit."""
    ports = describe_ports(config, top, name, aresetn=aresetn)
    lines = [
        f"# Ports of `{ports['module']}`",
        "",
        f"Configuration {config.digest()}: "
        + ", ".join(f"{name} = {value}" for name, value in config.model_dump().items())
        + ".",
        "",
        *([_STREAM_RULE, ""] if ports["streams"] else []),
        "| port | direction | bits | meaning |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{port['name']}` | {port['direction']} | {port['width']} | {port['meaning']} |"
        for port in ports["ports"]
    ]
    for entry in ports["streams"]:
        into = "into" if entry["direction"] == "in" else "out of"
        lines += [
            "",
            f"## Stream `{entry['name']}`, {into} the core",
            "",
            *entry["meaning"].splitlines(),
            "",
            "| field | bits of `payload` | type |",
            "|---|---|---|",
            *_rows(entry["payload"]),
        ]
    if top == ACCELERATOR:
        lines += ["", *port_markdown(config, aresetn=aresetn)]
    lines += ["", *_beside(ports), "", *timing_markdown(ports["module"], top)]
    lines += ["", *formats_markdown(config)]
    return "\n".join(lines) + "\n"


def _beside(ports: dict[str, Any]) -> list[str]:
    """Lines about the files beside the page that help to use the module."""
    module, on_axi = ports["module"], not ports["streams"]
    tied = on_axi and ports["reset_active"] == "high"
    return [
        "## In a design",
        "",
        f"* `{module}.instance.vh`: an instance to paste, with a wire for every port"
        + (" and AXI's signals that are not there, tied." if tied else "."),
        f"* `{module}.sdc`: clock, delays of inputs and outputs as a share of the period, and what "
        "the reset is. nextpnr reads the clock alone of it.",
        f"* `{module}.core`: for FuseSoC, where it is `paro:accelerator:{module}`, with a target "
        "`lint`; a folder of `paro export` has `sim` (Icarus) and `sim_verilator` too, which run "
        "its testbench.",
        *([f"* `{module}.rdl`: the registers in SystemRDL 2.0, for PeakRDL."] if on_axi else []),
    ]


def _with_optional_signals(ports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add what the accelerator has no use for before the valid of its channel."""
    added = [*ports]
    for bus, signals in OPTIONAL_SIGNALS.items():
        flow, meaning = _OPTIONAL[bus]
        for name, width in signals.items():
            before = f"{bus}_{name[:2]}valid"
            place = next(n for n, port in enumerate(added) if port["name"] == before)
            added.insert(place, _port(f"{bus}_{name}", flow, width, meaning))
    return added


def _port(name: str, direction: str, width: int, meaning: str) -> dict[str, Any]:
    return {
        "name": name,
        "direction": direction,
        "width": width,
        "meaning": meaning,
    }


def _plain(doc: str) -> str:
    """Text of a docstring without the names of Python objects."""
    doc = re.sub(r"`(\w+)_signature`", r"stream `\1`", doc.replace("``", "`"))
    operands = ", ".join(f"{operand.name} = {operand.value}" for operand in formats.Operand)
    return doc.replace("`formats.Operand`", operands)


def _meaning(name: str, member_docs: dict[str, str]) -> str:
    """Meaning of a port; the ports of a bus share one sentence."""
    if name in member_docs:
        return member_docs[name]
    prefixes = [entry[:-1] for entry in member_docs if entry.endswith("*")]
    prefix = next(prefix for prefix in prefixes if name.startswith(prefix))
    return f"`{name.removeprefix(prefix)}` of the {member_docs[prefix + '*']}"


def _member_docs(component: type) -> dict[str, str]:
    """First sentences of a docstring's *Members* section, by name."""
    section = re.search(
        r"^Members\n-+\n(.*?)(?=^\w[^\n]*\n-+\n|\Z)", inspect.getdoc(component) or "", re.M | re.S
    )
    text = section[1] if section else ""
    entries = re.findall(r"^([\w*]+) :[^\n]*\n((?:    .*\n?)+)", text, re.M)
    return {name: _plain(" ".join(text.split())) for name, text in entries}


def _describe_layout(shape: Any) -> dict[str, Any]:
    if isinstance(shape, data.StructLayout):
        fields = {
            name: {"offset": field.offset, **_describe_layout(field.shape)} for name, field in shape
        }
        return {"kind": "struct", "width": shape.size, "fields": fields}
    if isinstance(shape, data.ArrayLayout):
        element = _describe_layout(shape.elem_shape)
        return {
            "kind": "array",
            "width": shape.size,
            "length": shape.length,
            "stride": element["width"],
            "element": element,
        }
    plain = Shape.cast(shape)
    return {"kind": "signed" if plain.signed else "unsigned", "width": plain.width}


def _rows(layout: dict[str, Any], name: str = "", offset: str = "", base: int = 0) -> list[str]:
    """Table rows of a layout; ``offset`` is the part of the bit position that indices add."""
    if layout["kind"] == "struct":
        rows = []
        for field, inner in layout["fields"].items():
            full_name = f"{name}.{field}" if name else field
            rows += _rows(inner, full_name, offset, base + inner["offset"])
        return rows
    if layout["kind"] == "array":
        index = "ijk"[name.count("[")]
        return _rows(
            layout["element"],
            f"{name}[{index}]",
            f"{offset} + {layout['stride']} {index}",
            base,
        )
    low, high = f"{base}{offset}", f"{base + layout['width'] - 1}{offset}"
    bits = low if layout["width"] == 1 else f"{high} : {low}"
    return [f"| `{name or 'value'}` | {bits} | {layout['kind']}({layout['width']}) |"]
