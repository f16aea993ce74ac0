"""Header, page and JSON of the register map."""

import json
import re
import shutil
import subprocess

import pytest

from gen.registers import describe_registers, registers_header, registers_markdown
from paro.config import PRESETS
from paro.config.descriptor import DESCRIPTOR
from paro.config.registers import CAUSES, REGISTERS, STAGES
from paro.config.vector_program import HEADER, PASS, PROGRAM_BYTES, SLOT_BYTES

TINY = PRESETS["tiny"]

#: Program that fills in a descriptor with the header's structure.
PROGRAM = """
#include <stdio.h>
#include <string.h>
#include "one.h"
#include "other.h"
#include "one.h"

int main(void) {
  struct paro_descriptor d;
  memset(&d, 0, sizeof d);
  d.magic = PARO_DESCRIPTOR_MAGIC;
  d.block = 16;
  d.head_dim = 256;
  d.version = PARO_DESCRIPTOR_VERSION;
  d.inner_stride = 0x01020304;
  d.codes_address_lo = 0x89abcdefu;
  d.codes_address_hi = 0x67;
  d.codes_stride = 0xfedcba;
  fwrite(&d, sizeof d, 1, stdout);
  return PARO_CAUSE_EMPTY_QUEUE + (PARO_CONTROL_INTERRUPT_ENABLE_MASK << 2)
    + (PARO_OUTPUT_BLOCKED_OFFSET == 0x15c ? 32 : 0) + (OTHER_ROWS_VALUE - ONE_ROWS_VALUE);
}
"""


@pytest.fixture
def compiler():
    path = shutil.which("cc")
    if path is None:
        pytest.skip("no C compiler")
    return path


@pytest.mark.parametrize("preset", PRESETS)
def test_header_compiles(preset, compiler, tmp_path):
    file = tmp_path / "registers.h"
    file.write_text(registers_header(PRESETS[preset]))
    command = [compiler, "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"]
    subprocess.run([*command, "-x", "c", str(file)], check=True)
    broken = file.read_text().replace("  uint32_t o_address_hi;", "")
    assert broken != file.read_text()
    file.write_text(broken)
    failed = subprocess.run([*command, "-x", "c", str(file)], capture_output=True, check=False)
    assert failed.returncode, "a structure of another size must not compile"


def test_compiled_header(compiler, tmp_path):
    # A program may drive several accelerators: it includes the header of each.
    (tmp_path / "one.h").write_text(registers_header(TINY, "one"))
    (tmp_path / "other.h").write_text(registers_header(PRESETS["video"], "other"))
    (tmp_path / "main.c").write_text(PROGRAM)
    program = tmp_path / "main"
    command = [compiler, "-std=c99", "-Wall", "-Werror", "-o", str(program)]
    subprocess.run([*command, str(tmp_path / "main.c")], check=True)
    run = subprocess.run([program], capture_output=True, check=False)
    assert run.returncode == 9 + 16 + 32 + 16 - 4
    words = [int.from_bytes(run.stdout[4 * i : 4 * i + 4], "little") for i in range(32)]
    want = {
        0: 0x4F524150,
        1: 16 | 3 << 8 | 256 << 16,
        12: 0x01020304,
        29: 0x89ABCDEF,
        30: 0xFEDCBA67,
    }
    assert words == [want.get(index, 0) for index in range(32)]


def test_names_of_the_header_are_its_own():
    header = registers_header(TINY, "attention")
    names = re.findall(r"^#define (\w+) |^  (PARO_\w+) =", header, re.M)
    flat = [name for pair in names for name in pair if name]
    assert len(flat) == len(set(flat)) > len(REGISTERS)
    assert "#define ATTENTION_HEAD_DIM_VALUE 0x00000020u" in header


def test_headers_of_two_versions_do_not_mix(compiler, tmp_path):
    header = registers_header(TINY)
    (tmp_path / "new.h").write_text(header)
    version = re.search(r"#define PARO_REGISTERS_H (0x\w+)", header)
    assert version is not None
    (tmp_path / "old.h").write_text(header.replace(version[1], "0x00000001"))
    (tmp_path / "main.c").write_text('#include "old.h"\n#include "new.h"\n')
    command = [compiler, "-fsyntax-only", str(tmp_path / "main.c")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode
    assert "different versions" in run.stderr


@pytest.mark.parametrize("preset", PRESETS)
def test_document(preset):
    config = PRESETS[preset]
    document = json.loads(json.dumps(describe_registers(config)))
    by_name = {register["name"]: register for register in document["registers"]}
    assert len(by_name) == len(REGISTERS)
    assert by_name["ROWS"]["reset"] == config.rows
    assert by_name["DIGEST_HI"]["reset"] << 32 | by_name["DIGEST_LO"]["reset"] == int(
        document["digest"], 16
    )
    assert by_name["CONTROL"]["fields"][2]["name"] == "interrupt_enable"
    assert [cause["value"] for cause in document["causes"]] == list(range(16))
    assert (
        sum(field["width"] for field in document["descriptor"]["fields"]) == 31 * 32 - 6 * 24 + 32
    )
    texts = [field["description"] for r in document["registers"] for field in r["fields"]]
    texts += [field["description"] for field in document["descriptor"]["fields"]]
    assert all(texts)


def test_page():
    page = registers_markdown(TINY)
    assert "| 0x00c | STATUS | cause | 9 : 4 | ro | 0 |" in page
    assert "| 17, 18 | 39 : 0 | q_address |" in page
    assert "| 0x04c | HEAD_DIM | value | 31 : 0 | ro | 32 |" in page
    for name in (*CAUSES.values(), *STAGES.values(), *(field.name for field in DESCRIPTOR)):
        assert f"| {name} |" in page
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} <= {3, 4, 6, 8}


def test_programs_of_vector_steps():
    """Where there is a vector unit, and nowhere else: every field of header and passes."""
    config = TINY.changed(vector_channels=128)
    page, document = registers_markdown(config), describe_registers(config)["vector_program"]
    for name, table in (("header", HEADER), ("pass", PASS)):
        assert [field["name"] for field in document[name]] == [field.name for field in table]
        for field in table:
            assert f"| {field.name} | {field.description} |" in page
    assert f"{PROGRAM_BYTES} bytes: a header of {SLOT_BYTES}" in page
    assert "vector_program" not in describe_registers(TINY)
    assert "Program of a vector step" not in registers_markdown(TINY)
