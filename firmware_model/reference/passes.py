"""The vector unit's formula, pass by pass: what a program makes of rows.

Section 8 of `docs/numerics.md` from its lowest side: any program, whatever operations it is of.
"""

from collections.abc import Mapping, Sequence

import torch

from firmware_model.reference.integer import rounding_shift
from firmware_model.reference.vector import (
    activation_segments,
    lane_pass,
    leading_one,
    partners,
    reciprocal_root,
)
from paro.config.formats import OPERAND_MAX
from paro.config.vector_formats import (
    ACTIVATION_END,
    ACTIVATION_FRAC,
    ACTIVATION_REST_BITS,
    ACTIVATION_TABLE_FRAC,
    QUANTIZE_FRAC,
    ROOT_BITS,
    WORD_MAX,
)
from paro.config.vector_program import PASS, SECOND_ROW, Added, Left, Partner, Reduce, Right

__all__ = ["run_passes"]

#: What a pass is not told is 0.
_ZEROS = {field.name: 0 for field in PASS}


def run_passes(
    passes: Sequence[Mapping[str, int]],
    words: torch.Tensor,
    tables: torch.Tensor,
    second: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Run a program over rows; what it reads must have been made.

    Parameters
    ----------
    passes : sequence of Mapping
        Fields of each pass, as `paro.config.vector_program.pack_program` takes them.
    words, tables, second : torch.Tensor
        int64: rows [tokens, channels], tables [tables, channels], second rows [tokens, words], all
        of which the passes take.

    Returns
    -------
    sent : torch.Tensor
        int64 [tokens, channels].
    mantissas : torch.Tensor or None
        int64 [tokens], if a pass finds any.

    Raises
    ------
    ValueError
        If no pass sends, or words of the second rows are left.
    """
    rows = _Rows(words, tables, second)
    for own in passes:
        rows.run({**_ZEROS, **own})
    if rows.sent is None or rows.second.shape[1]:
        raise ValueError("a program sends nothing, or does not take all of the second rows")
    return rows.sent, rows.mantissas


class _Rows:
    """Rows of all tokens: both copies, and what was found of their groups."""

    def __init__(self, words: torch.Tensor, tables: torch.Tensor, second: torch.Tensor) -> None:
        self.words, self.tables, self.second = words, tables, second
        self.copies: list[torch.Tensor | None] = [None, None]
        self.sent: torch.Tensor | None = None
        self.mantissas: torch.Tensor | None = None
        self.middle = self.factor = self.shift = torch.zeros(0)

    def stream(self, source: int) -> torch.Tensor:
        if source != SECOND_ROW:
            return self.tables[source]
        channels = self.words.shape[1]
        taken, self.second = self.second[:, :channels], self.second[:, channels:]
        return taken

    def run(self, own: dict[str, int]) -> None:
        group = own["group"]
        word = self.word(own)
        left = self.left(own, word)
        right, shift = self.right(own, word, left)
        most = OPERAND_MAX if own["bytes"] else WORD_MAX
        made = lane_pass(left, right, shift, self.added(own, word), most)
        if own["keeps"]:
            self.copies[own["kept"]] = made
        if own["sends"]:
            self.sent = made
        self.find(own, left.unflatten(1, (-1, group)), made.unflatten(1, (-1, group)))

    def copy(self, number: int) -> torch.Tensor:
        made = self.copies[number]
        if made is None:
            raise ValueError(f"a pass reads copy {number}, which none before it has kept")
        return made

    def word(self, own: dict[str, int]) -> torch.Tensor:
        read = self.words if own["loads"] else self.copy(own["row"])
        if own["partner"] == Partner.OWN:
            return read
        pairing = "halves" if own["partner"] == Partner.HALVES else "neighbours"
        index = partners(own["group"], pairing)
        return read.unflatten(1, (-1, own["group"]))[..., index].flatten(1)

    def left(self, own: dict[str, int], word: torch.Tensor) -> torch.Tensor:
        if own["left"] == Left.WORD:
            return word
        if own["left"] == Left.TABLE:
            return _distance(own, word) & ((1 << ACTIVATION_REST_BITS) - 1)
        centred = own["left"] == Left.CENTRED
        return 2 * word - (self.middle.repeat_interleave(own["group"], dim=1) if centred else 0)

    def right(
        self, own: dict[str, int], word: torch.Tensor, left: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        shift = torch.tensor(own["shift"])
        if own["right"] == Right.STREAM:
            return self.stream(own["others"]), shift
        if own["right"] == Right.ITSELF:
            return left, shift
        if own["right"] == Right.TABLE:
            return _table(own, word)[1], shift
        factor, shift = (
            values.repeat_interleave(own["group"], dim=1) for values in (self.factor, self.shift)
        )
        return factor, shift

    def added(self, own: dict[str, int], word: torch.Tensor) -> torch.Tensor:
        if own["added"] == Added.STREAM:
            return self.stream(own["addends"])
        if own["added"] == Added.ROW:
            return self.copy(1 - own["row"])
        if own["added"] == Added.TABLE:
            places = ACTIVATION_TABLE_FRAC - own["fraction"]
            return word.clamp(min=0) + rounding_shift(_table(own, word)[0], places)
        return torch.tensor(0)

    def find(self, own: dict[str, int], left: torch.Tensor, made: torch.Tensor) -> None:
        group = own["group"]
        if own["reduce"] == Reduce.SUM:
            self.middle = (4 * made.sum(dim=2) + group) // (2 * group)
        elif own["reduce"] == Reduce.SQUARES:
            half, self.factor = reciprocal_root(left.square().sum(dim=2) + own["epsilon"])
            self.shift = ROOT_BITS + half - own["places"]
        elif own["reduce"] == Reduce.LARGEST:
            largest, places = made.abs().amax(dim=2), own["places"]
            bits = 8 if own["short"] else 17
            if places >= 0:
                reached = largest.clamp(min=1)
                mantissas = reached << places
            else:
                mantissas = (-(-largest >> -places)).clamp(1, 2**bits - 1)
                reached = mantissas << -places
            exponent = leading_one(reached)
            self.factor = (OPERAND_MAX << (exponent + QUANTIZE_FRAC)) // reached
            self.shift = exponent + QUANTIZE_FRAC
            (self.mantissas,) = mantissas.T


def _distance(own: dict[str, int], word: torch.Tensor) -> torch.Tensor:
    distance = word.abs() << (ACTIVATION_FRAC - own["fraction"])
    return distance.clamp(max=ACTIVATION_END << ACTIVATION_FRAC)


def _table(own: dict[str, int], word: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Base and slope of each word's segment."""
    base, slope = activation_segments("silu" if own["silu"] else "gelu")
    segment = _distance(own, word) >> ACTIVATION_REST_BITS
    return base[segment], slope[segment]
