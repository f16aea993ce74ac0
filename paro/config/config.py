"""The one configuration object of a core: its free parameters and every width derived from them."""

import hashlib
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from paro.config import formats
from paro.config.errors import ParoError, quoted
from paro.config.files import read_toml
from paro.config.named import find_named

#: Most tokens of any configuration, and of any head's descriptor.
TOKENS_MAX = 2**20


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))


def bits_unsigned(largest: int) -> int:
    """Width of an unsigned integer that holds 0 .. ``largest``."""
    return max(1, largest.bit_length())


def bits_signed(largest: int) -> int:
    """Width of a signed integer that holds -``largest`` .. ``largest``."""
    return 1 + bits_unsigned(largest)


def blocks_of(tokens: int, block: int) -> int:
    """Blocks that some tokens make, the last one partial."""
    return -(-tokens // block)


class Config(BaseModel):
    """Parameters of one generated core; immutable, validated, hashable.

    Illegal values raise `ParoError` with a sentence that names the field, the value and the
    legal ones. Build one by keyword (``Config(rows=8, cols=8)``), from a preset or from TOML
    (`load_config`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rows: Literal[4, 8, 16, 32, 64] = Field(
        8, description="rows R of the PE array (keys in QK, queries in PV); divides `block`"
    )
    cols: Literal[4, 8, 16, 32, 64] = Field(
        8,
        description="columns C of the PE array (queries in QK, channels in PV); "
        "divides `block` and `head_dim`",
    )
    block: Literal[16, 32, 64] = Field(64, description="tokens B on a side of an attention block")
    head_dim: Literal[32, 64, 128, 256] = Field(64, description="channels d of a head")
    max_tokens: int = Field(
        131072,
        ge=64,
        le=TOKENS_MAX,
        description="longest token sequence the accumulators must hold",
    )
    exp_segments: Literal[4, 8, 16] = Field(
        8, description="segments of the piecewise-linear 2**-f in each softmax lane"
    )
    axi_bits: Literal[64, 128, 256, 512] = Field(
        128, description="data bits of the accelerator's AXI4 master"
    )
    query_rows: Literal[1, 2, 4, 8, 16] = Field(
        1, description="block rows of queries S that share one load of K and V (a superblock)"
    )
    key_slots: Literal[2, 4, 8] = Field(
        2, description="blocks of K and of V that a core holds; 4 or more let cores wait less"
    )
    cores: Literal[1, 2, 4, 8] = Field(
        1, description="cores G of the accelerator, which share loads of K and V (a cluster)"
    )
    vector_channels: Literal[0, 128, 256, 512, 1024, 2048, 4096, 8192, 16384] = Field(
        0,
        description="longest row, in channels, of the accelerator's vector unit, which computes "
        "what lies between attention and linear layers; 0: no vector unit",
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ParoError(_sentence(error)) from None

    @model_validator(mode="after")
    def _check_divisors(self) -> "Config":
        for name, divisor in (("rows", self.rows), ("cols", self.cols)):
            if self.block % divisor:
                raise ValueError(f"{name} = {divisor} must divide block = {self.block}")
        if self.head_dim % self.cols:
            raise ValueError(f"cols = {self.cols} must divide head_dim = {self.head_dim}")
        return self

    def changed(self, **values: Any) -> "Config":
        """Return the same configuration with other values of some fields, validated."""
        return Config(**{**self.model_dump(), **values})

    # -- shape of the data path ---------------------------------------------------------------

    @property
    def shortest_reduction(self) -> int:
        """Shorter of the two reduction lengths: head_dim (QK) and block (PV)."""
        return min(self.head_dim, self.block)

    @property
    def drain_words(self) -> int:
        """Accumulators that leave the array each cycle.

        Chosen so that a drain takes no longer than the shortest tile (2-bit operands) where one
        array row a cycle suffices for that.
        """
        return _clamp(
            formats.LANES * self.rows * self.cols // self.shortest_reduction, 1, self.cols
        )

    @property
    def drain_cycles(self) -> int:
        """Cycles to empty the array's accumulators."""
        return self.rows * self.cols // self.drain_words

    @property
    def softmax_lanes(self) -> int:
        """Exponentials per cycle: the mean rate at which 2-bit blocks produce scores."""
        return _clamp(
            formats.LANES // 2 * self.rows * self.cols // self.head_dim,
            1,
            min(self.rows, self.cols),
        )

    @property
    def load_tokens(self) -> int:
        """Tokens side by side in one beat of the Q and K streams (4 channels of each).

        K and V of a 2-bit block then load in half of the time that it takes, one after the other.
        """
        return _clamp(
            2 * self.rows * self.cols // self.block,
            1,
            min(self.rows, self.cols, self.head_dim // formats.LANES),
        )

    @property
    def load_bytes(self) -> int:
        """Bytes in one beat of an operand's stream."""
        return formats.LANES * self.load_tokens

    @property
    def output_words(self) -> int:
        """Words in one beat of the O stream: one read of the numerators."""
        return self.drain_words

    @property
    def layer_tokens(self) -> int:
        """Tokens of a linear layer that the array works on together."""
        return min(self.block, self.head_dim)

    @property
    def chunks_max(self) -> int:
        """Most chunks of `head_dim` input channels of a linear layer."""
        return formats.INPUTS_MAX // self.head_dim

    @property
    def cuts_outputs(self) -> bool:
        """Whether the accelerator can put out 8-bit words: a row has whole pairs of beats."""
        return 2 * self.output_words <= min(self.block, self.head_dim)

    @property
    def wave_rows(self) -> int:
        """Block rows in progress in all cores: those that share one load of K and V."""
        return self.cores * self.query_rows

    @property
    def row_slots(self) -> int:
        """Block rows that have a place for their queries, and for their outputs.

        Those of a superblock, and one that loads behind them or is put out after them.
        """
        return self.query_rows + 1

    @property
    def vector_lanes(self) -> int:
        """Channels that the vector unit computes side by side: a sixteenth of the PEs, 2 to 32."""
        return _clamp(self.rows * self.cols // 16, 2, 32)

    @property
    def vector_rows(self) -> int:
        """Rows that the vector unit works on by turns: roots of one while words of others pass."""
        return _clamp(self.vector_lanes // 2, 2, 8)

    @property
    def output_bytes(self) -> int:
        """Bytes of one beat of the O stream."""
        return formats.OUT_BYTES * self.output_words

    @property
    def reciprocal_lanes(self) -> int:
        """Dividers that work side by side: enough for rows of a single 2-bit block."""
        cycles = 2 * self.block * self.head_dim // (formats.LANES * self.rows * self.cols)
        wanted = -(-(formats.RECIPROCAL_BITS + 4) // max(cycles, 1))
        return _clamp(1 << (wanted - 1).bit_length(), 1, self.softmax_lanes)

    def blocks_of(self, tokens: int) -> int:
        """Blocks that so many tokens make; the last one may be partial."""
        return blocks_of(tokens, self.block)

    # -- widths, each proven from the largest value it must hold -------------------------------

    @property
    def score_max(self) -> int:
        """Largest magnitude of a score: INT8 Q times K rounded to digits (up to 128)."""
        return formats.OPERAND_MAX * (formats.OPERAND_MAX + 1) * self.head_dim

    @property
    def score_bits(self) -> int:
        """Width of a signed score."""
        return bits_signed(self.score_max)

    @property
    def key_scale_shift(self) -> int:
        """Right shift after the key scale that leaves `SCALED_SCORE_BITS` bits."""
        largest = self.score_max * (2**formats.KEY_SCALE_BITS - 1)
        return bits_signed(largest) - formats.SCALED_SCORE_BITS

    @property
    def partial_max(self) -> int:
        """Largest magnitude of P times V over one block."""
        return (formats.OPERAND_MAX << formats.P_FRAC) * self.block

    @property
    def accumulator_bits(self) -> int:
        """Width of a PE accumulator: a block's P times V, or four times a score (2-bit frame)."""
        return bits_signed(max(self.partial_max, 4 * self.score_max))

    @property
    def block_sum_bits(self) -> int:
        """Width of the sum of one row of quantised P over a block."""
        return bits_unsigned(self.block << formats.P_FRAC)

    @property
    def blocks_max(self) -> int:
        """Most blocks on a side of the attention map."""
        return self.blocks_of(self.max_tokens)

    @property
    def denominator_bits(self) -> int:
        """Width of a softmax denominator, rounding of every rescale included."""
        frac = formats.P_FRAC + formats.DENOMINATOR_FRAC
        return bits_unsigned((self.max_tokens << frac) + self.blocks_max)

    @property
    def numerator_bits(self) -> int:
        """Width of a signed output accumulator: numerators, rounding of every rescale included.

        It holds the sums of a linear layer too.
        """
        largest = (formats.OPERAND_MAX << formats.P_FRAC) * self.max_tokens + self.blocks_max
        return max(bits_signed(largest), formats.SUM_BITS)

    # -- identity --------------------------------------------------------------------------------

    def digest(self) -> str:
        """Short stable name of this configuration (12 hexadecimal digits)."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    if first["type"] == "value_error":
        return f"configuration: {first['msg'].removeprefix('Value error, ')}"
    field = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        legal = ", ".join(Config.model_fields)
        return f"configuration: no field {quoted(field)}; legal fields: {legal}"
    legal = first["msg"].removeprefix("Input should be ")
    return f"configuration: {field} = {quoted(first['input'])} is not legal; legal: {legal}"


#: Head sizes of the hardware, ascending; a smaller head is padded with zero channels to the next.
HEAD_DIMS: tuple[int, ...] = get_args(Config.model_fields["head_dim"].annotation)
#: Block sizes of the hardware, ascending.
BLOCKS: tuple[int, ...] = get_args(Config.model_fields["block"].annotation)


def padded_head_dim(head_dim: int) -> int:
    """Head size of the hardware that holds ``head_dim`` channels."""
    return next(size for size in HEAD_DIMS if head_dim <= size)


def fitting_vector_channels(channels: int) -> int:
    """Least ``vector_channels`` of a device whose vector unit takes rows of ``channels`` words.

    Raises
    ------
    ParoError
        If there is none.
    """
    legal = get_args(Config.model_fields["vector_channels"].annotation)
    fitting = [size for size in legal if size >= channels]
    if not fitting:
        raise ParoError(f"rows of {channels} channels are not legal; legal: up to {legal[-1]}")
    return fitting[0]


#: Named configurations, smallest array first.
PRESETS: dict[str, Config] = {
    "tiny": Config(rows=4, cols=4, block=16, head_dim=32),
    "small": Config(rows=4, cols=4),
    "ulx3s": Config(rows=8, cols=8),
    "wide": Config(rows=8, cols=16),
    "video": Config(rows=16, cols=16),
    "video-128": Config(rows=16, cols=16, head_dim=128),
    "large": Config(rows=32, cols=32),
}


def load_config(
    *, preset: str | None = None, file: Path | None = None, overrides: dict[str, Any] | None = None
) -> Config:
    """Build a configuration: a preset or a TOML file, then single fields on top.

    Parameters
    ----------
    preset : str, optional
        Name in `PRESETS`.
    file : Path, optional
        TOML file whose top-level keys are fields of `Config`. Excludes ``preset``.
    overrides : dict, optional
        Fields that win over both; ``None`` values are ignored.

    Raises
    ------
    ParoError
        For an unknown preset, an unreadable file or an illegal value.
    """
    if preset is not None and file is not None:
        raise ParoError("give either a preset or a configuration file, not both")
    values: dict[str, Any] = {}
    if preset is not None:
        values = find_named("preset", preset, PRESETS).model_dump()
    if file is not None:
        values = read_toml(file, "configuration")
    values |= {name: value for name, value in (overrides or {}).items() if value is not None}
    return Config(**values)
