"""Legal values of what users choose by name or number.

Nothing here needs torch, so that a command refuses what is not legal before it loads anything.
"""

from collections.abc import Sequence
from typing import Literal, get_args

from paro.config.config import BLOCKS
from paro.config.errors import ParoError
from paro.config.formats import CODE_BITS

__all__ = [
    "ARRAY_FILES",
    "CAPTURED",
    "FORMAT_NAMES",
    "INPUT_TRANSFORMS",
    "INTEGER",
    "METHODS",
    "ORDERS",
    "ROUNDINGS",
    "TRANSFORMS",
    "Rounding",
    "check_avg_bits",
    "check_block",
    "check_choice",
    "check_weight_bits",
]

#: Name of each token order: its axes from slowest to fastest. Plans store the index.
ORDERS = ("FHW", "FWH", "HWF", "HFW", "WHF", "WFH")
#: Name of each transform of the channels of Q and K. Plans store the index.
TRANSFORMS = ("none", "balance", "rotate", "balance-rotate")
#: What is captured of a model.
CAPTURED = ("attention", "linear", "both")
#: Files that arrays are read from, and what they may hold.
ARRAY_FILES = {
    ".npz": "arrays (numpy.savez without objects)",
    ".pt": "tensors in plain containers (torch.save of a dict of tensors)",
    ".pth": "tensors in plain containers (torch.save of a dict of tensors)",
    ".safetensors": "tensors (safetensors)",
}
#: Ways to choose whether the inputs of a linear layer are rotated.
INPUT_TRANSFORMS = ("error", "none")
#: Number formats of floating point attention, see `reference.number_formats`.
FORMAT_NAMES = (
    "float",
    "digit",
    "digit-4",
    "paper",
    "linear",
    "int8",
    "int4",
    "pv-int8",
    "pv-int4",
)
#: The bit-exact model of the hardware.
INTEGER = "integer"
#: Every way to compute attention.
METHODS = (INTEGER, *FORMAT_NAMES)
#: Number formats that have a choice of widths.
Rounding = Literal["digit", "digit-4", "paper", "linear"]
ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)


def check_choice(name: str, value: object, legal: Sequence[object]) -> None:
    """Raise ParoError, which names ``name``, unless ``value`` is one of ``legal``."""
    if value not in legal:
        raise ParoError(f"{name} = {value!r} is not legal; legal: {', '.join(map(str, legal))}")


def check_block(block: int) -> None:
    """Raise ParoError unless ``block`` is a legal block size."""
    check_choice("block", block, BLOCKS)


def check_avg_bits(avg_bits: float) -> None:
    """Raise ParoError unless ``avg_bits`` is a legal mean width."""
    if not 0 < avg_bits <= CODE_BITS[-1]:
        raise ParoError(
            f"avg_bits = {avg_bits} is not legal; legal: above 0, at most {CODE_BITS[-1]}"
        )


def check_weight_bits(bits: float, name: str = "weight_bits") -> None:
    """Raise ParoError, which names ``name``, unless ``bits`` is a legal mean width of weights."""
    if not CODE_BITS[1] <= bits <= CODE_BITS[-1]:
        raise ParoError(f"{name} = {bits} is not legal; legal: {CODE_BITS[1]} to {CODE_BITS[-1]}")
