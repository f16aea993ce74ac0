"""Options of `paro estimate` and `paro sweep`: machine, model and plans of its heads."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paro.cli.console import progress_bar
from paro.cli.options import ConfigChoice, check_captures
from paro.config import Config

if TYPE_CHECKING:
    from sim.estimate.head_plans import HeadPlans
    from sim.estimate.workloads import Workload

#: Array by default: the widest that 2-bit blocks fill, see docs/performance.md.
DEFAULT_ARRAY = {"rows": 16, "cols": 32, "axi_bits": 512}
#: Mean width at which our formats are as good as the papers' at theirs, by `paro study formats`.
EQUAL_QUALITY_BITS = 2.64
#: Mean widths of linear layers: two digits for every weight, W8A8, and mixed by tile.
LINEAR_BITS = "4,8,3.5,3,2.64"
#: Share of attention weights that pruning must keep for the same quality, by `paro study pruning`.
PRUNED_DENSITY = 0.51

MODEL_OPTION = typer.Option(
    "--model", metavar="NAME", help="such as cogvideox-5b, or a file NAME.toml of your own"
)
SourcesArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[CAPTURE]...",
        help="captures or folders of them, whose calibrated heads stand for the model's; by "
        "default the one that comes with the project",
        show_default=False,
    ),
]
CoresOption = Annotated[
    float, typer.Option("--cores", metavar="N", help="cores of this configuration, side by side")
]
ClusterOption = Annotated[
    int | None,
    typer.Option(
        "--cluster",
        metavar="G",
        help="of these, cores that share loads of K and V: 1, 2, 4 or 8; by default each is alone",
    ),
]
BufferOption = Annotated[
    float,
    typer.Option(
        "--buffer", metavar="MIB", help="memory on the chip before the cores; the RTL has none"
    ),
]
BufferBandwidthOption = Annotated[
    float,
    typer.Option(
        "--buffer-bandwidth", metavar="GB/S", help="of the buffer; 0: as much as the cores read"
    ),
]
LatencyOption = Annotated[
    int, typer.Option("--latency", metavar="CYCLES", help="from a request to its first beat")
]


def build_config(choice: ConfigChoice, head_dim: int, cluster: int | None, **fields: int) -> Config:
    """Configuration for a model: its head_dim, and `DEFAULT_ARRAY` without preset or file."""
    choice = replace(choice, fields=choice.fields | {"cores": cluster})
    implied: dict[str, int] = {"head_dim": head_dim} | fields
    if choice.preset is None and choice.file is None:
        implied = DEFAULT_ARRAY | implied
    return choice.build(**implied)


def check_sources(captures: list[Path], widths: tuple[float, ...]) -> None:
    """Refuse captures and mean widths that `calibrated_plans` cannot take, before the long work."""
    from firmware_model.choices import check_avg_bits

    for width in widths:
        check_avg_bits(width)
    check_captures(captures)


def calibrated_plans(
    workload: "Workload",
    block: int,
    widths: tuple[float, ...],
    captures: list[Path],
    output: Path,
) -> "list[HeadPlans]":
    """Plans of a model's heads at some mean widths, from captures or the one that ships."""
    from firmware_model import DEMO_CAPTURE
    from firmware_model.capture import load_captures
    from sim.estimate import head_plans

    sources = load_captures(captures or [DEMO_CAPTURE])
    blocks = workload.blocks(block)
    with progress_bar("measure heads") as progress:
        heads = head_plans.measure_heads(sources, blocks, output / "measured", progress)
    source = head_plans.describe_captures(sources)
    plans = []
    with progress_bar("allocate") as progress:
        for done, width in enumerate(widths):
            progress(done, len(widths))
            plans.append(head_plans.calibrated_plans(heads, workload, block, width, source))
        progress(len(widths), len(widths))
    return plans
