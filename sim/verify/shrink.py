"""Smaller cases: of a case that fails the smallest that still does."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from sim.verify.cases import Case
from sim.verify.heads import HeadShape
from sim.verify.layers import LayerShape
from sim.verify.queues import ChainShape, Item, Layout
from sim.verify.steps import StepShape

__all__ = ["reductions", "shrink"]


def shrink(case: Case, fails: Callable[[Case], bool], tries: int = 60) -> Case:
    """Return the smallest case found that still fails.

    Parameters
    ----------
    case : Case
        One that fails.
    fails : callable
        Whether a case does.
    tries : int
        How often to ask at most.
    """
    left = tries
    found = True
    while found:
        found = False
        for smaller in reductions(case):
            if not left:
                return case
            left -= 1
            if fails(smaller):
                case, found = smaller, True
                break
    return case


def reductions(case: Case) -> Iterator[Case]:
    """Cases that are a step simpler, those that save most first."""
    if case.fault is not None:
        yield replace(case, fault=None)
    if case.again:
        yield replace(case, again=False)
    yield from _fewer_items(case)
    memory = case.memory
    if (memory.stall_seed, memory.bandwidth) != (None, None):
        yield replace(case, memory=replace(memory, stall_seed=None, bandwidth=None))
    if memory.latency != (0, 0):
        yield replace(case, memory=replace(memory, latency=(0, 0)))
    if case.layout != Layout():
        yield replace(case, layout=Layout())
    for number, item in enumerate(case.items):
        for smaller in _smaller_items(case, item):
            items = (*case.items[:number], smaller, *case.items[number + 1 :])
            yield replace(case, items=items)


def _fewer_items(case: Case) -> Iterator[Case]:
    """Halves of the jobs, then all but one."""
    items, count = case.items, len(case.items)
    if count < 2:
        return
    for part in (items[: count // 2], items[count // 2 :]):
        yield replace(case, items=part)
    if count > 2:
        for number in range(count):
            yield replace(case, items=items[:number] + items[number + 1 :])


def _smaller_items(case: Case, item: Item) -> Iterator[Item]:
    if item.cut:
        yield replace(item, cut=0)
    shape = item.shape
    if isinstance(shape, HeadShape):
        smaller = _smaller_heads(shape, case.config.block)
    elif isinstance(shape, LayerShape):
        smaller = _smaller_layers(shape)
    elif isinstance(shape, StepShape):
        smaller = _smaller_steps(shape, case.config.head_dim)
    else:
        smaller = _smaller_chains(shape)
    for found in smaller:
        yield replace(item, shape=found)


def _smaller_heads(shape: HeadShape, block: int) -> Iterator[HeadShape]:
    # Rows that are computed stay in the head.
    whole = replace(shape, rows=None, left_out=0)
    for side in range(3):
        if shape.grid[side] > 1:
            yield replace(whole, grid=_halved(shape.grid, side))
    if shape.prefix or shape.suffix:
        yield replace(whole, prefix=0, suffix=0)
    rows = range(*shape.rows) if shape.rows else range(-(-shape.tokens // block))
    if len(rows) > 1:
        middle = rows.start + len(rows) // 2
        yield replace(shape, rows=(rows.start, middle), left_out=0)
        yield replace(shape, rows=(middle, rows.stop))
    if shape.width == "mixed":
        for width in ("2", "4", "8"):
            yield replace(shape, width=width)
    for name, plain in (("left_out", 0), ("order", 0), ("values", "normal"), ("skips", "none")):
        if getattr(shape, name) != plain:
            yield replace(shape, **{name: plain})


def _smaller_layers(shape: LayerShape) -> Iterator[LayerShape]:
    for name in ("tokens", "inputs", "outputs"):
        count = getattr(shape, name)
        if count > 1:
            yield replace(shape, **{name: count // 2})
            yield replace(shape, **{name: count - 1})
    if shape.values != "normal":
        yield replace(shape, values="normal")
    if shape.outliers:
        yield replace(shape, outliers=False)
    if shape.biased:
        yield replace(shape, biased=False)
    if shape.codes is None:
        for code in range(4):
            yield replace(shape, codes=code)


def _smaller_steps(shape: StepShape, head_dim: int) -> Iterator[StepShape]:
    for side in range(3):
        if shape.grid[side] > 1:
            yield replace(shape, grid=_halved(shape.grid, side))
    if shape.prefix or shape.suffix:
        yield replace(shape, prefix=0, suffix=0)
    if shape.passes > 1:
        yield replace(shape, passes=shape.passes - 1)
    if shape.channels % (2 * head_dim) == 0:
        yield replace(shape, channels=shape.channels // 2)
    if shape.order:
        yield replace(shape, order=0)


def _smaller_chains(shape: ChainShape) -> Iterator[ChainShape]:
    if shape.heads > 1:
        yield replace(shape, heads=shape.heads - 1)
    if shape.tokens >= 16:
        yield replace(shape, tokens=shape.tokens // 2)


def _halved(grid: tuple[int, int, int], side: int) -> tuple[int, int, int]:
    sides = list(grid)
    sides[side] //= 2
    return (sides[0], sides[1], sides[2])
