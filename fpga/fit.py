"""The largest machine that a board holds, beside a dense INT8 array in the chip's multipliers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

from fpga.boards import Board, find_board
from fpga.dense_array import DenseDesign
from fpga.devices import Device, find_device, logic_cells
from fpga.synth import Progress, build, synth
from paro.config import Config, ParoError
from paro.config.formats import LANES, PAPER_BITS

__all__ = ["FILL_DEFAULT", "WIDTHS", "fit", "largest"]

#: Share of the logic cells that is given to a machine: more are hard to route.
FILL_DEFAULT = 0.9
#: Mean widths at which machines are compared, bits.
WIDTHS = (8.0, PAPER_BITS, 2.64)
#: Logic cells for each PE of a core with its self test, roughly: only says where the search begins.
_CELLS_A_PE = 500
#: Block rows of a superblock: more always read less.
_QUERY_ROWS = (2, 4, 8, 16)


def fit(
    board_name: str,
    base: Config,
    out_dir: Path,
    *,
    min_mhz: float,
    fill: float = FILL_DEFAULT,
    seed: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Find the machine of most PEs, then of most block rows in a superblock, and build it.

    Arrays are tried by Yosys, from one that should fit upwards while they fit, or downwards until
    one does. A superblock then takes the block RAM that is left. What fits by Yosys' counts is
    placed and routed.

    Parameters
    ----------
    board_name : str
        Name in `fpga.boards.BOARDS`.
    base : Config
        Block, channels and all else that the search does not choose.
    out_dir : Path
        Receives a folder of each trial, of the machine (``machine``) and of the dense array
        (``dense``), as `fpga.synth` fills them.
    min_mhz : float
        Clock that both bitstreams aim at.
    fill : float
        Share of the logic cells that a machine may take.
    seed : int
        Of nextpnr's placement.
    progress : callable, optional
        Called with each step as it begins.

    Returns
    -------
    dict
        ``tried`` (a row each: shape, counts, what it lacks); ``machine`` and ``dense``: reports of
        `fpga.synth.build`, with ``pes`` or ``macs``, ``shares`` of the device, and ``products``, in
        units of 1e9 a second by mean width, at the clock that each reaches; ``ratio`` of the two
        by mean width; ``equal_bits``, the mean width at which they are equal.

    Raises
    ------
    ParoError
        For an unknown board, or one that holds no machine; a tool that is missing or fails.
    """
    board = find_board(board_name)
    device = find_device(board.platform().device)
    trial = _Trial(board_name, device, out_dir, min_mhz, fill, progress)
    tried: list[dict[str, Any]] = []
    shapes = list(_shapes(base))
    likely = sum(_CELLS_A_PE * shape.rows * shape.cols <= device.logic for shape in shapes) - 1
    array = largest(shapes, max(likely, 0), trial, tried)
    if array is None:
        least = "; ".join(tried[-1]["lacks"])
        raise ParoError(f"{device.name} holds no core: one of 4 x 4 takes {least}")
    superblocks = [array.changed(query_rows=rows) for rows in _QUERY_ROWS]
    config = largest(superblocks, _QUERY_ROWS.index(4), trial, tried) or array
    _say(progress, f"{_name(config)}, place and route")
    machine = synth(config, board_name, out_dir / "machine", min_mhz=min_mhz, seed=seed)
    side = isqrt(device.dsp)
    _say(progress, f"dense {side} x {side}, place and route")
    dense = _build_dense(board, side, out_dir / "dense", min_mhz, seed)
    pes = config.rows * config.cols
    ours = {width: _rate(machine, LANES * pes * 2 / width) for width in WIDTHS}
    theirs = _rate(dense, side * side)
    return {
        "board": board_name,
        "device": device.name,
        "fill": fill,
        "tried": tried,
        "machine": machine | {"pes": pes, "shares": _shares(machine), "products": ours},
        "dense": dense | {"macs": side * side, "shares": _shares(dense), "products": theirs},
        "ratio": {width: round(rate / theirs, 2) for width, rate in ours.items()},
        "equal_bits": round(_rate(machine, LANES * pes * 2) / theirs, 2),
    }


@dataclass
class _Trial:
    """Yosys' answer to whether a machine fits."""

    board: str
    device: Device
    folder: Path
    min_mhz: float
    fill: float
    progress: Progress | None

    def __call__(self, config: Config) -> dict[str, Any]:
        name = _name(config)
        _say(self.progress, name)
        folder = self.folder / name.replace(" ", "_")
        counts = synth(config, self.board, folder, min_mhz=self.min_mhz, estimate=True)
        return {
            "rows": config.rows,
            "cols": config.cols,
            "query_rows": config.query_rows,
            "logic": logic_cells(counts),
            "bram": counts["bram"],
            "dsp": counts["dsp"],
            "lacks": self.device.lacks(counts, self.fill),
        }


def largest(
    machines: Sequence[Config],
    begin: int,
    trial: Callable[[Config], dict[str, Any]],
    tried: list[dict[str, Any]],
) -> Config | None:
    """Find the last of some machines that fits.

    Parameters
    ----------
    machines : sequence of Config
        Each larger than the one before.
    begin : int
        Where the search begins. It goes upwards while they fit, else downwards until one does.
    trial : callable
        Says what a machine ``lacks``: nothing if it fits.
    tried : list
        Receives the answer of each trial.

    Returns
    -------
    Config or None
        None if not even the first one fits.
    """
    fitting = None
    place, step = begin, 0
    while 0 <= place < len(machines):
        tried.append(trial(machines[place]))
        fits = not tried[-1]["lacks"]
        if fits:
            fitting = machines[place]
        if step and fits == (step < 0):
            break
        step = step or (1 if fits else -1)
        place += step
    return fitting


def _shapes(base: Config) -> Iterator[Config]:
    """Arrays of twice as many PEs each, as square as they can be, without superblocks."""
    rows = cols = 4
    while rows <= base.block and cols <= min(base.block, base.head_dim):
        yield base.changed(rows=rows, cols=cols, query_rows=1)
        rows, cols = (rows, 2 * cols) if rows == cols else (cols, cols)


def _build_dense(
    board: Board, side: int, folder: Path, min_mhz: float, seed: int
) -> dict[str, Any]:
    return build(DenseDesign(side, side), {}, board, folder, min_mhz=min_mhz, seed=seed)


def _name(config: Config) -> str:
    return f"{config.rows}x{config.cols} S={config.query_rows}"


def _rate(report: dict[str, Any], products_a_cycle: float) -> float:
    """Products in units of 1e9 a second."""
    return round(products_a_cycle * report["fmax_mhz"] / 1000, 2)


def _shares(report: dict[str, Any]) -> dict[str, float]:
    """Shares of the device's logic, multipliers and block RAM that nextpnr counts."""
    kinds = {"logic": "TRELLIS_COMB", "dsp": "MULT18X18D", "bram": "DP16KD"}
    none = {"used": 0, "available": 1}
    counts = {name: report["utilisation"].get(kind, none) for name, kind in kinds.items()}
    return {name: round(count["used"] / count["available"], 3) for name, count in counts.items()}


def _say(progress: Progress | None, what: str) -> None:
    if progress is not None:
        progress(what)
