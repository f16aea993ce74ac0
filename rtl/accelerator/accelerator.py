"""The accelerator: registers, control and counters around the engine."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from paro.config import Config
from paro.config.descriptor import ALIGNMENT
from paro.config.registers import (
    REGISTER_ADDRESS_BITS,
    STAGES,
    STATES,
    WINDOWS,
    Cause,
    counter_name,
    window_name,
)
from rtl.accelerator.engine import Engine
from rtl.accelerator.register_file import RegisterFile
from rtl.accelerator.stage_counters import StageCounters
from rtl.bus.axi import axi_read_signature, axi_signature, axi_write_signature
from rtl.bus.axi_lite import axi_lite_signature
from rtl.lib.arithmetic import log2
from rtl.lib.library import replicate

__all__ = ["Accelerator", "accelerator_signature"]


def accelerator_signature(config: Config) -> wiring.Signature:
    """Ports of the accelerator, with AXI's names."""
    buses = {
        "m_axi": axi_signature(config),
        "s_axil": axi_lite_signature(REGISTER_ADDRESS_BITS).flip(),
    }
    ports: dict[str, wiring.Member] = {
        f"{prefix}_{name}": member
        for prefix, signature in buses.items()
        for name, member in signature.members.items()
    }
    return wiring.Signature({**ports, "irq": Out(1)})


