"""The accelerator's interface to software as a C header, a page and JSON, all from the tables."""

import zlib
from collections.abc import Sequence
from typing import Any

from gen.names import ACCELERATOR, module_name
from gen.values import derived_values, formats_markdown
from gen.verilog import generator_name
from paro.config import Config
from paro.config.descriptor import DESCRIPTOR, DESCRIPTOR_BYTES, DescriptorField
from paro.config.registers import (
    CAUSES,
    MEMORY_ADDRESS_BITS,
    REGISTER_ADDRESS_BITS,
    REGISTERS,
    STAGES,
    STATES,
    Register,
)
from paro.config.vector_formats import GROUPS_MAX
from paro.config.vector_program import HEADER, PASS, PASSES_MAX, PROGRAM_BYTES, SLOT_BYTES

__all__ = ["describe_registers", "registers_header", "registers_markdown"]

#: Meaning of each kind of access.
ACCESS = {
    "ro": "read only",
    "rw": "reads as written",
    "w1c": "set by the accelerator, cleared by writing 1",
    "strobe": "writing 1 does something once; reads as 0",
}


def describe_registers(config: Config) -> dict[str, Any]:
    """Registers, causes, stages and the descriptor's fields, as a document.

    Returns
    -------
    dict
        ``address_bits``, ``registers`` (each ``name``, ``offset``, ``access``, ``description``,
        ``reset`` and ``fields``), ``causes``, ``stages``, ``states`` and ``descriptor`` (``bytes``
        and ``fields``; bit 0 is the lowest of the first byte).
    """
    return {
        "digest": config.digest(),
        "address_bits": REGISTER_ADDRESS_BITS,
        "memory_address_bits": MEMORY_ADDRESS_BITS,
        "registers": [
            {
                "name": register.name,
                "offset": register.offset,
                "access": register.access,
                "description": register.description,
                "reset": register.initial(config),
                "fields": [
                    {
                        "name": field.name,
                        "low": field.low,
                        "width": field.width,
                        "access": field.access,
                        "description": field.description,
                        "reset": field.initial(config),
                        "constant": field.constant is not None,
                    }
                    for field in register.fields
                ],
            }
            for register in REGISTERS
        ],
        "causes": [
            {"name": cause.name, "value": cause.value, "description": text}
            for cause, text in CAUSES.items()
        ],
        "stages": STAGES,
        "states": STATES,
        "descriptor": {"bytes": DESCRIPTOR_BYTES, "fields": _fields_json(DESCRIPTOR)},
        **(_program_json() if config.vector_channels else {}),
    }


def _fields_json(fields: Sequence[DescriptorField]) -> list[dict[str, object]]:
    return [
        {
            "name": field.name,
            "word": field.word,
            "low": field.low,
            "width": field.width,
            "description": field.description,
            "legal": field.legal_text(),
        }
        for field in fields
    ]


def _program_json() -> dict[str, object]:
    return {
        "vector_program": {
            "bytes": PROGRAM_BYTES,
            "slot_bytes": SLOT_BYTES,
            "header": _fields_json(HEADER),
            "pass": _fields_json(PASS),
        }
    }


