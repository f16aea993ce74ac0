"""The engine: cores and the vector unit, fed from memory, working on a queue of jobs."""

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from paro.config import Config
from paro.config.descriptor import DESCRIPTOR_BYTES
from paro.config.formats import Kind, Operand
from paro.config.registers import MEMORY_ADDRESS_BITS, QUEUE_BITS, WINDOWS, Cause
from rtl.accelerator.address_generator import AddressGenerator
from rtl.accelerator.code_reader import CodeReader, code_rows
from rtl.accelerator.corner_turn import CornerTurn
from rtl.accelerator.deal import Share, share_of
from rtl.accelerator.fetch_merge import FetchMerge
from rtl.accelerator.head_queue import HeadQueue
from rtl.accelerator.output_addresses import OutputAddresses
from rtl.accelerator.output_cut import OutputCut
from rtl.accelerator.output_merge import OutputMerge
from rtl.accelerator.vector_engine import VectorEngine
from rtl.accelerator.write_arbiter import WriteArbiter
from rtl.bus.axi import WORD_BYTES, Destination, axi_read_signature, axi_write_signature
from rtl.bus.read_master import ReadMaster
from rtl.bus.run_arbiter import RunArbiter
from rtl.bus.windows import windows_member
from rtl.bus.write_master import WriteMaster
from rtl.core.core import Core
from rtl.interfaces import activity_layout, token_count_shape
from rtl.lib.arithmetic import log2
from rtl.lib.library import replicate
from rtl.lib.stream_fifo import StreamFIFO

__all__ = ["Engine"]

#: Most heads that are begun and whose outputs are not all written. One beyond them does not end, so
#: that the descriptor after it is not read.
PLACED_HEADS = 4


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """Parts of the engine that work for the cores.

    Parameters
    ----------
    cores : list of Core
    codes : list of CodeReader
        From memory to the codes of each core.
    fetches : FetchMerge or None
        From the fetches of all cores to those of the engine; None with a single core.
    addresses : AddressGenerator
        From fetches to runs of Q, K and V.
    corner_turn : CornerTurn
        From units of Q and K to the cores' beats.
    merge : OutputMerge or None
        From each core's O to the engine's; None with a single core.
    outputs : OutputAddresses
        Runs for O.
    cut : OutputCut
        O as words of 16 or of 8 bits.
    vector : VectorEngine or None
        Steps between the cores' jobs; None without a vector unit.
    writes : WriteArbiter or None
        Of the cores' outputs and those of the vector unit; None without.
    """

    cores: list[Core]
    codes: list[CodeReader]
    fetches: FetchMerge | None
    addresses: AddressGenerator
    corner_turn: CornerTurn
    merge: OutputMerge | None
    outputs: OutputAddresses
    cut: OutputCut
    vector: VectorEngine | None
    writes: WriteArbiter | None

    @property
    def busy(self) -> Value:
        """Whether a core is."""
        return Cat(core.busy for core in self.cores).any()


@dataclass(frozen=True, kw_only=True)
class _CoreJob:
    """Head or layer that the cores work on.

    Parameters
    ----------
    head : View of `rtl.accelerator.descriptor.descriptor_layout`
        It stays until ``ends``.
    index : Signal
        Its number.
    valid : Signal
        There is one, and it may begin.
    ends : Signal
        To be set when all its inputs are read.
    """

    head: Any
    index: Value
    valid: Value
    ends: Signal


