"""The picture of a head: its attention map before and after the reorder, and its bit map."""

from pathlib import Path

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from firmware_model.capture import Capture
from firmware_model.plan import Plan, density, mean_bits
from firmware_model.reorder import ORDERS, token_permutation
from paro_config.files import write_atomically
from paro_config.formats import CODE_BITS

__all__ = ["attention_image", "draw_head"]

#: Most points on a side of an attention map.
_POINTS = 512
#: Queries whose weights are in memory at once.
_QUERIES_AT_ONCE = 256
#: Colour of each block code, skipped first.
_CODE_COLOURS = ("#f4f4f4", "#9ecae1", "#3182bd", "#08306b")
#: Range of the attention maps, relative to uniform attention.
_WEIGHT_RANGE = (1e-2, 1e2)


def draw_head(capture: Capture, plan: Plan, head: int, path: Path) -> None:
    """Draw one head of a plan as a PNG file, whole or not at all."""
    order, codes = plan.head_order(head), plan.head_codes(head)
    orders = {"as captured": 0, f"reordered {' '.join(ORDERS[order])}": order}
    figure = Figure(figsize=(13.5, 4.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    image = None
    for axes, (title, index) in zip((left, middle), orders.items(), strict=True):
        permutation = token_permutation(capture.grid, capture.prefix_tokens, index)
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
    prefix = f"{capture.prefix_tokens} + " if capture.prefix_tokens else ""
    figure.suptitle(f"{capture.name}, head {head}: {prefix}{grid} tokens")
    write_atomically(path, lambda temporary: _save(figure, temporary))


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


def _save(figure: Figure, path: Path) -> None:
    # The default software tag names a version: the same picture must be the same bytes.
    with matplotlib.rc_context({"savefig.dpi": 110}):
        figure.savefig(path, format="png", metadata={"Software": None})
