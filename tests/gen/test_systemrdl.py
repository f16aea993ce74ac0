"""SystemRDL of the registers, as the compiler of PeakRDL reads it, against the table."""

import subprocess
import sys
from pathlib import Path

import pytest
from systemrdl.compiler import RDLCompiler
from systemrdl.node import AddrmapNode, FieldNode
from systemrdl.rdltypes.builtin_enums import AccessType, OnWriteType

from gen.systemrdl import registers_rdl
from paro.config import PRESETS, Config
from paro.config.registers import CAUSES, REGISTERS, Field


def compiled(config: Config, folder: Path) -> AddrmapNode:
    file = folder / "mine.rdl"
    file.write_text(registers_rdl(config, "mine"))
    compiler = RDLCompiler()
    compiler.compile_file(str(file))
    return compiler.elaborate("mine").top


def meaning(field: FieldNode) -> tuple[bool, bool, str]:
    """Whether software reads and writes it, and what a write does."""
    if field.get_property("singlepulse"):
        does = "happens once"
    elif field.get_property("onwrite") is OnWriteType.woclr:
        does = "ones clear"
    else:
        does = "stays" if field.is_sw_writable else "nothing"
    return field.is_sw_readable, field.is_sw_writable, does


MEANINGS = {
    "ro": (True, False, "nothing"),
    "rw": (True, True, "stays"),
    "w1c": (True, True, "ones clear"),
    "strobe": (False, True, "happens once"),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_registers_are_those_of_the_table(preset, tmp_path) -> None:
    config = PRESETS[preset]
    top = compiled(config, tmp_path)
    nodes = list(top.registers())
    assert [(node.inst_name, node.absolute_address) for node in nodes] == [
        (register.name, register.offset) for register in REGISTERS
    ]
    for node, register in zip(nodes, REGISTERS, strict=True):
        assert node.size == 4
        assert node.get_property("desc") == register.description
        fields = sorted(node.fields(), key=lambda field: field.low)
        assert [field.inst_name for field in fields] == [f.name for f in register.fields]
        for found, field in zip(fields, register.fields, strict=True):
            check_field(found, field, config)


def check_field(found: FieldNode, field: Field, config: Config) -> None:
    assert (found.low, found.width) == (field.low, field.width)
    assert found.get_property("reset") == field.initial(config)
    assert found.get_property("desc") == field.description
    assert meaning(found) == MEANINGS[field.access]
    assert (found.get_property("hw") is AccessType.na) == (field.constant is not None)


def test_causes_are_the_values_of_their_field(tmp_path) -> None:
    field = compiled(PRESETS["tiny"], tmp_path).find_by_path("STATUS.cause")
    assert isinstance(field, FieldNode)
    encoding = field.get_property("encode")
    assert encoding is not None
    assert {member.name: member.value for member in encoding} == {
        cause.name: cause.value for cause in CAUSES
    }
    assert [member.rdl_desc for member in encoding] == list(CAUSES.values())


def test_peakrdl_takes_it(tmp_path) -> None:
    (tmp_path / "mine.rdl").write_text(registers_rdl(PRESETS["tiny"], "mine"))
    command = [Path(sys.executable).with_name("peakrdl"), "dump", "mine.rdl"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert not run.stderr
    assert "0x008-0x00b: mine.CONTROL" in run.stdout
