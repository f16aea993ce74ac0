"""The register map: the accelerator as software sees it at its AXI4-Lite port.

`REGISTERS` is the one table. The RTL, the driver, the C header and the documentation come from it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from paro.config.config import Config
from paro.config.formats import STAGE_MEANINGS

__all__ = [
    "BURST_CAUSES",
    "CAUSES",
    "CORE_BITS",
    "MAGIC",
    "MAP_VERSION",
    "MEMORY_ADDRESS_BITS",
    "PAGE_BYTES",
    "PAGE_NUMBER_BITS",
    "QUEUE_BITS",
    "QUEUE_MAX",
    "REGISTERS",
    "REGISTER_ADDRESS_BITS",
    "REGISTER_BITS",
    "STAGES",
    "START_CAUSES",
    "STATES",
    "WINDOWS",
    "Access",
    "Cause",
    "Field",
    "Register",
    "counter_name",
    "find_register",
    "window_name",
]

#: "PARO" in memory: value of IDENT and of the first word of every descriptor.
MAGIC = int.from_bytes(b"PARO", "little")
#: Version of this map, (major, minor); the major one changes when old drivers no longer fit.
MAP_VERSION = (3, 3)
#: Bits of a register.
REGISTER_BITS = 32
#: Bits of a byte address of the registers: 4 KiB.
REGISTER_ADDRESS_BITS = 12
#: Bits of a byte address of the memory that holds heads.
MEMORY_ADDRESS_BITS = 40
#: Bytes of a page: no burst crosses a multiple of it, and windows are whole pages.
PAGE_BYTES = 4096
#: Bits of a page's number.
PAGE_NUMBER_BITS = MEMORY_ADDRESS_BITS - (PAGE_BYTES.bit_length() - 1)
#: Bits of a number of heads in a queue.
QUEUE_BITS = 16
#: Most heads in a queue.
QUEUE_MAX = 2**QUEUE_BITS - 1

#: Windows of memory, in the order of their registers, and what the accelerator does there alone.
WINDOWS = {
    "inputs": "reads",
    "weights": "reads",
    "outputs": "writes, and reads what earlier jobs of the queue put out",
}

#: Bits of a core's number.
CORE_BITS = 3

#: Stages whose cycles are counted, in the order of their counters.
STAGES = {stage.name.lower(): meaning for stage, meaning in STAGE_MEANINGS.items()}
#: States of a stage in a clock, at most one of them. In none of them it has nothing to do.
STATES = {
    "busy": "It works.",
    "starved": "It waits for input.",
    "blocked": "It waits for room at its output.",
}


class Cause(IntEnum):
    """Why the accelerator reports an error; `CAUSES` has a sentence for each."""

    NONE = 0
    BAD_DESCRIPTOR = 1
    BAD_SHAPE = 2
    BAD_TOKENS = 3
    BAD_ALIGNMENT = 4
    EMPTY_ROW = 5
    READ_ERROR = 6
    WRITE_ERROR = 7
    BUSY = 8
    EMPTY_QUEUE = 9
    BAD_QUEUE_BASE = 10
    BAD_KIND = 11
    BAD_LAYER = 12
    READ_OUTSIDE = 13
    WRITE_OUTSIDE = 14
    BAD_PROGRAM = 15


#: Meaning of each cause.
CAUSES = {
    Cause.NONE: "no error",
    Cause.BAD_DESCRIPTOR: "a descriptor has another magic word or version than this accelerator's",
    Cause.BAD_SHAPE: "a descriptor has another block or head_dim than this accelerator",
    Cause.BAD_TOKENS: "a descriptor has a number of tokens that is 0, too large or inconsistent",
    Cause.BAD_ALIGNMENT: "an address or a row stride is not a multiple of 4 bytes, or a row stride "
    "is 1 MiB or more",
    Cause.EMPTY_ROW: "a block row of the codes, or an output block of a layer, has no live block; "
    "or, with superblocks, it ends before or after the words of the codes say",
    Cause.READ_ERROR: "the memory answered a read with SLVERR or DECERR",
    Cause.WRITE_ERROR: "the memory answered a write with SLVERR or DECERR",
    Cause.BUSY: "a start came while a queue was being worked on or given up",
    Cause.EMPTY_QUEUE: "a start came with QUEUE_COUNT = 0",
    Cause.BAD_QUEUE_BASE: "a start came with a QUEUE_BASE that is not a multiple of 4",
    Cause.BAD_KIND: "a descriptor has a kind that this accelerator does not know",
    Cause.BAD_LAYER: "a layer's chunks, or a shift of a descriptor, are not legal",
    Cause.READ_OUTSIDE: "a descriptor leads to a read outside of all windows; it was not begun",
    Cause.WRITE_OUTSIDE: "a descriptor leads to a write outside of the window of outputs; it was "
    "not begun",
    Cause.BAD_PROGRAM: "a vector step's program does not begin with its header, or a row has more "
    "channels than the vector unit holds",
}

#: Causes for which a start is refused: they are of no head.
START_CAUSES = (Cause.BUSY, Cause.EMPTY_QUEUE, Cause.BAD_QUEUE_BASE)
#: Causes that come with the address of a burst.
BURST_CAUSES = (Cause.READ_ERROR, Cause.WRITE_ERROR, Cause.READ_OUTSIDE, Cause.WRITE_OUTSIDE)

Access = Literal["ro", "rw", "w1c", "strobe"]


@dataclass(frozen=True, kw_only=True)
class Field:
    """Some bits of a register.

    Parameters
    ----------
    name : str
        ``value`` if it is all that its register holds.
    low : int
        Lowest bit.
    width : int
        Number of bits.
    access : str
        ``ro``: a write changes nothing. ``rw``: reads as written. ``w1c``: set by the accelerator,
        cleared by writing 1. ``strobe``: writing 1 does something once; reads as 0.
    description : str
        Its meaning.
    reset : int
        Value after reset.
    constant : callable, optional
        Value of a field that is known when a configuration is generated.
    """

    name: str
    low: int
    width: int
    access: Access
    description: str
    reset: int = 0
    constant: Callable[[Config], int] | None = None

    @property
    def mask(self) -> int:
        """Its bits in the register."""
        return (1 << self.width) - 1 << self.low

    def extract(self, word: int) -> int:
        """Its value in a word read from the register."""
        return (word & self.mask) >> self.low

    def initial(self, config: Config) -> int:
        """Its value after reset."""
        return self.reset if self.constant is None else self.constant(config)


@dataclass(frozen=True, kw_only=True)
class Register:
    """One 32-bit word of the map.

    Parameters
    ----------
    name : str
        Upper case.
    offset : int
        Byte address, a multiple of 4.
    description : str
        Its content.
    fields : tuple of Field
        Lowest first. Bits in no field read as 0 and ignore writes.
    """

    name: str
    offset: int
    description: str
    fields: tuple[Field, ...]

    @property
    def access(self) -> Literal["ro", "rw"]:
        """``ro`` if no field can be written; a write is then refused."""
        return "ro" if all(field.access == "ro" for field in self.fields) else "rw"

    def field(self, name: str) -> Field:
        """Its field of that name."""
        return next(field for field in self.fields if field.name == name)

    def initial(self, config: Config) -> int:
        """The word that it reads as after reset."""
        return sum(field.initial(config) << field.low for field in self.fields)


def counter_name(stage: str, state: str) -> str:
    """Name of the register that counts the cycles of a stage in a state."""
    return f"{stage}_{state}".upper()


def window_name(window: str, end: Literal["first", "last"]) -> str:
    """Name of the register that holds the first or the last page of a window."""
    return f"{window}_{end}_PAGE".upper()


def _single(
    name: str,
    offset: int,
    description: str,
    *,
    width: int = REGISTER_BITS,
    access: Access = "ro",
    reset: int = 0,
    constant: Callable[[Config], int] | None = None,
) -> Register:
    """Describe a register that holds one value."""
    field = Field(
        name="value",
        low=0,
        width=width,
        access=access,
        description=description,
        reset=reset,
        constant=constant,
    )
    return Register(name=name, offset=offset, description=description, fields=(field,))


def _bits_of(value: Callable[[Config], int], low: int, width: int) -> Callable[[Config], int]:
    return lambda config: value(config) >> low & (1 << width) - 1


def _pair(
    name: str,
    offset: int,
    description: str,
    *,
    width: int,
    access: Access = "ro",
    constant: Callable[[Config], int] | None = None,
) -> tuple[Register, Register]:
    """Describe two registers that hold the low and the high part of one value."""

    def part(suffix: str, low: int, bits: int) -> Register:
        return _single(
            f"{name}_{suffix}",
            offset + low // 8,
            f"{description} (bits {low + bits - 1} to {low})",
            width=bits,
            access=access,
            constant=constant and _bits_of(constant, low, bits),
        )

    return part("LO", 0, REGISTER_BITS), part("HI", REGISTER_BITS, width - REGISTER_BITS)


def _configuration(offset: int) -> list[Register]:
    """Describe one register for each parameter of the configuration."""
    return [
        _single(
            name.upper(),
            offset + 4 * index,
            f"Configuration: {info.description}",
            constant=lambda config, name=name: getattr(config, name),
        )
        for index, (name, info) in enumerate(Config.model_fields.items())
    ]


def _windows(offset: int) -> list[Register]:
    """Describe two registers for each window; after reset all are open."""
    return [
        _single(
            window_name(window, end),
            offset + 8 * index + 4 * (end == "last"),
            f"{end.capitalize()} page of {PAGE_BYTES} bytes of the window of {window}: there the "
            f"accelerator {use}. It takes effect at once, so write it at rest alone. A window "
            "whose last page is before its first is closed",
            width=PAGE_NUMBER_BITS,
            access="rw",
            reset=(1 << PAGE_NUMBER_BITS) - 1 if end == "last" else 0,
        )
        for index, (window, use) in enumerate(WINDOWS.items())
        for end in ("first", "last")
    ]


def _stage_counters(offset: int) -> list[Register]:
    pairs = [(stage, state) for stage in STAGES for state in STATES]
    return [
        _single(
            counter_name(stage, state),
            offset + 4 * index,
            f"Clocks in which stage {stage} was {state}; wraps",
        )
        for index, (stage, state) in enumerate(pairs)
    ]


#: All registers, by ascending offset.
REGISTERS: tuple[Register, ...] = (
    _single("IDENT", 0x000, 'Magic number, "PARO" in memory', constant=lambda _: MAGIC),
    Register(
        name="VERSION",
        offset=0x004,
        description="Version of this register map",
        fields=(
            Field(
                name="minor",
                low=0,
                width=16,
                access="ro",
                description="Counts additions; old drivers fit",
                constant=lambda _: MAP_VERSION[1],
            ),
            Field(
                name="major",
                low=16,
                width=16,
                access="ro",
                description="Counts changes that old drivers do not fit",
                constant=lambda _: MAP_VERSION[0],
            ),
        ),
    ),
    Register(
        name="CONTROL",
        offset=0x008,
        description="Commands to the accelerator",
        fields=(
            Field(
                name="start",
                low=0,
                width=1,
                access="strobe",
                description="Work on the queue; clears STATUS.done, STATUS.error and all "
                "counters. Refused, which sets STATUS.error and changes nothing else: while "
                "STATUS.busy is 1, with QUEUE_COUNT = 0, with a QUEUE_BASE that is not a multiple "
                "of 4",
            ),
            Field(
                name="reset",
                low=1,
                width=1,
                access="strobe",
                description="Give up the queue and return to rest: STATUS.busy is 1 until every "
                "burst in progress has ended. The registers keep their values, STATUS.done is not "
                "set. At rest it does nothing. A start in the same write is ignored",
            ),
            Field(
                name="interrupt_enable",
                low=2,
                width=1,
                access="rw",
                description="Raise the interrupt while STATUS.done or STATUS.error is 1",
            ),
        ),
    ),
    Register(
        name="STATUS",
        offset=0x00C,
        description="State of the accelerator",
        fields=(
            Field(
                name="busy",
                low=0,
                width=1,
                access="ro",
                description="A queue is being worked on or given up; 0: at rest",
            ),
            Field(
                name="done",
                low=1,
                width=1,
                access="w1c",
                description="All heads of a queue are done and their outputs written; cleared "
                "by a start that is not refused, too",
            ),
            Field(
                name="error",
                low=2,
                width=1,
                access="w1c",
                description="Something went wrong: see cause; cleared as done is. The queue is "
                "given up, except if a start was refused",
            ),
            Field(
                name="cause",
                low=4,
                width=6,
                access="ro",
                description="Why error was set last",
            ),
        ),
    ),
    _single(
        "ERROR_HEAD",
        0x010,
        "Index in the queue of the descriptor at fault; says nothing for "
        + ", ".join(cause.name for cause in START_CAUSES),
        width=QUEUE_BITS,
    ),
    *_pair(
        "ERROR_ADDRESS",
        0x014,
        "Byte address of the burst that failed or was refused, for "
        f"{', '.join(cause.name for cause in BURST_CAUSES)} alone",
        width=MEMORY_ADDRESS_BITS,
    ),
    *_pair(
        "QUEUE_BASE",
        0x020,
        "Byte address of the first descriptor, a multiple of 4; taken over by a start. Addresses "
        f"wrap at 2^{MEMORY_ADDRESS_BITS}",
        width=MEMORY_ADDRESS_BITS,
        access="rw",
    ),
    _single(
        "QUEUE_COUNT",
        0x028,
        "Descriptors in the queue, at least 1; taken over by a start",
        width=QUEUE_BITS,
        access="rw",
    ),
    _single("HEADS_DONE", 0x02C, "Heads of the queue whose outputs are written", width=QUEUE_BITS),
    *_pair(
        "DIGEST",
        0x030,
        "Digest of the configuration",
        width=48,
        constant=lambda config: int(config.digest(), 16),
    ),
    *_configuration(0x040),
    *_pair("CYCLES", 0x080, "Clocks in which STATUS.busy was 1", width=64),
    _single("READ_BURSTS", 0x088, "Bursts read from memory; wraps"),
    _single("READ_BEATS", 0x08C, "Beats read from memory; wraps"),
    _single("WRITE_BURSTS", 0x090, "Bursts written to memory; wraps"),
    _single("WRITE_BEATS", 0x094, "Beats written to memory; wraps"),
    _single(
        "COUNTED_CORE",
        0x098,
        "Core whose stages the counters below tell of, 0 to CORES - 1",
        width=CORE_BITS,
        access="rw",
    ),
    *_windows(0x0A0),
    *_stage_counters(0x100),
)

_BY_NAME = {register.name: register for register in REGISTERS}


def find_register(name: str) -> Register:
    """Return the register of that name."""
    return _BY_NAME[name]
