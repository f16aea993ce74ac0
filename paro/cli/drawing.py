"""Pictures: a head's attention map and bit map, quality against bits, videos side by side."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image

from firmware_model.calibration.plan import Plan
from firmware_model.capture import Capture
from firmware_model.choices import ORDERS
from firmware_model.codes import density, mean_bits
from paro.config.files import write_atomically
from paro.config.formats import CODE_BITS
from sim.cosim.report import Report

__all__ = [
    "attention_image",
    "draw_head",
    "errors_figure",
    "figure_png",
    "format_figure",
    "head_figure",
    "pe_figure",
    "save_contact_sheet",
    "save_figure",
    "save_film",
    "stages_figure",
]

#: Most points on a side of an attention map.
_POINTS = 512
#: Queries whose weights are in memory at once.
_QUERIES_AT_ONCE = 256
#: Colour of each block code, skipped first.
_CODE_COLOURS = ("#f4f4f4", "#9ecae1", "#3182bd", "#08306b")
#: Colour of each state of a stage.
_STATE_COLOURS = {"busy": "#3182bd", "starved": "#fdd0a2", "blocked": "#e6550d"}
#: Range of the attention maps, relative to uniform attention.
_WEIGHT_RANGE = (1e-2, 1e2)


def stages_figure(report: Report) -> Figure:
    """Where the cycles of a co-simulation went: a bar a stage, in parts of the whole."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes = figure.subplots()
    stages, cycles = report.stages, report.stage_cycles
    places = np.arange(len(stages))
    left = np.zeros(len(stages))
    for state, colour in _STATE_COLOURS.items():
        parts = np.array([100 * counts[state] / cycles for counts in stages.values()])
        axes.barh(places, parts, left=left, color=colour, label=state, height=0.7)
        left += parts
    for place, counts in enumerate(stages.values()):
        axes.text(101, place, f"{counts['busy'] / cycles:.0%} busy", va="center", fontsize=8)
    axes.set_yticks(places, [name.replace("_", " ") for name in stages])
    axes.invert_yaxis()
    axes.set(
        xlim=(0, 112),
        xlabel=f"% of {report.cycles:,} cycles",
        title=f"{report.top}: utilisation of the array {report.utilisation:.1%}",
    )
    axes.legend(ncols=len(_STATE_COLOURS), loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return figure


def draw_head(capture: Capture, plan: Plan, head: int, path: Path) -> None:
    """Draw one head of a plan as a PNG file, whole or not at all."""
    save_figure(head_figure(capture, plan, head), path)


def head_figure(capture: Capture, plan: Plan, head: int) -> Figure:
    """Attention map of a head before and after the reorder, and its bit map."""
    order, codes = plan.head_order(head), plan.head_codes(head)
    orders = {"as captured": 0, f"reordered {' '.join(ORDERS[order])}": order}
    figure = Figure(figsize=(13.5, 4.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    image = None
    for axes, (title, index) in zip((left, middle), orders.items(), strict=True):
        permutation = capture.permutation(index)
        weights = attention_image(capture, head, permutation)
        image = axes.imshow(
            weights.clamp(min=_WEIGHT_RANGE[0]).numpy(),
            norm=LogNorm(*_WEIGHT_RANGE),
            cmap="magma",
            interpolation="nearest",
            extent=(0, capture.tokens, capture.tokens, 0),
        )
        axes.set(title=f"attention, {title}", xlabel="key", ylabel="query")
    assert image is not None
    _colour_bar(figure, image, [left, middle], "weight relative to uniform")

    bits = right.imshow(
        codes.numpy(),
        cmap=ListedColormap(_CODE_COLOURS),
        norm=BoundaryNorm([-0.5, 0.5, 1.5, 2.5, 3.5], len(_CODE_COLOURS)),
        interpolation="nearest",
    )
    right.set(
        title=f"bits per block: mean {mean_bits(codes):.2f}, {density(codes):.0%} live",
        xlabel=f"key block of {plan.block}",
        ylabel="query block",
    )
    bar = _colour_bar(figure, bits, [right], "bits")
    bar.set_ticks(range(len(CODE_BITS)), labels=[str(bits) for bits in CODE_BITS])
    grid = " x ".join(map(str, capture.grid))
    text = f" + {capture.text_tokens}" if capture.text_tokens else ""
    figure.suptitle(f"{capture.name}, head {head}: {grid}{text} tokens")
    return figure


def format_figure(study: dict[str, Any]) -> Figure:
    """Quality against mean bits for each format of a `format_study`."""
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.subplots()
    labels = {"integer": "digit format (integer model)", "paper": "paper: uniform P, truncated K"}
    for index, (name, label) in enumerate(labels.items()):
        rows = [row for row in study["rows"] if row["format"] == name]
        bits = [row["mean_bits"] for row in rows]
        colour = f"C{index}"
        axes.plot(bits, [row["mean_snr_db"] for row in rows], "o-", color=colour, label=label)
        worst = [row["worst_snr_db"] for row in rows]
        axes.plot(bits, worst, ".:", color=colour, label="worst head")
    axes.axhline(
        study["all_8_bit_mean_snr_db"], color="0.6", linewidth=1, label="all blocks at 8 bits"
    )
    axes.set(
        xlabel="mean width of a block / bits",
        ylabel="SNR of the output / dB",
        title=f"{study['heads']} heads under one budget (solid: mean of the heads)",
    )
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def pe_figure(study: dict[str, Any]) -> Figure:
    """Area for each product, and quality against it, of a `fpga.pe.pe_study.report`.

    At one mean width all take the same time for each 8-bit MAC a cycle that they have.
    """
    rows = study["rows"]
    figure = Figure(figsize=(13.5, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    widths = list(rows[0]["area_per_mac"])
    for index, bits in enumerate(widths):
        left.bar(
            [place + 0.27 * (index - 1) for place in range(len(rows))],
            [row["area_per_mac"][bits] for row in rows],
            width=0.25,
            color=_CODE_COLOURS[-1 - index],
            edgecolor="0.5",
            linewidth=0.5,
            label=f"{bits} bit",
        )
    left.set_xticks(range(len(rows)), labels=[row["name"] for row in rows], rotation=20)
    left.set(ylabel="LUT4 + 2 CCU2C per MAC a cycle", title="area for each product")
    left.legend(title="narrow operand")
    left.grid(axis="y", alpha=0.3)
    for index, bits in enumerate(rows[0]["mean_snr_db"]):
        for place, row in enumerate(rows):
            if row["format"] is None:
                continue
            right.plot(
                row["area_per_mac"]["8"],
                row["mean_snr_db"][bits],
                "os"[index % 2],
                color=f"C{place}",
                fillstyle="none" if index else "full",
                label=None if index else row["name"],
            )
    right.set(
        xlabel="LUT4 + 2 CCU2C per 8-bit MAC a cycle",
        ylabel="SNR of the output / dB",
        title=f"quality at a mean of {' (full), '.join(rows[0]['mean_snr_db'])} bits (hollow)",
    )
    right.grid(alpha=0.3)
    right.legend(ncols=2)
    return figure


def errors_figure(entries: Sequence[dict[str, Any]], title: str) -> Figure:
    """Quality by step and layer (a number or a name), of a report on generated videos."""
    names = list(dict.fromkeys(entry["layer"] for entry in entries))
    layers, steps = len(names), 1 + max(entry["step"] for entry in entries)
    quality = torch.full((layers, steps), torch.nan)
    for entry in entries:
        if entry["snr_db"] is not None:
            quality[names.index(entry["layer"]), entry["step"]] = entry["snr_db"]
    figure = Figure(figsize=(7.5, 1.6 + 0.3 * layers), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(quality.numpy(), aspect="auto", interpolation="nearest", cmap="viridis")
    axes.set(
        title=title,
        xlabel="denoising step",
        ylabel="layer",
    )
    shown = range(0, layers, -(-layers // 16))
    axes.set_yticks(shown, [str(names[index]) for index in shown])
    figure.colorbar(image, ax=axes, label="SNR / dB")
    return figure


def figure_png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file, the same for the same figure."""
    stream = io.BytesIO()
    # The default software tag names a version: the same picture must be the same bytes.
    with matplotlib.rc_context({"savefig.dpi": 110}):
        figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file, whole or not at all."""
    content = figure_png(figure)
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def save_film(
    own: Sequence[torch.Tensor], planned: Sequence[torch.Tensor], path: Path, scale: int = 4
) -> None:
    """Write videos as one GIF: above through float attention, below through the planned one.

    Parameters
    ----------
    own, planned : sequence of torch.Tensor
        float32 [frames, height, width, colours], 0 .. 1, one for each sample.
    path : Path
        File to write.
    scale : int
        Screen pixels on a side of a pixel.
    """
    rows = [torch.cat([_framed(video) for video in videos], dim=2) for videos in (own, planned)]
    frames = [_image(frame, scale) for frame in torch.cat(rows, dim=1)]
    write_atomically(
        path,
        lambda temporary: frames[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=frames[1:],
            duration=150,
            loop=0,
        ),
    )


def save_contact_sheet(
    own: Sequence[torch.Tensor], planned: Sequence[torch.Tensor], path: Path, scale: int = 3
) -> None:
    """Write all frames as one PNG; parameters as `save_film`.

    A line for each sample: its frames through float attention, then through the planned one, then
    four times their difference.
    """
    lines = []
    for first, second in zip(own, planned, strict=True):
        strips = (first, second, ((second - first).abs() * 4).clamp(0, 1))
        lines.append(torch.cat([torch.cat(list(_framed(strip)), dim=1) for strip in strips], dim=1))
    sheet = _image(torch.cat(lines, dim=0), scale)
    write_atomically(path, lambda temporary: sheet.save(temporary, format="PNG"))


def _framed(video: torch.Tensor) -> torch.Tensor:
    """A grey line of one pixel at the right and below."""
    return torch.nn.functional.pad(video, (0, 0, 0, 1, 0, 1), value=0.5)


def _image(picture: torch.Tensor, scale: int) -> Image.Image:
    colours = picture.expand(-1, -1, 3) if picture.shape[-1] == 1 else picture
    pixels = (colours * 255).round().byte().numpy()
    return Image.fromarray(np.kron(pixels, np.ones((scale, scale, 1), np.uint8)))


def attention_image(capture: Capture, head: int, permutation: torch.Tensor) -> torch.Tensor:
    """Softmax attention of a head, averaged into an image.

    Returns
    -------
    torch.Tensor
        float32 [points, points], at most 512 on a side; 1 is the weight of uniform attention.
    """
    q, k = (tensor[head].float()[permutation] for tensor in (capture.q, capture.k))
    points = min(capture.tokens, _POINTS)
    bins = torch.arange(capture.tokens) * points // capture.tokens
    sizes = bins.bincount(minlength=points).float()
    image = torch.zeros(points, points)
    for queries, rows in zip(q.split(_QUERIES_AT_ONCE), bins.split(_QUERIES_AT_ONCE), strict=True):
        weights = torch.softmax(queries @ k.T * capture.scale, dim=1)
        pooled = torch.zeros(len(queries), points).index_add_(1, bins, weights)
        image.index_add_(0, rows, pooled)
    return image * capture.tokens / (sizes.unsqueeze(1) * sizes)


def _colour_bar(figure: Figure, image: AxesImage, axes: list[Axes], label: str):
    return figure.colorbar(image, ax=axes, label=label, shrink=0.74)
