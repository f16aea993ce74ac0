"""Steps between attention and linear layers as passes of the vector unit, with their tables.

How each step is made of passes is section 8 of `docs/numerics.md`; constants, shifts and places
are those of the integer network.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from firmware_model.models.network import IntegerNetwork, Parameters
from firmware_model.program import (
    Activate,
    Add,
    Normalize,
    QuantizeChannels,
    QuantizeTokens,
    Rotate,
    Scale,
    Step,
    activation_places,
)
from paro.config.formats import KEY_SCALE_BITS
from paro.config.vector_formats import (
    ACTIVATION_REST_BITS,
    ACTIVATION_TABLE_FRAC,
    ROTATION_FRAC,
)
from paro.config.vector_program import (
    PASSES_MAX,
    SECOND_ROW,
    TABLES_MAX,
    Added,
    Left,
    Partner,
    Reduce,
    Right,
)

__all__ = ["VECTOR_STEPS", "ChainPasses", "chain_passes"]

#: Steps that the vector unit computes.
VECTOR_STEPS = (Activate, Add, Normalize, QuantizeChannels, QuantizeTokens, Rotate, Scale)


@dataclass(frozen=True, eq=False)
class ChainPasses:
    """What a job of the vector unit is told of some steps, for some channels.

    Parameters
    ----------
    passes : tuple of Mapping
        Fields of each pass.
    tables : np.ndarray
        int16 [tables, channels].
    seconds : tuple of str or np.ndarray
        Second rows that the passes take: the name of a tensor, or int16 [tokens, words].
    """

    passes: tuple[Mapping[str, int], ...]
    tables: np.ndarray
    seconds: tuple[str | np.ndarray, ...]

    @property
    def fits(self) -> bool:
        """Whether one job can hold it."""
        return (
            len(self.passes) <= PASSES_MAX
            and len(self.tables) <= TABLES_MAX
            and len(self.seconds) <= 1
        )


def chain_passes(
    network: IntegerNetwork,
    parameters: Parameters,
    steps: Sequence[Step],
    channels: slice,
    width: int | None = None,
) -> ChainPasses:
    """Return the passes of steps of which each but the first reads the one before it.

    Parameters
    ----------
    network : IntegerNetwork
        Gives every format.
    parameters : Parameters
        What the steps name.
    steps : sequence of Step
        Of `VECTOR_STEPS`. The last one's result is sent, and no other is kept.
    channels : slice
        Channels of the tensors that the row has: all, or whole groups of each step.
    width : int, optional
        Words of the row; those behind its channels, which may be anything, are made zeros.
    """
    row = _Row(network, parameters, channels, width or channels.stop - channels.start)
    for step in steps:
        _PASSES[type(step)](row, step)
    row.passes[-1] |= {"keeps": 0, "kept": 0, "sends": 1}
    shape = len(row.tables), row.width
    tables = np.array(row.tables, np.int16).reshape(shape)
    return ChainPasses(tuple(row.passes), tables, tuple(row.seconds))


@dataclass(eq=False)
class _Row:
    """A token's row: passes so far, what they take, and the copy that holds its words now."""

    network: IntegerNetwork
    parameters: Parameters
    channels: slice
    width: int
    passes: list[dict[str, int]] = field(default_factory=list)
    tables: list[list[int]] = field(default_factory=list)
    seconds: list[str | np.ndarray] = field(default_factory=list)
    copy: int = 0

    @property
    def count(self) -> int:
        """Channels of the tensors that it has."""
        return self.channels.stop - self.channels.start

    def filled(self, values: torch.Tensor) -> torch.Tensor:
        """Words of its channels, [..., channels], and zeros up to its width."""
        return torch.nn.functional.pad(values, (0, self.width - self.count))

    def table(self, values: torch.Tensor) -> int:
        """Number of a table of words for each of all channels."""
        return self._table(values[self.channels])

    def _table(self, values: torch.Tensor) -> int:
        words = self.filled(values).tolist()
        if words not in self.tables:
            self.tables.append(words)
        return self.tables.index(words)

    def as_it_is(self) -> dict[str, int]:
        """Fields of a pass that changes no word: times 1."""
        return {"others": self._table(torch.ones(self.count, dtype=torch.int64))}

    def group(self, channels: int) -> int:
        """Words of a group: those of the row where the group is all of its channels."""
        return self.width if channels == self.count else channels

    def look(self, **fields: int) -> None:
        """Add a pass over the words whose own are not kept."""
        fields["group"] = self.group(fields.get("group", self.count))
        self.passes.append({"loads": int(not self.passes), "row": self.copy, **fields})

    def make(self, **fields: int) -> None:
        """Add a pass whose words become the row, in the copy that is not read."""
        kept = 1 - self.copy if self.passes else self.copy
        self.look(keeps=1, kept=kept, **fields)
        self.copy = kept

    def find(self, reduce: Reduce, group: int, **fields: int) -> None:
        """Find something of each group of the words: in the pass that makes them, if it can."""
        last, group = self.passes[-1] if self.passes else None, self.group(group)
        if last is None or last.get("reduce") or (_is_grouped(last) and last["group"] != group):
            self.make(**self.as_it_is())
        self.passes[-1] |= {"reduce": reduce, "group": group, **fields}

    def offset(self, values: torch.Tensor | None) -> dict[str, int]:
        """Fields of a pass that adds a word to each channel."""
        if values is None or not values[self.channels].any():
            return {}
        return {"added": Added.STREAM, "addends": self.table(values)}


