"""The accelerator: the core with its memory port, its registers and its queue of heads."""

from typing import Any

from amaranth.hdl import Module, Mux, ResetInserter, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect

from paro_config import Config
from paro_config.formats import Operand
from paro_config.registers import Cause
from rtl.address_generator import AddressGenerator, OutputAddresses
from rtl.axi import (
    ADDRESS_BITS,
    Destination,
    axi_read_signature,
    axi_signature,
    axi_write_signature,
    run_layout,
)
from rtl.axi_lite import axi_lite_signature
from rtl.blocks import log2
from rtl.code_reader import CodeReader
from rtl.core import Core
from rtl.corner_turn import CornerTurn
from rtl.head_queue import HeadQueue
from rtl.library import replicate
from rtl.read_master import ReadMaster
from rtl.register_file import RegisterFile
from rtl.stage_counters import StageCounters
from rtl.write_master import WriteMaster

__all__ = ["Accelerator", "accelerator_signature"]


def _prefixed(prefix: str, signature: wiring.Signature) -> dict[str, wiring.Member]:
    """Members of a bus with the names that AXI gives to ports."""
    return {f"{prefix}_{name}": member for name, member in signature.members.items()}


def accelerator_signature(config: Config) -> wiring.Signature:
    """Ports of the accelerator: ``m_axi_*``, ``s_axil_*`` and ``irq``."""
    return wiring.Signature(
        {
            **_prefixed("m_axi", axi_signature(config)),
            **_prefixed("s_axil", axi_lite_signature().flip()),
            "irq": Out(1),
        }
    )


class RunArbiter(wiring.Component):
    """Lets one of several sources of runs through at a time, the first before the second.

    Members
    -------
    inputs : In, array of stream of `run_layout`
    output : Out, stream of `run_layout`
    """

    def __init__(self, config: Config, inputs: int):
        signature = stream.Signature(run_layout(config))
        super().__init__({"inputs": In(signature).array(inputs), "output": Out(signature)})

    def elaborate(self, platform):
        m = Module()
        inputs, count = self.inputs, len(self.inputs)
        chosen, held, offered = Signal(range(count)), Signal(range(count)), Signal()
        with m.If(offered):
            m.d.comb += chosen.eq(held)
        with m.Else():
            for index in reversed(range(count)):
                with m.If(inputs[index].valid):
                    m.d.comb += chosen.eq(index)
        with m.Switch(chosen):
            for index in range(count):
                with m.Case(index):
                    m.d.comb += [
                        self.output.payload.eq(inputs[index].payload),
                        self.output.valid.eq(inputs[index].valid),
                        inputs[index].ready.eq(self.output.ready),
                    ]
        # What has been offered stays until it is taken.
        m.d.sync += [held.eq(chosen), offered.eq(self.output.valid & ~self.output.ready)]
        return m


