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
from tests.gen.linters import lint_instance

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


@pytest.mark.parametrize("top", TOPS)
def test_the_instance_fits_the_verilog(generated, top):
    """Simulators take it as it is, and find a wire too narrow and a port that is left out."""
    folder, module = generated[0], module_name(TINY, top)
    text = (folder / f"{module}.instance.vh").read_text()
    ports = json.loads((folder / f"{module}.ports.json").read_text())["ports"]
    connected = re.findall(r"^  \.(\w+)\(\1\),?$", text, re.M)
    assert connected == [port["name"] for port in ports]
    assert lint_instance(folder, module, text) == ""
    wide = max(ports, key=lambda port: port["width"])
    narrow = text.replace(f"[{wide['width'] - 1}:0]", "[0:0]")
    assert wide["name"] in lint_instance(folder, module, narrow)
    shorter = text.replace("  .clk(clk),\n", "")
    assert "clk" in lint_instance(folder, module, shorter)


def test_the_instance_ties_what_axi_has_besides(generated):
    text = (generated[0] / f"{module_name(TINY, ACCELERATOR)}.instance.vh").read_text()
    for channel in ("aw", "ar"):
        for signal, bits in (("lock", ""), ("qos", "[3:0]"), ("region", "[3:0]")):
            assert re.search(
                rf"^wire {re.escape(bits)} *m_axi_{channel}{signal} = 0;", text, re.M
            ), signal
        assert re.search(rf"^wire \[2:0\] *s_axil_{channel}prot;", text, re.M)


def test_files_of_the_accelerator(generated):
    folder, module = generated[0], module_name(TINY, ACCELERATOR)
    for suffix in ("v", "registers.md", "registers.json", "h", "rdl"):
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