def _is_grouped(own: Mapping[str, int]) -> bool:
    """Whether a pass reads something of its groups."""
    return (
        own.get("right") == Right.FACTOR
        or own.get("left") == Left.CENTRED
        or own.get("partner") == Partner.HALVES
    )


def _scale(row: _Row, step: Scale | QuantizeChannels, **fields: int) -> None:
    constants = row.network.constants(step, row.parameters)
    row.make(
        others=row.table(constants.factor),
        **row.offset(constants.offset),
        shift=constants.shift,
        **fields,
    )


def _add(row: _Row, step: Add) -> None:
    constants = row.network.constants(step, row.parameters)
    row.seconds.append(step.base)
    row.make(
        others=row.table(constants.factor),
        added=Added.STREAM,
        addends=SECOND_ROW,
        shift=constants.shift,
    )


def _normalize(row: _Row, step: Normalize) -> None:
    norm = row.network.norm(step)
    if norm.centred:
        row.find(Reduce.SUM, norm.group)
    elif not row.passes:
        row.make(**row.as_it_is())
    left = Left.CENTRED if norm.centred else Left.DOUBLED
    row.look(
        left=left,
        right=Right.ITSELF,
        reduce=Reduce.SQUARES,
        group=norm.group,
        places=norm.places,
        epsilon=norm.epsilon,
    )
    row.make(left=left, right=Right.FACTOR, group=norm.group)


def _activate(row: _Row, step: Activate) -> None:
    places = activation_places(step, row.network.program.formats[step.result])
    row.make(
        left=Left.TABLE,
        right=Right.TABLE,
        added=Added.TABLE,
        silu=int(step.kind == "silu"),
        fraction=places,
        shift=ACTIVATION_TABLE_FRAC + ACTIVATION_REST_BITS - places,
    )


def _rotate(row: _Row, step: Rotate) -> None:
    """Straight into the other copy; then crossed, over what came straight."""
    rotation = row.network.rotation(step, row.parameters)
    heads = row.count // step.head_dim
    both = [row.filled(part.repeat(1, heads)) for part in (rotation.cos, rotation.sin)]
    row.seconds.append(torch.cat(both, dim=1).to(torch.int16).numpy())
    if not row.passes:
        row.make(**row.as_it_is())
    before = row.copy
    offset = row.offset(row.network.rotation_offset(step))
    row.make(others=SECOND_ROW, shift=ROTATION_FRAC, **offset)
    row.copy = before
    row.make(
        others=SECOND_ROW,
        shift=ROTATION_FRAC,
        added=Added.ROW,
        partner=Partner.HALVES if step.pairing == "halves" else Partner.NEIGHBOURS,
        group=step.head_dim,
    )


def _quantize_tokens(row: _Row, step: QuantizeTokens) -> None:
    made = row.network.program.formats[step.result]
    row.find(
        Reduce.LARGEST,
        made.group,
        places=row.network.quantized_places(step),
        short=int(made.bits == KEY_SCALE_BITS),
    )
    row.make(right=Right.FACTOR, bytes=1, group=made.group)


_PASSES: Mapping[type[Step], Callable[[_Row, Any], None]] = {
    Activate: _activate,
    Add: _add,
    Normalize: _normalize,
    QuantizeChannels: lambda row, step: _scale(row, step, bytes=1),
    QuantizeTokens: _quantize_tokens,
    Rotate: _rotate,
    Scale: _scale,
}
