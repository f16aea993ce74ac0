"""`paro convert`: arrays that numpy or torch wrote become a capture."""

from pathlib import Path
from typing import Annotated

import typer

from paro.cli.console import stdout
from paro.cli.options import is_number, writable_file
from paro.config import ParoError
from paro.config.files import check_file


def convert(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help=".npz of numpy, .pt or .pth of torch, or .safetensors",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="CAPTURE", help="capture to write", callback=writable_file
        ),
    ],
    grid: Annotated[
        str,
        typer.Option(
            "--grid", metavar="F,H,W", help="frames, height, width of the tokens; an image: 1,H,W"
        ),
    ],
    prefix: Annotated[
        int, typer.Option("--prefix", metavar="N", help="tokens before the grid: class, text")
    ] = 0,
    suffix: Annotated[
        int, typer.Option("--suffix", metavar="N", help="tokens after the grid: text")
    ] = 0,
    names: Annotated[
        str, typer.Option("--names", metavar="Q,K,V", help="what the arrays are called in FILE")
    ] = "q,k,v",
    tokens_first: Annotated[
        bool, typer.Option("--tokens-first", help="arrays are [tokens, heads, channels]")
    ] = False,
    item: Annotated[
        int | None, typer.Option("--item", metavar="N", help="which item of a batch")
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(
            "--scale", metavar="X", help="factor of the logits; by default 1 / sqrt(channels)"
        ),
    ] = None,
    layer: Annotated[
        int, typer.Option("--layer", metavar="N", help="attention layer of the network")
    ] = 0,
    progress: Annotated[
        float,
        typer.Option(
            "--progress", metavar="SHARE", help="share of the denoising steps done before, below 1"
        ),
    ] = 0.0,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="NAME",
            help="the network: captures of one name make one plan; by default FILE is one of its "
            "own",
        ),
    ] = "",
) -> None:
    """Make a capture of Q, K and V that lie in a file of numpy or torch.

    Q, K and V are [heads, tokens, channels], or a batch of them; floats, with rotation and norms
    applied, as they go into the softmax. Tokens are prefix, grid (width fastest) and suffix. K and
    V may have fewer heads than Q (grouped queries): each serves as many neighbouring heads of Q.
    Keys that are other tokens than the queries (cross attention) have no grid to reorder: they are
    refused. A torch file is read without executing anything in it: a dict, list or tuple of
    tensors; what a list holds is named 0, 1, ...

    [bold]Examples[/bold]

      paro convert qkv.npz -o capture.safetensors --grid 8,16,16

      paro convert layer3.pt -o captures/layer3.safetensors --grid 1,14,14 --prefix 1 --layer 3
      --model vit

      paro convert dump.pt -o capture.safetensors --grid 13,30,45 --prefix 226 --tokens-first
      --names query,key,value --item 0
    """
    from firmware_model.choices import ARRAY_FILES, check_choice

    extents = [part.strip() for part in grid.split(",")]
    if len(extents) != 3 or not all(is_number(part) and int(part) for part in extents):
        raise ParoError(
            f"grid = {grid!r} is not legal; legal: frames, height, width, such as 8,16,16"
        )
    wanted = [name.strip() for name in names.split(",")]
    if len(set(wanted)) != 3 or not all(wanted):
        raise ParoError(f"names = {names!r} are not legal; legal: three of them, such as q,k,v")
    check_file(file, "file")
    check_choice(f"the kind of {file}", file.suffix, list(ARRAY_FILES))

    from firmware_model.arrays import Tokens, capture_of, read_arrays
    from firmware_model.capture import save_capture
    from firmware_model.tensorfile import file_digest

    frames, height, width = map(int, extents)
    capture = capture_of(
        *read_arrays(file, wanted),
        tokens=Tokens((frames, height, width), prefix, suffix),
        scale=scale,
        layer=layer,
        progress=progress,
        model=model or file_digest(file, "file"),
        tokens_first=tokens_first,
        item=item,
        source=f"arrays {', '.join(wanted)} of {file.name}",
        path=output,
    )
    save_capture(capture)
    stdout.print(
        f"written: {output} ({capture.heads} heads of {capture.head_dim}, {capture.tokens} tokens, "
        f"layer {layer})",
        highlight=False,
    )
