"""How the memory of a simulated accelerator behaves."""

from dataclasses import dataclass

__all__ = ["Memory"]


@dataclass(frozen=True)
class Memory:
    """How the memory behaves.

    Parameters
    ----------
    latency : (int, int)
        Least and most clocks from a read's address, and from a write's last beat, to the answer.
    stall_seed : int, optional
        Random pauses on every AXI channel; ``None`` for none.
    interleaved : bool
        All heads' tokens lie in one array [token, head, channel], as a linear layer leaves them.
    base : int
        Where heads are placed.
    """

    latency: tuple[int, int] = (0, 0)
    stall_seed: int | None = None
    interleaved: bool = False
    base: int = 0x10000