class Engine(wiring.Component):
    """Works through one queue, from its descriptors to the last response to a write.

    It cannot recover from an error by itself: it must be stopped and, when it is ``quiet``, reset.

    Members
    -------
    read, write : Out
        Channels of the AXI4 master.
    windows : In, `rtl.bus.windows.windows_member`
        As `paro.config.registers.WINDOWS` has them.
    start : In, 1
    base, count : In
        With ``start``, once after reset: address and number of the descriptors.
    done : Out, 1
        All is written; also before ``start``.
    stop : In, 1
        Begin no further burst, ignore data that arrives.
    quiet : Out, 1
        No burst is in progress.
    cause : Out, `Cause`
        Error of this cycle, or NONE.
    error_address : Out
        With causes of `paro.config.registers.BURST_CAUSES`, address of the burst.
    head : Out
        Number of the head whose descriptor or operands are read. With a vector unit, whose queue
        is read ahead, and a ``cause``: of the job at fault.
    head_done : Out, 1
        The last output of a job has been written; those of the core's next job are written after
        it.
    read_burst, read_beat, write_burst, write_beat : Out, 1
        One is accepted in this cycle.
    activity : Out, array of `rtl.interfaces.activity_layout`
        Of each core's stages.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "read": Out(axi_read_signature(config)),
                "write": Out(axi_write_signature(config)),
                "windows": windows_member(len(WINDOWS)),
                "start": In(1),
                "base": In(MEMORY_ADDRESS_BITS),
                "count": In(QUEUE_BITS),
                "done": Out(1),
                "stop": In(1),
                "quiet": Out(1),
                "cause": Out(Cause),
                "error_address": Out(MEMORY_ADDRESS_BITS),
                "head": Out(QUEUE_BITS),
                "head_done": Out(1),
                "read_burst": Out(1),
                "read_beat": Out(1),
                "write_burst": Out(1),
                "write_beat": Out(1),
                "activity": Out(data.ArrayLayout(activity_layout(), config.cores)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        self._unwritten = Signal(QUEUE_BITS)  # first of the cores' jobs that is not written
        self._unwritten_known = Signal()
        self._may_begin = Signal()  # the offered job, for all that it waits for
        m.submodules.reader = reader = ReadMaster(self._config)
        m.submodules.writer = writer = WriteMaster(self._config)
        m.submodules.queue = queue = HeadQueue(self._config)
        parts = self._add_parts(m, platform)
        # Outputs of a core's job have still to be written.
        self._outputs_busy = Signal(name="outputs_busy")
        self._job = self._admit(m, queue, parts)
        connect(m, reader.axi, flipped(self.read))
        connect(m, writer.axi, flipped(self.write))
        self._connect_reads(m, reader, queue, parts)
        self._connect_writes(m, writer, parts)
        self._report(m, reader, writer, queue, parts)
        unwritten = self._work_on_heads(m, queue, parts, reader, writer)
        self._answer_fetches(m, parts)
        self._hand_over(m, queue, parts)
        done = queue.idle & ~unwritten & writer.idle & ~parts.busy
        if parts.vector is not None:
            done &= parts.vector.idle & ~self._job.valid
        m.d.comb += self.done.eq(done)
        return m

    def _add_parts(self, m: Module, platform: Any) -> _Parts:
        """Add the cores and their way to and from memory."""
        config, cluster = self._config, self._config.cores > 1
        codes = [CodeReader(config, core) for core in range(config.cores)]
        for core, reader in enumerate(codes):
            m.submodules[f"codes_{core}" if cluster else "codes"] = reader
        fetches = merge = None
        if cluster:
            m.submodules.fetches = fetches = FetchMerge(config)
            m.submodules.merge = merge = OutputMerge(config)
        m.submodules.addresses = addresses = AddressGenerator(config)
        m.submodules.corner_turn = corner_turn = CornerTurn(config)
        m.submodules.outputs = outputs = OutputAddresses(config)
        m.submodules.cut = cut = OutputCut(config)
        vector = writes = None
        if config.vector_channels:
            m.submodules.vector = vector = VectorEngine(config)
            m.submodules.writes = writes = WriteArbiter(config, 1 + len(vector.write_runs))
        return _Parts(
            cores=replicate(m, platform, "core", lambda: Core(config), config.cores),
            codes=codes,
            fetches=fetches,
            addresses=addresses,
            corner_turn=corner_turn,
            merge=merge,
            outputs=outputs,
            cut=cut,
            vector=vector,
            writes=writes,
        )

    def _connect_reads(
        self, m: Module, reader: ReadMaster, queue: HeadQueue, parts: _Parts
    ) -> None:
        """Memory to cores: pass all runs to the read master and each unit to its destination."""
        corner_turn = parts.corner_turn
        # Codes are small and the schedulers wait for them: they go first; so do descriptors where
        # steps of the vector unit stand behind a head.
        vector = [] if parts.vector is None else [parts.vector]
        last = [parts.addresses, queue] if parts.vector is None else [queue, parts.addresses]
        sources = [*parts.codes, *vector, *last]
        m.submodules.arbiter = arbiter = RunArbiter(self._config, len(sources))
        for source, sink in zip(sources, arbiter.inputs, strict=True):
            connect(m, source.runs, sink)
        connect(m, arbiter.output, reader.runs)
        units = reader.units
        destination = units.payload.destination
        turned = (Destination.Q_SCALES, Destination.K_SCALES, Destination.Q, Destination.K)
        for destinations, sinks in (
            ((Destination.DESCRIPTOR,), [queue.units]),
            ((Destination.CODES,), [codes.units for codes in parts.codes]),
            (turned, [corner_turn.units]),
            ((Destination.V,), [core.v for core in parts.cores]),
            *(((Destination.VECTOR,), [engine.units]) for engine in vector),
        ):
            for sink in sinks:
                m.d.comb += Value.cast(sink.payload).eq(Value.cast(units.payload.data))
            with m.If(destination.matches(*destinations)):
                self._pass_on(m, units, units.payload.cores, sinks)
        beats = corner_turn.beats
        for codes, core in zip(parts.codes, parts.cores, strict=True):
            connect(m, codes.codes, core.codes)
            for sink in (core.q, core.k):
                m.d.comb += sink.payload.data.eq(beats.payload.data)
                for index in range(self._config.load_tokens):
                    m.d.comb += sink.payload.scale[index].eq(beats.payload.scale[index])
        for operand, sinks in (
            (Operand.Q, [core.q for core in parts.cores]),
            (Operand.K, [core.k for core in parts.cores]),
        ):
            with m.If(beats.payload.operand == operand):
                self._pass_on(m, beats, beats.payload.cores, sinks)

    @staticmethod
    def _pass_on(m: Module, source: Any, cores: Value, sinks: list[Any]) -> None:
        """Pass a source's payload on to the sinks of some cores, at once; a single one needs none.

        A core is ready for all that it has asked for, so that none waits for another.
        """
        if len(sinks) == 1:
            m.d.comb += [sinks[0].valid.eq(source.valid), source.ready.eq(sinks[0].ready)]
            return
        ready = Cat(sink.ready for sink in sinks) | ~cores
        m.d.comb += source.ready.eq(ready.all())
        for core, sink in enumerate(sinks):
            others = Cat(ready[i] for i in range(len(sinks)) if i != core)
            m.d.comb += sink.valid.eq(source.valid & cores[core] & others.all())

    def _connect_writes(self, m: Module, writer: WriteMaster, parts: _Parts) -> None:
        """Cores to memory: pass runs and words of O to the write master."""
        output, merge = parts.cut.output, parts.merge
        if merge is None:
            (core,) = parts.cores
            connect(m, core.o, parts.cut.input)
            if self._config.query_rows > 1:
                places = parts.outputs.places
                m.d.comb += [
                    places.payload.row.eq(core.rows.payload),
                    places.valid.eq(core.rows.valid),
                    core.rows.ready.eq(places.ready),
                ]
        else:
            for index, core in enumerate(parts.cores):
                connect(m, core.o, merge.outputs[index])
                if self._config.query_rows > 1:
                    connect(m, core.rows, merge.rows[index])
            connect(m, merge.output, parts.cut.input)
            connect(m, merge.places, parts.outputs.places)
            m.d.comb += [merge.open.eq(parts.outputs.open), merge.beats.eq(parts.outputs.beats)]
        runs, words = writer.runs, writer.data
        if parts.vector is not None and parts.writes is not None:
            writes = parts.writes
            connect(m, writes.output_runs, writer.runs)
            connect(m, writes.output_data, writer.data)
            runs, words = writes.runs[0], writes.data[0]
            for index, (run, data_of) in enumerate(
                zip(parts.vector.write_runs, parts.vector.write_data, strict=True), start=1
            ):
                connect(m, run, writes.runs[index])
                connect(m, data_of, writes.data[index])
        connect(m, parts.outputs.runs, runs)
        m.d.comb += [
            Value.cast(words.payload).eq(Value.cast(output.payload)),
            words.valid.eq(output.valid),
            output.ready.eq(words.ready),
        ]

    def _report(
        self,
        m: Module,
        reader: ReadMaster,
        writer: WriteMaster,
        queue: HeadQueue,
        parts: _Parts,
    ) -> None:
        """Pass on start and stop, and report errors, rest and what is counted."""
        cores, vector = parts.cores, parts.vector
        m.d.comb += self.head.eq(queue.index)
        with m.If(queue.fault != Cause.NONE):
            m.d.comb += self.cause.eq(queue.fault)
        with m.Elif(Cat(core.empty_row for core in cores).any()):
            m.d.comb += [self.cause.eq(Cause.EMPTY_ROW), self.head.eq(self._job.index)]
        if vector is not None:
            with m.Elif(vector.fault != Cause.NONE):
                m.d.comb += [self.cause.eq(vector.fault), self.head.eq(vector.index)]
        for cause, told, address, of_vector in (
            (Cause.READ_ERROR, reader.failed, reader.failed_address, reader.failed_vector),
            (Cause.WRITE_ERROR, writer.failed, writer.failed_address, writer.failed_vector),
            (Cause.READ_OUTSIDE, reader.refused, reader.refused_address, reader.refused_vector),
            (Cause.WRITE_OUTSIDE, writer.refused, writer.refused_address, writer.refused_vector),
        ):
            with m.Elif(told):
                m.d.comb += [self.cause.eq(cause), self.error_address.eq(address)]
                if vector is not None:
                    of_core = self._unwritten
                    if cause in (Cause.READ_ERROR, Cause.READ_OUTSIDE):
                        left = (queue.following - address)[:MEMORY_ADDRESS_BITS]
                        of_queue = queue.reading & left.any() & (left <= DESCRIPTOR_BYTES)
                        of_core = Mux(of_queue, queue.index, self._job.index)
                    m.d.comb += self.head.eq(Mux(of_vector, vector.index, of_core))
        m.d.comb += [
            queue.start.eq(self.start),
            queue.base.eq(self.base),
            queue.count.eq(self.count),
            reader.windows.eq(self.windows),
            writer.windows[0].eq(self.windows[list(WINDOWS).index("outputs")]),
            reader.stop.eq(self.stop),
            writer.stop.eq(self.stop),
            self.quiet.eq(reader.idle & writer.idle),
            self.read_burst.eq(reader.burst),
            self.read_beat.eq(reader.beat),
            self.write_burst.eq(writer.burst),
            self.write_beat.eq(writer.beat),
            *(self.activity[index].eq(core.activity) for index, core in enumerate(cores)),
        ]

    def _work_on_heads(
        self,
        m: Module,
        queue: HeadQueue,
        parts: _Parts,
        reader: ReadMaster,
        writer: WriteMaster,
    ) -> Value:
        """Start each head in every part that works on it, end it when all its inputs are read.

        Every part works on every head and layer. Returns whether outputs of a head have still to be
        written.
        """
        addresses, job = parts.addresses, self._job
        head, block_bits = job.head, log2(self._config.block)
        linear = _is_layer(m, head)
        pass_bits = log2(self._config.layer_tokens * self._config.query_rows)
        core_started, codes_started, outputs_started = (
            Signal(name=f"{name}_started") for name in ("core", "codes", "outputs")
        )
        shares = self._deal(m, head, linear)
        for started, ports in (
            (core_started, [core.command for core in parts.cores]),
            (codes_started, [codes.request for codes in parts.codes]),
        ):
            # All of them rest: a head ends when all have ended it.
            for share, port in zip(shares, ports, strict=True):
                m.d.comb += port.valid.eq(job.valid & ~started & share.any)
            with m.If(Cat(port.valid & port.ready for port in ports).any()):
                m.d.sync += started.eq(1)
        address = head.codes_address
        for core, codes, share in zip(parts.cores, parts.codes, shares, strict=True):
            command, request = core.command.payload, codes.request.payload
            m.d.comb += [
                *(command[name].eq(head[name]) for name in command.shape().members),
                command.query_tokens.eq(share.last_token + 1),
                request.address.eq(address),
                request.rows.eq(
                    code_rows(
                        self._config,
                        Mux(linear, head.key_tokens - 1, share.last_token) >> block_bits,
                        linear,
                    )
                ),
                request.key_blocks.eq(
                    Mux(linear, head.chunks, (head.key_tokens - 1 >> block_bits) + 1)
                ),
                request.passes.eq(Mux(linear, (share.last_token >> pass_bits) + 1, 1)),
            ]
            address += head.codes_stride << log2(WORD_BYTES)

        m.d.comb += addresses.new_head.eq(~core_started)
        self._address_inputs(m, addresses.head, head, linear)
        unwritten = self._place_outputs(m, queue, parts, writer, outputs_started)
        m.d.comb += self._outputs_busy.eq(unwritten)

        started = core_started & codes_started & outputs_started
        # No read may be in progress: one that fails must be the job's. Those of the vector unit
        # tell whose they are, and descriptors that are read ahead are told by their addresses.
        ended = (
            Cat(core.command.ready for core in parts.cores).all()
            & Cat(codes.idle for codes in parts.codes).all()
            & addresses.idle
            & (reader.idle if parts.vector is None else reader.cores_idle)
        )
        if parts.fetches is not None:
            ended &= parts.fetches.idle
            m.d.comb += parts.fetches.new_head.eq(~core_started)
            for index, (core, share) in enumerate(zip(parts.cores, shares, strict=True)):
                m.d.comb += parts.fetches.working[index].eq(
                    core_started & share.any & ~core.command.ready
                )
        with m.If(started & ended):
            m.d.comb += job.ends.eq(1)
            m.d.sync += [core_started.eq(0), codes_started.eq(0), outputs_started.eq(0)]
        return unwritten

    @staticmethod
    def _address_inputs(m: Module, inputs: Any, head: Any, linear: Value) -> None:
        """Tell the address generator where a head's operands lie, and their order."""
        m.d.comb += _walk_inputs(inputs.walk, head, linear)
        for operand, name in zip(Operand, "qkv", strict=True):
            m.d.comb += [
                inputs.base[operand].eq(head[f"{name}_address"]),
                inputs.row_stride[operand].eq(head[f"{name}_row_stride"]),
            ]
            if operand != Operand.V:
                m.d.comb += inputs.scales[operand].eq(head[f"{name}_scales_address"])

    def _deal(self, m: Module, head: Any, linear: Value) -> list[Share]:
        """Deal the queries of a head, or the tokens of a layer, to the cores."""
        config = self._config
        last_token = Signal(token_count_shape(config))
        m.d.comb += last_token.eq(head.query_tokens - 1)
        if config.cores == 1:
            return [Share(Const(1), last_token)]
        shares = []
        for core in range(config.cores):
            share = share_of(m, config, core, last_token, log2(config.block))
            if config.layer_tokens < config.block:
                of_layer = share_of(m, config, core, last_token, log2(config.layer_tokens))
                chosen = Signal.like(last_token, name=f"last_token_{core}")
                m.d.comb += chosen.eq(Mux(linear, of_layer.last_token, share.last_token))
                share = Share(Mux(linear, of_layer.any, share.any), chosen)
            shares.append(share)
        return shares

    def _admit(self, m: Module, queue: HeadQueue, parts: _Parts) -> _CoreJob:
        """Let a job of the cores wait for outputs that it reads, or that are cut otherwise.

        With a vector unit it then leaves the queue, so that the steps behind it can begin.
        """
        offer = queue.heads.payload
        begun, begins, ends = (Signal(name=f"job_{name}") for name in ("begun", "begins", "ends"))
        cut = Signal.like(parts.cut.cut)
        rests = ~self._outputs_busy & ~parts.busy
        m.d.comb += parts.cut.cut.eq(cut)
        m.d.sync += begun.eq((begun | begins) & ~ends)
        with m.If(begins):
            m.d.sync += cut.eq(offer.out_cut)
        if parts.vector is None:
            may_begin = (~offer.after & (offer.out_cut == cut)) | rests
            m.d.comb += [
                begins.eq(queue.heads.valid & ~begun & may_begin),
                queue.heads.ready.eq(ends),
            ]
            valid = queue.heads.valid & (begun | begins)
            return _CoreJob(head=offer, index=queue.index, valid=valid, ends=ends)
        may_begin = self._may_begin & ((offer.out_cut == cut) | rests)
        m.d.comb += begins.eq(queue.heads.valid & (offer.kind != Kind.VECTOR) & ~begun & may_begin)
        head = Signal.like(offer, name="job_head")
        index = Signal.like(queue.index, name="job_index")
        with m.If(begins):
            m.d.comb += queue.heads.ready.eq(1)
            m.d.sync += [head.eq(offer), index.eq(queue.index)]
        return _CoreJob(head=head, index=index, valid=begun, ends=ends)

    def _hand_over(self, m: Module, queue: HeadQueue, parts: _Parts) -> None:
        """Hand vector steps over to their engine, which works beside the cores.

        A job may begin when all that it waits for has been written, by whomever.
        """
        vector = parts.vector
        if vector is None:
            return
        config, head = self._config, queue.heads.payload
        first = Signal(signed(QUEUE_BITS + 1))  # of the jobs that need not be written
        of_vector = Mux(vector.idle, queue.index, vector.index)
        written = (first <= of_vector) & (first <= self._unwritten) & self._unwritten_known
        step = vector.steps.payload
        m.d.comb += [
            first.eq(queue.index - head.overlap),
            self._may_begin.eq(~head.after | written),
            *_walk_inputs(step.rows.walk, head, Const(0)),
            step.rows.base.eq(head.q_address),
            step.rows.row_stride.eq(head.q_row_stride),
            step.rows.second_base.eq(head.v_address),
            step.rows.second_stride.eq(head.v_row_stride),
            step.outputs.base.eq(head.o_address),
            step.outputs.row_stride.eq(head.o_row_stride),
            step.outputs.scales.eq(head.q_scales_address),
            step.program.eq(head.codes_address),
            step.tables.eq(head.k_address),
            step.index.eq(queue.index),
            step.too_wide.eq(head.chunks > config.vector_channels // config.head_dim),
            vector.steps.valid.eq(queue.heads.valid & (head.kind == Kind.VECTOR) & self._may_begin),
        ]
        for part in (step.rows, step.outputs):
            m.d.comb += [part.tokens.eq(head.query_tokens), part.chunks.eq(head.chunks)]
        with m.If(vector.steps.valid & vector.steps.ready):
            m.d.comb += queue.heads.ready.eq(1)

    def _place_outputs(
        self,
        m: Module,
        queue: HeadQueue,
        parts: _Parts,
        writer: WriteMaster,
        outputs_started: Signal,
    ) -> Value:
        """Write the outputs of each head after those of the head before.

        That is later than its inputs are read: addresses and orders of outputs wait in a queue.
        Returns whether there are any.
        """
        job, outputs = self._job, parts.outputs
        head = job.head
        linear = _is_layer(m, head)
        first_block_row = Mux(linear, 0, head.first_block_row)
        m.submodules.placed = placed = StreamFIFO(
            data.StructLayout(
                {
                    "head": outputs.head.shape(),
                    "request": outputs.request.payload.shape(),
                    "index": unsigned(QUEUE_BITS if self._config.vector_channels else 0),
                }
            ),
            depth=PLACED_HEADS,
        )
        last, turn = placed.input.payload, placed.output.payload
        m.d.comb += [
            placed.input.valid.eq(job.valid & ~outputs_started),
            last.head.walk.eq(parts.addresses.head.walk),
            last.head.base.eq(head.o_address),
            last.head.row_stride.eq(head.o_row_stride),
            last.head.half.eq(head.out_cut != 0),
            last.index.eq(job.index),
            last.request.first_block_row.eq(first_block_row),
            last.request.query_tokens.eq(head.query_tokens),
            last.request.linear.eq(head.kind),
            last.request.last_output_block.eq(head.key_tokens - 1 >> log2(self._config.block)),
        ]
        with m.If(placed.input.valid & placed.input.ready):
            m.d.sync += outputs_started.eq(1)
        asked = Signal()
        core_done = Signal()
        written = writer.idle if parts.writes is None else writer.idle & parts.writes.idle
        m.d.comb += [
            outputs.head.eq(turn.head),
            outputs.request.payload.eq(turn.request),
            outputs.request.valid.eq(placed.output.valid & ~asked),
            placed.output.ready.eq(core_done),
            core_done.eq(asked & outputs.idle & written & ~writer.failed & ~self.stop),
            self.head_done.eq(core_done),
        ]
        if parts.vector is not None and parts.writes is not None:
            vector = parts.vector
            busy = placed.level != 0
            begun = job.valid & ~outputs_started
            m.d.comb += [
                self._unwritten.eq(Mux(busy, turn.index, Mux(begun, job.index, queue.index))),
                self._unwritten_known.eq(~busy | placed.output.valid),
                # Whoever waits until all is written must not wait for what others write.
                parts.writes.hold.eq(
                    Cat(vector.rests, Const(-1, 2) & (asked & outputs.idle).replicate(2))
                ),
                vector.written.eq(written & ~writer.failed & ~self.stop & ~core_done),
                self.head_done.eq(core_done | vector.step_done),
            ]
        with m.If(outputs.request.valid & outputs.request.ready):
            m.d.sync += asked.eq(1)
        with m.If(core_done):
            m.d.sync += asked.eq(0)
        return placed.level != 0

    def _answer_fetches(self, m: Module, parts: _Parts) -> None:
        """Pass the core's requests for blocks to the address generator and the corner turn."""
        config, head = self._config, self._job.head
        linear = _is_layer(m, head)
        request, turn = parts.addresses.request, parts.corner_turn.request
        if parts.fetches is None:
            fetch = parts.cores[0].fetch
        else:
            fetch = parts.fetches.output
            for core, merged in zip(parts.cores, parts.fetches.fetches, strict=True):
                connect(m, core.fetch, merged)
            m.d.comb += [
                request.payload.cores.eq(fetch.payload.cores),
                turn.payload.cores.eq(fetch.payload.cores),
            ]
        of_query = fetch.payload.operand == Operand.Q
        turns = fetch.payload.operand != Operand.V
        last_token = Signal(len(head.key_tokens))
        tokens = Signal.like(request.payload.tokens)
        m.d.comb += [
            last_token.eq(Mux(of_query, head.query_tokens, head.key_tokens) - 1),
            tokens.eq(Mux(linear & of_query, config.layer_tokens, config.block)),
        ]
        first = Signal(len(last_token) + 1)  # of the block, among those that are computed
        with m.If(linear & of_query):
            m.d.comb += first.eq(fetch.payload.block << log2(config.layer_tokens))
        with m.Else():
            m.d.comb += first.eq(fetch.payload.block << log2(config.block))
        # The core counts block rows from the first that is computed.
        skipped = Mux(of_query & ~linear, head.first_block_row << log2(config.block), 0)
        m.d.comb += [
            request.payload.operand.eq(fetch.payload.operand),
            request.payload.position.eq(first + skipped),
            request.payload.tokens.eq(tokens),
            request.payload.chunk.eq(Mux(linear, fetch.payload.chunk, 0)),
            turn.payload.operand.eq(fetch.payload.operand),
            turn.payload.tokens.eq(request.payload.tokens),
            request.valid.eq(fetch.valid & (~turns | turn.ready)),
            turn.valid.eq(fetch.valid & turns & request.ready),
            fetch.ready.eq(request.ready & (~turns | turn.ready)),
        ]
        left = Signal.like(last_token)
        m.d.comb += left.eq(last_token - first)
        with m.If(left < tokens):
            m.d.comb += request.payload.tokens.eq(left + 1)


def _walk_inputs(walk: Any, head: Any, linear: Value) -> list[Any]:
    """Statements that give a walk its tokens and their order, from a descriptor."""
    statements = []
    for name in walk.shape().members:
        given = head["key_tokens" if name == "tokens" else name]
        if name.endswith("tokens"):
            # Without any, every position lies behind the grid, in memory's order.
            given = Mux(linear, 0, given)
        statements.append(walk[name].eq(given))
    return statements


def _is_layer(m: Module, head: Any) -> Signal:
    """Whether a descriptor is one of a linear layer."""
    is_layer = Signal()
    m.d.comb += is_layer.eq(head.kind == Kind.LINEAR)
    return is_layer
