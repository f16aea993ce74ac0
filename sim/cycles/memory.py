"""How the memory of a simulated accelerator behaves."""

from dataclasses import dataclass
from math import ceil
from typing import ClassVar

from paro.config import Config, ParoError
from sim.cycles.stalls import CHANNELS, stall_rates

__all__ = ["Memory"]

#: Rate of a stall that never ends.
_RATE_ONE = 256


@dataclass(frozen=True)
class Memory:
    """Behaviour of the memory that the accelerator's harness has, with latency and stalls.

    Parameters
    ----------
    latency : (int, int)
        Least and most cycles from a read's address, and from a write's last beat, to the answer.
    stall_seed : int, optional
        Random stalls on every AXI channel; ``None`` for none.
    bandwidth : float, optional
        Bytes a cycle that the memory takes and gives in the mean, by random stalls of the data
        channels; ``None``: those of ``stall_seed``.
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
    bandwidth: float | None = None

    def stall_rates(self, config: Config) -> dict[str, int]:
        """Chance, of 256, that a stall begins or goes on in a cycle, by channel.

        Raises
        ------
        ParoError
            If the port of this configuration cannot have the bandwidth.
        """
        rates = {name: stall_rates(self.stall_seed)[name] for name in CHANNELS}
        if self.bandwidth is not None:
            beat_bytes = config.axi_bits // 8
            slowest = beat_bytes / _RATE_ONE
            if not slowest <= self.bandwidth <= beat_bytes:
                raise ParoError(
                    f"bandwidth = {self.bandwidth:g} bytes a cycle is not legal; legal: "
                    f"{slowest:g} to {beat_bytes}, the bytes of a beat"
                )
            # A beat and the stalls after it take 1 / (1 - chance) cycles in the mean.
            rates |= dict.fromkeys("rw", ceil(_RATE_ONE * (1 - self.bandwidth / beat_bytes)))
        return rates
