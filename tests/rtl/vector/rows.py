"""Rows with chains of operations as networks have them, of values at the edges of the format."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import torch

from firmware_model.reference.vector import Constants, Norm, Rotation, make_rotation
from paro.config.vector_formats import WORD_MAX
from paro.config.vector_program import Reduce
from tests.rtl.vector.passes import INPUTS, Row


def edge_words(channels: int, rng: random.Random) -> torch.Tensor:
    """A row: all extremes, nothing at all, almost equal words, or random ones of some size."""
    kind = rng.randrange(8)
    size = rng.choice((1, 30, 1000, WORD_MAX))
    middle = rng.randint(-WORD_MAX, WORD_MAX)
    made = {
        0: lambda: rng.choice((WORD_MAX, -WORD_MAX)),
        1: lambda: WORD_MAX,
        2: lambda: 0,
        3: lambda: max(-WORD_MAX, min(WORD_MAX, middle + rng.randint(-2, 2))),
    }.get(kind, lambda: rng.randint(-size, size))
    return torch.tensor([[made() for _ in range(channels)]])


def constants(channels: int, rng: random.Random, shift: int | None = None) -> Constants:
    size = rng.choice((3, 2**10, WORD_MAX))
    return Constants(
        torch.tensor([rng.randint(-size, size) for _ in range(channels)]),
        rng.choice((0, 8, 14, 15, 20, 30)) if shift is None else shift,
        torch.tensor([rng.randint(-size, size) for _ in range(channels)]),
    )


def rotation(channels: int, rng: random.Random) -> Rotation:
    angles = torch.tensor([[rng.uniform(-7, 7) for _ in range(channels // 2)]])
    return make_rotation(angles, rng.choice(("halves", "neighbours")))


def random_row(channels: int, head: int, lanes: int, bank: int, rng: random.Random) -> Row:
    """One of the chains that lie between linear layers and attention."""
    row = Row(edge_words(channels, rng), lanes, bank)
    chain = rng.choice(("input", "head", "value", "active", "sum", "gated"))
    whole = {"group": channels, "places": 2, "bits": 17}
    if chain in ("input", "head"):
        group = channels if chain == "input" else head
        norm = Norm(group, rng.random() < 0.7, rng.choice((1, 977, 2**40)), rng.choice((9, 14, 17)))
        row.load(Reduce.SUM if norm.centred else Reduce.NOTHING, group)
        row.norm(norm)
        if chain == "head":
            key = rng.random() < 0.5
            whole = {
                "group": head,
                "places": -7 if key else rng.randint(-15, 2),
                "bits": 8 if key else 17,
            }
            row.scale(constants(channels, rng, 14))
            offset = torch.tensor([rng.randint(-999, 999) for _ in range(channels)])
            turned = offset if key else None
            row.rotate(rotation(head, rng), turned, **row.found_largest(**whole))
        else:
            row.scale(constants(channels, rng, 14), group=channels, **row.found_largest(**whole))
        row.expect_mantissas(**whole)
        row.quantize_tokens(**whole)
    elif chain == "value":
        row.quantize_channels(constants(channels, rng))
    elif chain == "active":
        row.scale(constants(channels, rng))
        kind = rng.choice(("gelu", "silu"))
        places = rng.randint(4, 12)
        row.activate(kind, places, group=channels, sends=True, **row.found_largest(**whole))
        row.expect_mantissas(**whole)
        row.quantize_tokens(**whole)
    elif chain == "sum":
        row.add(
            constants(channels, rng),
            edge_words(channels, rng)[0],
            group=channels,
            sends=True,
            reduce=Reduce.SUM,
        )
        row.norm(Norm(channels, True, 5, 12), sends=True)
    else:
        row.multiply(edge_words(channels, rng)[0], rng.randint(0, 30), sends=True)
        row.send()
    return row


def block_rows(width: int, head: int, lanes: int, bank: int, rng: random.Random) -> list[Row]:
    """All that lies between the layers of a block, of one token: LayerNorm, GELU, gates."""

    def row(channels: int = width) -> Row:
        words = [[rng.randint(-9999, 9999) for _ in range(channels)]]
        return Row(torch.tensor(words), lanes, bank)

    def affine(channels: int = width) -> Constants:
        return constants(channels, rng, 15)

    def ended(own: Row, group: int, places: int = 2, bits: int = 17) -> Row:
        own.expect_mantissas(group, places, bits)
        own.quantize_tokens(group, places, bits)
        return own

    whole = {"group": width, "places": 2, "bits": 17}
    first, mixed, middle, hidden, last = row(), row(), row(), row(4 * width), row()
    first.load(Reduce.SUM, width)
    first.norm(Norm(width, True, 9, 14))
    first.scale(affine(), group=width, **first.found_largest(**whole))
    rows = [ended(first, **whole)]
    for places, bits in ((-3, 17), (-7, 8)):
        own, form = row(), {"group": head, "places": places, "bits": bits}
        own.load(Reduce.SUM, head)
        own.norm(Norm(head, True, 9, 14))
        own.scale(affine())
        offset = affine().offset if bits == 8 else None
        own.rotate(rotation(head, rng), offset, **own.found_largest(**form))
        rows.append(ended(own, **form))
    values = row()
    values.quantize_channels(affine())
    mixed.scale(affine(), group=width, **mixed.found_largest(**whole))
    middle.add(affine(), row().words[0], group=width, sends=True, reduce=Reduce.SUM)
    middle.norm(Norm(width, True, 9, 14))
    middle.scale(affine(), group=width, **middle.found_largest(**whole))
    hidden.scale(affine(4 * width))
    found = hidden.found_largest(**whole)
    hidden.activate("gelu", 10, group=4 * width, **found)
    last.add(affine(), row().words[0], sends=True)
    return [
        *rows,
        values,
        ended(mixed, **whole),
        ended(middle, **whole),
        ended(hidden, **{**whole, "group": 4 * width}),
        last,
    ]


def interleaved(
    rows: list[Row], turn: int
) -> Iterator[tuple[dict[str, Any], dict[str, Any], list[Any], list[int]]]:
    """Passes of so many rows by turns, as whoever sends commands should."""
    for some in zip(*(rows[first::turn] for first in range(turn)), strict=True):
        steps = [zip(row.passes, row.taken, row.sent, row.mantissas, strict=True) for row in some]
        for both in zip_longest(*steps):
            yield from (step for step in both if step is not None)


@dataclass
class Streams:
    """What the unit is given for some rows, and what is expected of it.

    ``commands``; beats of each input; beats of words; mantissas of each bank.
    """

    commands: list[Any] = field(default_factory=list)
    inputs: dict[str, list[list[int]]] = field(
        default_factory=lambda: {name: [] for name in INPUTS}
    )
    sent: list[list[int]] = field(default_factory=list)
    mantissas: tuple[list[int], ...] = ()


def streams(rows: list[Row], banks: int = 2, turn: int = 2) -> Streams:
    """Streams of rows, some by turns."""
    made = Streams(mantissas=tuple([] for _ in range(banks)))
    for command, taken, beats, scales in interleaved(rows, turn):
        made.commands.append(command)
        for name in INPUTS:
            made.inputs[name] += taken[name]
        made.sent += beats
        made.mantissas[command["bank"]].extend(scales)
    return made
