"""The SoC of a board: LiteX's bus, UART bridge and memory controller, and the accelerator.

The same `add_accelerator` makes the real board and the simulated one; they differ in what LiteX has
at the pins.
"""

# Migen's `comb` is no attribute that a type checker sees.
# pyright: reportOperatorIssue=false

import inspect
import sys
from pathlib import Path
from typing import Any

from litedram import modules as memory_modules
from litedram.frontend.axi import LiteDRAMAXI2Native
from litedram.phy.model import SDRAMPHYModel
from litex.build.generic_platform import Pins, Subsignal
from litex.build.io import CRG
from litex.build.sim.platform import SimPlatform
from litex.gen import LiteXModule
from litex.soc.cores.uart import RS232PHY, Stream2Wishbone
from litex.soc.integration.soc import SoCRegion
from litex.soc.integration.soc_core import SoCCore
from litex.soc.interconnect import axi, stream
from migen import ClockSignal, Instance, ResetSignal

from fpga.soc.boards import SIMULATED_BIT, SocBoard
from fpga.soc.gateware import BoardRegisters
from fpga.soc.skewed_memory import SkewedMemory
from fpga.soc.starter import MemoryStarter
from gen.names import ACCELERATOR, module_name
from paro.config import Config, ParoError
from paro.config.board_map import BOARD_SLOT, MEMORY_BASE, REGISTERS_BASE
from paro.config.registers import REGISTER_ADDRESS_BITS

__all__ = ["ETHERBONE_WORDS", "SOC_OPTIONS", "TOP", "add_accelerator", "real_soc", "simulated_soc"]

#: Name of the SoC's module.
TOP = "paro_board"

#: What every SoC here has of LiteX's own: no CPU, no memory of its own, no register that resets it.
SOC_OPTIONS: dict[str, Any] = {
    "cpu_type": None,
    "with_uart": False,
    "with_timer": False,
    "with_ctrl": False,
    "integrated_rom_size": 0,
    "integrated_sram_size": 0,
    "bus_timeout": 4096,
}

#: Commands that wait in the bridge while it answers: reads may follow each other without a gap.
_COMMAND_BYTES = 128
#: The bridge forgets a command that does not end within so many times the longest one.
_COMMAND_TIMES = 3
#: Bytes of the longest command of UARTBone, and bits of a byte on the line.
_LONGEST_COMMAND, _LINE_BITS = 6 + 4 * 255, 10
#: Words of a packet that Etherbone holds: an address and as many as the host sends at once.
ETHERBONE_WORDS = 256


class _Bridge(LiteXModule):
    """LiteX's UART bridge behind a queue of commands.

    Parameters
    ----------
    pads : Record
        With ``tx`` and ``rx``.
    clk_freq, baud : int
        Clock of the bus, bits a second.
    """

    def __init__(self, pads: Any, clk_freq: int, baud: int):
        self.phy = phy = RS232PHY(pads, clk_freq, baud)
        self.queue = queue = stream.SyncFIFO([("data", 8)], _COMMAND_BYTES, buffered=True)
        # LiteX's own limit is 100 ms of its clock.
        limit = _COMMAND_TIMES * _LONGEST_COMMAND * _LINE_BITS / baud
        self.bone = bone = Stream2Wishbone(clk_freq=clk_freq * limit / 100e-3)
        self.comb += [
            phy.source.connect(queue.sink),
            queue.source.connect(bone.sink),
            bone.source.connect(phy.sink),
        ]


def add_accelerator(soc: Any, config: Config, verilog: Path, baud: int, pads: Any) -> None:
    """Add accelerator, serial line and what starts and checks the memory.

    Parameters
    ----------
    soc : SoCCore
        With a memory ``sdram`` of LiteDRAM, made with `SOC_OPTIONS`.
    config : Config
        The accelerator.
    verilog : Path
        Its Verilog.
    baud : int
        Bits a second of the serial line.
    pads : Record or None
        The line, ``tx`` and ``rx``; None if there is another link.

    Raises
    ------
    ParoError
        If there is no such memory, or one that this project cannot start.
    """
    phys = [getattr(soc, name) for name in ("sdrphy", "ddrphy") if hasattr(soc, name)]
    region = soc.bus.regions.get("main_ram")
    if not phys or region is None or region.origin != MEMORY_BASE:
        raise ParoError(
            f"this board has no memory of LiteDRAM at {MEMORY_BASE:#x}; legal: targets that have"
        )
    soc.platform.add_source(str(verilog))
    _add_device(soc, config)
    if pads is not None:
        soc.add_module("bridge", _Bridge(pads, int(soc.sys_clk_freq), baud))
        soc.bus.add_master("bridge", master=soc.bridge.bone.wishbone)
    soc.add_module("starter", MemoryStarter(soc.sdram, phys[0]))
    facts = {
        "memory_bytes": region.size,
        "clock_hz": int(soc.sys_clk_freq),
        "baud": baud,
    }
    soc.csr.add("board", n=BOARD_SLOT)
    soc.add_module("board", BoardRegisters(facts, soc.starter.state, soc.starter.windows))
    soc.bus.add_master("checker", master=soc.board.bus)


def _add_device(soc: Any, config: Config) -> None:
    """Add the accelerator on a port of the memory and on the bus; its host polls."""
    registers = axi.AXILiteInterface(data_width=32, address_width=32)
    region = SoCRegion(origin=REGISTERS_BASE, size=1 << REGISTER_ADDRESS_BITS, cached=False)
    soc.bus.add_slave("paro", registers, region)
    memory = axi.AXIInterface(data_width=config.axi_bits, address_width=32, id_width=1)
    port = soc.sdram.crossbar.get_port(data_width=config.axi_bits)
    soc.submodules += LiteDRAMAXI2Native(memory, port)
    soc.specials += Instance(
        module_name(config, ACCELERATOR, None),
        i_clk=ClockSignal("sys"),
        i_rst=ResetSignal("sys"),
        **_master_ports("m_axi", memory),
        **_slave_ports("s_axil", registers, REGISTER_ADDRESS_BITS),
    )


