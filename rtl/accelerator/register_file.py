"""Register file: the table of registers, read and written through an AXI4-Lite slave."""

from collections.abc import Iterator
from typing import NamedTuple

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config
from paro.config.registers import (
    REGISTER_ADDRESS_BITS,
    REGISTER_BITS,
    REGISTERS,
    Access,
    Field,
    Register,
)
from rtl.bus.axi_lite import Response, axi_lite_signature
from rtl.lib.arithmetic import log2

__all__ = ["RegisterFile", "member_name"]

#: Low bits of a byte address that say where in a register it points.
_BYTE_BITS = log2(REGISTER_BITS // 8)

#: A signal for each field of access ``w1c``, by the names of its register and of itself.
_Flags = dict[tuple[str, str], Signal]


def member_name(register: Register, field: Field) -> str:
    """Name of a field's member of `RegisterFile`."""
    name = register.name if field.name == "value" else f"{register.name}_{field.name}"
    return name.lower()


def _fields(access: Access) -> Iterator[tuple[Register, Field]]:
    """All fields of that access, each after its register."""
    for register in REGISTERS:
        for field in register.fields:
            if field.access == access:
                yield register, field


class RegisterFile(wiring.Component):
    """Registers of `paro.config.registers.REGISTERS`.

    Parameters
    ----------
    config : Config
        Values of the constant fields.

    Members
    -------
    s_axil : In, `rtl.bus.axi_lite.axi_lite_signature`
        The slave port. The two lowest address bits are ignored.
    irq : Out, 1
        Level: STATUS.done or STATUS.error is 1 and CONTROL.interrupt_enable too.
    <register>, <register>_<field> : In or Out
        For each field that is not constant, members of its width named by `member_name`: ``rw``
        Out, its value; ``strobe`` Out, one cycle a write of 1; ``ro`` In, its value; ``w1c`` In,
        with suffix ``_set``, sets it, and In, with suffix ``_clear``, clears it.

    Latency
    -------
    A read is answered 1 cycle after its address is taken, a write 2 cycles after the later of
    address and data; each channel takes one of them every 2 cycles. A written value, and a strobe,
    appears in the cycle in which the response is first offered.

    Contract
    --------
    Reads and writes go on side by side; address and data of a write come in any order. A read of an
    address without a register, a write to one, and a write to a register of which nothing can be
    written, are answered with SLVERR and change nothing. A ``w1c`` field that is set and cleared in
    one cycle is set. Reads change nothing.
    """

    def __init__(self, config: Config):
        self._config = config
        members: dict[str, wiring.Member] = {
            "s_axil": In(axi_lite_signature(REGISTER_ADDRESS_BITS)),
            "irq": Out(1),
        }
        for register in REGISTERS:
            for field in register.fields:
                if field.constant is not None:
                    continue
                name = member_name(register, field)
                if field.access == "w1c":
                    members[f"{name}_set"] = members[f"{name}_clear"] = In(field.width)
                elif field.access in ("rw", "strobe"):
                    member = Out(field.width, init=field.reset)  # pyright: ignore[reportCallIssue]
                    members[name] = member
                else:
                    members[name] = In(field.width)
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        flags = {
            (register.name, field.name): Signal(
                field.width, init=field.reset, name=f"{register.name}_{field.name}".lower()
            )
            for register, field in _fields("w1c")
        }
        self._write_fields(m, self._take_write(m), flags)
        self._answer_reads(m, flags)
        raised = flags["STATUS", "done"] | flags["STATUS", "error"]
        m.d.comb += self.irq.eq(raised & self.control_interrupt_enable)
        return m

    def _take_write(self, m: Module) -> "_Write":
        """Take address and data of a write, in any order, and offer its response: an error."""
        bus = self.s_axil
        address = Signal(REGISTER_ADDRESS_BITS - _BYTE_BITS)
        address_held = Signal()
        data = Signal.like(bus.wdata)
        lanes = Signal.like(bus.wstrb)
        data_held = Signal()
        do_write = Signal()
        m.d.comb += [
            bus.awready.eq(~address_held),
            bus.wready.eq(~data_held),
            do_write.eq(address_held & data_held & ~bus.bvalid),
        ]
        with m.If(bus.awvalid & bus.awready):
            m.d.sync += [address.eq(bus.awaddr[_BYTE_BITS:]), address_held.eq(1)]
        with m.If(bus.wvalid & bus.wready):
            m.d.sync += [data.eq(bus.wdata), lanes.eq(bus.wstrb), data_held.eq(1)]
        with m.If(bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        with m.If(do_write):
            m.d.sync += [
                address_held.eq(0),
                data_held.eq(0),
                bus.bvalid.eq(1),
                bus.bresp.eq(Response.SLVERR),
            ]

        written = Signal.like(bus.wdata)
        m.d.comb += written.eq(Cat(lane.replicate(8) for lane in lanes))
        return _Write(do_write, address, data, written)

    def _write_fields(self, m: Module, write: "_Write", flags: _Flags) -> None:
        """Change the fields of the register that is written; then the response is no error."""
        clears = {key: Signal.like(flag) for key, flag in flags.items()}
        for register, field in _fields("strobe"):
            m.d.sync += getattr(self, member_name(register, field)).eq(0)
        with m.Switch(write.address):
            for register in REGISTERS:
                if register.access == "ro":
                    continue
                with m.Case(register.offset >> _BYTE_BITS):
                    with m.If(write.do_write):
                        m.d.sync += self.s_axil.bresp.eq(Response.OKAY)
                        for field in register.fields:
                            self._write_field(m, register, field, write, clears)
        for register, field in _fields("w1c"):
            flag, clear = (signals[register.name, field.name] for signals in (flags, clears))
            name = member_name(register, field)
            sets, drops = getattr(self, f"{name}_set"), getattr(self, f"{name}_clear")
            m.d.sync += flag.eq((flag & ~clear & ~drops) | sets)

    def _write_field(
        self, m: Module, register: Register, field: Field, write: "_Write", clears: _Flags
    ) -> None:
        bits = slice(field.low, field.low + field.width)
        new, lane = write.data[bits], write.written[bits]
        if field.access == "rw":
            value = getattr(self, member_name(register, field))
            m.d.sync += value.eq((value & ~lane) | (new & lane))
        elif field.access == "strobe":
            pulse = getattr(self, member_name(register, field))
            m.d.sync += pulse.eq(new & lane)
        elif field.access == "w1c":
            m.d.comb += clears[register.name, field.name].eq(new & lane)

    def _answer_reads(self, m: Module, flags: _Flags) -> None:
        """Answer a read with its register's word, or with an error where there is none."""
        bus = self.s_axil
        m.d.comb += bus.arready.eq(~bus.rvalid)
        with m.If(bus.rready):
            m.d.sync += bus.rvalid.eq(0)
        with m.If(bus.arvalid & bus.arready):
            m.d.sync += [bus.rvalid.eq(1), bus.rresp.eq(Response.OKAY)]
            with m.Switch(bus.araddr[_BYTE_BITS:]):
                for register in REGISTERS:
                    with m.Case(register.offset >> _BYTE_BITS):
                        m.d.sync += bus.rdata.eq(self._word(register, flags))
                with m.Default():
                    m.d.sync += [bus.rdata.eq(0), bus.rresp.eq(Response.SLVERR)]

    def _word(self, register: Register, flags: _Flags) -> Value:
        """Word that a register reads as."""
        parts, width = [], 0
        for field in register.fields:
            if field.constant is not None:
                value = Const(field.constant(self._config), field.width)
            elif field.access == "strobe":
                value = Const(0, field.width)
            elif field.access == "w1c":
                value = flags[register.name, field.name]
            else:
                value = getattr(self, member_name(register, field))
            parts += [Const(0, field.low - width), value]
            width = field.low + field.width
        return Cat(parts)


class _Write(NamedTuple):
    """A write whose address and data are there."""

    do_write: Signal  # in this cycle
    address: Signal  # of a register, in words
    data: Signal
    written: Signal  # bits in the byte lanes that are written
