"""Bursts of the accelerator: what it reads of an image's heads, block by block, and writes."""

from dataclasses import dataclass

import numpy as np

from firmware_model.driver import Image
from paro_config import Config, formats
from paro_config.descriptor import DESCRIPTOR_BYTES, unpack_descriptor
from paro_config.formats import SCALE_BYTES
from rtl import read_master, write_master
from rtl.axi import WORD_BYTES

__all__ = ["BlockBursts", "block_bursts", "head_fields", "output_bursts"]


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
    """Natural token at each position of the head's order: grid, prefix, suffix."""
    count, prefix, suffix = (fields[f"{n}_tokens"] for n in ("key", "prefix", "suffix"))
    outer, middle, inner = (
        np.arange(fields[f"{axis}_extent"]) * fields[f"{axis}_stride"]
        for axis in ("outer", "middle", "inner")
    )
    grid = prefix + (outer[:, None, None] + middle[:, None] + inner).ravel()
    return np.concatenate([grid, np.arange(prefix), np.arange(count - suffix, count)])


def output_bursts(config: Config, image: Image, head: int) -> np.ndarray:
    """Bursts that write a head's outputs, in order.

    Returns
    -------
    np.ndarray
        int64 [bursts, 3]: address of the first beat, beats, bytes that are written with it in all.
    """
    fields = head_fields(image, head)
    begin = fields["first_block_row"] * config.block
    tokens = _tokens_in_order(fields)[begin : begin + fields["query_tokens"]]
    row_bytes, stride = formats.OUT_BITS // 8 * config.head_dim, fields["o_row_stride"]
    bursts = []
    for first in range(0, len(tokens), config.block):
        for start, end in _runs(tokens[first : first + config.block], stride == row_bytes):
            address = fields["o_address"] + int(tokens[first + start]) * stride
            length = (end - start) * row_bytes
            until = address
            for burst, beats, words, _ in _split(
                config, address, length, 0, write_master.BURST_BEATS
            ):
                until += words * WORD_BYTES
                bursts.append((burst, beats, (first + start) * row_bytes + until - address))
    return np.array(bursts, np.int64)


def _runs(tokens: np.ndarray, dense: bool) -> list[tuple[int, int]]:
    """First and end of the stretches of tokens whose rows follow each other in memory."""
    ends = np.append(np.flatnonzero((np.diff(tokens) != 1) | (not dense)) + 1, len(tokens))
    return list(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True))


def _operand_bursts(
    config: Config, fields: dict[str, int], operand: str, blocks: list[np.ndarray]
) -> BlockBursts:
    base, stride = fields[f"{operand}_address"], fields[f"{operand}_row_stride"]
    longest = read_master.BURST_BEATS
    first, bursts = [0], []
    for number, tokens in enumerate(blocks):
        if operand != "v":
            units = -(-len(tokens) // config.load_tokens)
            address = fields[f"{operand}_scales_address"] + number * config.block * SCALE_BYTES
            bursts += _split(config, address, units * config.load_bytes, 0, longest)
        for begin, end in _runs(tokens, stride == config.head_dim):
            address = base + int(tokens[begin]) * stride
            bursts += _split(config, address, (end - begin) * config.head_dim, end, longest)
        first.append(len(bursts))
    return BlockBursts(np.array(first), np.array(bursts, np.int64))


def _split(
    config: Config, address: int, length: int, placed: int, most_beats: int
) -> list[tuple[int, ...]]:
    """Bursts of a run: they end where a multiple of the longest burst's bytes is reached."""
    beat_bytes = config.axi_bits // 8
    longest = most_beats * beat_bytes
    bursts, end = [], address + length
    while address < end:
        until = min(end, (address // longest + 1) * longest)
        aligned = address // beat_bytes * beat_bytes
        beats = -(-(until - aligned) // beat_bytes)
        bursts.append((aligned, beats, (until - address) // WORD_BYTES, placed))
        address = until
    return bursts