def _master_ports(prefix: str, bus: Any) -> dict[str, Any]:
    """Ports of an AXI4 master by name; the memory is smaller than its address space."""
    ports = {}
    for name in ("aw", "ar"):
        channel = getattr(bus, name)
        for field in ("id", "len", "size", "burst", "cache", "prot"):
            ports[f"o_{prefix}_{name}{field}"] = getattr(channel, field)
        ports[f"o_{prefix}_{name}addr"] = channel.addr
    for field in ("data", "strb", "last"):
        ports[f"o_{prefix}_w{field}"] = getattr(bus.w, field)
    for field in ("id", "data", "resp", "last"):
        ports[f"i_{prefix}_r{field}"] = getattr(bus.r, field)
    for field in ("id", "resp"):
        ports[f"i_{prefix}_b{field}"] = getattr(bus.b, field)
    return ports | _handshakes(prefix, bus, "o", "i")


def _slave_ports(prefix: str, bus: Any, address_bits: int) -> dict[str, Any]:
    """Ports of an AXI4-Lite slave by name."""
    ports = {
        f"i_{prefix}_awaddr": bus.aw.addr[:address_bits],
        f"i_{prefix}_araddr": bus.ar.addr[:address_bits],
        f"i_{prefix}_wdata": bus.w.data,
        f"i_{prefix}_wstrb": bus.w.strb,
        f"o_{prefix}_rdata": bus.r.data,
        f"o_{prefix}_rresp": bus.r.resp,
        f"o_{prefix}_bresp": bus.b.resp,
    }
    return ports | _handshakes(prefix, bus, "i", "o")


def _handshakes(prefix: str, bus: Any, asks: str, answers: str) -> dict[str, Any]:
    """Valid and ready of all channels: who asks drives the valid of addresses and written data."""
    ports = {}
    for names, valid, ready in ((("aw", "ar", "w"), asks, answers), (("r", "b"), answers, asks)):
        for name in names:
            ports[f"{valid}_{prefix}_{name}valid"] = getattr(bus, name).valid
            ports[f"{ready}_{prefix}_{name}ready"] = getattr(bus, name).ready
    return ports


def simulated_soc(config: Config, board: SocBoard, verilog: Path) -> Any:
    """SoC of a board with models in place of its oscillator, PLL, memory chip and pins."""
    io = [
        ("sys_clk", 0, Pins(1)),
        ("serial", 0, Subsignal("tx", Pins(1)), Subsignal("rx", Pins(1))),
    ]
    platform = SimPlatform("SIM", io)
    memory, clock = board.memory, int((board.clock_mhz or 0) * 1e6)
    if memory is None or not clock:
        raise ParoError(f"board {board.name} is not simulated: its memory is not known here")
    soc: Any = SoCCore(platform, clock, ident="", **SOC_OPTIONS)
    soc.crg = CRG(platform.request("sys_clk"))
    module = getattr(memory_modules, memory.module)(clock, memory.rate)
    if memory.kind == "SDR":
        soc.sdrphy = SDRAMPHYModel(
            module=module, data_width=memory.data_bits, clk_freq=clock, verbosity=0
        )
    else:
        soc.ddrphy = SkewedMemory(module, memory.data_bits, clock)
    phy = soc.sdrphy if memory.kind == "SDR" else soc.ddrphy
    soc.add_sdram("sdram", phy=phy, module=module, origin=MEMORY_BASE, l2_cache_size=0)
    baud = clock // SIMULATED_BIT
    add_accelerator(soc, config, verilog, baud, platform.request("serial"))
    return soc


def real_soc(config: Config, board: SocBoard, verilog: Path, ip_address: str) -> Any:
    """SoC of a board on its own pins, from LiteX's target of its name.

    Parameters
    ----------
    config : Config
        The accelerator.
    board : SocBoard
        The board.
    verilog : Path
        The accelerator's Verilog.
    ip_address : str
        Of a board with Ethernet.

    Raises
    ------
    ParoError
        If the target has no memory that can be used, or no link.
    """
    base = board.base_soc()

    class Target(base):
        """The target without what stands between memory and accelerator, or is of no use here."""

        def add_sdram(self, *arguments: Any, **options: Any) -> None:
            # The accelerator would not see what a cache holds.
            super().add_sdram(*arguments, **options | {"l2_cache_size": 0})

        def add_spi_flash(self, *arguments: Any, **options: Any) -> None:
            pass

        def add_etherbone(self, *arguments: Any, **options: Any) -> None:
            own = {"ip_address": ip_address, "buffer_depth": ETHERBONE_WORDS}
            super().add_etherbone(*arguments, **options | own)

    clock = {}
    if board.clock_mhz is not None:
        if "sys_clk_freq" not in inspect.signature(base.__init__).parameters:
            raise ParoError(
                f"the clock of board {board.name} cannot be chosen; leave out --min-mhz"
            )
        clock["sys_clk_freq"] = int(board.clock_mhz * 1e6)
    soc: Any = Target(**clock, **board.options, **SOC_OPTIONS)
    if board.extension:
        pins = getattr(sys.modules[type(soc.platform).__module__], board.extension)
        soc.platform.add_extension(pins)
    pads = soc.platform.request("serial", loose=True)
    if pads is None and not board.has_ethernet:
        raise ParoError(f"board {board.name} has no serial port and no Etherbone: there is no link")
    add_accelerator(soc, config, verilog, board.baud, pads)
    return soc
