"""Constraints, read by a Tcl interpreter as tools of synthesis read them."""

import fnmatch
from typing import Any

import pytest

from gen.constraints import IO_SHARE, constraints
from gen.names import ACCELERATOR, CORE
from gen.ports import describe_ports
from gen.verilog import TOPS
from paro.config import PRESETS, ParoError

TINY = PRESETS["tiny"]


def read(text: str, ports: list[str]) -> list[tuple[str, dict[str, str], set[str]]]:
    """Commands, their options and the ports that they name; a name without a port is an error."""
    tkinter = pytest.importorskip("tkinter", reason="this Python was built without Tcl")
    tcl = tkinter.Tcl()
    calls = []

    def get_ports(patterns: str) -> str:
        found = []
        for pattern in tcl.splitlist(patterns):
            escaped = pattern.replace("[", "[[]")  # `get_ports` takes the brackets of a bit as such
            matches = [port for port in ports if fnmatch.fnmatchcase(port, escaped)]
            assert matches, pattern
            found += matches
        return " ".join(found)

    def command(name: str) -> Any:
        def take(*words: str) -> None:
            options, places, rest = {}, set(), list(words)
            while rest:
                word = rest.pop(0)
                if word == "-from":
                    places |= set(tcl.splitlist(rest.pop(0)))
                elif word.startswith("-"):
                    options[word] = rest.pop(0)
                elif rest:
                    options["value"] = word
                else:
                    places |= set(tcl.splitlist(word))
            calls.append((name, options, places))

        return take

    tcl.createcommand("get_ports", get_ports)
    for name in ("create_clock", "set_false_path", "set_input_delay", "set_output_delay"):
        tcl.createcommand(name, command(name))
    tcl.eval(text)
    return calls


def bits(ports: list[dict[str, Any]], direction: str) -> set[str]:
    """Names of single bits, as netlists have them."""
    return {
        port["name"] + (f"[{bit}]" if port["width"] > 1 else "")
        for port in ports
        if port["direction"] == direction
        for bit in range(port["width"])
    }


@pytest.mark.parametrize("mhz", [80, 250.0])
@pytest.mark.parametrize(("top", "aresetn"), [*((top, False) for top in TOPS), (ACCELERATOR, True)])
def test_every_port_is_constrained(top, aresetn, mhz) -> None:
    ports = describe_ports(TINY, top, aresetn=aresetn)
    clock, reset = ("aclk", "aresetn") if aresetn else ("clk", "rst")
    inputs, outputs = bits(ports["ports"], "in"), bits(ports["ports"], "out")
    (first, *paths, before, after) = read(constraints(ports, mhz), sorted(inputs | outputs))
    period = 1000 / mhz
    assert first == ("create_clock", {"-name": clock, "-period": f"{period:.3f}"}, {clock})
    # A synchronous reset is an input that must meet the clock; that of the shell never has to.
    assert paths == ([("set_false_path", {}, {reset})] if aresetn else [])
    delay = {"-clock": clock, "value": f"{IO_SHARE * period:.3f}"}
    untimed = {clock, reset} if aresetn else {clock}
    assert before == ("set_input_delay", delay, inputs - untimed)
    assert after == ("set_output_delay", delay, outputs)


@pytest.mark.parametrize("mhz", [0, -1, 0.99, 1e9, float("nan"), float("inf")])
def test_illegal_clock(mhz) -> None:
    with pytest.raises(ParoError, match=r"clock_mhz = .* is not legal; legal: 1 to 5000"):
        constraints(describe_ports(TINY, CORE), mhz)
