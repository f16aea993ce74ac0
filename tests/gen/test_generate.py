"""The folder that `paro generate` writes."""

import json
import re

import pytest

from gen.generate import advice, generate
from gen.names import ACCELERATOR, module_name
from gen.ports import describe_ports, ports_markdown
from gen.verilog import TOPS
from paro.config import PRESETS, Config, ParoError
from rtl.core.core import Core

TINY = PRESETS["tiny"]


def test_files(tmp_path):
    summary = generate(TINY, tmp_path / "core", name="my_core")
    assert summary["files"] == sorted(path.name for path in (tmp_path / "core").iterdir())
    first = {path.name: path.read_bytes() for path in (tmp_path / "core").iterdir()}
    assert first["my_core.v"].count(b"\n") == summary["lines"] > 1000
    generate(TINY, tmp_path / "core", name="my_core")
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "core").iterdir()}
    config = json.loads(first["my_core.config.json"])
    assert config["configuration"] == TINY.model_dump()
    assert config["digest"] == TINY.digest() == summary["digest"]
    assert config["derived"]["load_tokens"] == TINY.load_tokens
    assert first["my_core.f"] == b"my_core.v\n"
    assert first["my_core.core"].startswith(b"CAPI=2:\n")


@pytest.mark.parametrize("top", TOPS)
def test_ports_are_those_of_the_verilog(generated, top):
    folder, module = generated[0], module_name(TINY, top)
    verilog = (folder / f"{module}.v").read_text()
    text = verilog[verilog.index(f"module {module}(") :].partition("endmodule")[0]
    ports = json.loads((folder / f"{module}.ports.json").read_text())["ports"]
    for port in ports:
        bits = f"[{port['width'] - 1}:0] " if port["width"] > 1 else ""
        assert f"  {port['direction']}put {bits}{port['name']};\n" in text, port
    assert len(re.findall(r"^  (?:in|out)put ", text, re.M)) == len(ports)


def test_files_of_the_accelerator(generated):
    folder, module = generated[0], module_name(TINY, ACCELERATOR)
    for suffix in ("v", "registers.md", "registers.json", "h"):
        assert (folder / f"{module}.{suffix}").exists()
    ports = json.loads((folder / f"{module}.ports.json").read_text())["ports"]
    assert all(port["meaning"] for port in ports), ports
    assert "| `m_axi_araddr` | out | 40 |" in (folder / f"{module}.ports.md").read_text()


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


def test_advice_where_the_drain_is_slower_than_the_array() -> None:
    assert advice(Config(rows=16, cols=16)) is None
    sentence = advice(Config(rows=32, cols=32))
    assert sentence is not None
    assert "keeps 50% of its lanes" in sentence
    assert "--rows 16 --cols 32 --cores 2" in sentence
    assert advice(Config(rows=16, cols=32, cores=2)) is None
    sentence = advice(Config(rows=64, cols=64, cores=8))
    assert sentence is not None
    assert sentence.endswith("fewer rows do not")


@pytest.mark.parametrize("top", TOPS)
def test_pages_tell_values_and_formats(top) -> None:
    """Enough for a host and a bench: values, codes, scales, words; of AXI its attributes."""
    config = PRESETS["video"]
    page = ports_markdown(config, top)
    for name in ("load_tokens", "load_bytes", "output_words", "key_scale_shift"):
        assert f"| {name} | {getattr(config, name)} |" in page
    assert "0: skipped, 1: 2 bit, 2: 4 bit, 3: 8 bit" in page
    assert f">> {config.key_scale_shift}) * mq) >> 15" in page
    assert "16 bits, 8 of them fractional" in page
    attributes = "AxSIZE = 4), AxBURST = INCR, AxID = 0, AxCACHE = 0b0011, AxPROT = 0"
    assert (attributes in page) == (top == ACCELERATOR)
