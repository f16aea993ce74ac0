"""Payloads of the streams at the core's boundary."""

from amaranth.hdl import Shape, signed, unsigned
from amaranth.lib import data, stream

from paro.config import Config, formats
from paro.config.config import bits_unsigned

__all__ = [
    "CODES_PER_BEAT",
    "Activity",
    "activity_layout",
    "codes_signature",
    "command_signature",
    "fetch_signature",
    "k_signature",
    "o_signature",
    "q_signature",
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
    """One run: ``query_tokens`` rows of the map (from its first), ``key_tokens`` columns."""
    return stream.Signature(
        data.StructLayout(
            {"query_tokens": token_count_shape(config), "key_tokens": token_count_shape(config)}
        )
    )


def codes_signature(config: Config) -> stream.Signature:
    """Sixteen block codes a beat, lowest key block first; every block row starts a new beat."""
    return stream.Signature(data.ArrayLayout(unsigned(2), CODES_PER_BEAT))


def fetch_signature(config: Config) -> stream.Signature:
    """Request of the core: ``operand`` (`formats.Operand`) of token block ``block``."""
    return stream.Signature(
        data.StructLayout(
            {"operand": unsigned(2), "block": unsigned(bits_unsigned(config.blocks_max - 1))}
        )
    )


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
    """As `q_signature`, for keys."""
    return _chunk_signature(config, formats.KEY_SCALE_BITS)


def v_signature(config: Config) -> stream.Signature:
    """``load_bytes`` channels of one token; for each valid token of the block, for each group."""
    return stream.Signature(data.ArrayLayout(signed(8), config.load_bytes))


def o_signature(config: Config) -> stream.Signature:
    """``output_words`` channels of one query; for each valid query in order, for each group."""
    return stream.Signature(data.ArrayLayout(signed(formats.OUT_BITS), config.output_words))
