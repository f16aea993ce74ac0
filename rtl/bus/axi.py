"""Memory port of the accelerator: its AXI4 signatures, and the runs that it reads and writes."""

from enum import IntEnum

from amaranth.hdl import Shape, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config
from paro.config.config import bits_unsigned
from paro.config.descriptor import ALIGNMENT
from paro.config.registers import MEMORY_ADDRESS_BITS
from rtl.interfaces import CODES_PER_BEAT

__all__ = [
    "CACHE_BUFFERABLE",
    "ERROR_BIT",
    "WORD_BYTES",
    "Burst",
    "Destination",
    "axi_read_signature",
    "axi_signature",
    "axi_write_signature",
    "cores_shape",
    "run_layout",
    "vector_shape",
]

#: Every run begins and ends at a multiple of so many bytes.
WORD_BYTES = ALIGNMENT

#: Cache attributes of every burst: normal memory, not cached, bufferable.
CACHE_BUFFERABLE = 0b0011

#: Bit of a response that is 1 in an error (SLVERR, DECERR) and 0 in OKAY and EXOKAY.
ERROR_BIT = 1


class Burst(IntEnum):
    """Burst types of AXI4; the accelerator uses INCR alone."""

    FIXED = 0
    INCR = 1
    WRAP = 2


class Destination(IntEnum):
    """Kind of a run's units, and so their consumer."""

    DESCRIPTOR = 0
    CODES = 1
    Q_SCALES = 2
    K_SCALES = 3
    Q = 4
    K = 5
    V = 6
    VECTOR = 7  # the vector unit; in writes too


def cores_shape(config: Config) -> Shape:
    """Shape of a bit for each core of a cluster; a single core needs none."""
    return unsigned(config.cores if config.cores > 1 else 0)


def vector_shape(config: Config) -> Shape:
    """Shape of a bit that tells the vector unit's bursts from others; without one there is none."""
    return unsigned(1 if config.vector_channels else 0)


def run_layout(config: Config) -> data.StructLayout:
    """``units`` (at least 1) consecutive units from ``address`` on, a multiple of 4.

    A unit is a beat of the core's stream: ``load_bytes`` bytes in reads, ``output_words`` words in
    writes. The longest runs are a block of output rows in units of one value, one block row's
    codes, and a row of the vector unit. In a cluster, ``cores`` has a bit for each core that takes
    the units.
    """
    codes = -(-config.blocks_max // CODES_PER_BEAT)
    longest = max(config.block * config.head_dim, codes, config.vector_channels)
    return data.StructLayout(
        {
            "address": unsigned(MEMORY_ADDRESS_BITS),
            "units": unsigned(bits_unsigned(longest)),
            "destination": unsigned(bits_unsigned(max(Destination))),
            "cores": cores_shape(config),
        }
    )


def _address_members(channel: str) -> dict[str, wiring.Member]:
    return {
        f"{channel}id": Out(1),
        f"{channel}addr": Out(MEMORY_ADDRESS_BITS),
        f"{channel}len": Out(8),
        f"{channel}size": Out(3),
        f"{channel}burst": Out(2),
        f"{channel}cache": Out(4),
        f"{channel}prot": Out(3),
        f"{channel}valid": Out(1),
        f"{channel}ready": In(1),
    }


def axi_read_signature(config: Config) -> wiring.Signature:
    """Read channels of an AXI4 master."""
    return wiring.Signature(
        {
            **_address_members("ar"),
            "rid": In(1),
            "rdata": In(config.axi_bits),
            "rresp": In(2),
            "rlast": In(1),
            "rvalid": In(1),
            "rready": Out(1),
        }
    )


def axi_write_signature(config: Config) -> wiring.Signature:
    """Write channels of an AXI4 master."""
    return wiring.Signature(
        {
            **_address_members("aw"),
            "wdata": Out(config.axi_bits),
            "wstrb": Out(config.axi_bits // 8),
            "wlast": Out(1),
            "wvalid": Out(1),
            "wready": In(1),
            "bid": In(1),
            "bresp": In(2),
            "bvalid": In(1),
            "bready": Out(1),
        }
    )


def axi_signature(config: Config) -> wiring.Signature:
    """All channels of an AXI4 master."""
    write, read = axi_write_signature(config), axi_read_signature(config)
    return wiring.Signature({**write.members, **read.members})
