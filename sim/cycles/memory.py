"""How the memory of a simulated accelerator behaves."""

from dataclasses import dataclass
from typing import ClassVar

__all__ = ["Memory"]


@dataclass(frozen=True)
class Memory:
    """Behaviour of `cocotbext.axi`'s memory, to which the harness adds latency and stalls.

    Parameters
    ----------
    latency : (int, int)
        Least and most cycles from a read's address, and from a write's last beat, to the answer.
    stall_seed : int, optional
        Random stalls on every AXI channel; ``None`` for none.
    interleaved : bool
        All heads' tokens lie in one array [token, head, channel], as a linear layer leaves them.
    base : int
        Where heads are placed.
    """

    #: Cycles from a read's address to its first beat, without the harness's latency.
    READ_ANSWER: ClassVar[int] = 2
    #: Cycles from a write's address and last beat to its answer, without the harness's latency.
    WRITE_ANSWER: ClassVar[int] = 2
    #: Beats of a write that are taken before their address.
    EARLY_BEATS: ClassVar[int] = 2
    #: Bursts of a write that are taken before the first one's data is complete.
    OPEN_BURSTS: ClassVar[int] = 3
    #: Cycles from when such a beat or burst has a place to when it is taken.
    QUEUE_WAIT: ClassVar[int] = 2

    latency: tuple[int, int] = (0, 0)
    stall_seed: int | None = None
    interleaved: bool = False
    base: int = 0x10000
