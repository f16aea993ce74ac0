"""The program of a vector step in memory: a header, then a slot for each pass over a row.

`HEADER` and `PASS` are the one table of both. The packer, the RTL's view and the documentation come
from them. What a pass computes is section 8 of `docs/numerics.md`.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum

from paro.config import vector_formats
from paro.config.descriptor import DescriptorField
from paro.config.errors import ParoError

__all__ = [
    "HEADER",
    "PASS",
    "PASSES_MAX",
    "PROGRAM_BYTES",
    "PROGRAM_MAGIC",
    "SECONDS_MAX",
    "SECOND_ROW",
    "SLOTS",
    "SLOT_BYTES",
    "TABLES_MAX",
    "Added",
    "Left",
    "Partner",
    "Reduce",
    "Right",
    "pack_program",
]


class Left(IntEnum):
    """A, the left factor."""

    WORD = 0  # the word itself
    DOUBLED = 1  # 2 x
    CENTRED = 2  # 2 x - M of its group
    TABLE = 3  # the distance within a segment of the activation's table


class Right(IntEnum):
    """B, the right factor."""

    STREAM = 0  # a word of `others`
    ITSELF = 1  # the left factor again
    FACTOR = 2  # R of its group, whose shift takes the place of the command's
    TABLE = 3  # the slope of the activation's table


class Added(IntEnum):
    """D, what is added."""

    NOTHING = 0
    STREAM = 1  # a word of `addends`
    ROW = 2  # a word of the memory that is not read for A
    TABLE = 3  # max(x, 0), and the base of the activation's table


class Partner(IntEnum):
    """Whose word is read for A."""

    OWN = 0
    HALVES = 1  # channel c +- half of the group
    NEIGHBOURS = 2  # channel c +- 1


class Reduce(IntEnum):
    """What is found of each group."""

    NOTHING = 0
    SUM = 1  # of the pass's words; becomes M
    SQUARES = 2  # of the left factors, plus epsilon; becomes R of a norm
    LARGEST = 3  # magnitude of the pass's words; becomes R and mantissa of INT8


#: Bytes of a slot, and slots of a program: the header and up to `PASSES_MAX` passes.
SLOT_BYTES, SLOTS = 16, 8
PASSES_MAX = SLOTS - 1
PROGRAM_BYTES = SLOT_BYTES * SLOTS
#: What a header begins with: "VP" in memory.
PROGRAM_MAGIC = int.from_bytes(b"VP", "little")
#: Tables of a word a channel that a step may have.
TABLES_MAX = 4
#: Words of a token's second row, in rows of the step.
SECONDS_MAX = 2
#: Source of a stream of operands: a table by its number, or the token's second row.
SECOND_ROW = TABLES_MAX
_SOURCES = range(SECOND_ROW + 1)


def _field(
    name: str, word: int, low: int, width: int, description: str, legal: range | tuple[int, ...]
) -> DescriptorField:
    return DescriptorField(
        name=name, word=word, low=low, width=width, description=description, legal=legal
    )


def _choice(name: str, low: int, description: str, choices: type[IntEnum]) -> DescriptorField:
    meanings = ", ".join(f"{choice.value} {choice.name}" for choice in choices)
    return _field(name, 0, low, 2, f"{description}: {meanings}", tuple(choices))


#: Fields of the header.
HEADER: tuple[DescriptorField, ...] = (
    _field("magic", 0, 0, 16, '"VP" in memory', (PROGRAM_MAGIC,)),
    _field("passes", 0, 16, 3, "Passes over each row", range(1, PASSES_MAX + 1)),
    _field(
        "tables",
        0,
        19,
        3,
        "Tables of a word for each channel, read once, from k_address on",
        range(TABLES_MAX + 1),
    ),
    _field(
        "seconds",
        0,
        22,
        2,
        "Words of a token's second row, from v_address on, in rows of the step",
        range(SECONDS_MAX + 1),
    ),
    _field("rows", 0, 24, 1, "1: a pass sends words, which are the step's outputs", (0, 1)),
    _field("int8", 0, 25, 1, "1: the words that are sent have 8 bits", (0, 1)),
    _field(
        "mantissas", 0, 26, 1, "1: a pass finds the mantissa of each row, which is written", (0, 1)
    ),
)

#: Fields of a pass.
PASS: tuple[DescriptorField, ...] = (
    _choice("left", 0, "A, the left factor", Left),
    _choice("right", 2, "B, the right factor", Right),
    _choice("added", 4, "D, what is added", Added),
    _choice("partner", 6, "Whose word is read for A", Partner),
    _choice("reduce", 8, "What is found of each group", Reduce),
    _field("shift", 0, 10, 6, "Right shift of A B", range(vector_formats.PRODUCT_SHIFT_MAX + 1)),
    _field("loads", 0, 16, 1, "1: A's words come from memory; of the first pass alone", (0, 1)),
    _field("row", 0, 17, 1, "Copy of the row that A's words come from", (0, 1)),
    _field("keeps", 0, 18, 1, "1: the words that are made stay", (0, 1)),
    _field("kept", 0, 19, 1, "Copy of the row that they become", (0, 1)),
    _field("sends", 0, 20, 1, "1: the words that are made are the step's outputs", (0, 1)),
    _field("bytes", 0, 21, 1, "1: they saturate to -127 .. 127", (0, 1)),
    _field("short", 0, 22, 1, "1: mantissas of 8 bits", (0, 1)),
    _field("silu", 0, 23, 1, "Activation: 0 GELU, 1 SiLU", (0, 1)),
    _field("fraction", 0, 24, 4, "Its fractional bits", range(vector_formats.ACTIVATION_FRAC + 1)),
    _field(
        "others",
        1,
        0,
        3,
        f"B of a stream: number of a table, or {SECOND_ROW}: the second row, on from what earlier "
        "passes took",
        _SOURCES,
    ),
    _field("addends", 1, 3, 3, "D of a stream, likewise", _SOURCES),
    _field(
        "places",
        1,
        6,
        6,
        "p of a norm, j of a mantissa; two's complement",
        range(-(2**5), 2**5),
    ),
    _field(
        "group",
        1,
        12,
        15,
        "Channels of a group; groups are whole beats of the vector unit's lanes",
        range(1, 2**14 + 1),
    ),
    _field(
        "epsilon",
        2,
        0,
        vector_formats.SQUARES_BITS - 1,
        "E of a norm",
        range(2 ** (vector_formats.SQUARES_BITS - 1)),
    ),
)


def pack_program(header: Mapping[str, int], passes: Sequence[Mapping[str, int]]) -> bytes:
    """Pack the program of a vector step.

    Parameters
    ----------
    header : Mapping
        ``tables``, ``seconds``, ``rows``, ``int8`` and ``mantissas``.
    passes : sequence of Mapping
        Values of the fields of `PASS`, by name; 0 by default, but for ``group``.

    Returns
    -------
    bytes
        `PROGRAM_BYTES` of them.

    Raises
    ------
    ParoError
        If there are too many passes, or a field is missing, unknown or illegal.
    """
    if not 1 <= len(passes) <= PASSES_MAX:
        raise ParoError(f"a vector step of {len(passes)} passes; legal: 1 to {PASSES_MAX}")
    slots = [_pack("header", HEADER, {**header, "passes": len(passes)})]
    zeros = {field.name: 0 for field in PASS if field.name != "group"}
    for index, given in enumerate(passes):
        slots.append(_pack(f"pass {index}", PASS, {**zeros, **given}))
    return b"".join(slots).ljust(PROGRAM_BYTES, b"\0")


def _pack(name: str, fields: Sequence[DescriptorField], values: Mapping[str, int]) -> bytes:
    given = {field.name: field for field in fields if field.constant is None}
    if values.keys() != given.keys():
        wrong = sorted(values.keys() ^ given.keys())
        raise ParoError(f"vector step, {name}: {wrong[0]} is missing or no field")
    slot = 0
    for field in fields:
        value = values[field.name] if field.constant is None else field.constant
        if value not in field.legal:
            raise ParoError(
                f"vector step, {name}: {field.name} = {value} is not legal; "
                f"legal: {field.legal_text()}"
            )
        slot |= (value & (1 << field.width) - 1) << field.offset
    return slot.to_bytes(SLOT_BYTES, "little")
