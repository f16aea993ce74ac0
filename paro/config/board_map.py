"""The map of a board: where its host finds accelerator, memory and the registers of the link.

`BOARD_REGISTERS` is the one table; the SoC of `fpga.soc` and the host's driver come from it.
"""

import zlib

__all__ = [
    "BOARD_BASE",
    "BOARD_MAGIC",
    "BOARD_REGISTERS",
    "BOARD_SLOT",
    "BOARD_VERSION",
    "CSR_BASE",
    "MEMORY_BASE",
    "READY",
    "REGISTERS_BASE",
    "UNTRAINED",
    "WORD_BYTES",
    "board_address",
    "memory_checksum",
]

#: Bytes of a word of the bus.
WORD_BYTES = 4
#: Where the accelerator's registers begin on the bus.
REGISTERS_BASE = 0x3000_0000
#: Where the memory begins on the bus; the accelerator sees the same byte at 0.
MEMORY_BASE = 0x4000_0000
#: Where LiteX puts the registers of a SoC without CPU, in slots of 2 KiB.
CSR_BASE = 0x0000_0000
_SLOT_BYTES = 0x800
#: Slot of the registers below.
BOARD_SLOT = 20
BOARD_BASE = CSR_BASE + BOARD_SLOT * _SLOT_BYTES
#: "BORD" in memory, and version of the table.
BOARD_MAGIC = int.from_bytes(b"BORD", "little")
BOARD_VERSION = 2
#: Values of ``ready``: the memory works; a byte lane of it reads right at no setting.
READY, UNTRAINED = 1, 2

#: Registers of one word each, in the order of their addresses.
BOARD_REGISTERS = {
    "magic": 'Magic number, "BORD" in memory',
    "version": "Version of this table",
    "memory_bytes": "Bytes of the memory",
    "clock_hz": "Clock of accelerator and bus",
    "baud": "Bits a second of the serial line",
    "ready": "1: the memory has been started; 2: it reads wrong at every delay; 0: not yet",
    "windows": "Delays at which a byte lane of a DDR memory reads right: a byte for each of four",
    "address": "Byte address on the bus of the words to check, a multiple of 4",
    "words": "How many words to check; a write begins",
    "busy": "1: words are being read",
    "checks": "Checks that have ended; wraps",
    "checksum": "CRC-32 of the words that were checked last, each with its lowest byte first",
}


def board_address(name: str) -> int:
    """Byte address on the bus of one of the registers."""
    return BOARD_BASE + WORD_BYTES * list(BOARD_REGISTERS).index(name)


def memory_checksum(data: bytes) -> int:
    """Checksum as the board computes it, of whole words."""
    return zlib.crc32(data)
