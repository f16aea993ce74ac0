"""The descriptor: 32 little-endian words in memory: one head, linear layer or vector step.

`DESCRIPTOR` is the one table. The packer, the RTL's view, the C header and the documentation come
from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from paro.config.config import BLOCKS, HEAD_DIMS, TOKENS_MAX, blocks_of
from paro.config.errors import ParoError
from paro.config.formats import INPUTS_MAX, OUT_BYTES, OUT_SHIFTS, SUM_SHIFT_MAX, Kind
from paro.config.registers import MAGIC, MEMORY_ADDRESS_BITS

__all__ = [
    "ALIGNMENT",
    "DESCRIPTOR",
    "DESCRIPTOR_BYTES",
    "DESCRIPTOR_VERSION",
    "OUT_CUT_MAX",
    "OVERLAP_MAX",
    "ROW_STRIDE_BITS",
    "WORD_BITS",
    "DescriptorField",
    "pack_descriptor",
    "unpack_descriptor",
]

#: Bits of a word.
WORD_BITS = 32
#: Bytes of a descriptor; a queue is descriptors one directly after the other.
DESCRIPTOR_BYTES = 128
#: Version of this layout and of the orders that it describes.
DESCRIPTOR_VERSION = 3
#: Addresses and row strides are multiples of this many bytes.
ALIGNMENT = 4
#: Bits of a row stride; without its two zeros it fits a common hardware multiplier of 18 bits.
ROW_STRIDE_BITS = 20


@dataclass(frozen=True, kw_only=True)
class DescriptorField:
    """One value in a descriptor.

    Parameters
    ----------
    name : str
        Keyword of `pack_descriptor`.
    word : int
        Index of its (first) word.
    low : int
        Lowest bit in the word.
    width : int
        Number of bits; above 32 it goes on in the next word, whose other bits are 0.
    description : str
        Its meaning.
    legal : range or tuple of int
        Values that it may have. A field with a single one is filled in by the packer.
    """

    name: str
    word: int
    low: int = 0
    width: int = WORD_BITS
    description: str
    legal: range | tuple[int, ...]

    @property
    def offset(self) -> int:
        """Lowest bit in the descriptor."""
        return self.word * WORD_BITS + self.low

    @property
    def constant(self) -> int | None:
        """Its value if only one is legal."""
        return self.legal[0] if len(self.legal) == 1 else None

    def legal_text(self) -> str:
        """Legal values in words."""
        if not isinstance(self.legal, range) or len(self.legal) == 1:
            return ", ".join(str(value) for value in self.legal)
        step = f", multiples of {self.legal.step}" if self.legal.step > 1 else ""
        return f"{self.legal[0]} to {self.legal[-1]}{step}"


def _stride(name: str, word: int, operand: str, row_bytes: int) -> DescriptorField:
    return DescriptorField(
        name=name,
        word=word,
        description=f"Bytes from one token's row of {operand} to the next one's",
        legal=range(row_bytes, 2**ROW_STRIDE_BITS, ALIGNMENT),
    )


def _address(name: str, word: int, description: str) -> DescriptorField:
    return DescriptorField(
        name=name,
        word=word,
        width=MEMORY_ADDRESS_BITS,
        description=f"Byte address of {description}",
        legal=range(0, 2**MEMORY_ADDRESS_BITS, ALIGNMENT),
    )


#: Most bits that 8-bit outputs are shifted by.
OUT_CUT_MAX = 8
#: Most jobs before one that it need not wait for.
OVERLAP_MAX = 31
_COUNT = range(1, TOKENS_MAX + 1)
_COUNT_OR_NONE = range(TOKENS_MAX)
_BLOCK_ROWS_MAX = TOKENS_MAX // BLOCKS[0]

#: All fields, by ascending position.
DESCRIPTOR: tuple[DescriptorField, ...] = (
    DescriptorField(name="magic", word=0, description='"PARO" in memory', legal=(MAGIC,)),
    DescriptorField(
        name="block",
        word=1,
        width=8,
        description="Tokens on a side of a block, as configured",
        legal=BLOCKS,
    ),
    DescriptorField(
        name="version",
        word=1,
        low=8,
        width=8,
        description="Version of this layout",
        legal=(DESCRIPTOR_VERSION,),
    ),
    DescriptorField(
        name="head_dim",
        word=1,
        low=16,
        width=16,
        description="Channels of a head, as configured",
        legal=HEAD_DIMS,
    ),
    DescriptorField(
        name="key_tokens",
        word=2,
        description="All tokens of the head or vector step, at most max_tokens as configured; of "
        "a layer: its output channels, likewise",
        legal=_COUNT,
    ),
    DescriptorField(
        name="first_block_row",
        word=3,
        description="First block row to compute; 0 in a vector step",
        legal=range(_BLOCK_ROWS_MAX),
    ),
    DescriptorField(
        name="query_tokens",
        word=4,
        description="Queries to compute, from position first_block_row * block of the order on; "
        "of a layer: its tokens, at most max_tokens",
        legal=_COUNT,
    ),
    DescriptorField(
        name="prefix_tokens",
        word=5,
        description="Tokens before the grid, after it in the order; with the suffix less than all",
        legal=_COUNT_OR_NONE,
    ),
    DescriptorField(
        name="suffix_tokens",
        word=6,
        description="Tokens after the grid; the order has them last",
        legal=_COUNT_OR_NONE,
    ),
    *(
        DescriptorField(
            name=f"{axis}_extent",
            word=word,
            description=f"Tokens along the {axis} axis of the head's order",
            legal=_COUNT,
        )
        for word, axis in enumerate(("outer", "middle", "inner"), start=7)
    ),
    *(
        DescriptorField(
            name=f"{axis}_stride",
            word=word,
            description=f"Tokens of the natural layout from one step of the {axis} axis to the "
            "next",
            legal=_COUNT,
        )
        for word, axis in enumerate(("outer", "middle", "inner"), start=10)
    ),
    _stride("q_row_stride", 13, "Q", HEAD_DIMS[0]),
    _stride("k_row_stride", 14, "K", HEAD_DIMS[0]),
    _stride("v_row_stride", 15, "V", HEAD_DIMS[0]),
    _stride("o_row_stride", 16, "O", BLOCKS[0]),
    _address(
        "q_address",
        17,
        "Q: head_dim INT8 a token, natural token order; of a layer: its inputs, chunks * head_dim "
        "INT8 a token; of a vector step: its rows, chunks * head_dim words of 16 bits a token",
    ),
    _address(
        "k_address",
        19,
        "K, as Q; of a layer: its weights, chunks * head_dim INT8 an output channel, 0 in tiles of "
        "code 0; of a vector step: its tables, one after the other, of a word of 16 bits for each "
        "channel",
    ),
    _address(
        "v_address",
        21,
        "V, as Q; a layer has none; of a vector step: its second rows, as many words a token as "
        "its program says",
    ),
    _address(
        "o_address",
        23,
        "O: head_dim words a token, natural token order; of a layer: its outputs, whole blocks of "
        "words a token; a word is signed, of 16 bits, or of 8 with out_cut; of a vector step: rows "
        "of words of 16 bits, or of 8 if its program says so",
    ),
    _address(
        "q_scales_address",
        25,
        "the queries' scales: a 32-bit word a token, in the head's order, whole groups of "
        "load_tokens; of a vector step: where it writes the mantissas that it finds, a 32-bit word "
        "a token, in its order, whole beats of O",
    ),
    _address(
        "k_scales_address",
        27,
        "the keys' scales, as the queries'; of a layer: an output channel's, its bias in bits 8 "
        "to 23",
    ),
    _address(
        "codes_address",
        29,
        "the codes: 16 a word, lowest key block first, every computed block row in words of its "
        "own, whole units of load_bytes; of a layer: of its tiles, lowest chunk first, every "
        "output block in words of its own. With query_rows of 2 or more: of each superblock of so "
        "many computed block rows, fewer at the end, for each 16 key blocks a word whose bit i is "
        "1 if its row i has a code that is not 0 after them, then a word of codes for each row; of "
        "a layer, every output block is a superblock of equal rows, whose codes are there once; of "
        "a vector step: its program",
    ),
    DescriptorField(
        name="codes_stride",
        word=30,
        low=8,
        width=24,
        description="With several cores: bytes from the codes of a core to those of the next one, "
        "in words of 4 bytes; of a layer, whose codes serve all of them, and with one core 0",
        legal=range(2**24),
    ),
    DescriptorField(
        name="kind",
        word=31,
        width=4,
        description="0: a head; 1: a linear layer, which ignores first_block_row and the order; "
        "2: a vector step, with a vector unit",
        legal=tuple(Kind),
    ),
    DescriptorField(
        name="out_cut",
        word=31,
        low=4,
        width=4,
        description="0: output words of 16 bits; else they are shifted right by so many bits, "
        "rounded half up, saturated to -127 .. 127, and have 8",
        legal=range(OUT_CUT_MAX + 1),
    ),
    DescriptorField(
        name="chunks",
        word=31,
        low=8,
        width=12,
        description="Of a layer: chunks of head_dim input channels, at least 1, of 32,768 channels "
        "at most; of a vector step: chunks of head_dim channels of a row; of a head 0",
        legal=range(INPUTS_MAX // HEAD_DIMS[0] + 1),
    ),
    DescriptorField(
        name="sum_shift",
        word=31,
        low=20,
        width=4,
        description="Of a layer: right shift of its sums; of a head 0",
        legal=range(SUM_SHIFT_MAX + 1),
    ),
    DescriptorField(
        name="out_shift",
        word=31,
        low=24,
        width=2,
        description="Of a layer: right shift after its scales, as an index of "
        f"{', '.join(map(str, OUT_SHIFTS))}; of a head 0",
        legal=range(len(OUT_SHIFTS)),
    ),
    DescriptorField(
        name="after",
        word=31,
        low=26,
        width=1,
        description="1: begins when all outputs of the jobs before it are written, which it may "
        "read; 0: they overlap",
        legal=range(2),
    ),
    DescriptorField(
        name="overlap",
        word=31,
        low=27,
        width=5,
        description="With after: it does not wait for so many jobs directly before it; without a "
        "vector unit it waits for them too",
        legal=range(OVERLAP_MAX + 1),
    ),
)

#: Values of the fields that a layer does not use.
_UNUSED_BY_LAYERS = {
    "first_block_row": 0,
    "prefix_tokens": 0,
    "suffix_tokens": 0,
    **{
        f"{axis}_{what}": 1
        for axis in ("outer", "middle", "inner")
        for what in ("extent", "stride")
    },
    "v_row_stride": HEAD_DIMS[0],
    "v_address": 0,
}
#: Values of the fields that only layers use.
_SHIFTS = {"sum_shift": 0, "out_shift": 0}
#: Values of the fields that any job may leave out.
_OPTIONAL = {"out_cut": 0, "after": 0, "overlap": 0, "codes_stride": 0}
#: Values of the fields that a job of a kind does not use.
_UNUSED: dict[int, dict[str, int]] = {
    Kind.ATTENTION: {"chunks": 0, **_SHIFTS},
    Kind.LINEAR: _UNUSED_BY_LAYERS,
    Kind.VECTOR: {
        "first_block_row": 0,
        "k_row_stride": HEAD_DIMS[0],
        "k_scales_address": 0,
        **_SHIFTS,
    },
}


def pack_descriptor(**values: int) -> bytes:
    """Pack one descriptor.

    Parameters
    ----------
    **values : int
        Every field of `DESCRIPTOR` but the constant ones, by name. ``kind`` is a head's if it is
        not given; what the kind does not use, ``out_cut``, ``after`` and ``overlap`` may be left
        out.

    Returns
    -------
    bytes
        `DESCRIPTOR_BYTES` of them.

    Raises
    ------
    ParoError
        If a field is missing, unknown or illegal, or the fields contradict each other.
    """
    kind = values.get("kind", Kind.ATTENTION)
    values = {"kind": kind, **_OPTIONAL, **_UNUSED.get(kind, {}), **values}
    given = {field.name: field for field in DESCRIPTOR if field.constant is None}
    _check_names("has no value for", [name for name in given if name not in values])
    _check_names("has no field", [name for name in values if name not in given])
    for name, field in given.items():
        if values[name] not in field.legal:
            raise ParoError(
                f"descriptor: {name} = {values[name]} is not legal; legal: {field.legal_text()}"
            )
    if kind == Kind.LINEAR:
        _check_layer(values)
    elif kind == Kind.VECTOR:
        _check_tokens(values)
        _check_vector(values)
    else:
        _check_tokens(values)
        _check_addresses(values, _head_rows(values))
    image = 0
    for field in DESCRIPTOR:
        value = values[field.name] if field.constant is None else field.constant
        image |= value << field.offset
    return image.to_bytes(DESCRIPTOR_BYTES, "little")


def unpack_descriptor(image: bytes) -> dict[str, int]:
    """Read every field of a descriptor, whatever its value."""
    word = int.from_bytes(image[:DESCRIPTOR_BYTES], "little")
    return {field.name: word >> field.offset & (1 << field.width) - 1 for field in DESCRIPTOR}


def _check_names(problem: str, names: Sequence[str]) -> None:
    if names:
        raise ParoError(f"descriptor {problem} {', '.join(names)}")


def _check_tokens(values: dict[str, int]) -> None:
    tokens = values["key_tokens"]
    extents = [values[f"{axis}_extent"] for axis in ("outer", "middle", "inner")]
    strides = [values[f"{axis}_stride"] for axis in ("outer", "middle", "inner")]
    grid = extents[0] * extents[1] * extents[2]
    total = values["prefix_tokens"] + grid + values["suffix_tokens"]
    if tokens != total:
        raise ParoError(
            f"descriptor: key_tokens = {tokens}, but prefix, grid and suffix have "
            f"{values['prefix_tokens']} + {grid} + {values['suffix_tokens']} = {total}"
        )
    last = sum((extent - 1) * stride for extent, stride in zip(extents, strides, strict=True))
    if last >= grid:
        raise ParoError(
            f"descriptor: the order's strides {strides} lead to token {last} of a grid of {grid}; "
            f"legal: up to {grid - 1}"
        )
    first = values["first_block_row"] * values["block"]
    if first + values["query_tokens"] > tokens:
        raise ParoError(
            f"descriptor: queries {first} to {first + values['query_tokens'] - 1} do not lie in a "
            f"head of {tokens} tokens"
        )


def _check_layer(values: dict[str, int]) -> None:
    inputs = values["chunks"] * values["head_dim"]
    if not 0 < inputs <= INPUTS_MAX:
        raise ParoError(
            f"descriptor: a layer of {values['chunks']} chunks has {inputs:,} inputs; "
            f"legal: 1 to {INPUTS_MAX:,}"
        )
    outputs = blocks_of(values["key_tokens"], values["block"]) * values["block"]
    word_bytes = 1 if values["out_cut"] else OUT_BYTES
    _check_addresses(
        values,
        {
            "q": (values["query_tokens"], inputs),
            "k": (values["key_tokens"], inputs),
            "o": (values["query_tokens"], word_bytes * outputs),
        },
    )


def _check_vector(values: dict[str, int]) -> None:
    """Check rows of words; second rows and outputs are as wide as the step's program says."""
    channels = values["chunks"] * values["head_dim"]
    if not channels:
        raise ParoError("descriptor: a vector step of no channels; legal: 1 chunk or more")
    if values["first_block_row"]:
        raise ParoError(
            f"descriptor: a vector step from block row {values['first_block_row']} on; legal: 0"
        )
    tokens = values["key_tokens"]
    _check_addresses(values, {"q": (tokens, OUT_BYTES * channels), "o": (tokens, channels)})


def _head_rows(values: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Rows of a head's operands and outputs, and the bytes of each."""
    tokens, row = values["key_tokens"], values["head_dim"]
    word_bytes = 1 if values["out_cut"] else OUT_BYTES
    return {**dict.fromkeys("qkv", (tokens, row)), "o": (tokens, word_bytes * row)}


def _check_addresses(values: dict[str, int], operands: dict[str, tuple[int, int]]) -> None:
    for operand, (tokens, row) in operands.items():
        stride, address = values[f"{operand}_row_stride"], values[f"{operand}_address"]
        if stride < row:
            raise ParoError(
                f"descriptor: {operand}_row_stride = {stride} is less than a row; "
                f"legal: {row} or more"
            )
        end = address + (tokens - 1) * stride + row
        if end > 2**MEMORY_ADDRESS_BITS:
            raise ParoError(
                f"descriptor: {operand.upper()} ends at {end:#x}; "
                f"legal: up to {2**MEMORY_ADDRESS_BITS:#x}"
            )