class Accelerator(wiring.Component):
    """A device that a system starts and leaves alone: it works on a queue of heads in memory.

    Reading and writing memory, the core and the queue are one engine. It is reset before each
    start; after an error it is stopped, so that no burst stays half done, and reset too.

    Parameters
    ----------
    config : Config
        Shape of the core, data bits of the memory port.

    Members
    -------
    m_axi_* : AXI4 master
        One ID; INCR bursts that do not cross 4 KiB.
    s_axil_* : AXI4-Lite slave
        Registers of `paro_config.registers`.
    irq : Out, 1
        Level, see CONTROL.interrupt_enable.
    """

    def __init__(self, config: Config):
        self.config = config
        super().__init__(accelerator_signature(config))

    def elaborate(self, platform):
        m = Module()
        config = self.config
        stop, engine_reset = Signal(), Signal()
        m.submodules.registers = registers = RegisterFile(config)
        m.submodules.counters = counters = StageCounters()
        engine: dict[str, Any] = {
            "reader": ReadMaster(config),
            "writer": WriteMaster(config),
            "arbiter": RunArbiter(config, 3),
            "queue": HeadQueue(config),
            "codes": CodeReader(config),
            "addresses": AddressGenerator(config),
            "corner_turn": CornerTurn(config),
            "outputs": OutputAddresses(config),
        }
        for name, part in engine.items():
            m.submodules[name] = ResetInserter(engine_reset)(part)
        reader, writer, arbiter, queue, codes, addresses, corner_turn, outputs = engine.values()
        (core,) = replicate(m, platform, "paro_core", lambda: Core(config), 1, reset=engine_reset)

        # Ports.
        for prefix, signature, port in (
            ("m_axi", axi_read_signature(config), reader.axi),
            ("m_axi", axi_write_signature(config), writer.axi),
            ("s_axil", axi_lite_signature().flip(), registers.s_axil),
        ):
            for name, member in signature.members.items():
                outer, inner = getattr(self, f"{prefix}_{name}"), getattr(port, name)
                m.d.comb += outer.eq(inner) if member.flow is Out else inner.eq(outer)
        m.d.comb += [self.irq.eq(registers.irq), reader.stop.eq(stop), writer.stop.eq(stop)]

        # Memory to core.
        for source, sink in zip((codes, addresses, queue), arbiter.inputs, strict=True):
            connect(m, source.runs, sink)
        connect(m, arbiter.output, reader.runs)
        connect(m, codes.codes, core.codes)
        units, destination = reader.units, reader.units.payload.destination
        turned = (Destination.Q_SCALES, Destination.K_SCALES, Destination.Q, Destination.K)
        for places, sink in (
            ((Destination.DESCRIPTOR,), queue.units),
            ((Destination.CODES,), codes.units),
            (turned, corner_turn.units),
            ((Destination.V,), core.v),
        ):
            m.d.comb += Value.cast(sink.payload).eq(units.payload.data)
            with m.If(destination.matches(*places)):
                m.d.comb += [sink.valid.eq(units.valid), units.ready.eq(sink.ready)]
        beats = corner_turn.beats
        for operand, sink in ((Operand.Q, core.q), (Operand.K, core.k)):
            m.d.comb += sink.payload.data.eq(beats.payload.data)
            for index in range(config.load_tokens):
                m.d.comb += sink.payload.scale[index].eq(beats.payload.scale[index])
            with m.If(beats.payload.operand == operand):
                m.d.comb += [sink.valid.eq(beats.valid), beats.ready.eq(sink.ready)]

        # Core to memory.
        connect(m, outputs.runs, writer.runs)
        m.d.comb += [
            writer.data.payload.eq(Value.cast(core.o.payload)),
            writer.data.valid.eq(core.o.valid),
            core.o.ready.eq(writer.data.ready),
        ]

        self._work_on_heads(m, queue, codes, addresses, corner_turn, outputs, core)
        self._control(m, stop, engine_reset, registers, counters, engine, core)
        return m

    def _work_on_heads(self, m: Module, queue, codes, addresses, corner_turn, outputs, core):
        """Start each head everywhere, answer the core's fetches, end it when all is fetched."""
        config = self.config
        head, block_bits = queue.heads.payload, log2(config.block)
        last_key, last_query = head.key_tokens - 1, head.query_tokens - 1
        query_blocks = (last_query >> block_bits) + 1
        started = {name: Signal(name=f"{name}_started") for name in ("core", "codes", "outputs")}
        for name, port in (
            ("core", core.command),
            ("codes", codes.request),
            ("outputs", outputs.request),
        ):
            m.d.comb += port.valid.eq(queue.heads.valid & ~started[name])
            with m.If(port.valid & port.ready):
                m.d.sync += started[name].eq(1)
        walk = addresses.head.walk
        m.d.comb += [
            core.command.payload.query_tokens.eq(head.query_tokens),
            core.command.payload.key_tokens.eq(head.key_tokens),
            codes.request.payload.address.eq(head.codes_address),
            codes.request.payload.rows.eq(query_blocks),
            codes.request.payload.key_blocks.eq((last_key >> block_bits) + 1),
            walk.tokens.eq(head.key_tokens),
            *(
                walk[name].eq(head[name])
                for name in walk.shape().members
                if name != "tokens"
            ),
            addresses.new_head.eq(~started["core"]),
            *(
                field[index].eq(head[f"{name}_{suffix}"])
                for field, suffix, names in (
                    (addresses.head.base, "address", "qkv"),
                    (addresses.head.row_stride, "row_stride", "qkv"),
                    (addresses.head.scales, "scales_address", "qk"),
                )
                for index, name in enumerate(names)
            ),
            outputs.request.payload.walk.eq(walk),
            outputs.request.payload.base.eq(head.o_address),
            outputs.request.payload.row_stride.eq(head.o_row_stride),
            outputs.request.payload.first_block_row.eq(head.first_block_row),
            outputs.request.payload.query_tokens.eq(head.query_tokens),
        ]

        # The core counts block rows from the first that is computed.
        fetch, request = core.fetch, addresses.request
        is_q = fetch.payload.operand == Operand.Q
        last_token = Mux(is_q, last_query, last_key)
        of_last_block = fetch.payload.block == (last_token >> block_bits)
        turns = fetch.payload.operand != Operand.V
        m.d.comb += [
            request.payload.operand.eq(fetch.payload.operand),
            request.payload.block.eq(
                fetch.payload.block + Mux(is_q, head.first_block_row, 0)
            ),
            request.payload.tokens.eq(
                Mux(of_last_block, last_token[:block_bits] + 1, config.block)
            ),
            corner_turn.request.payload.operand.eq(fetch.payload.operand),
            corner_turn.request.payload.tokens.eq(request.payload.tokens),
            request.valid.eq(fetch.valid & (~turns | corner_turn.request.ready)),
            corner_turn.request.valid.eq(fetch.valid & turns & request.ready),
            fetch.ready.eq(request.ready & (~turns | corner_turn.request.ready)),
        ]
        all_fetched = core.command.ready & addresses.idle & codes.idle
        with m.If(started["core"] & started["codes"] & started["outputs"] & all_fetched):
            m.d.comb += queue.heads.ready.eq(1)
            m.d.sync += [flag.eq(0) for flag in started.values()]

    def _control(self, m: Module, stop, engine_reset, registers, counters, engine, core):
        """Start, end, errors, counters."""
        reader, writer, queue = engine["reader"], engine["writer"], engine["queue"]
        outputs = engine["outputs"]
        cause, cause_now = Signal(Cause), Signal(Cause)
        error_address = Signal(ADDRESS_BITS)
        resting, failed = Signal(), Signal()
        with m.If(queue.fault != Cause.NONE):
            m.d.comb += cause_now.eq(queue.fault)
        with m.Elif(core.empty_row):
            m.d.comb += cause_now.eq(Cause.EMPTY_ROW)
        with m.Elif(reader.failed):
            m.d.comb += cause_now.eq(Cause.READ_ERROR)
        with m.Elif(writer.failed):
            m.d.comb += cause_now.eq(Cause.WRITE_ERROR)
        m.d.comb += [
            failed.eq(cause_now != Cause.NONE),
            registers.status_busy.eq(~resting),
            registers.status_cause.eq(cause),
            registers.error_address_lo.eq(error_address[:32]),
            registers.error_address_hi.eq(error_address[32:]),
            queue.base.eq(registers.queue_base_lo | (registers.queue_base_hi << 32)),
            queue.count.eq(registers.queue_count),
        ]
        refused = registers.control_start & (~resting | ~registers.queue_count.any())
        with m.If(refused):
            m.d.comb += registers.status_error_set.eq(1)
            m.d.sync += cause.eq(Mux(resting, Cause.EMPTY_QUEUE, Cause.BUSY))

        with m.FSM():
            with m.State("REST"):
                m.d.comb += resting.eq(1)
                with m.If(registers.control_start & ~refused):
                    m.next = "CLEAR"
            with m.State("CLEAR"):
                m.d.comb += [engine_reset.eq(1), counters.clear.eq(1)]
                m.next = "START"
            with m.State("START"):
                m.d.comb += queue.start.eq(1)
                m.next = "WORK"
            with m.State("WORK"):
                with m.If(failed | registers.control_reset):
                    m.d.comb += registers.status_error_set.eq(failed)
                    m.d.sync += [
                        cause.eq(cause_now),
                        error_address.eq(
                            Mux(reader.failed, reader.failed_address, writer.failed_address)
                        ),
                        registers.error_head.eq(
                            Mux(
                                cause_now == Cause.WRITE_ERROR, registers.heads_done, queue.index
                            )
                        ),
                    ]
                    m.next = "STOP"
                with m.Elif(queue.idle & outputs.idle & writer.idle & ~core.busy):
                    m.d.comb += registers.status_done_set.eq(1)
                    m.next = "REST"
            with m.State("STOP"):
                m.d.comb += stop.eq(1)
                with m.If(reader.idle & writer.idle):
                    m.next = "RESET"
            with m.State("RESET"):
                m.d.comb += engine_reset.eq(1)
                m.next = "REST"

        # Counters.
        m.d.comb += [counters.enable.eq(~resting), counters.activity.eq(core.activity)]
        for name in counters.signature.members:
            if hasattr(registers, name):
                m.d.comb += getattr(registers, name).eq(getattr(counters, name))
        cycles = Signal(64)
        m.d.comb += [registers.cycles_lo.eq(cycles[:32]), registers.cycles_hi.eq(cycles[32:])]
        for counter, happens in (
            (cycles, ~resting),
            (registers.read_bursts, reader.burst),
            (registers.read_beats, reader.beat),
            (registers.write_bursts, writer.burst),
            (registers.write_beats, writer.beat),
            (registers.heads_done, outputs.head_done),
        ):
            with m.If(counters.clear):
                m.d.sync += counter.eq(0)
            with m.Elif(happens):
                m.d.sync += counter.eq(counter + 1)
