"""The registers of a board, and what checks the words in its memory.

In Migen, as all of LiteX.
"""

# Migen's `comb` and `sync` are no attributes that a type checker sees.
# pyright: reportOperatorIssue=false, reportIndexIssue=false

from functools import reduce
from operator import xor
from typing import Any

from litex.gen import LiteXModule
from litex.soc.interconnect import wishbone
from litex.soc.interconnect.csr import CSRStatus, CSRStorage
from migen import Cat, If, Signal

from paro.config.board_map import (
    BOARD_MAGIC,
    BOARD_REGISTERS,
    BOARD_VERSION,
    WORD_BYTES,
    WRITTEN_REGISTERS,
)

__all__ = ["BoardRegisters"]

#: CRC-32 of Ethernet and zlib, lowest bit first.
_POLYNOMIAL = 0xEDB8_8320
_WORD_BITS = 8 * WORD_BYTES


def _crc_step(crc: Any, word: Any) -> Any:
    """CRC after a word of 32 bits, lowest bit first: each bit a sum of some bits of both."""
    bits = [{("crc", i)} for i in range(_WORD_BITS)]
    for i in range(_WORD_BITS):
        feedback = bits[0] ^ {("word", i)}
        bits = [*bits[1:], set()]
        for j in range(_WORD_BITS):
            if _POLYNOMIAL >> j & 1:
                bits[j] = bits[j] ^ feedback
    sources = {"crc": crc, "word": word}
    return Cat(*(reduce(xor, (sources[name][i] for name, i in sorted(terms))) for terms in bits))


class BoardRegisters(LiteXModule):
    """Registers of `paro.config.board_map`, and a bus master that reads memory for its checksum.

    Parameters
    ----------
    facts : dict of str to int
        ``memory_bytes``, ``clock_hz``, ``baud``.
    ready, windows : Signal
        Values of the registers of these names.
    stored : Signal
        High for one cycle for each word of memory that a host writes.
    """

    def __init__(self, facts: dict[str, int], ready: Any, windows: Any, stored: Any):
        self.bus = bus = wishbone.Interface(
            data_width=_WORD_BITS, address_width=32, addressing="word"
        )
        constants = {"magic": BOARD_MAGIC, "version": BOARD_VERSION, **facts}
        for name in BOARD_REGISTERS:
            kind = CSRStorage if name in WRITTEN_REGISTERS else CSRStatus
            options: dict[str, Any] = {"reset": constants[name]} if name in constants else {}
            setattr(self, f"_{name}", kind(_WORD_BITS, name=name, **options))

        # # #

        crc = Signal(_WORD_BITS)
        left = Signal(_WORD_BITS)
        place = Signal(_WORD_BITS - 2)
        # After each word others have the bus: a host that asked for too many can ask anew.
        rests = Signal()
        self.comb += [
            self._ready.status.eq(ready),
            self._windows.status.eq(windows),
            self._busy.status.eq(left != 0),
            self._checksum.status.eq(~crc),
            bus.adr.eq(place),
            bus.sel.eq(2**WORD_BYTES - 1),
            bus.cyc.eq((left != 0) & ~rests),
            bus.stb.eq(bus.cyc),
        ]
        ended = bus.cyc & (bus.ack | bus.err)
        self.sync += [
            rests.eq(ended),
            If(stored, self._stored.status.eq(self._stored.status + 1)),
            If(
                self._words.re,
                left.eq(self._words.storage),
                place.eq(self._address.storage[2:]),
                crc.eq(2**_WORD_BITS - 1),
            ).Elif(
                ended,
                left.eq(left - 1),
                place.eq(place + 1),
                crc.eq(_crc_step(crc, bus.dat_r)),
                If(left == 1, self._checks.status.eq(self._checks.status + 1)),
            ),
        ]

    def get_csrs(self) -> list[Any]:
        """Registers in the order of the table."""
        return [getattr(self, f"_{name}") for name in BOARD_REGISTERS]