def registers_markdown(config: Config) -> str:
    """The same as a page."""
    lines = [
        "# Registers",
        "",
        f"Configuration {config.digest()}. {2**REGISTER_ADDRESS_BITS} bytes of 32-bit registers at "
        "the AXI4-Lite port; offsets in bytes, whose two lowest bits are ignored. Reading "
        "an offset without a register, writing to one, and writing to a register whose fields are "
        "all read only is answered with SLVERR and changes nothing. Bits in no field read as 0; "
        "writes to them, and to read-only fields, change nothing. A write changes the bytes that "
        "it enables and no others.",
        "",
        "| access | meaning |",
        "|---|---|",
        *(f"| {name} | {meaning} |" for name, meaning in ACCESS.items()),
        "",
        "| offset | register | field | bits | access | reset | meaning |",
        "|---|---|---|---|---|---|---|",
        *(row for register in REGISTERS for row in _register_rows(register, config)),
        "",
        "A value in two registers that can change meanwhile (CYCLES): read HI, LO, HI until both "
        "HI are equal.",
        "",
        "## Causes of an error",
        "",
        "| STATUS.cause | name | meaning |",
        "|---|---|---|",
        *(f"| {cause.value} | {cause.name} | {text} |" for cause, text in CAUSES.items()),
        "",
        "## Stages",
        "",
        "Each has three counters, of the cycles in which it was "
        + ", ".join(STATES)
        + "; at most one of them counts in a clock.",
        "",
        "| state | meaning |",
        "|---|---|",
        *(f"| {state} | {text} |" for state, text in STATES.items()),
        "",
        "| stage | meaning |",
        "|---|---|",
        *(f"| {stage} | {text} |" for stage, text in STAGES.items()),
        "",
        "## Descriptor",
        "",
        f"One for each head, layer or vector step, {DESCRIPTOR_BYTES} bytes, little endian; a "
        "queue is descriptors one directly after the other. Bits in no field are 0. The "
        "accelerator refuses what the causes BAD_DESCRIPTOR, BAD_SHAPE, BAD_KIND, BAD_TOKENS, "
        "BAD_LAYER and BAD_ALIGNMENT say; extents and strides that do not lead through the grid's "
        "tokens, a row stride that is less than a row, and arrays that leave the memory are not "
        "seen: it reads and writes where they lead.",
        "",
        "| word | bits | field | meaning | legal |",
        "|---|---|---|---|---|",
        *(_descriptor_row(field) for field in DESCRIPTOR),
        "",
        *(_program_markdown(config) if config.vector_channels else ()),
        *formats_markdown(config),
    ]
    return "\n".join(lines) + "\n"


def _program_markdown(config: Config) -> list[str]:
    """Programs of vector steps: header, passes, and what the device does not check."""
    columns = ["| word | bits | field | meaning | legal |", "|---|---|---|---|---|"]
    return [
        "## Program of a vector step",
        "",
        f"{PROGRAM_BYTES} bytes: a header of {SLOT_BYTES}, then a slot of {SLOT_BYTES} bytes for "
        f"each pass, up to {PASSES_MAX}, in their order. Rows, tables, second rows and outputs are "
        f"whole beats of the streams: multiples of {config.load_bytes} bytes that are read, of "
        f"{config.output_bytes} that are written; groups are multiples of {config.vector_lanes} "
        f"channels, at most {GROUPS_MAX} of a row; a row has up to {config.vector_channels} "
        "channels, and a second row as many words. Every pass makes, of each word of a row, "
        "`clamp(rshift(A * B, shift) + D, -32767, 32767)`; rshift rounds half up.",
        "",
        "The device refuses a program without this header (BAD_PROGRAM). It does not see, and may "
        "wait for ever until it is reset, if passes do not take all of the second rows, send rows "
        "and find mantissas as the header says; a mantissa needs a single group. The first pass, "
        "and no other, loads. A pass that adds the row (D) reads A from the other copy, and one "
        "that reads partners keeps its words in the copy that it does not read.",
        "",
        *columns,
        *(_descriptor_row(field) for field in HEADER),
        "",
        "A pass:",
        "",
        *columns,
        *(_descriptor_row(field) for field in PASS),
        "",
    ]


def _register_rows(register: Register, config: Config) -> list[str]:
    return [
        f"| 0x{register.offset:03x} | {register.name} | {field.name} | "
        f"{_bits(field.low, field.width)} | {field.access} | {_number(field.initial(config))} | "
        f"{field.description} |"
        for field in register.fields
    ]


def _bits(low: int, width: int) -> str:
    return str(low) if width == 1 else f"{low + width - 1} : {low}"


def _number(value: int) -> str:
    return str(value) if value < 2**20 else f"0x{value:08x}"


def _descriptor_row(field: DescriptorField) -> str:
    words = f"{field.word}, {field.word + 1}" if field.width > 32 else str(field.word)
    legal = ", ".join(map(_number, field.legal)) if len(field.legal) == 1 else field.legal_text()
    return (
        f"| {words} | {_bits(field.low, field.width)} | {field.name} | {field.description} | "
        f"{legal} |"
    )


