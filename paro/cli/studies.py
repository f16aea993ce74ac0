"""The studies of `paro study`: options, computation, tables, chart and closing lines of each."""

import importlib.util
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paro.cli import hardware_studies
from paro.cli.console import progress_bar
from paro.config.config import padded_head_dim
from paro.config.errors import ParoError
from paro.config.formats import PAPER_BITS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from firmware_model.calibration.goal import Goal
    from firmware_model.capture import Capture
    from firmware_model.layer import LayerFile

__all__ = ["STUDIES", "Settings", "Study"]

#: Rows of a table: the values of each by the name of its column.
Rows = list[dict[str, Any]]

#: pruning: thresholds, the least weight that lives relative to the mean weight.
_THRESHOLDS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of a study, checked.

    Parameters
    ----------
    goal : Goal
        Mean width, block and order of plans.
    widths : tuple of float
        Mean widths to try.
    densities : tuple of float
        Shares of live blocks to try.
    at : float
        Share of the denoising steps at which a plan is calibrated that others take over.
    target_snr_db : float
        Quality that pruning must reach.
    samples : int
        Videos of each way to quantise layers or a network.
    place : bool
        Whether processing elements go through place and route.
    liberty : Path, optional
        Standard cells for the areas of processing elements.
    board : str
        Whose FPGA is to be filled.
    min_mhz : float
        Clock that its bitstreams aim at.
    folder : Path
        For the results.
    """

    goal: "Goal"
    widths: tuple[float, ...]
    densities: tuple[float, ...]
    at: float
    target_snr_db: float
    samples: int
    place: bool
    liberty: Path | None
    board: str
    min_mhz: float
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Study:
    """One comparison.

    Parameters
    ----------
    run : callable
        Computes the result from captures and settings; JSON content.
    options : tuple of str
        Options of the command that it takes, beside --block.
    widths : str
        Mean widths by default.
    needs_captures : bool
        Whether captures must be given; otherwise the one that ships stands in, or ``own``.
    of_layers : bool
        Whether the captures are of linear layers, read when they are needed.
    own : callable, optional
        Makes captures where none are given.
    rows : callable
        Rows of its table, from the result.
    tables : callable, optional
        Titles and rows of its tables, for a study that has other tables than one of its rows.
    chart : callable, optional
        Draws the result.
    closing : callable, optional
        Lines below the tables, from the result and the folder.
    """

    run: Callable[[Sequence[Any], Settings], Any]
    options: tuple[str, ...] = ()
    widths: str = "2,2.5,3,3.5,4,4.8,6"
    needs_captures: bool = True
    of_layers: bool = False
    own: "Callable[[], Sequence[Capture]] | None" = None
    rows: Callable[[Any], Rows] = lambda result: result
    tables: Callable[[Any], list[tuple[str, Rows]]] | None = None
    chart: "Callable[[Any], Figure] | None" = None
    closing: Callable[[Any, Path], Iterator[str]] = lambda result, folder: iter(())


def _run_formats(captures: Sequence["Capture"], settings: Settings) -> dict[str, Any]:
    from firmware_model.quality.study import format_study

    goal = settings.goal
    with progress_bar("formats") as progress:
        return format_study(captures, settings.widths, goal.block, goal.order, progress=progress)


def _format_rows(result: dict[str, Any]) -> Rows:
    hidden = ("avg_bits", "worst_head")
    return [
        {name: value for name, value in row.items() if name not in hidden} for row in result["rows"]
    ]


def _format_chart(result: dict[str, Any]) -> "Figure":
    from paro.cli.drawing import format_figure

    return format_figure(result)


def _format_closing(result: dict[str, Any], folder: Path) -> Iterator[str]:
    equal = result["equal_bits"]
    if equal is None:
        yield (
            f"The integer model meets the paper's formats at {PAPER_BITS} bits at none of the "
            "widths between those tried."
        )
    else:
        yield (
            f"The integer model is as good as the paper's formats at {PAPER_BITS} bits at {equal}."
        )
    yield f"drawn: {folder / 'formats.png'}"


def _run_blocks(captures: Sequence["Capture"], settings: Settings) -> Rows:
    from sim.estimate.block_study import block_study

    with progress_bar("blocks") as progress:
        return block_study(captures, settings.widths, progress=progress)


def _run_sparsity(captures: Sequence["Capture"], settings: Settings) -> Rows:
    from firmware_model.quality.study import sparsity_study

    with progress_bar("sparsity") as progress:
        return sparsity_study(captures, settings.densities, settings.goal.block, progress)


def _sparsity_rows(result: Rows) -> Rows:
    return [
        {name: row[name] for name in ("capture", "head", "order")} | part
        for row in result
        for part in row["densities"]
    ]


def _run_ablation(captures: Sequence["Capture"], settings: Settings) -> Rows:
    from firmware_model.quality.study import ablation_study

    with progress_bar("ablation") as progress:
        return ablation_study(captures, settings.goal.block, progress)


def _run_carry_over(captures: Sequence["Capture"], settings: Settings) -> Rows:
    from firmware_model.quality.study import carry_over_study

    with progress_bar("carry-over") as progress:
        return carry_over_study(captures, settings.at, settings.goal, progress)


def _run_pruning(captures: Sequence["Capture"], settings: Settings) -> dict[str, Any]:
    from firmware_model.quality.study import pruning_study

    with progress_bar("pruning") as progress:
        return pruning_study(captures, _THRESHOLDS, settings.target_snr_db, progress)


def _pruning_closing(result: dict[str, Any], folder: Path) -> Iterator[str]:
    yield f"{result['target_snr_db']:g} dB need {result['equal_density']} of the weights."


def _run_layers(layers: Sequence["LayerFile"], settings: Settings) -> Rows:
    from firmware_model.models.layer_study import layer_study
    from firmware_model.models.models import open_model
    from firmware_model.models.names import OWN_MODEL

    pipeline = open_model(Path(OWN_MODEL))
    with progress_bar("layers") as progress:
        return layer_study(
            pipeline,
            layers,
            settings.widths,
            settings.samples,
            settings.goal.block,
            padded_head_dim(pipeline.shape.head_dim),
            progress,
        )


def _run_network(captures: Sequence["Capture"], settings: Settings) -> Rows:
    from firmware_model.models.names import OWN_CHECKPOINT
    from firmware_model.models.network_study import network_study
    from firmware_model.models.video.pipeline import VideoPipeline

    if captures:
        raise ParoError("the study 'network' makes its captures itself; legal: none given")
    with progress_bar("network") as progress:
        return network_study(VideoPipeline(OWN_CHECKPOINT), settings.samples, progress=progress)


def _network_closing(result: Rows, folder: Path) -> Iterator[str]:
    from firmware_model.models.video.program import HOST

    yield f"between: what lies between attention and linear layers. On the host: {'; '.join(HOST)}."


def _run_processors(captures: Sequence["Capture"], settings: Settings) -> dict[str, Any]:
    from firmware_model.models import sparse_study

    with progress_bar("heads") as progress:
        rows, plans = sparse_study.head_study(
            captures, settings.densities, settings.goal.block, progress=progress
        )
    if importlib.util.find_spec("diffusers") is not None:
        with progress_bar("block") as progress:
            rows += sparse_study.block_study(plans, progress=progress)
    return {"machine": _machine(), "rows": rows}


def _machine() -> dict[str, Any]:
    """Where something was timed."""
    import torch

    threads = torch.get_num_threads()
    return {"processor": platform.processor(), "threads": threads, "torch": torch.__version__}


def _local_heads() -> Sequence["Capture"]:
    from firmware_model.models.sparse_study import local_head

    return [local_head()]


def _processors_closing(result: dict[str, Any], folder: Path) -> Iterator[str]:
    machine = result["machine"]
    yield (
        f"{machine['threads']} threads, torch {machine['torch']}; ratio: seconds of torch's "
        "attention over those of the plan's blocks, side by side; times the density, 1 is as fast "
        "a block"
    )


#: The studies by name, in the order of the help.
STUDIES = {
    "formats": Study(
        run=_run_formats,
        options=("bits", "order"),
        rows=_format_rows,
        chart=_format_chart,
        closing=_format_closing,
    ),
    "blocks": Study(run=_run_blocks, options=("bits",), widths="3,4.8"),
    "sparsity": Study(run=_run_sparsity, options=("density",), rows=_sparsity_rows),
    "ablation": Study(run=_run_ablation),
    "carry-over": Study(run=_run_carry_over, options=("at", "avg_bits", "order")),
    "pruning": Study(
        run=_run_pruning,
        options=("target",),
        rows=lambda result: result["rows"],
        closing=_pruning_closing,
    ),
    "layers": Study(
        run=_run_layers, options=("bits", "samples"), widths="8,4,3.5,3,2.64,2", of_layers=True
    ),
    "network": Study(
        run=_run_network,
        options=("samples",),
        needs_captures=False,
        own=list,
        closing=_network_closing,
    ),
    "processors": Study(
        run=_run_processors,
        options=("density",),
        needs_captures=False,
        own=_local_heads,
        rows=lambda result: result["rows"],
        closing=_processors_closing,
    ),
    "pe": Study(
        run=hardware_studies.run_pe,
        options=("no_place", "liberty"),
        needs_captures=False,
        tables=hardware_studies.pe_tables,
        chart=hardware_studies.pe_chart,
        closing=hardware_studies.pe_closing,
    ),
    "fit": Study(
        run=hardware_studies.run_fit,
        options=("board", "min_mhz"),
        needs_captures=False,
        own=list,
        tables=hardware_studies.fit_tables,
        closing=hardware_studies.fit_closing,
    ),
}
