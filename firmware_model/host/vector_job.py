"""Vector steps of the device as jobs: the program of their passes, tables and rows, in numpy."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from firmware_model.reorder import token_permutation
from paro.config import Config
from paro.config.errors import ParoError
from paro.config.formats import OUT_BYTES
from paro.config.vector_formats import GROUPS_MAX
from paro.config.vector_program import (
    PASSES_MAX,
    SECOND_ROW,
    SECONDS_MAX,
    TABLES_MAX,
    Added,
    Left,
    Partner,
    Reduce,
    Right,
    pack_program,
)

__all__ = ["VectorJob"]


@dataclass(frozen=True, eq=False, kw_only=True)
class VectorJob:
    """One vector step to compute: passes over each token's row, section 8 of `docs/numerics.md`.

    Parameters
    ----------
    passes : tuple of Mapping
        Fields of `paro.config.vector_program.PASS` of each pass, by name.
    rows : np.ndarray
        int16 [tokens, channels], natural token order.
    tables : np.ndarray
        int16 [tables, channels]: operands that are the same for all tokens.
    second : np.ndarray, optional
        int16 [tokens, words]: second rows, a whole number of rows' words a token.
    grid : (int, int, int)
        Frames, height, width of the walk; (1, 1, tokens) is the natural order of all tokens.
    prefix_tokens, suffix_tokens : int
        Tokens before and after the grid.
    order : int
        Index in `reorder.ORDERS`: the sequence of the walk, in which mantissas are written.
    """

    passes: tuple[Mapping[str, int], ...]
    rows: np.ndarray
    tables: np.ndarray
    grid: tuple[int, int, int]
    second: np.ndarray | None = None
    prefix_tokens: int = 0
    suffix_tokens: int = 0
    order: int = 0

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return len(self.rows)

    @property
    def channels(self) -> int:
        """Channels of a row."""
        return self.rows.shape[1]

    @property
    def seconds(self) -> int:
        """Words of a second row, in rows of the step."""
        return 0 if self.second is None else self.second.shape[1] // self.channels

    @property
    def sends_bytes(self) -> bool:
        """Whether its outputs are INT8."""
        return any(own.get("sends") and own.get("bytes") for own in self.passes)

    @property
    def finds_mantissas(self) -> bool:
        """Whether it finds a mantissa for each token."""
        return any(own.get("reduce") == Reduce.LARGEST for own in self.passes)

    @property
    def permutation(self) -> np.ndarray:
        """Natural token at each position of the walk, int64 [tokens]."""
        return token_permutation(self.grid, self.prefix_tokens, self.order, self.suffix_tokens)

    def program(self) -> bytes:
        """Program as the device reads it."""
        header = {
            "tables": len(self.tables),
            "seconds": self.seconds,
            "rows": int(any(own.get("sends") for own in self.passes)),
            "int8": int(self.sends_bytes),
            "mantissas": int(self.finds_mantissas),
        }
        return pack_program(header, self.passes)

    def check(self, config: Config, index: int) -> None:
        """Check that a device computes it, as job ``index`` of its queue.

        Raises
        ------
        ParoError
            If it does not.
        """
        for sentence in self._wrong(config):
            raise ParoError(f"job {index} of the queue {sentence}")

    def _wrong(self, config: Config) -> Iterator[str]:
        """Sentences about what the device cannot compute."""
        if not config.vector_channels:
            yield "is a vector step, but the device has no vector unit; legal: vector_channels > 0"
        if not 1 <= self.tokens <= config.max_tokens:
            yield f"has {self.tokens} tokens; legal: 1 to max_tokens = {config.max_tokens}"
        tokens = self.prefix_tokens + self.suffix_tokens + int(np.prod(self.grid))
        if tokens != self.tokens:
            yield f"has rows of {self.tokens} tokens and walks over {tokens}; legal: as many"
        yield from self._wrong_shape(config)
        yield from self._wrong_passes(config)

    def _wrong_shape(self, config: Config) -> Iterator[str]:
        channels, limit = self.channels, config.vector_channels
        if channels % config.head_dim:
            yield f"has rows of {channels} channels; legal: multiples of {config.head_dim}"
        if channels > limit:
            yield f"has rows of {channels} channels; legal: up to vector_channels = {limit}"
        if self.seconds * channels > limit:
            yield (
                f"has second rows of {self.seconds * channels} words; "
                f"legal: up to vector_channels = {limit}"
            )
        if self.second is not None and (
            self.second.shape != (self.tokens, self.seconds * channels)
            or not 1 <= self.seconds <= SECONDS_MAX
        ):
            yield (
                f"has second rows of shape {self.second.shape}; legal: {self.tokens} rows of 1 to "
                f"{SECONDS_MAX} times {channels} words"
            )
        if self.tables.shape[1:] != (channels,) or len(self.tables) > TABLES_MAX:
            yield (
                f"has tables of shape {self.tables.shape}; legal: up to {TABLES_MAX} of {channels} "
                "words"
            )
        made = channels * (1 if self.sends_bytes else OUT_BYTES)
        for what, count, unit in (
            ("rows", OUT_BYTES * channels, config.load_bytes),
            ("outputs", made, config.output_bytes),
        ):
            if count % unit:
                yield f"has {what} of {count} bytes a token; legal: whole units of {unit}"
        if self.sends_bytes and channels % (2 * config.vector_lanes):
            yield (
                f"has INT8 rows of {channels} channels; "
                f"legal: whole pairs of beats of {config.vector_lanes}"
            )

    def _wrong_passes(self, config: Config) -> Iterator[str]:
        if not 1 <= len(self.passes) <= PASSES_MAX:
            yield f"has {len(self.passes)} passes; legal: 1 to {PASSES_MAX}"
        if [bool(own.get("loads")) for own in self.passes] != [
            place == 0 for place in range(len(self.passes))
        ]:
            yield "loads rows in a pass that is not the first; legal: the first alone"
        if sum(own.get("sends", 0) for own in self.passes) != 1:
            yield "has no pass that sends, or several; legal: one"
        taken = [source for own in self.passes for source in _sources(own)]
        if taken.count(SECOND_ROW) != self.seconds:
            yield (
                f"takes {taken.count(SECOND_ROW)} second rows and has {self.seconds}; legal: each "
                "once"
            )
        if any(len(self.tables) <= source < SECOND_ROW for source in taken):
            yield f"takes table {max(set(taken) - {SECOND_ROW})} of {len(self.tables)}"
        for place, own in enumerate(self.passes):
            for sentence in _wrong_pass(own, self.channels, config.vector_lanes):
                yield f"has a pass {place} {sentence}"


def _sources(own: Mapping[str, int]) -> list[int]:
    """Where the words of each stream of a pass come from."""
    found = []
    if own.get("right", Right.STREAM) == Right.STREAM:
        found.append(own.get("others", 0))
    if own.get("added") == Added.STREAM:
        found.append(own.get("addends", 0))
    return found


def _wrong_pass(own: Mapping[str, int], channels: int, lanes: int) -> Iterator[str]:
    group = own["group"]
    if group < 1 or group % lanes or channels % group or channels // group > GROUPS_MAX:
        yield (
            f"with groups of {group} channels; legal: whole beats of {lanes} that divide "
            f"{channels}, up to {GROUPS_MAX} groups"
        )
    beats = group // lanes
    halves = own.get("partner") == Partner.HALVES
    if halves and (beats < 2 or beats & (beats - 1)):
        yield f"that pairs halves of {beats} beats; legal: a power of two, 2 or more"
    if own.get("reduce") == Reduce.LARGEST and group != channels:
        yield f"that finds mantissas of {group} of {channels} channels; legal: of whole rows"
    if _sources(own).count(SECOND_ROW) > 1:
        yield "whose streams both come from the second row; legal: one"
    crossed = own.get("partner", Partner.OWN) != Partner.OWN
    if crossed and own.get("keeps") and own.get("kept", 0) == own.get("row", 0):
        yield "that keeps words where it reads partners; legal: in the other copy"
    if own.get("loads") and (crossed or own.get("left") == Left.CENTRED):
        yield "that loads rows and needs all of a row before; legal: its own words alone"