def registers_header(config: Config, name: str | None = None) -> str:
    """C99 header: offsets, masks, shifts, constants, causes and the descriptor's structure.

    The part that all accelerators share has an include guard and begins with ``PARO_``; the
    constants of this accelerator begin with its name. A program can include several such headers.
    """
    module = module_name(config, ACCELERATOR, name)
    shared = _shared_header()
    version = f"0x{zlib.crc32(shared.encode()):08x}"
    lines = [
        f"/* Registers and descriptor of {module},",
        f" * a PARO accelerator, generated by {generator_name()}.",
        f" * Configuration {config.digest()}. */",
        "",
        "/* Values of this configuration's constant registers. */",
        *(
            f"#define {module.upper()}_{register.name}_VALUE 0x{register.initial(config):08x}u"
            for register in REGISTERS
            if all(field.constant is not None for field in register.fields)
        ),
        "",
        "/* Values that follow from it. */",
        *(
            f"#define {module.upper()}_{value_name.upper()} {value}u /* {meaning} */"
            for value_name, (value, meaning) in derived_values(config).items()
        ),
        "",
        "/* The rest is the same for all PARO accelerators of this version. */",
        "#ifndef PARO_REGISTERS_H",
        f"#define PARO_REGISTERS_H {version}",
        "",
        shared,
        f"#elif PARO_REGISTERS_H != {version}",
        '#error "headers of PARO accelerators that different versions have generated"',
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _shared_header() -> str:
    """Part of the header that does not depend on the configuration."""
    lines = [
        "#include <stdint.h>",
        "",
        "/* Registers: byte offsets, and mask and shift of each field. */",
    ]
    for register in REGISTERS:
        lines += ["", f"/* {register.description} ({register.access}). */"]
        lines.append(f"#define PARO_{register.name}_OFFSET 0x{register.offset:03x}u")
        for field in register.fields:
            if field.name == "value":
                continue
            name = f"PARO_{register.name}_{field.name.upper()}"
            lines += [
                f"/* {field.description} ({field.access}). */",
                f"#define {name}_MASK 0x{field.mask:08x}u",
                f"#define {name}_SHIFT {field.low}",
            ]
    lines += ["", "/* Why the accelerator reports an error: STATUS.cause. */", "enum paro_cause {"]
    lines += [
        f"  PARO_CAUSE_{cause.name} = {cause.value}, /* {text} */" for cause, text in CAUSES.items()
    ]
    lines += ["};", "", "/* Stages, in the order of their counters. */", "enum paro_stage {"]
    lines += [
        f"  PARO_STAGE_{stage.upper()} = {index}, /* {text} */"
        for index, (stage, text) in enumerate(STAGES.items())
    ]
    lines += [
        "};",
        "",
        "/* States, in the order of a stage's counters. */",
        "enum paro_state {",
    ]
    lines += [
        f"  PARO_STATE_{state.upper()} = {index}, /* {text} */"
        for index, (state, text) in enumerate(STATES.items())
    ]
    lines += [
        "};",
        "",
        "/* Values of the descriptor's constant fields. */",
        *(
            f"#define PARO_DESCRIPTOR_{field.name.upper()} 0x{field.constant:08x}u"
            for field in DESCRIPTOR
            if field.constant is not None
        ),
        "",
        "/* One head or layer. Little endian, as in memory: fill it in on a little-endian",
        "   processor, whose bit-fields begin at the lowest bit. */",
        "struct paro_descriptor {",
        *(line for field in DESCRIPTOR for line in _members(field)),
        "};",
        "",
        f"#define PARO_DESCRIPTOR_BYTES {DESCRIPTOR_BYTES}",
        "typedef char paro_descriptor_has_its_size[",
        "    sizeof(struct paro_descriptor) == PARO_DESCRIPTOR_BYTES ? 1 : -1];",
    ]
    return "\n".join(lines) + "\n"


def _members(field: DescriptorField) -> list[str]:
    comment = f"/* {field.description} */"
    if field.width < 32 and field.width not in (8, 16):
        return [f"  uint32_t {field.name} : {field.width}; {comment}"]
    if field.width <= 32:
        return [f"  uint{field.width}_t {field.name}; {comment}"]
    shared = any(other.word == field.word + 1 for other in DESCRIPTOR)
    bits = f" : {field.width - 32}" if shared else ""
    return [f"  uint32_t {field.name}_lo; {comment}", f"  uint32_t {field.name}_hi{bits};"]
