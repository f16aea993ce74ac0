"""`paro plan`: block maps and token orders of other work become a plan."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paro.cli.console import header_table, stdout, warn
from paro.cli.options import check_captures, writable_file
from paro.config.files import check_file

if TYPE_CHECKING:
    from firmware_model.calibration.maps import MapPlan


def plan(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="the map: .npz, .pt, .pth, .safetensors",
            show_default=False,
        ),
    ],
    captures: Annotated[
        list[Path],
        typer.Option(
            "--for",
            metavar="CAPTURE",
            help="capture or folder of them that the map is of; may be given several times",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="PLAN", help="plan to write", callback=writable_file
        ),
    ],
    name: Annotated[str, typer.Option("--map", metavar="NAME", help="the map's array")] = "map",
    order: Annotated[
        str | None,
        typer.Option(
            "--order",
            metavar="WHAT",
            help="how tokens stand in the map: FHW, FWH, HWF, HFW, WHF, WFH, or an array; by "
            "default as in the captures",
        ),
    ] = None,
    order_file: Annotated[
        Path | None,
        typer.Option("--order-file", metavar="FILE", help="where that array is, if elsewhere"),
    ] = None,
    grid_first: Annotated[
        bool,
        typer.Option("--grid-first", help="orders by name put the text after the grid"),
    ] = False,
    bits: Annotated[
        int, typer.Option("--bits", metavar="BITS", help="width of live blocks of a mask: 2, 4, 8")
    ] = 8,
    block: Annotated[
        int | None,
        typer.Option(
            "--block", metavar="B", help="blocks of the plan, 16, 32 or 64; by default the map's"
        ),
    ] = None,
) -> None:
    """Make a plan of a block map and a token order that come from elsewhere.

    The map is [heads, blocks, blocks], [layers, heads, blocks, blocks] or has groups of denoising
    steps before: a mask of 0 and 1, or widths 0, 2, 4, 8. Its blocks may have 16 to 512 tokens, and
    others for keys than for queries. An order is an array of indices by head (0 FHW to 5 WFH), or
    of permutations, position to token. The grid must stand in one of the six orders, as the
    hardware generates addresses of no others; text may stand anywhere. In a plan it stands last:
    where that cuts blocks elsewhere than the map does, and where those of the map are larger, the
    plan covers the map, and more blocks are live. Layers are those of the captures, ascending.
    `paro evaluate` then tells the quality.

    Plans of PAROAttention's public code are two such files: sparse_plan.pth with sparse [groups,
    layers, heads, blocks, blocks] and permute_plan.pth with permute [layers, heads].

    [bold]Examples[/bold]

      paro plan mask.npz --for capture.safetensors -o plan.safetensors

      paro plan widths.pt --map bits --order WHF --for captures/ -o plan.safetensors

      paro plan sparse_plan.pth --map sparse --order permute --order-file permute_plan.pth
      --for captures/ -o plan.safetensors
    """
    from firmware_model.choices import ARRAY_FILES, ORDERS, check_choice

    for path in (file, *([order_file] if order_file else [])):
        check_file(path, "file")
        check_choice(f"the kind of {path}", path.suffix, list(ARRAY_FILES))
    check_captures(captures)

    from firmware_model.arrays import read_arrays
    from firmware_model.calibration.maps import plan_of_maps
    from firmware_model.calibration.plan import save_plan
    from firmware_model.capture import open_captures

    stands: Any = order
    if order is not None and order not in ORDERS:
        (stands,) = read_arrays(order_file or file, [order])
    (maps,) = read_arrays(file, [name])
    result = plan_of_maps(
        maps, open_captures(captures), stands, bits=bits, block=block, grid_first=grid_first
    )
    save_plan(result.plan, output)
    _show(output, result)


def _show(output: Path, result: "MapPlan") -> None:
    from firmware_model.choices import ORDERS

    made = result.plan
    table = header_table(
        f"plan {output}: {made.mean_bits():.2f} bits, blocks of {made.block}",
        ("layers", "heads", "orders", "live blocks", "of the map's own"),
        left=("orders",),
    )
    table.add_row(
        str(len(made.layers)),
        str(int(made.held.sum())),
        " ".join(sorted({ORDERS[order] for order in made.orders[made.held].tolist()})),
        f"{made.density():.1%}",
        f"{result.map_density:.1%}",
    )
    stdout.print(table)
    for layer, head in result.left_out:
        warn(f"head {head} of layer {layer} has no live block in the map; the plan leaves it out")
