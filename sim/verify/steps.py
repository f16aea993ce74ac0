"""Vector steps of any program: passes over rows, from a few words and a seed."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from firmware_model.host.vector_job import VectorJob
from paro.config import Config
from paro.config.formats import OUT_BYTES
from paro.config.vector_formats import (
    ACTIVATION_PLACES,
    GROUPS_MAX,
    MANTISSA_PLACES,
    NORM_CHANNELS_MAX,
    NORM_PLACES_MAX,
    PRODUCT_SHIFT_MAX,
    SQUARES_BITS,
    WORD_MAX,
)
from paro.config.vector_program import (
    SECOND_ROW,
    SECONDS_MAX,
    TABLES_MAX,
    Added,
    Left,
    Partner,
    Reduce,
    Right,
)

__all__ = ["StepShape", "legal_channels"]

#: Shifts at which a product leaves something, and the ends.
_SHIFTS = (0, 1, 8, 14, 15, 16, 20, PRODUCT_SHIFT_MAX)


def legal_channels(config: Config) -> list[int]:
    """Lengths of rows that the vector unit takes."""
    return [
        channels
        for channels in range(config.head_dim, config.vector_channels + 1, config.head_dim)
        if OUT_BYTES * channels % config.load_bytes == 0
        and channels % config.output_bytes == 0
        and channels % (2 * config.vector_lanes) == 0
    ]


@dataclass(frozen=True)
class StepShape:
    """One vector step.

    Parameters
    ----------
    grid : (int, int, int)
        Frames, height, width.
    channels : int
        Of a row, one of `legal_channels`.
    passes : int
        Passes over each row.
    prefix, suffix, order
        As of a head.
    """

    grid: tuple[int, int, int]
    channels: int
    passes: int
    prefix: int = 0
    suffix: int = 0
    order: int = 0

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.prefix + self.grid[0] * self.grid[1] * self.grid[2] + self.suffix

    @property
    def line(self) -> str:
        """All of it in a few words."""
        return (
            f"step {self.prefix}+{'x'.join(map(str, self.grid))}+{self.suffix} "
            f"order {self.order} x{self.channels} passes {self.passes}"
        )

    def job(self, config: Config, seed: int) -> VectorJob:
        """Make the step, with program and words of a seed."""
        chance = random.Random(seed)
        program = _Program(config, self.channels, chance)
        sends = self.passes - 1 if chance.random() < 0.7 else chance.randrange(self.passes)
        passes = tuple(program.add(place, sends, self.passes) for place in range(self.passes))
        words = np.random.default_rng(seed)

        def rows(count: int, width: int) -> np.ndarray:
            return np.stack([_row(width, words) for _ in range(count)]).astype(np.int16)

        seconds = program.seconds * self.channels
        return VectorJob(
            passes=passes,
            rows=rows(self.tokens, self.channels),
            tables=rows(program.tables, self.channels)
            if program.tables
            else np.zeros((0, self.channels), np.int16),
            second=rows(self.tokens, seconds) if seconds else None,
            grid=self.grid,
            prefix_tokens=self.prefix,
            suffix_tokens=self.suffix,
            order=self.order,
        )


def _row(width: int, generator: np.random.Generator) -> np.ndarray:
    """Words at both ends, none, almost equal ones, or any of some size."""
    kind, size = generator.integers(6), generator.choice((1, 30, 1000, WORD_MAX))
    if kind == 0:
        return generator.choice((-WORD_MAX, WORD_MAX), width)
    if kind == 1:
        return np.zeros(width)
    if kind == 2:
        middle = generator.integers(-WORD_MAX, WORD_MAX + 1)
        return (middle + generator.integers(-2, 3, width)).clip(-WORD_MAX, WORD_MAX)
    return generator.integers(-size, size + 1, width)


@dataclass
class _Program:
    """A program as it grows: which copies of the row there are, and what was found of it."""

    config: Config
    channels: int
    chance: random.Random
    tables: int = 0
    seconds: int = 0
    second_stream: str | None = None
    copies: set[int] = field(default_factory=set)
    #: Groups whose mean, whose factor is known.
    middle: int | None = None
    factor: int | None = None
    has_mantissas: bool = False

    def add(self, place: int, sends: int, count: int) -> dict[str, int]:
        """Append pass ``place`` of ``count``, of which pass ``sends`` sends."""
        chance, own = self.chance, {"loads": int(place == 0), "sends": int(place == sends)}
        if place:
            own["row"] = chance.choice(sorted(self.copies))
        self._choose_factors(own)
        self._choose_reduce(own)
        self._choose_group(own)
        self._choose_streams(own)
        own["shift"] = chance.choice((*_SHIFTS, chance.randint(0, PRODUCT_SHIFT_MAX)))
        own["silu"] = chance.randrange(2)
        own["fraction"] = chance.randint(*ACTIVATION_PLACES)
        own["bytes"] = int(chance.random() < 0.3)
        self._choose_kept(own, must=place == 0 and count > 1)
        self._note(own)
        return own

    def _choose_factors(self, own: dict[str, int]) -> None:
        """Left and right factor; what is read of groups must be of the same groups."""
        chance, loads = self.chance, own["loads"]
        lefts = [Left.WORD, Left.DOUBLED, Left.TABLE]
        rights = [Right.STREAM, Right.STREAM, Right.ITSELF, Right.TABLE]
        lefts += [Left.CENTRED] * (2 if self.middle is not None and not loads else 0)
        rights += [Right.FACTOR] * (3 if self.factor is not None else 0)
        own["left"], own["right"] = chance.choice(lefts), chance.choice(rights)
        if own["left"] == Left.TABLE:
            # Beyond the table's end the rest means nothing: there the slope is 0.
            own["right"] = Right.TABLE
        both = own["left"] == Left.CENTRED and own["right"] == Right.FACTOR
        if both and self.middle != self.factor:
            own["right"] = Right.ITSELF
        partners = [Partner.OWN] if loads else [Partner.OWN, Partner.OWN, *Partner]
        own["partner"] = chance.choice(partners)

    def _choose_reduce(self, own: dict[str, int]) -> None:
        """What is found; a root needs squares, and a row has one mantissa."""
        chance = self.chance
        found = [Reduce.NOTHING, Reduce.SUM]
        if own["right"] == Right.ITSELF:
            found += [Reduce.SQUARES] * 4
        grouped = own["left"] == Left.CENTRED or own["right"] == Right.FACTOR
        if not self.has_mantissas and not (grouped and self._read_group(own) != self.channels):
            # Few factors are of whole rows, and these before any mantissa.
            found += [Reduce.LARGEST] * (5 if own["right"] == Right.FACTOR else 1)
        own["reduce"] = chance.choice(found)
        if own["reduce"] == Reduce.SQUARES:
            own["places"] = chance.randint(0, NORM_PLACES_MAX)
            own["epsilon"] = chance.choice((1, 977, 2**40, 2 ** (SQUARES_BITS - 1) - 1))
        elif own["reduce"] == Reduce.LARGEST:
            own["places"] = chance.randint(*MANTISSA_PLACES)
            own["short"] = int(own["places"] < 0 and chance.random() < 0.5)

    def _read_group(self, own: dict[str, int]) -> int:
        """Groups of what a pass reads; of all channels where it reads nothing of any."""
        found = self.middle if own["left"] == Left.CENTRED else self.factor
        return found or self.channels

    def _choose_group(self, own: dict[str, int]) -> None:
        groups = list(self._groups())
        if own["reduce"] == Reduce.LARGEST:
            groups = [self.channels]
        elif own["left"] == Left.CENTRED or own["right"] == Right.FACTOR:
            groups = [self._read_group(own)]
        elif own["reduce"] != Reduce.NOTHING:
            groups = [group for group in groups if group <= NORM_CHANNELS_MAX]
            # What is scaled by a factor of its row may have a mantissa of its own.
            groups += [self.channels] * (2 if self.channels in groups else 0)
        own["group"] = self.chance.choice(groups)
        beats = own["group"] // self.config.vector_lanes
        if own["partner"] == Partner.HALVES and (beats < 2 or beats & (beats - 1)):
            own["partner"] = Partner.NEIGHBOURS

    def _groups(self) -> Iterator[int]:
        """Channels that a group may have."""
        for group in range(self.config.vector_lanes, self.channels + 1, self.config.vector_lanes):
            if self.channels % group == 0 and self.channels // group <= GROUPS_MAX:
                yield group

    def _choose_streams(self, own: dict[str, int]) -> None:
        added = [Added.NOTHING, Added.STREAM, Added.TABLE]
        if not own["loads"] and len(self.copies) == 2:
            added += [Added.ROW] * 2
        own["added"] = self.chance.choice(added)
        if own["right"] == Right.STREAM:
            own["others"] = self._source("others", second=True)
        if own["added"] == Added.STREAM:
            own["addends"] = self._source("addends", second=own.get("others") != SECOND_ROW)

    def _source(self, name: str, *, second: bool) -> int:
        """A table, a new one while there may be more, or the second row.

        Second rows go to one of both streams: neither waits for what the other takes before it.
        """
        second = second and self.second_stream in (None, name)
        limit = min(SECONDS_MAX, self.config.vector_channels // self.channels)
        if second and self.seconds < limit and self.chance.random() < 0.4:
            self.seconds += 1
            self.second_stream = name
            return SECOND_ROW
        if self.tables < TABLES_MAX and (not self.tables or self.chance.random() < 0.5):
            self.tables += 1
            return self.tables - 1
        return self.chance.randrange(self.tables)

    def _choose_kept(self, own: dict[str, int], *, must: bool) -> None:
        """Where the words stay; not in the copy whose partners are read."""
        own["keeps"] = int(must or self.chance.random() < 0.6)
        own["kept"] = self.chance.randrange(2) if own["keeps"] else 0
        if own["keeps"] and own["partner"] != Partner.OWN:
            own["kept"] = 1 - own["row"]

    def _note(self, own: dict[str, int]) -> None:
        """Remember what there is after a pass."""
        if own["keeps"]:
            self.copies.add(own["kept"])
        if own["reduce"] == Reduce.SUM:
            self.middle = own["group"]
        elif own["reduce"] != Reduce.NOTHING:
            self.factor = own["group"]
            self.has_mantissas |= own["reduce"] == Reduce.LARGEST
