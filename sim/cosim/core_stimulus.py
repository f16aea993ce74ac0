"""From quantised heads and layers to the beats that the core reads."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.hdl import Shape
from amaranth.lib import data

from firmware_model.host.jobs import HeadJob, Job, LayerJob
from paro.config import Config, files
from paro.config.formats import KEY_SCALE_BITS, LANES, OUT_SHIFTS, Kind, Operand
from rtl import interfaces
from sim.cosim.core_scenario import CommandBeats

__all__ = ["Stimulus", "make_stimulus", "pack_beats", "unpack_words"]

#: Fills the places that the core must ignore.
_ANYTHING = 0x55
_STREAMS: tuple[str, ...] = ("command", "codes", "q", "k", "v")


@dataclass(frozen=True)
class Stimulus:
    """Beats of some commands, one for each job, and where each thing lies in them.

    Parameters
    ----------
    beats : dict of str to array
        uint8 [beats, bytes] for each input stream, little-endian.
    commands : list of CommandBeats
        Where the beats of each command lie.
    """

    beats: dict[str, np.ndarray]
    commands: list[CommandBeats]

    @property
    def depth(self) -> int:
        """Most beats of one stream."""
        return max(len(rows) for rows in self.beats.values())

    def write_beats(self, folder: Path) -> None:
        """Write what the harness reads: ``<stream>.hex``."""
        for name, rows in self.beats.items():
            lines = [row.tobytes().hex() for row in rows[:, ::-1]]
            files.write_text(folder / f"{name}.hex", "\n".join(lines) + "\n")


class _Beats:
    """Beats of all streams, as they are placed one after the other."""

    def __init__(self, config: Config) -> None:
        self._parts = {name: [_no_beats(config, name)] for name in _STREAMS}
        self._placed = dict.fromkeys(_STREAMS, 0)

    def place(self, stream: str, rows: np.ndarray) -> tuple[int, int]:
        """Append beats; returns the first one's number, and how many they are."""
        first = self._placed[stream]
        self._parts[stream].append(rows)
        self._placed[stream] += len(rows)
        return first, len(rows)

    def joined(self) -> dict[str, np.ndarray]:
        return {name: np.concatenate(rows) for name, rows in self._parts.items()}


def make_stimulus(config: Config, jobs: Sequence[Job]) -> Stimulus:
    """Turn jobs into beats, as `rtl.interfaces` describes them."""
    beats = _Beats(config)
    commands = [
        _place_layer(config, job, beats)
        if isinstance(job, LayerJob)
        else _place_head(config, job, beats)
        for job in jobs
    ]
    return Stimulus(beats.joined(), commands)


def _place_head(config: Config, job: HeadJob, beats: _Beats) -> CommandBeats:
    head, queries = job.head, job.queries(config)
    window = slice(queries.start, queries.stop)
    command = {"query_tokens": len(queries), "key_tokens": head.tokens}
    beats.place("command", _command_beat(config, Kind.ATTENTION, command))
    # Beats of a whole block.
    chunks = config.block // config.load_tokens * config.head_dim // LANES
    groups = config.block * config.head_dim // config.load_bytes
    fetch = {}
    for operand, rows, size in (
        (Operand.Q, _chunk_beats(config, "q", head.q8[window], head.mq[window]), chunks),
        (Operand.K, _chunk_beats(config, "k", head.k8, _key_scales(head.mk)), chunks),
        (Operand.V, _value_beats(config, head.v8), groups),
    ):
        first, count = beats.place(operand.name.lower(), rows)
        fetch[operand.name] = [
            (first + start, min(size, count - start)) for start in range(0, count, size)
        ]
    return CommandBeats(
        codes=beats.place("codes", _code_beats(job.code_words(config))),
        fetch=fetch,
        chunks=0,
        output_beats=len(queries) * config.head_dim // config.output_words,
        rows=job.row_places(config),
    )


def _place_layer(config: Config, job: LayerJob, beats: _Beats) -> CommandBeats:
    chunks, codes = job.codes.shape[1], _code_beats(job.code_words(config))
    command = {
        "query_tokens": job.tokens,
        "key_tokens": job.outputs,
        "chunks": chunks,
        "sum_shift": job.sum_shift,
        "out_shift": OUT_SHIFTS.index(job.out_shift),
    }
    beats.place("command", _command_beat(config, Kind.LINEAR, command))
    fetch = {}
    for stream, values, scales, block in (
        ("q", job.device_inputs(config), job.mx, config.layer_tokens),
        ("k", job.device_weights(config), job.device_weight_scales(), config.block),
    ):
        fetch[stream.upper()] = [
            beats.place(stream, _chunk_beats(config, stream, tile, scales[first : first + block]))
            for first in range(0, len(values), block)
            for tile in np.split(values[first : first + block], chunks, axis=1)
        ]
    return CommandBeats(
        codes=beats.place("codes", np.tile(codes, (job.superblocks(config), 1))),
        fetch=fetch,
        chunks=chunks,
        output_beats=len(job.stream_order(config)) // config.output_words,
        rows=job.row_places(config),
    )


