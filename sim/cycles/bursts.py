"""Bursts of the accelerator: those that read the blocks of an image's jobs, those that write."""

from dataclasses import dataclass

import numpy as np

from firmware_model.host import superblocks
from firmware_model.host.image import Image
from paro.config import Config, formats
from paro.config.config import blocks_of
from paro.config.descriptor import DESCRIPTOR_BYTES, unpack_descriptor
from paro.config.formats import SCALE_BYTES, Kind
from rtl.accelerator import code_reader
from rtl.bus import read_master, write_master
from rtl.bus.axi import WORD_BYTES
from rtl.interfaces import CODES_PER_BEAT
from sim.cycles.port_kernel import OutputBurst, ReadBurst, ReadKind
from sim.cycles.records import new_records

__all__ = [
    "BlockBursts",
    "HeadOutputs",
    "block_bursts",
    "code_word_count",
    "head_fields",
    "head_outputs",
]


@dataclass(frozen=True, eq=False)
class BlockBursts:
    """Bursts of the blocks of one operand of a head, in order.

    Parameters
    ----------
    first : np.ndarray
        int64 [blocks + 1]: index of a block's first burst.
    bursts : np.ndarray
        `ReadBurst` [bursts].
    """

    first: np.ndarray
    bursts: np.ndarray


def head_fields(image: Image, head: int) -> dict[str, int]:
    """Fields of a head's descriptor."""
    at = image.queue_base - image.base + head * DESCRIPTOR_BYTES
    return unpack_descriptor(image.data[at : at + DESCRIPTOR_BYTES])


def block_bursts(config: Config, image: Image, head: int) -> dict[ReadKind, BlockBursts]:
    """Bursts of all blocks that are read of a head.

    Its descriptor and its first codes are one block each.
    """
    fields = head_fields(image, head)
    descriptor = image.queue_base + head * DESCRIPTOR_BYTES
    if fields["kind"] == Kind.LINEAR:
        operands = {
            ReadKind.Q: _layer_bursts(config, fields, "q", "query", config.layer_tokens),
            ReadKind.K: _layer_bursts(config, fields, "k", "key", config.block),
            ReadKind.V: BlockBursts(np.array([0]), new_records(ReadBurst, [])),
        }
    else:
        tokens = _tokens_in_order(fields)
        blocks = [tokens[i : i + config.block] for i in range(0, len(tokens), config.block)]
        operands = {
            kind: _operand_bursts(config, fields, kind.name.lower(), blocks)
            for kind in (ReadKind.Q, ReadKind.K, ReadKind.V)
        }
    return {
        **operands,
        ReadKind.DESCRIPTOR: _runs_bursts(config, [(descriptor, DESCRIPTOR_BYTES)]),
        ReadKind.CODES: _runs_bursts(config, _code_runs(config, fields)),
    }


def code_word_count(config: Config, fields: dict[str, int]) -> int:
    """Words of a head's codes, see `rtl.accelerator.code_reader.code_rows`."""
    rows, columns = (config.blocks_of(fields[f"{name}_tokens"]) for name in ("query", "key"))
    more = blocks_of(rows, config.query_rows)
    if fields["kind"] == Kind.LINEAR:
        more = rows = columns
        columns = fields["chunks"]
    if config.query_rows > 1:
        rows += more
    return rows * blocks_of(columns, CODES_PER_BEAT)


def _code_runs(config: Config, fields: dict[str, int]) -> list[tuple[int, int]]:
    """Address and length of each run of a head's first codes."""
    units = blocks_of(code_word_count(config, fields), config.load_tokens)
    passes = 1
    if fields["kind"] == Kind.LINEAR and config.query_rows > 1:
        passes = blocks_of(fields["query_tokens"], config.query_rows * config.layer_tokens)
    runs, reserved = [], 0
    for first in [*range(0, units, code_reader.RUN_UNITS)] * passes:
        if reserved > code_reader.WAITING_UNITS - code_reader.RUN_UNITS:
            break
        asked = min(code_reader.RUN_UNITS, units - first)
        address = fields["codes_address"] + first * config.load_bytes
        runs.append((address, asked * config.load_bytes))
        reserved += asked
    return runs


def _runs_bursts(config: Config, runs: list[tuple[int, int]]) -> BlockBursts:
    """Bursts of runs, each of an address and a length, as one block."""
    bursts = []
    for number, (address, length) in enumerate(runs):
        bursts += _read_run(config, address, length, number)
    return BlockBursts(np.array([0, len(bursts)]), new_records(ReadBurst, bursts))


def _tokens_in_order(fields: dict[str, int]) -> np.ndarray:
    """Natural token at each position of the head's order: grid, prefix, suffix."""
    count, prefix, suffix = (fields[f"{n}_tokens"] for n in ("key", "prefix", "suffix"))
    outer, middle, inner = (
        np.arange(fields[f"{axis}_extent"]) * fields[f"{axis}_stride"]
        for axis in ("outer", "middle", "inner")
    )
    grid = prefix + (outer[:, None, None] + middle[:, None] + inner).ravel()
    return np.concatenate([grid, np.arange(prefix), np.arange(count - suffix, count)])


@dataclass(frozen=True, eq=False)
class HeadOutputs:
    """Outputs of a head as they are written, in order.

    Parameters
    ----------
    runs : np.ndarray
        int64 [runs, 4]: queries, address, position of the block that begins with it or -1, units
        of a query.
    bursts : np.ndarray
        `OutputBurst` [bursts]; they count the words of this head.
    """

    runs: np.ndarray
    bursts: np.ndarray


