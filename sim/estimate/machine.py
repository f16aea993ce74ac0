"""Machines: multipliers, clock and memory, of our accelerator or lent to a peer."""

from dataclasses import dataclass

from paro.config import Config
from paro.config.errors import ParoError

__all__ = ["A100_BUFFER", "A100_BUFFER_GBS", "Machine", "Resources", "check_density"]

#: The A100's second-level cache, as NVIDIA's white paper has it: bytes, and 10^9 bytes a second
#: (5120 a cycle at 1.41 GHz).
A100_BUFFER = 40 * 2**20
A100_BUFFER_GBS = 5120 * 1.41
#: Legal numbers of cores, MHz and GB/s. A core may stand for a part of its time.
_LEAST, _BEYOND = 1e-6, 1e12


def check_density(density: float, name: str = "density") -> None:
    """Raise ParoError, which names ``name``, unless a share is above 0 and at most 1."""
    if not 0 < density <= 1:
        raise ParoError(f"{name} = {density:g} is not legal; legal: above 0, at most 1")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Resources that two machines share to be compared.

    Parameters
    ----------
    macs : float
        Multiply-accumulates a cycle: of 8 bits with ours, of a peer's own width with its.
    clock_hz : float
        Clock.
    bandwidth : float
        Bytes that the memory moves in a second, reads and writes together.
    buffer : float
        Bytes of memory on the chip that all multipliers share.
    """

    macs: float
    clock_hz: float
    bandwidth: float
    buffer: float = 0.0

    @property
    def macs_per_second(self) -> float:
        """Peak of multiply-accumulates."""
        return self.macs * self.clock_hz

    def seconds(self, macs: float, moved: float) -> float:
        """Seconds for some work: multiplication and memory overlap, the slower one counts."""
        return max(macs / self.macs_per_second, moved / self.bandwidth)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Cores of one configuration that share the heads, the block rows and the memory.

    Parameters
    ----------
    config : Config
        Each core, or each cluster of them.
    cores : float
        How many, of all clusters; a fraction stands for part of a core's time, to match a peak
        exactly.
    clock_mhz : float
        Clock.
    bandwidth_gbs : float
        Memory, 10^9 bytes a second.
    buffer_mib : float
        Memory on the chip between DRAM and the cores, 2^20 bytes. The RTL has none.
    buffer_gbs : float
        Bandwidth of that memory, 10^9 bytes a second; 0: as much as the cores' read ports take.
    latency : int
        Cycles from a request to the first beat, seen by each core.

    Raises
    ------
    ParoError
        If a value is not legal.
    """

    config: Config
    cores: float = 1.0
    clock_mhz: float = 1000.0
    bandwidth_gbs: float = 128.0
    buffer_mib: float = 0.0
    buffer_gbs: float = 0.0
    latency: int = 0

    def __post_init__(self) -> None:
        for name in ("cores", "clock_mhz", "bandwidth_gbs"):
            value = getattr(self, name)
            if not _LEAST <= value < _BEYOND:
                raise ParoError(
                    f"{name} = {value:g} is not legal; legal: {_LEAST:g} or more, below {_BEYOND:g}"
                )
        for name in ("buffer_mib", "buffer_gbs", "latency"):
            value = getattr(self, name)
            if not 0 <= value < _BEYOND:
                raise ParoError(
                    f"{name} = {value:g} is not legal; legal: 0 or more, below {_BEYOND:g}"
                )
        if self.cores < self.config.cores > 1:
            raise ParoError(
                f"cores = {self.cores:g} is not legal; legal: {self.config.cores} or more, those "
                "of a cluster"
            )

    @property
    def resources(self) -> Resources:
        """Resources that are lent to a peer."""
        return Resources(
            macs=self.cores * self.config.rows * self.config.cols,
            clock_hz=self.clock_mhz * 1e6,
            bandwidth=self.bandwidth_gbs * 1e9,
            buffer=self.buffer_mib * 2**20,
        )

    @property
    def clusters(self) -> float:
        """Clusters; as many as cores if each is alone."""
        return self.cores / self.config.cores

    @property
    def port_bandwidth(self) -> float:
        """Bytes that the read ports of all cores, or clusters, take in a second."""
        return self.clusters * self.config.axi_bits / 8 * self.clock_mhz * 1e6

    def with_resources(self, resources: Resources) -> "Machine":
        """Make a machine of the same cores with as many of them as ``resources`` ask for."""
        return Machine(
            config=self.config,
            cores=resources.macs / (self.config.rows * self.config.cols),
            clock_mhz=resources.clock_hz / 1e6,
            bandwidth_gbs=resources.bandwidth / 1e9,
            buffer_mib=resources.buffer / 2**20,
            buffer_gbs=self.buffer_gbs,
            latency=self.latency,
        )
