"""Bursts of the accelerator: those that read the blocks of an image's jobs, those that write."""

from dataclasses import dataclass

import numpy as np

from firmware_model.host import superblocks
from firmware_model.host.image import Image
from paro.config import Config, formats
from paro.config.config import blocks_of
from paro.config.descriptor import DESCRIPTOR_BYTES, unpack_descriptor
from paro.config.formats import CODE_WORD_BYTES, SCALE_BYTES, Kind
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

    Its descriptor is one block, and so are the first codes of each core.
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
        queries = fields["first_block_row"] * config.block + fields["query_tokens"]
        operands = {
            kind: _operand_bursts(config, fields, kind.name.lower(), own)
            for kind, own in (
                (ReadKind.Q, tokens[:queries]),
                (ReadKind.K, tokens),
                (ReadKind.V, tokens),
            )
        }
    return {
        **operands,
        ReadKind.DESCRIPTOR: _runs_bursts(config, [[(descriptor, DESCRIPTOR_BYTES)]]),
        ReadKind.CODES: _runs_bursts(
            config, [_code_runs(config, fields, core) for core in range(config.cores)]
        ),
    }


def code_word_count(config: Config, rows: int, columns: int, *, linear: bool) -> int:
    """Beats of codes of so many rows of a core, of a layer of all its output blocks.

    See `rtl.accelerator.code_reader.code_rows`.
    """
    if config.query_rows > 1:
        rows += rows if linear else blocks_of(rows, config.query_rows)
    return rows * blocks_of(columns, CODES_PER_BEAT)


def _code_runs(config: Config, fields: dict[str, int], core: int) -> list[tuple[int, int]]:
    """Address and length of each run of a core's first codes."""
    linear = fields["kind"] == Kind.LINEAR
    step = config.layer_tokens if linear else config.block
    rows = len(superblocks.deal(blocks_of(fields["query_tokens"], step), config)[core])
    if rows == 0:
        return []
    columns, passes = config.blocks_of(fields["key_tokens"]), 1
    if linear:
        passes = blocks_of(rows, config.query_rows)
        rows, columns = columns, fields["chunks"]
    words = code_word_count(config, rows, columns, linear=linear)
    units = blocks_of(words, config.load_tokens)
    begin = fields["codes_address"] + core * fields["codes_stride"] * CODE_WORD_BYTES
    runs, reserved = [], 0
    for first in [*range(0, units, code_reader.RUN_UNITS)] * passes:
        if reserved > code_reader.WAITING_UNITS - code_reader.RUN_UNITS:
            break
        asked = min(code_reader.RUN_UNITS, units - first)
        runs.append((begin + first * config.load_bytes, asked * config.load_bytes))
        reserved += asked
    return runs


def _runs_bursts(config: Config, blocks: list[list[tuple[int, int]]]) -> BlockBursts:
    """Bursts of blocks of runs, each of an address and a length."""
    first, bursts = [0], []
    for runs in blocks:
        for number, (address, length) in enumerate(runs):
            bursts += _read_run(config, address, length, number)
        first.append(len(bursts))
    return BlockBursts(np.array(first), new_records(ReadBurst, bursts))


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
    """Where the block rows of a head's outputs are written, in the order of the head.

    Rows of a layer are numbered block of tokens by block of tokens, each with all output blocks.

    Parameters
    ----------
    rows : np.ndarray
        int64 [rows + 1]: index of a row's first run.
    runs : np.ndarray
        int64 [runs + 1, 6]: tokens, address, units of a token, positions of the row's first token
        and of the one after its last, first burst; of the run after the last one only that.
    bursts : np.ndarray
        `OutputBurst` [bursts].
    """

    rows: np.ndarray
    runs: np.ndarray
    bursts: np.ndarray

    def row_bursts(self, row: int) -> list[tuple[int, int]]:
        """Address and beats of each burst of a row."""
        first, end = self.runs[self.rows[row : row + 2], 5]
        return [(int(burst.address), int(burst.beats)) for burst in self.bursts[first:end]]


def head_outputs(config: Config, image: Image, head: int) -> HeadOutputs:
    """Runs and bursts that write a head's outputs."""
    fields = head_fields(image, head)
    word_bytes = 1 if fields["out_cut"] else formats.OUT_BYTES
    stride, row_bytes = fields["o_row_stride"], word_bytes * config.head_dim
    if fields["kind"] == Kind.LINEAR:
        row_bytes = word_bytes * config.block
        tokens, begin, step = np.arange(fields["query_tokens"]), 0, config.layer_tokens
        parts = config.blocks_of(fields["key_tokens"])
    else:
        begin, step, parts = fields["first_block_row"] * config.block, config.block, 1
        tokens = _tokens_in_order(fields)[: begin + fields["query_tokens"]]
    units = row_bytes // config.output_bytes
    rows, runs, bursts = [], [], []
    for position in range(begin, len(tokens), step):
        part = tokens[position : position + step]
        for number in range(parts):
            rows.append(len(runs))
            base = fields["o_address"] + number * row_bytes
            for first, end in _runs(part, stride == row_bytes):
                address = base + int(part[first]) * stride
                place = (position, position + len(part), len(bursts))
                runs.append((end - first, address, units, *place))
                words_end, length = 0, (end - first) * row_bytes
                for burst, beats, words, _ in _split(
                    config, address, length, write_master.BURST_BEATS
                ):
                    words_end += words
                    bursts.append((burst, beats, words_end))
    rows.append(len(runs))
    runs.append((0, 0, 0, -1, -1, len(bursts)))
    return HeadOutputs(np.array(rows), np.array(runs), new_records(OutputBurst, bursts))


def _runs(tokens: np.ndarray, dense: bool) -> list[tuple[int, int]]:
    """First and end of the stretches of tokens whose rows follow each other in memory."""
    ends = np.append(np.flatnonzero((np.diff(tokens) != 1) | (not dense)) + 1, len(tokens))
    return list(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True))


def _operand_bursts(
    config: Config, fields: dict[str, int], operand: str, positions: np.ndarray
) -> BlockBursts:
    """Bursts of the tokens at a head's positions, block by block."""
    base, stride = fields[f"{operand}_address"], fields[f"{operand}_row_stride"]
    first, bursts = [0], []
    for place in range(0, len(positions), config.block):
        tokens = positions[place : place + config.block]
        if operand != "v":
            units = -(-len(tokens) // config.load_tokens)
            address = fields[f"{operand}_scales_address"] + place * SCALE_BYTES
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
