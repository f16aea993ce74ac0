"""AXI4-Lite: the port through which software reaches the registers."""

from enum import IntEnum

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from paro.config.registers import REGISTER_BITS

__all__ = ["Response", "axi_lite_signature"]


class Response(IntEnum):
    """Response of a slave, here and in AXI4."""

    OKAY = 0
    EXOKAY = 1
    SLVERR = 2
    DECERR = 3


def axi_lite_signature(address_bits: int) -> wiring.Signature:
    """AXI4-Lite with 32-bit data, as a master sees it; protection bits are left out."""
    return wiring.Signature(
        {
            "awaddr": Out(address_bits),
            "awvalid": Out(1),
            "awready": In(1),
            "wdata": Out(REGISTER_BITS),
            "wstrb": Out(REGISTER_BITS // 8),
            "wvalid": Out(1),
            "wready": In(1),
            "bresp": In(2),
            "bvalid": In(1),
            "bready": Out(1),
            "araddr": Out(address_bits),
            "arvalid": Out(1),
            "arready": In(1),
            "rdata": In(REGISTER_BITS),
            "rresp": In(2),
            "rvalid": In(1),
            "rready": Out(1),
        }
    )
