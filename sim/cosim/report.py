"""Report of a co-simulation."""

from dataclasses import asdict, dataclass
from typing import Any

__all__ = [
    "HeadsReport",
    "LayerReport",
    "LinkReport",
    "MemoryReport",
    "Mismatch",
    "Report",
    "Traffic",
]


@dataclass(frozen=True)
class Mismatch:
    """An output word that is not the integer model's.

    Parameters
    ----------
    token : int
        Index in the capture's order.
    channel : int
        Index in the row.
    got, expected : int
        The words.
    head, position : int, optional
        Of a head: its index in the capture, and the token's in the head's order.
    """

    token: int
    channel: int
    got: int
    expected: int
    head: int | None = None
    position: int | None = None


@dataclass(frozen=True)
class Traffic:
    """Traffic of a memory port in one direction.

    Parameters
    ----------
    bytes_wanted : int
        Bytes that the heads need, see `sim.cosim.work.wanted_bytes`.
    bursts, beats : int
        Bursts and beats that were moved for them.
    beats_per_burst, bytes_wanted_per_beat_byte : float
        Ratios of these.
    """

    bytes_wanted: int
    bursts: int
    beats: int
    beats_per_burst: float
    bytes_wanted_per_beat_byte: float


@dataclass(frozen=True)
class MemoryReport:
    """The accelerator's memory and its traffic.

    Parameters
    ----------
    latency : list of int
        Least and most cycles to an answer.
    bandwidth : float or None
        Bytes a cycle that it gives and takes in the mean, if it is limited.
    interleaved : bool
        Whether all heads' tokens lie in one array.
    read, write : Traffic
        Traffic of each direction.
    """

    latency: list[int]
    bandwidth: float | None
    interleaved: bool
    read: Traffic
    write: Traffic


@dataclass(frozen=True)
class LinkReport:
    """The link to a board and its traffic.

    Parameters
    ----------
    device : str
        Where the board was reached.
    clock_mhz : float
        Clock of its accelerator and memory.
    bytes_written, bytes_read : int
        Bytes of memory that went over the link; those that were sent again count again.
    load_seconds, work_seconds, read_seconds : float
        Wall-clock time to load the queue, to work on it, to read and check the results.
    load_mb_per_second, read_mb_per_second : float
        Megabytes (10^6 bytes) a second, checks included.
    faults : list of str
        What the link lost or changed, noticed and mended.
    """

    device: str
    clock_mhz: float
    bytes_written: int
    bytes_read: int
    load_seconds: float
    work_seconds: float
    read_seconds: float
    load_mb_per_second: float
    read_mb_per_second: float
    faults: list[str]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the reports of heads and of layers share; content of ``report.json``, in its order.

    Parameters
    ----------
    bit_exact : bool
        Whether every expected word came out, no other one, and the bench objected to nothing.
    outputs_compared, mismatches : int
        Words that came out, and how many of them are wrong.
    first_mismatch : Mismatch or None
        The first of these.
    failure : str or None
        Objection of the bench.
    cycles, predicted_cycles : int or None
        Cycles from the first command to the last output, and those of the cycle model.
    cycles_as_predicted : bool or None
        See `sim.cosim.target.Target.is_as_predicted`; ``None`` after a failure.
    ideal_cycles : int
        Cycles if every lane of every core's array worked in every one, on valid tokens only.
    utilisation : float or None
        Ideal cycles over cycles.
    stages : dict of str to dict of str to int
        See `sim.cosim.target.Simulation`.
    cores : list of dict of str to dict of str to int, or None
        Of an accelerator with several cores, the stages of each.
    imbalance : float or None
        Likewise: cycles in which the busiest core's array works, over those of the mean.
    top : str
        Name of the target.
    memory : MemoryReport or None
        Of the accelerator.
    simulator : str
        Name and version.
    stall_seed : int or None
        Seed of random stalls.
    simulation_seconds : float
        Wall-clock time without builds.
    cycles_per_second : int
        Cycles simulated in one of them.
    capture, capture_sha256, config, avg_bits, tokens, mean_bits, density
        See `firmware_model.quality.evaluate.common_report` and `.layers.layer_report`.
    waves, trace, replay : str, optional
        Names of the files with the waveforms, the trace, the page that replays it; there only if
        they are.
    link : LinkReport, optional
        Of a board; there only if it is one.
    """

    bit_exact: bool
    outputs_compared: int
    mismatches: int
    first_mismatch: Mismatch | None
    failure: str | None
    cycles: int | None
    predicted_cycles: int | None
    cycles_as_predicted: bool | None
    ideal_cycles: int
    utilisation: float | None
    stages: dict[str, dict[str, int]]
    cores: list[dict[str, dict[str, int]]] | None
    imbalance: float | None
    top: str
    memory: MemoryReport | None
    simulator: str
    stall_seed: int | None
    simulation_seconds: float
    cycles_per_second: int
    capture: str
    capture_sha256: str
    config: dict[str, Any]
    avg_bits: float
    tokens: int
    mean_bits: float
    density: float
    waves: str | None = None
    trace: str | None = None
    replay: str | None = None
    link: LinkReport | None = None

    @property
    def passed(self) -> bool:
        """Whether every word is right, and the cycles are not other than predicted."""
        return self.bit_exact and self.cycles_as_predicted is not False

    @property
    def stage_cycles(self) -> int:
        """Cycles of all cores together, of which ``stages`` tells."""
        assert self.cycles, "stages are counted in cycles"
        return self.cycles * (len(self.cores) if self.cores else 1)

    def to_dict(self) -> dict[str, Any]:
        """Content of the JSON file."""
        content = asdict(self)
        for name in ("waves", "trace", "replay", "link"):
            if content[name] is None:
                del content[name]
        return content


@dataclass(frozen=True, kw_only=True)
class HeadsReport(Report):
    """Report of heads.

    Parameters
    ----------
    query_blocks : list of int
        First block row, and the end of them.
    layer, progress, rows, worst_head, worst_snr_db, heads
        See `firmware_model.quality.evaluate.common_report`; heads also have ``cycles``,
        ``ideal_cycles`` and ``utilisation``.
    """

    query_blocks: list[int]
    layer: int
    progress: float
    rows: int
    worst_head: int | None
    worst_snr_db: float | None
    heads: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class LayerReport(Report):
    """Report of a linear layer.

    Parameters
    ----------
    layer, inputs, outputs, rotation, snr_db, cosine, relative_l1, rmse
        See `firmware_model.quality.layers.layer_report`.
    """

    layer: str
    inputs: int
    outputs: int
    rotation: int
    snr_db: float | None
    cosine: float
    relative_l1: float | None
    rmse: float | None
