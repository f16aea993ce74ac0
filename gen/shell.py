"""The accelerator behind AXI's own clock, reset and signals, as packagers of IP want it.

The accelerator alone has ``clk``, ``rst`` and the signals of AXI that it uses. With ``aresetn`` its
module is a shell: ``aclk``, ``aresetn`` and every signal of AXI4 and AXI4-Lite but those whose
meaning is the user's own.
"""

import re
from collections.abc import Mapping
from typing import Any

from gen.texts import render

__all__ = ["OPTIONAL_SIGNALS", "core_name", "shell"]

#: Signals of each port that the accelerator has no use for, and their widths: of a master they are
#: 0, the standard's default; of a slave they are ignored. They stand before the channel's valid.
OPTIONAL_SIGNALS: dict[str, dict[str, int]] = {
    "m_axi": {
        f"{channel}{signal}": width
        for channel in ("aw", "ar")
        for signal, width in {"lock": 1, "qos": 4, "region": 4}.items()
    },
    "s_axil": {"awprot": 3, "arprot": 3},
}

#: What Vivado's packager is told of the buses, and of single ports.
_PROTOCOLS = {"m_axi": "AXI4", "s_axil": "AXI4LITE"}
_SINGLES = {
    "aclk": (
        "xilinx.com:signal:clock:1.0 aclk CLK",
        "ASSOCIATED_BUSIF m_axi:s_axil, ASSOCIATED_RESET aresetn",
    ),
    "aresetn": ("xilinx.com:signal:reset:1.0 aresetn RST", "POLARITY ACTIVE_LOW"),
    "irq": ("xilinx.com:signal:interrupt:1.0 irq INTERRUPT", "SENSITIVITY LEVEL_HIGH"),
}
#: Outputs that are 0 in reset, and inputs' answers: nothing is offered and nothing taken.
_HELD = re.compile(r"(m_axi_(ar|aw|w)valid|s_axil_([rb]valid|(ar|aw|w)ready))$")


def core_name(module: str) -> str:
    """Name of the module within the shell."""
    return f"{module}__accelerator"


def shell(ports: Mapping[str, Any]) -> str:
    """Verilog of the shell, from what `gen.ports.describe_ports` says of it."""
    optional = {f"{bus}_{name}" for bus, names in OPTIONAL_SIGNALS.items() for name in names}
    listed = [
        {
            **port,
            "attributes": _attributes(port["name"]),
            "held": _HELD.match(port["name"]) is not None,
            "optional": port["name"] in optional,
        }
        for port in ports["ports"]
    ]
    return render(
        "shell.v.j2",
        module=ports["module"],
        inner=core_name(ports["module"]),
        ports=listed,
        signals=[port for port in listed if port["name"] not in (ports["clock"], ports["reset"])],
    )


def _attributes(port: str) -> dict[str, str]:
    """Vivado's attributes of a port."""
    if port in _SINGLES:
        info, parameter = _SINGLES[port]
        return {"X_INTERFACE_INFO": info, "X_INTERFACE_PARAMETER": parameter}
    bus = next(bus for bus in _PROTOCOLS if port.startswith(f"{bus}_"))
    signal = port.removeprefix(f"{bus}_").upper()
    info = {"X_INTERFACE_INFO": f"xilinx.com:interface:aximm:1.0 {bus} {signal}"}
    if signal == "AWADDR":
        info["X_INTERFACE_PARAMETER"] = f"PROTOCOL {_PROTOCOLS[bus]}"
    return info
