"""Grids of machines, which a sweep computes. Light to import: a bad grid is refused at once."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from paro.config import Config
from paro.config.errors import ParoError
from sim.estimate.machine import Machine
from sim.estimate.workloads import Workload, check_fits

__all__ = ["Grid", "check_sweep"]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Machines of a sweep; every combination is a point.

    Parameters
    ----------
    configs : tuple of Config
        Cores.
    clocks_mhz, bandwidths_gbs : tuple of float
        Clocks, and bandwidths of the memory, 10^9 bytes a second.
    cores : float
        Cores side by side, the same in all points.
    buffer_mib, buffer_gbs : float
        Buffer on the chip, the same in all points; as in `Machine`.
    """

    configs: tuple[Config, ...]
    clocks_mhz: tuple[float, ...]
    bandwidths_gbs: tuple[float, ...]
    cores: float = 1.0
    buffer_mib: float = 0.0
    buffer_gbs: float = 0.0

    def machines(self, config: Config) -> Iterator[Machine]:
        """Every machine whose cores are of ``config``; ParoError if one is not legal."""
        for clock, bandwidth in product(self.clocks_mhz, self.bandwidths_gbs):
            yield Machine(
                config=config,
                cores=self.cores,
                clock_mhz=clock,
                bandwidth_gbs=bandwidth,
                buffer_mib=self.buffer_mib,
                buffer_gbs=self.buffer_gbs,
            )


def check_sweep(workload: Workload, grid: Grid, jobs: int) -> None:
    """Raise ParoError if a machine is not legal or does not take the model, or ``jobs`` is 0."""
    for config in grid.configs:
        check_fits(workload, config)
        list(grid.machines(config))
    if jobs == 0:
        raise ParoError("jobs = 0 is not legal; legal: a number of processes, or -1 for all cores")
