"""What was generated, in figures that decide whether it fits."""

import re
from dataclasses import dataclass

from paro.config import Config
from paro.config.formats import CODE_BITS, CODE_DIGITS, LANES, SCALE_BYTES

__all__ = ["Summary", "memory_bits", "summarise"]

_MODULE = re.compile(r"^module (\S+?)\(.*?^endmodule", re.M | re.S)
_MEMORY = re.compile(r"^\s*reg (?:\[(\d+):0\] )?(?:\w+|\\\S+ ) ?\[(\d+):0\];", re.M)
_INSTANCE = r"^  ({prefix}__\w+) (?:\w+|\\\S+) +\("


@dataclass(frozen=True)
class Summary:
    """Figures of a core or accelerator.

    Parameters
    ----------
    cores : int
        Of the module.
    multipliers : int
        PEs of all cores: each has four digit lanes, a quarter of a product of 8 bits each.
    products_per_cycle : dict of int to int
        Products of an operand of 2, 4, 8 bits with one of 8, of all cores.
    memory_bits : int
        In all memories.
    bytes_per_cycle : dict of int to float
        K and V that must be read where every block is live and has 2, 4, 8 bits.
    """

    cores: int
    multipliers: int
    products_per_cycle: dict[int, int]
    memory_bits: int
    bytes_per_cycle: dict[int, float]


def summarise(config: Config, verilog: str, module: str, cores: int) -> Summary:
    """Figures of a generated module with so many cores."""
    pes = config.rows * config.cols
    digits = dict(zip(CODE_BITS[1:], CODE_DIGITS[1:], strict=True))
    # Of a block: QK and PV, each a product for every query, key and channel.
    products = 2 * config.block**2 * config.head_dim
    loaded = config.block * (2 * config.head_dim + SCALE_BYTES)
    return Summary(
        cores=cores,
        multipliers=cores * pes,
        products_per_cycle={bits: cores * pes * LANES // count for bits, count in digits.items()},
        memory_bits=memory_bits(verilog, module),
        bytes_per_cycle={
            bits: loaded / (config.query_rows * products * count / (LANES * pes))
            for bits, count in digits.items()
        },
    )


def memory_bits(verilog: str, module: str) -> int:
    """Bits of all memories below a module, in the text that `gen.verilog` makes."""
    instance = re.compile(_INSTANCE.format(prefix=re.escape(module)), re.M)
    own, inner = {}, {}
    for found in _MODULE.finditer(verilog):
        text = found[0]
        own[found[1]] = sum(
            (int(high or 0) + 1) * (int(last) + 1) for high, last in _MEMORY.findall(text)
        )
        inner[found[1]] = instance.findall(text)

    def below(name: str) -> int:
        return own[name] + sum(below(child) for child in inner[name])

    return below(module)
