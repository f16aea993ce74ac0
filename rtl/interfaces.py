"""Payloads of the streams at the core's boundary."""

from amaranth.hdl import Shape, signed, unsigned
from amaranth.lib import data, stream

from paro.config import Config, formats
from paro.config.config import bits_unsigned

__all__ = [
    "CODES_PER_BEAT",
    "Activity",
    "activity_layout",
    "block_index_bits",
    "codes_signature",
    "command_signature",
    "fetch_signature",
    "k_signature",
    "layer_shifts",
    "o_signature",
    "q_signature",
    "rows_signature",
    "v_signature",
]

#: 2-bit block codes in one beat of the codes stream.
CODES_PER_BEAT = formats.CODES_PER_WORD


class Activity(data.Struct):
    """State of a stage in a cycle; at most one bit is 1."""

    busy: unsigned(1)  # it works
    starved: unsigned(1)  # it waits for the stages before it
    blocked: unsigned(1)  # it waits for the stages after it


def activity_layout() -> data.ArrayLayout:
    """`Activity` of every `formats.Stage`."""
    return data.ArrayLayout(Activity, len(formats.Stage))


def token_count_shape(config: Config) -> Shape:
    """Shape of a number of tokens, 0 .. max_tokens."""
    return unsigned(bits_unsigned(config.max_tokens))


def command_signature(config: Config) -> stream.Signature:
    """One run of a core: attention, or a linear layer (``kind``).

    Attention has ``query_tokens`` rows of the map (from its first) and ``key_tokens`` columns; the
    rest is ignored. A layer has ``query_tokens`` tokens, ``key_tokens`` output channels and
    ``chunks`` times head_dim input channels; ``sum_shift`` and ``out_shift``, an index in
    `formats.OUT_SHIFTS`, are those of section 7 of `docs/numerics.md`.
    """
    return stream.Signature(
        data.StructLayout(
            {
                "query_tokens": token_count_shape(config),
                "key_tokens": token_count_shape(config),
                "kind": unsigned(1),
                "chunks": unsigned(bits_unsigned(config.chunks_max)),
                **layer_shifts(),
            }
        )
    )


def layer_shifts() -> dict[str, Shape]:
    """Shifts of a linear layer, see `command_signature`."""
    return {
        "sum_shift": unsigned(bits_unsigned(formats.SUM_SHIFT_MAX)),
        "out_shift": unsigned(bits_unsigned(len(formats.OUT_SHIFTS) - 1)),
    }


def codes_signature(config: Config) -> stream.Signature:
    """Sixteen block codes a beat, lowest key block first; every block row starts a new beat.

    Of a layer: codes of an output block's tiles, lowest chunk first, for each superblock of
    ``query_rows`` blocks of ``layer_tokens`` tokens, for each output block.

    With superblocks (``query_rows`` > 1), for each of them, for each sixteen columns: a beat whose
    bit i tells whether its row i has a live code in columns after these; then a beat of codes for
    each row (of a layer one beat for all of them).
    """
    return stream.Signature(data.ArrayLayout(unsigned(2), CODES_PER_BEAT))


def fetch_signature(config: Config) -> stream.Signature:
    """Request of the core: ``operand`` (`formats.Operand`) of token block ``block``.

    Of a layer: chunk ``chunk`` of the inputs (Q) of a block of ``layer_tokens`` tokens, or of the
    weights (K) of an output block. In a cluster (``cores`` > 1) also ``superblock``, the low bit of
    the number of the superblock that the block is fetched for.
    """
    return stream.Signature(
        data.StructLayout(
            {
                "operand": unsigned(2),
                "block": unsigned(block_index_bits(config)),
                "chunk": unsigned(bits_unsigned(config.chunks_max - 1)),
                **({"superblock": 1} if config.cores > 1 else {}),
            }
        )
    )


def block_index_bits(config: Config) -> int:
    """Width of the index of a block of tokens."""
    return bits_unsigned((config.max_tokens - 1) // config.layer_tokens)


def _chunk_signature(config: Config, scale_bits: int) -> stream.Signature:
    tokens = config.load_tokens
    return stream.Signature(
        data.StructLayout(
            {
                "data": data.ArrayLayout(data.ArrayLayout(signed(8), formats.LANES), tokens),
                "scale": data.ArrayLayout(unsigned(scale_bits), tokens),
            }
        )
    )


def q_signature(config: Config) -> stream.Signature:
    """Four channels of each of ``load_tokens`` queries, with the queries' scale mantissas.

    Beats of a block: for each group of ``load_tokens`` tokens, for each four channels. The scale is
    repeated in every beat of its token. Only the block's valid tokens are sent; the last
    group is filled up with anything.
    """
    return _chunk_signature(config, formats.QUERY_SCALE_BITS)


def k_signature(config: Config) -> stream.Signature:
    """As `q_signature`, for keys.

    A key's scale has `KEY_SCALE_BITS`. Above them, the scale of a layer's output channel has its
    bias, signed.
    """
    return _chunk_signature(config, formats.KEY_SCALE_BITS + formats.OUT_BITS)


def v_signature(config: Config) -> stream.Signature:
    """``load_bytes`` channels of one token; for each valid token of the block, for each group."""
    return stream.Signature(data.ArrayLayout(signed(8), config.load_bytes))


def rows_signature(config: Config) -> stream.Signature:
    """Block rows in the order in which they leave the core, each as its place in its superblock.

    A row comes when its last block is known, long before its first output. Only with superblocks
    (``query_rows`` > 1).
    """
    return stream.Signature(range(config.query_rows))


def o_signature(config: Config) -> stream.Signature:
    """``output_words`` channels of one query; for each valid query in order, for each group.

    Of a layer: for each superblock of tokens, for each output block, for each valid token, all
    words of the block; those past the layer's last output are undefined.

    Block rows of attention leave in the order in which their last blocks come, see
    `rtl.core.superblock_scheduler`.
    """
    return stream.Signature(data.ArrayLayout(signed(formats.OUT_BITS), config.output_words))