def _key_scales(mantissas: np.ndarray) -> np.ndarray:
    """Scales of a head's K: above the mantissa, where a layer has its bias, stands anything."""
    return mantissas | _ANYTHING << KEY_SCALE_BITS


def pack_beats(layout: Any, values: Any) -> np.ndarray:
    """Pack values into beats.

    Parameters
    ----------
    layout : data.Layout or ShapeLike
        Payload of the stream.
    values : dict or array
        For a struct a dict by field; for an array [beats, length, ...]; for an integer [beats].

    Returns
    -------
    np.ndarray
        uint8 [beats, bytes], little-endian.
    """
    shape = Shape.cast(layout)
    first = values
    while isinstance(first, dict):
        first = next(iter(first.values()))
    bits = np.zeros((len(first), shape.width), np.uint8)
    _place_bits(bits, layout, values)
    return np.packbits(bits, axis=1, bitorder="little")


def _place_bits(bits: np.ndarray, layout: Any, values: Any) -> None:
    if isinstance(layout, data.StructLayout):
        for name, field in layout:
            part = bits[:, field.offset : field.offset + field.width]
            _place_bits(part, field.shape, values[name])
    elif isinstance(layout, data.ArrayLayout):
        for index, field in layout:
            part = bits[:, field.offset : field.offset + field.width]
            _place_bits(part, field.shape, values[:, index])
    else:
        shape = Shape.cast(layout)
        low = -(1 << shape.width - 1) if shape.signed else 0
        if values.min() < low or values.max() >= low + (1 << shape.width):
            raise ValueError(f"{values.min()} .. {values.max()} does not fit {shape}")
        bits[:] = values.astype(np.int64)[:, None] >> np.arange(shape.width) & 1


def _payload(signature: Any) -> Any:
    return signature.members["payload"].shape


def _command_beat(config: Config, kind: Kind, given: dict[str, int]) -> np.ndarray:
    """Return a command; what it is not given is anything."""
    layout = _payload(interfaces.command_signature(config))
    values = {
        name: np.array([given.get(name, _ANYTHING & (1 << field.width) - 1)])
        for name, field in layout
    }
    return pack_beats(layout, values | {"kind": np.array([kind])})


def _no_beats(config: Config, stream: str) -> np.ndarray:
    layout = _payload(getattr(interfaces, f"{stream}_signature")(config))
    return np.zeros((0, -(-Shape.cast(layout).width // 8)), np.uint8)


def _code_beats(words: np.ndarray) -> np.ndarray:
    return words.astype("<u4").view(np.uint8).reshape(len(words), -1)


def _chunk_beats(config: Config, stream: str, values: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Beats of Q or K: groups of ``load_tokens`` tokens, four channels at a time."""
    side_by_side = config.load_tokens
    missing = -len(values) % side_by_side
    channels = np.pad(values, ((0, missing), (0, 0)), constant_values=_ANYTHING)
    channels = channels.reshape(-1, side_by_side, config.head_dim // LANES, LANES)
    chunks = channels.transpose(0, 2, 1, 3).reshape(-1, side_by_side, LANES)
    scale = np.pad(scales, (0, missing), constant_values=_ANYTHING)
    scale = scale.reshape(-1, side_by_side).repeat(config.head_dim // LANES, axis=0)
    signature = getattr(interfaces, f"{stream}_signature")(config)
    return pack_beats(_payload(signature), {"data": chunks, "scale": scale})


def _value_beats(config: Config, values: np.ndarray) -> np.ndarray:
    layout = _payload(interfaces.v_signature(config))
    return pack_beats(layout, values.reshape(-1, config.load_bytes))


def unpack_words(lines: list[str]) -> np.ndarray:
    """Output words int16, in order, from lines of ``o.hex``; unknown digits count as 0."""
    if not lines:
        return np.zeros(0, np.int16)
    digits = re.sub(r"[^0-9a-fA-F]", "0", "".join(lines))
    rows = np.frombuffer(bytes.fromhex(digits), np.uint8).reshape(len(lines), -1)
    return rows[:, ::-1].copy().view("<i2").reshape(-1)