def head_outputs(config: Config, image: Image, head: int) -> HeadOutputs:
    """Runs and bursts that write a head's outputs."""
    fields = head_fields(image, head)
    word_bytes = 1 if fields["out_cut"] else formats.OUT_BYTES
    stride, row_bytes = fields["o_row_stride"], word_bytes * config.head_dim
    if fields["kind"] == Kind.LINEAR:
        row_bytes = word_bytes * config.block
        blocks = [
            (fields["o_address"] + number * row_bytes, position, part)
            for number, position, part in _layer_blocks(config, fields)
        ]
    else:
        tokens = _tokens_in_order(fields)
        begin = fields["first_block_row"] * config.block
        end = begin + fields["query_tokens"]
        blocks = []
        for row in _row_order(config, image, fields):
            position = begin + row * config.block
            part = tokens[position : min(position + config.block, end)]
            blocks.append((fields["o_address"], position, part))
    units = row_bytes // (formats.OUT_BYTES * config.output_words)
    runs, bursts, words_end = [], [], 0
    for base, position, part in blocks:
        for start, end in _runs(part, stride == row_bytes):
            address = base + int(part[start]) * stride
            runs.append((end - start, address, -1 if start else position, units))
            length = (end - start) * row_bytes
            for burst, beats, words, _ in _split(config, address, length, write_master.BURST_BEATS):
                words_end += words
                bursts.append((burst, beats, words_end))
    return HeadOutputs(np.array(runs, np.int64), new_records(OutputBurst, bursts))


def _layer_blocks(config: Config, fields: dict[str, int]) -> list[tuple[int, int, np.ndarray]]:
    """Output block, first token and tokens of each row of a layer, as rows leave the core."""
    tokens = np.arange(fields["query_tokens"])
    return [
        (number, position, tokens[position : position + config.layer_tokens])
        for first in range(0, len(tokens), config.query_rows * config.layer_tokens)
        for number in range(config.blocks_of(fields["key_tokens"]))
        for position in range(first, len(tokens), config.layer_tokens)[: config.query_rows]
    ]


def _row_order(config: Config, image: Image, fields: dict[str, int]) -> list[int]:
    """Rows of a head that are computed, as they leave the core: its codes tell."""
    rows = config.blocks_of(fields["query_tokens"])
    if config.query_rows == 1:
        return list(range(rows))
    at = fields["codes_address"] - image.base
    words = np.frombuffer(image.data, "<u4", code_word_count(config, fields), at)
    codes = superblocks.codes_of_words(words, rows, config)
    return superblocks.leaving_order(codes, config).tolist()


def _runs(tokens: np.ndarray, dense: bool) -> list[tuple[int, int]]:
    """First and end of the stretches of tokens whose rows follow each other in memory."""
    ends = np.append(np.flatnonzero((np.diff(tokens) != 1) | (not dense)) + 1, len(tokens))
    return list(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True))


def _operand_bursts(
    config: Config, fields: dict[str, int], operand: str, blocks: list[np.ndarray]
) -> BlockBursts:
    base, stride = fields[f"{operand}_address"], fields[f"{operand}_row_stride"]
    first, bursts = [0], []
    for number, tokens in enumerate(blocks):
        if operand != "v":
            units = -(-len(tokens) // config.load_tokens)
            address = fields[f"{operand}_scales_address"] + number * config.block * SCALE_BYTES
            bursts += _read_run(config, address, units * config.load_bytes, 0)
        for begin, end in _runs(tokens, stride == config.head_dim):
            address = base + int(tokens[begin]) * stride
            bursts += _read_run(config, address, (end - begin) * config.head_dim, end)
        first.append(len(bursts))
    return BlockBursts(np.array(first), new_records(ReadBurst, bursts))


def _layer_bursts(
    config: Config, fields: dict[str, int], operand: str, rows: str, block: int
) -> BlockBursts:
    """Bursts of a layer's inputs or weights: for each block of rows, for each chunk."""
    base, stride = fields[f"{operand}_address"], fields[f"{operand}_row_stride"]
    first, bursts = [0], []
    for begin in range(0, fields[f"{rows}_tokens"], block):
        part = np.arange(begin, min(begin + block, fields[f"{rows}_tokens"]))
        scales = fields[f"{operand}_scales_address"] + begin * SCALE_BYTES
        length = blocks_of(len(part), config.load_tokens) * config.load_bytes
        for chunk in range(fields["chunks"]):
            bursts += _read_run(config, scales, length, 0)
            for start, end in _runs(part, stride == config.head_dim):
                address = base + int(part[start]) * stride + chunk * config.head_dim
                bursts += _read_run(config, address, (end - start) * config.head_dim, end)
            first.append(len(bursts))
    return BlockBursts(np.array(first), new_records(ReadBurst, bursts))


def _read_run(config: Config, address: int, length: int, part: int) -> list[ReadBurst]:
    """Bursts that read a run."""
    bursts = _split(config, address, length, read_master.BURST_BEATS)
    return [ReadBurst(*burst, part) for burst in bursts]


def _split(
    config: Config, address: int, length: int, most_beats: int
) -> list[tuple[int, int, int, int]]:
    """Split a run into bursts, which end where a multiple of the longest burst's bytes is reached.

    Returns for each the address of the first beat, the beats, the words of the run, and the lane of
    the first one.
    """
    beat_bytes = config.axi_bits // 8
    longest = most_beats * beat_bytes
    bursts, end = [], address + length
    while address < end:
        until = min(end, (address // longest + 1) * longest)
        aligned = address // beat_bytes * beat_bytes
        beats = -(-(until - aligned) // beat_bytes)
        words, lane = (until - address) // WORD_BYTES, (address - aligned) // WORD_BYTES
        bursts.append((aligned, beats, words, lane))
        address = until
    return bursts
