"""Bursts that the accelerator reads: of every block of Q, K and V of the heads in an image."""

from dataclasses import dataclass

import numpy as np

from firmware_model.driver import Image
from paro_config import Config
from paro_config.descriptor import DESCRIPTOR_BYTES, unpack_descriptor
from paro_config.formats import SCALE_BYTES
from rtl.axi import WORD_BYTES
from rtl.read_master import BURST_BEATS

__all__ = ["BlockBursts", "block_bursts", "head_fields"]


@dataclass(frozen=True, eq=False)
class BlockBursts:
    """Bursts of the blocks of one operand of a head, in order.

    Parameters
    ----------
    first : np.ndarray
        int64 [blocks + 1]: index of a block's first burst.
    bursts : np.ndarray
        int64 [bursts, 4]: address of the first beat, beats, 32-bit words of them that are wanted,
        tokens of the block whose rows must be placed before the burst is known (0: scales).
    """

    first: np.ndarray
    bursts: np.ndarray


def head_fields(image: Image, head: int) -> dict[str, int]:
    """Fields of a head's descriptor."""
    at = image.queue_base - image.base + head * DESCRIPTOR_BYTES
    return unpack_descriptor(image.data[at : at + DESCRIPTOR_BYTES])


def block_bursts(config: Config, image: Image, head: int) -> dict[str, BlockBursts]:
    """Bursts of ``q``, ``k`` and ``v`` of a head, for all of its blocks."""
    fields = head_fields(image, head)
    tokens = _tokens_in_order(fields)
    blocks = [tokens[i : i + config.block] for i in range(0, len(tokens), config.block)]
    return {operand: _operand_bursts(config, fields, operand, blocks) for operand in "qkv"}


def _tokens_in_order(fields: dict[str, int]) -> np.ndarray:
    """Natural token at each position of the head's order: prefix, suffix, grid."""
    count, prefix, suffix = (fields[f"{n}_tokens"] for n in ("key", "prefix", "suffix"))
    outer, middle, inner = (
        np.arange(fields[f"{axis}_extent"]) * fields[f"{axis}_stride"]
        for axis in ("outer", "middle", "inner")
    )
    grid = prefix + (outer[:, None, None] + middle[:, None] + inner).ravel()
    return np.concatenate([np.arange(prefix), np.arange(count - suffix, count), grid])


def _operand_bursts(
    config: Config, fields: dict[str, int], operand: str, blocks: list[np.ndarray]
) -> BlockBursts:
    base, stride = fields[f"{operand}_address"], fields[f"{operand}_row_stride"]
    first, bursts = [0], []
    for number, tokens in enumerate(blocks):
        if operand != "v":
            units = -(-len(tokens) // config.load_tokens)
            address = fields[f"{operand}_scales_address"] + number * config.block * SCALE_BYTES
            bursts += _split(config, address, units * config.load_bytes, 0)
        joins = (np.diff(tokens) == 1) & (stride == config.head_dim)
        ends = np.append(np.flatnonzero(~joins) + 1, len(tokens))
        for begin, end in zip(np.append(0, ends[:-1]), ends, strict=True):
            address = base + int(tokens[begin]) * stride
            bursts += _split(config, address, int(end - begin) * config.head_dim, int(end))
        first.append(len(bursts))
    return BlockBursts(np.array(first), np.array(bursts, np.int64))


def _split(config: Config, address: int, length: int, placed: int) -> list[tuple[int, ...]]:
    """Bursts of a run: they end where a multiple of the longest burst's bytes is reached."""
    beat_bytes = config.axi_bits // 8
    longest = BURST_BEATS * beat_bytes
    bursts, end = [], address + length
    while address < end:
        until = min(end, (address // longest + 1) * longest)
        aligned = address // beat_bytes * beat_bytes
        beats = -(-(until - aligned) // beat_bytes)
        bursts.append((aligned, beats, (until - address) // WORD_BYTES, placed))
        address = until
    return bursts
