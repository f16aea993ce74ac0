"""Timing diagrams of generated pages against a simulation."""

import json
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from gen.names import ACCELERATOR, CORE
from gen.ports import describe_ports, ports_markdown
from gen.timing import DIAGRAMS, RECORDED, draw, waves
from tests.sim.cosim.diagrams import record, simulate
from tests.sim.inputs import TINY


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    return json.loads(RECORDED.read_text())


def columns(lines: list[dict[str, Any]]) -> dict[str, list[str | None]]:
    """States of each signal, a column each; labels where there are any, None in a gap."""
    found = {}
    for line in filter(None, lines):
        labels, state, states = iter(line.get("data", ())), "", []
        for character in line["wave"]:
            if character == "=":
                state = next(labels)
            elif character not in ".|":
                state = character
            states.append(None if character == "|" else state)
        assert not list(labels)
        found[line["name"]] = states
    assert len({len(states) for states in found.values()}) == 1
    return found


def test_waves_are_those_of_a_simulation(recorded, tmp_path) -> None:
    assert record(simulate(tmp_path), TINY) == recorded
    assert set(recorded) == set(DIAGRAMS)


def moved(seen: dict[str, list[str | None]], channel: str, shown: str) -> list[str | None]:
    """What a signal shows where a channel's valid and ready are both 1."""
    valid, ready = seen[f"{channel}valid"], seen[f"{channel}ready"]
    states = zip(valid, ready, seen[f"{channel}{shown}"], strict=True)
    return [state for v, r, state in states if v == r == "1"]


def test_start(recorded) -> None:
    """The write is taken, then the queue's first descriptor is read; the interrupt comes last."""
    seen = columns(recorded["start"])
    assert moved(seen, "s_axil_aw", "addr") == ["008", "00c"]  # CONTROL, STATUS
    assert moved(seen, "s_axil_w", "data") == ["5", "2"]  # start, interrupt_enable; done
    assert moved(seen, "s_axil_b", "valid") == ["1", "1"]
    assert seen["s_axil_wvalid"].index("1") < seen["m_axi_arvalid"].index("1")
    assert seen["m_axi_arvalid"].index("1") < seen["irq"].index("1")
    assert seen["irq"][-1] == "0"


@pytest.mark.parametrize(("name", "address", "data"), [("read", "ar", "r"), ("write", "aw", "w")])
def test_bursts(name, address, data, recorded) -> None:
    """As many beats as the lengths say, the last of each marked."""
    seen = columns(recorded[name])
    lengths = [int(shown or "") + 1 for shown in moved(seen, f"m_axi_{address}", "len")]
    assert lengths
    beats = [int(shown or "") for shown in moved(seen, f"m_axi_{data}", "data")]
    assert beats == sorted(set(beats))
    assert beats[0] == 0
    last = moved(seen, f"m_axi_{data}", "last")
    ends = [beat for beat, marked in zip(beats, last, strict=True) if marked == "1"]
    wanted = [sum(lengths[: n + 1]) - 1 for n in range(len(lengths))]
    assert ends == [end for end in wanted if end <= beats[-1]]
    assert ends


def test_streams(recorded) -> None:
    """A request stays until it is taken; the next one is another."""
    seen = columns(recorded["stream"])
    valid, ready = seen["fetch__valid"], seen["fetch__ready"]
    asked, taken = valid.index("1"), ready.index("1")
    assert taken > asked
    held = {p for p in seen["fetch__payload"][asked : taken + 1] if p is not None}
    assert held == {"K 0"}
    assert seen["fetch__payload"][taken + 1] == "V 0"
    assert seen["k__payload"].index("0") > taken


@pytest.mark.parametrize("top", [CORE, ACCELERATOR])
@pytest.mark.parametrize("aresetn", [False, True])
def test_pages_show_them(top, aresetn) -> None:
    """Each has a picture with the names of its signals, and a page that shows it."""
    aresetn = aresetn and top == ACCELERATOR
    ports = describe_ports(TINY, top, "mine", aresetn=aresetn)
    names = {port["name"] for port in ports["ports"]}
    page = ports_markdown(TINY, top, "mine", aresetn=aresetn)
    diagrams = waves(ports, top)
    assert set(diagrams) == {name for name, diagram in DIAGRAMS.items() if diagram.top == top}
    for name, diagram in diagrams.items():
        assert f"](mine.{name}.svg)" in page
        signals = [line["name"] for line in diagram["signal"] if line]
        assert set(signals) <= names
        assert signals[0] == ports["clock"]
        text = "".join(ElementTree.fromstring(draw(diagram)).itertext())
        assert all(signal in text for signal in signals)
        assert DIAGRAMS[name].title in text