class Accelerator(wiring.Component):
    """Registers, control and counters around the engine.

    The engine is reset before each start. After an error, and when software wants it, it is stopped
    first, so that no burst stays half done.

    Parameters
    ----------
    config : Config
        Shape of the core, data bits of the memory port.

    Members
    -------
    m_axi_* : `rtl.bus.axi.axi_signature`
        AXI4 master: one ID, INCR bursts that do not cross 4 KiB.
    s_axil_* : `rtl.bus.axi_lite.axi_lite_signature`, flipped
        AXI4-Lite slave that holds the registers.
    irq : Out, 1
        Interrupt, a level: a queue is done or an error is reported, and CONTROL enables it.

    Latency
    -------
    `DONE_LATENCY` cycles from the one after the last answer to a write until it rests.
    """

    DONE_LATENCY = 2

    def __init__(self, config: Config):
        self.config = config
        super().__init__(accelerator_signature(config))

    def elaborate(self, platform):
        m = Module()
        config = self.config
        reset = Signal()
        m.submodules.registers = registers = RegisterFile(config)
        counters = [StageCounters() for _ in range(config.cores)]
        for core, counter in enumerate(counters):
            m.submodules["counters" if config.cores == 1 else f"counters_{core}"] = counter
        (engine,) = replicate(m, platform, "engine", lambda: Engine(config), 1, reset=reset)
        self._connect_buses(m, registers, engine)
        resting = Signal()  # no queue is worked on or given up
        cause = Signal(Cause)  # of the last error
        accepted = self._judge_start(m, registers, resting, cause)
        with m.FSM():
            with m.State("REST"):
                m.d.comb += resting.eq(1)
                with m.If(accepted):
                    m.d.sync += [
                        engine.base.eq(_queue_base(registers)),
                        engine.count.eq(registers.queue_count),
                    ]
                    m.next = "CLEAR"
            with m.State("CLEAR"):
                m.d.comb += [reset.eq(1), *(counter.clear.eq(1) for counter in counters)]
                m.next = "START"
            with m.State("START"):
                m.d.comb += engine.start.eq(1)
                with m.If(registers.control_reset):
                    m.next = "RESET"
                with m.Else():
                    m.next = "WORK"
            with m.State("WORK"):
                with m.If(engine.cause != Cause.NONE):
                    self._report_error(m, registers, engine, cause)
                    m.next = "STOP"
                with m.Elif(registers.control_reset):
                    m.next = "STOP"
                with m.Elif(engine.done):
                    m.d.comb += registers.status_done_set.eq(1)
                    m.next = "REST"
            with m.State("STOP"):
                m.d.comb += engine.stop.eq(1)
                with m.If(engine.quiet):
                    m.next = "RESET"
            with m.State("RESET"):
                m.d.comb += [engine.stop.eq(1), reset.eq(1)]
                m.next = "REST"
        self._count(m, registers, counters, engine, resting)
        return m

    def _connect_buses(self, m: Module, registers: RegisterFile, engine: Engine) -> None:
        """Connect each port to the bus of the same name inside."""
        config = self.config
        for prefix, signature, port in (
            ("m_axi", axi_read_signature(config), engine.read),
            ("m_axi", axi_write_signature(config), engine.write),
            ("s_axil", axi_lite_signature(REGISTER_ADDRESS_BITS).flip(), registers.s_axil),
        ):
            for name, member in signature.members.items():
                outer, inner = getattr(self, f"{prefix}_{name}"), getattr(port, name)
                m.d.comb += outer.eq(inner) if member.flow is Out else inner.eq(outer)
        for index, window in enumerate(WINDOWS):
            for end in ("first", "last"):
                page = getattr(registers, window_name(window, end).lower())
                m.d.comb += engine.windows[index][end].eq(page)

    def _judge_start(
        self, m: Module, registers: RegisterFile, resting: Signal, cause: Signal
    ) -> Value:
        """Report a start that is refused; returns whether one is accepted in this cycle."""
        refusal = Signal(Cause)
        asked = registers.control_start & ~registers.control_reset
        accepted = asked & (refusal == Cause.NONE)
        with m.If(~resting):
            m.d.comb += refusal.eq(Cause.BUSY)
        with m.Elif(~registers.queue_count.any()):
            m.d.comb += refusal.eq(Cause.EMPTY_QUEUE)
        with m.Elif(_queue_base(registers)[: log2(ALIGNMENT)].any()):
            m.d.comb += refusal.eq(Cause.BAD_QUEUE_BASE)
        m.d.comb += [
            self.irq.eq(registers.irq),
            registers.status_busy.eq(~resting),
            registers.status_cause.eq(cause),
            registers.status_done_clear.eq(accepted),
            registers.status_error_clear.eq(accepted),
        ]
        with m.If(asked & ~accepted):
            m.d.comb += registers.status_error_set.eq(1)
            m.d.sync += cause.eq(refusal)
        return accepted

    def _report_error(
        self, m: Module, registers: RegisterFile, engine: Engine, cause: Signal
    ) -> None:
        """Report the engine's error; one of a write belongs to the first head not yet written."""
        address = Cat(registers.error_address_lo, registers.error_address_hi)
        of_write = (engine.cause == Cause.WRITE_ERROR) | (engine.cause == Cause.WRITE_OUTSIDE)
        head = engine.head
        if not self.config.vector_channels:
            head = Mux(of_write, registers.heads_done, head)
        m.d.comb += registers.status_error_set.eq(1)
        m.d.sync += [
            cause.eq(engine.cause),
            address.eq(engine.error_address),
            registers.error_head.eq(head),
        ]

    def _count(
        self,
        m: Module,
        registers: RegisterFile,
        counters: list[StageCounters],
        engine: Engine,
        resting: Signal,
    ) -> None:
        """Count, until the next start, the states of stages, cycles, bursts, beats and heads."""
        for core, counter in enumerate(counters):
            m.d.comb += [
                counter.enable.eq(~resting),
                counter.activity.eq(engine.activity[core]),
            ]
        counted = registers.counted_core[: log2(self.config.cores)]
        for stage in STAGES:
            for state in STATES:
                register = getattr(registers, counter_name(stage, state).lower())
                of_cores = Array(counter.counters[stage][state] for counter in counters)
                m.d.comb += register.eq(of_cores[counted])
        cycles = Signal(64)
        m.d.comb += Cat(registers.cycles_lo, registers.cycles_hi).eq(cycles)
        for counter, happens in (
            (cycles, ~resting),
            (registers.read_bursts, engine.read_burst),
            (registers.read_beats, engine.read_beat),
            (registers.write_bursts, engine.write_burst),
            (registers.write_beats, engine.write_beat),
            (registers.heads_done, engine.head_done),
        ):
            with m.If(counters[0].clear):
                m.d.sync += counter.eq(0)
            with m.Elif(happens):
                m.d.sync += counter.eq(counter + 1)


def _queue_base(registers: RegisterFile) -> Value:
    return Cat(registers.queue_base_lo, registers.queue_base_hi)
