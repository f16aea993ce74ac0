"""The folder that `paro generate` writes."""

import json
import re

import pytest

from gen.generate import generate
from gen.ports import describe_ports, ports_markdown
from gen.verilog import ACCELERATOR, TOPS
from paro_config import PRESETS, ParoError
from rtl.core import Core

TINY = PRESETS["tiny"]


def test_files(tmp_path):
    summary = generate(TINY, tmp_path / "core")
    assert summary["files"] == sorted(path.name for path in (tmp_path / "core").iterdir())
    first = {path.name: path.read_bytes() for path in (tmp_path / "core").iterdir()}
    assert first["paro_core.v"].count(b"\n") == summary["lines"] > 1000
    generate(TINY, tmp_path / "core")
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "core").iterdir()}
    config = json.loads(first["config.json"])
    assert config["configuration"] == TINY.model_dump()
    assert config["digest"] == TINY.digest() == summary["digest"]
    assert config["derived"]["load_tokens"] == TINY.load_tokens
    assert first["paro_core.f"] == b"paro_core.v\n"
    assert first["paro_core.core"].startswith(b"CAPI=2:\n")


@pytest.mark.parametrize("module", TOPS)
def test_ports_are_those_of_the_verilog(tmp_path, module):
    generate(TINY, tmp_path, module)
    verilog = (tmp_path / f"{module}.v").read_text()
    top = verilog[verilog.index(f"module {module}(") :].partition("endmodule")[0]
    ports = json.loads((tmp_path / "ports.json").read_text())["ports"]
    for port in ports:
        bits = f"[{port['width'] - 1}:0] " if port["width"] > 1 else ""
        assert f"  {port['direction']}put {bits}{port['name']};\n" in top, port
    assert len(re.findall(r"^  (?:in|out)put ", top, re.M)) == len(ports)


def test_files_of_the_accelerator(tmp_path):
    summary = generate(TINY, tmp_path, ACCELERATOR)
    assert {"paro_accelerator.v", "registers.md", "registers.json", "paro_registers.h"} <= set(
        summary["files"]
    )
    ports = json.loads((tmp_path / "ports.json").read_text())["ports"]
    assert all(port["meaning"] for port in ports), ports
    assert "| `m_axi_araddr` | out | 40 |" in (tmp_path / "ports.md").read_text()


@pytest.mark.parametrize("preset", PRESETS)
def test_every_port_and_field_is_described(preset):
    config = PRESETS[preset]
    description = describe_ports(config)
    assert all(port["meaning"] for port in description["ports"]), description["ports"]
    assert {entry["name"] for entry in description["streams"]} == set("qkvo") | {
        "command",
        "codes",
        "fetch",
    }
    page = ports_markdown(config)
    assert f"| `o__payload` | out | {16 * config.output_words} |" in page
    assert "_signature" not in page
    core = Core(config)
    core._MustUse__used = True
    assert describe_ports(config)["streams"][3]["payload"]["width"] == len(
        core.q.payload.as_value()
    )


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ParoError, match="cannot write"):
        generate(TINY, tmp_path / "file" / "core")
