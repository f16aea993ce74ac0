"""Cycle model: the RTL's cycles, from the block codes alone.

Nothing is simulated cycle by cycle. The core waits in few places, and the time between them is
fixed; so the model follows the blocks: when each is fetched, loaded, started on the array and
weighted, and when each query leaves. A time is a sum of the latencies that the modules of `rtl`
name, or the larger of two such sums.

Only the array sequencer makes choices: at the end of each product, it takes the next QK or the next
PV, whichever has its operands, and room for its results, first. Both depend on earlier choices
alone, so that one pass over the blocks finds all times in order. Outputs are followed two rows
later, since they meet the partial sums of the rows after them in memory.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from firmware_model.host import superblocks
from firmware_model.host.image import Image
from firmware_model.parallel import thread_pool
from paro.config import Config, ParoError
from paro.config.config import blocks_of
from paro.config.formats import LANES
from rtl import interfaces
from rtl.accelerator.accelerator import Accelerator
from rtl.core.drain import DrainRouter
from rtl.core.layer_output import LayerOutput
from rtl.core.logits import LogitBuffer
from rtl.core.normalizer import Normalizer
from rtl.core.output_accumulator import OutputAccumulator
from rtl.core.reciprocal import ReciprocalLane
from rtl.core.row_state import RowStateLane
from rtl.core.sequencer import ArraySequencer
from rtl.core.softmax import SoftmaxUnit
from rtl.lib.arithmetic import log2
from rtl.lib.stream_fifo import StreamFIFO
from sim.cycles.bursts import code_word_count
from sim.cycles.compilation import ensure_compiled
from sim.cycles.core_records import Command, CoreTiming, LoadState, new_cores
from sim.cycles.cycle_kernel import Model, new_model, predict_cycles
from sim.cycles.memory import Memory
from sim.cycles.memory_port import memory_port, no_port
from sim.cycles.port_kernel import MemoryPort
from sim.cycles.records import new_records
from sim.cycles.stall_kernel import generators
from sim.cycles.stalls import STREAMS

__all__ = [
    "BatchPrediction",
    "CoreWork",
    "LayerWork",
    "Prediction",
    "Work",
    "compile_model",
    "predict",
    "predict_accelerator",
    "predict_heads",
]


@dataclass(frozen=True, eq=False)
class CoreWork:
    """Work of one command of the core, for a head.

    Parameters
    ----------
    codes : np.ndarray
        uint8 [rows, key blocks]: block codes of the rows that are computed.
    query_tokens, key_tokens : int
        Tokens of these rows, and of the keys; the last block of either may be partial.
    """

    codes: np.ndarray
    query_tokens: int
    key_tokens: int


@dataclass(frozen=True, eq=False)
class LayerWork:
    """Work of one command of the core, for a linear layer.

    Parameters
    ----------
    codes : np.ndarray
        uint8 [blocks of outputs, chunks of inputs]: codes of the tiles.
    tokens, outputs : int
        Tokens and output channels; the last block of either may be partial.
    """

    codes: np.ndarray
    tokens: int
    outputs: int


#: Work of one command.
Work = CoreWork | LayerWork


@dataclass(frozen=True, eq=False)
class Prediction:
    """Cycles of some commands.

    Parameters
    ----------
    cycles : list of int
        For each command, cycles until the last of its outputs.
    total_cycles : int
        Cycles from the first command to the last output of all.
    row_ends : list of np.ndarray
        For each command, int64 [rows]: cycles from the first command to the row's last output.
    cores : list of dict of str to dict of str to int
        Stages of each core, as `sim.cosim.target.Simulation` has them.
    """

    cycles: list[int]
    total_cycles: int
    row_ends: list[np.ndarray]
    cores: list[dict[str, dict[str, int]]]

    @property
    def stages(self) -> dict[str, dict[str, int]]:
        """Stages of all cores together."""
        return {
            stage: {flag: sum(core[stage][flag] for core in self.cores) for flag in counts}
            for stage, counts in self.cores[0].items()
        }


@dataclass(frozen=True, eq=False)
class BatchPrediction:
    """Cycles of many heads, each on an idle core or cluster.

    Parameters
    ----------
    cycles : np.ndarray
        int64 [heads]: cycles from the command to the last output.
    stages : np.ndarray
        int64 [heads, stages, 3]: cycles in which each `formats.Stage` is busy, starved, blocked,
        of all cores together.
    """

    cycles: np.ndarray
    stages: np.ndarray


def compile_model() -> None:
    """Load the model's machine code, or compile it, before the first prediction would.

    Callers that start processes need it, since these announce nothing.
    """
    predict(Config(), [CoreWork(np.ones((1, 1), np.uint8), 1, 1)])


def _run(model: Model) -> Model:
    """Predict all commands of a new model; returns the model, which holds the results."""
    ensure_compiled(predict_cycles, (model,))
    predict_cycles(model)
    return model


def predict(
    config: Config,
    works: Sequence[Work],
    *,
    memory_latency: int = 0,
    stall_seed: int | None = None,
) -> Prediction:
    """Predict some commands, given one directly after the other.

    The cores of a cluster wait for one another's fetches of K and V; each has streams of its own,
    as fast as those of a core alone. See `predict_accelerator` for a memory port that they share.

    Parameters
    ----------
    config : Config
        The core, or the cluster.
    works : sequence of Work
        One for each command.
    memory_latency : int
        Cycles from a fetch (for codes and commands: from those before) to the first beat; one beat
        a cycle follows on each stream.
    stall_seed : int, optional
        Random stalls on every stream as in a co-simulation with this seed; ``None`` for none.

    Raises
    ------
    ParoError
        If shapes do not fit each other, a block row has no live block, or streams of a cluster
        shall stall.
    """
    _check_latency(memory_latency)
    if stall_seed is not None and config.cores > 1:
        raise ParoError(f"cycle model: stalls of {config.cores} cores' streams are not followed")
    codes, commands = _joined(config, works)
    # Reset ends so long before the first command.
    stalls = generators(stall_seed, STREAMS, min(1 - memory_latency, 0))
    timing = _core_timing(config, latency=memory_latency, paced=stall_seed is not None)
    return _prediction(_run(_model(config, timing, codes, commands, stalls, no_port(config))))


def _model(
    config: Config,
    timing: CoreTiming,
    codes: np.ndarray,
    commands: np.ndarray,
    stalls: Any,
    port: MemoryPort,
) -> Model:
    """Model that is before its first cycle."""
    loads = (
        LoadState(config.load_tokens, config.head_dim // LANES, config.cols),
        LoadState(config.load_tokens, config.head_dim // LANES, config.rows),
        LoadState(1, config.head_dim // config.load_bytes, config.block),
    )
    slots = (config.row_slots, config.key_slots, config.key_slots)
    cores = new_cores(timing, loads, slots, codes, commands, stalls)
    return new_model(cores, port, int(commands["rows"].sum()))


def _joined(config: Config, works: Sequence[Work]) -> tuple[np.ndarray, np.ndarray]:
    """Codes of all works one after the other, and commands [cores, works]."""
    if not works:
        raise ParoError("cycle model: there is nothing to compute")
    codes, commands, begin, first = [], [], 0, 0
    for work in works:
        linear = isinstance(work, LayerWork)
        if linear:
            part, tokens, step = _layer_codes(config, work), work.tokens, config.layer_tokens
        else:
            part = _checked_codes(config, work.codes[None], work)[0]
            tokens, step = work.query_tokens, config.block
        count, columns = blocks_of(tokens, step), part.shape[1]
        given = []
        for core, own in enumerate(superblocks.deal(count, config)):
            # Codes of a layer are those of its output blocks, for all cores.
            rows, parts = (part, len(part)) if linear else (part[own], 1)
            given.append(
                Command(
                    codes=begin,
                    rows=len(own) * parts,
                    columns=columns,
                    query_tokens=int(np.minimum(step, tokens - own * step).sum()),
                    key_tokens=work.outputs if linear else work.key_tokens,
                    first=first,
                    linear=int(linear),
                    key_blocks=parts,
                    code_words=code_word_count(config, len(rows), columns, linear=linear),
                )
            )
            if not linear or core == config.cores - 1:
                codes.append(rows.ravel())
                begin += rows.size
        commands += given
        first += sum(command.rows for command in given)
    by_work = new_records(Command, commands).reshape(len(works), config.cores)
    return np.concatenate(codes), np.ascontiguousarray(by_work.T)


def _layer_codes(config: Config, work: LayerWork) -> np.ndarray:
    """Codes of a layer as the model takes them; `ParoError` if they do not fit."""
    for name, count in (("tokens", work.tokens), ("outputs", work.outputs)):
        if not 1 <= count <= config.max_tokens:
            raise ParoError(f"cycle model: {count} {name}; legal: 1 to {config.max_tokens}")
    codes = np.ascontiguousarray(work.codes, np.uint8)
    if codes.ndim != 2 or len(codes) != config.blocks_of(work.outputs):
        raise ParoError(
            f"cycle model: {work.outputs} outputs do not make codes of shape {codes.shape}"
        )
    if not 1 <= codes.shape[1] <= config.chunks_max:
        raise ParoError(
            f"cycle model: {codes.shape[1]} chunks of inputs; legal: 1 to {config.chunks_max}"
        )
    if codes.max() > 3:
        raise ParoError("cycle model: codes of tiles must be 0, 1, 2 or 3")
    if not codes.any(axis=1).all():
        row = int((~codes.any(axis=1)).argmax())
        raise ParoError(f"cycle model: output block {row} has no live tile")
    return codes


def _prediction(model: Model) -> Prediction:
    """Results that a model holds."""
    rows = model.cores.commands["rows"].sum(axis=0)
    return Prediction(
        cycles=(model.spans["end"] - model.spans["start"]).tolist(),
        total_cycles=int(model.spans["end"][-1]),
        row_ends=np.split(model.row_ends, np.cumsum(rows)[:-1]),
        cores=[
            {
                stage: {flag: int(stages[stage][flag]) for flag in stages[stage].dtype.names}
                for stage in stages.dtype.names
            }
            for stages in model.cores.stages
        ],
    )


def predict_accelerator(
    config: Config, works: Sequence[Work], image: Image, memory: Memory
) -> Prediction:
    """Predict the accelerator's cycles for a queue of heads.

    They count from the start, the first one after reset, to the last answer to a write. The memory
    port is followed burst by burst, so that order, layout, latency, stalls and width of the port
    count; the cores of a cluster share it. The cycles differ from the RTL's by 1 % at most; how
    long the loads wait, in ``cores``, is approximate.

    Parameters
    ----------
    config : Config
        The accelerator.
    works : sequence of CoreWork
        One for each head.
    image : Image
        The same heads in memory.
    memory : Memory
        Behaviour of the memory.

    Raises
    ------
    ParoError
        See `predict`.
    """
    codes, commands = _joined(config, works)
    port = memory_port(config, image, memory)
    timing = _core_timing(config, in_memory=True)
    model = _run(_model(config, timing, codes, commands, generators(None, STREAMS), port))
    model.spans[-1]["end"] += Accelerator.DONE_LATENCY
    return _prediction(model)


def predict_heads(
    config: Config,
    codes: np.ndarray,
    query_tokens: int,
    key_tokens: int,
    *,
    memory_latency: int = 0,
) -> BatchPrediction:
    """Predict many heads of one shape, each on an idle core or cluster; one thread a processor.

    Parameters
    ----------
    config : Config
        The core, or the cluster.
    codes : np.ndarray
        uint8 [heads, rows, key blocks].
    query_tokens, key_tokens, memory_latency
        See `CoreWork` and `predict`.

    Raises
    ------
    ParoError
        See `predict`.
    """
    _check_latency(memory_latency)
    checked = _checked_codes(config, codes, CoreWork(codes[:0], query_tokens, key_tokens))
    timing = _core_timing(config, latency=memory_latency)
    stalls, port = generators(None, STREAMS), no_port(config)

    def run(head: np.ndarray) -> Model:
        joined = _joined(config, [CoreWork(head, query_tokens, key_tokens)])
        return _run(_model(config, timing, *joined, stalls, port))

    with thread_pool(os.cpu_count() or 1) as pool:
        models = list(pool.map(run, checked))
    return BatchPrediction(
        np.array([model.spans[0]["end"] for model in models]),
        np.array(
            [
                [[stage.tolist() for stage in stages] for stages in model.cores.stages]
                for model in models
            ]
        ).sum(axis=1),
    )


def _check_latency(memory_latency: int) -> None:
    if memory_latency < 0:
        raise ParoError(f"cycle model: a latency of {memory_latency} cycles cannot be")


def _checked_codes(config: Config, codes: np.ndarray, work: CoreWork) -> np.ndarray:
    """Codes [heads, rows, key blocks] as the model takes them; `ParoError` if they do not fit."""
    if codes.ndim != 3:
        raise ParoError(f"cycle model: codes have {codes.ndim - 1} dimensions instead of 2")
    for name, tokens, blocks in (
        ("query", work.query_tokens, codes.shape[1]),
        ("key", work.key_tokens, codes.shape[2]),
    ):
        if not 1 <= tokens <= config.max_tokens:
            raise ParoError(f"cycle model: {tokens} {name} tokens; legal: 1 to {config.max_tokens}")
        if blocks != config.blocks_of(tokens):
            raise ParoError(
                f"cycle model: {tokens} {name} tokens do not make {blocks} blocks of {config.block}"
            )
    if codes.size and (codes.min() < 0 or codes.max() > 3):
        raise ParoError("cycle model: block codes must be 0, 1, 2 or 3")
    dead = ~codes.any(axis=2).all(axis=0)
    if dead.any():
        raise ParoError(f"cycle model: block row {int(dead.argmax())} has no live block")
    return np.ascontiguousarray(codes, np.uint8)


def _core_timing(
    config: Config, *, latency: int = 0, paced: bool = False, in_memory: bool = False
) -> CoreTiming:
    """Read the configuration, and the latencies that the modules name."""
    drain = ArraySequencer.TILE_LATENCY + DrainRouter.DELAY + DrainRouter.LATENCY
    weights = SoftmaxUnit.LATENCY
    return CoreTiming(
        cores=config.cores,
        query_rows=config.query_rows,
        row_slots=config.row_slots,
        block=config.block,
        rows=config.rows,
        cols=config.cols,
        head_dim=config.head_dim,
        row_groups=config.block // config.rows,
        query_groups=config.block // config.cols,
        channel_groups=config.head_dim // config.cols,
        layer_tokens=config.layer_tokens,
        layer_groups=config.layer_tokens // config.cols,
        begun=ArraySequencer.BEGUN_LATENCY,
        beat_shift=log2(interfaces.CODES_PER_BEAT),
        load_tokens=config.load_tokens,
        drain_cycles=config.drain_cycles,
        drain_shift=log2(config.cols // config.drain_words),
        drain=drain,
        drained=drain + config.drain_cycles - 1,
        key_release=LogitBuffer.RELEASE_LATENCY,
        value_release=ArraySequencer.LATENCY,
        logits=LogitBuffer.GROUP_LATENCY,
        softmax_lanes=config.softmax_lanes,
        softmax_cycles=config.block * (config.cols // config.softmax_lanes),
        weights=weights + StreamFIFO.LATENCY,
        denominators=weights + RowStateLane.LATENCY + StreamFIFO.LATENCY,
        reciprocal=ReciprocalLane.LATENCY,
        reciprocal_lanes=config.reciprocal_lanes,
        groups=OutputAccumulator.LATENCY,
        pv_tiles=config.block // config.rows * (config.head_dim // config.cols),
        parts=config.head_dim // config.drain_words,
        output=Normalizer.LATENCY + StreamFIFO.LATENCY,
        words=config.output_words,
        swapped=int(config.cols // config.output_words == 2),
        layer_output=LayerOutput.TURN_LATENCY,
        queue=Normalizer.QUEUE,
        fifo=StreamFIFO.LATENCY,
        in_memory=int(in_memory),
        paced=int(paced or in_memory),
        # A beat is there in the cycle after it was asked for at the earliest.
        answer=max(latency, 1),
    )
