"""Operations of section 8 of docs/numerics.md as passes of the vector unit, and what they give.

`Row` keeps for each pass the beats that its streams take, and what comes of it by the golden
reference.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from firmware_model.reference.vector import (
    Constants,
    Norm,
    Rotation,
    activate,
    add,
    multiply,
    normalize,
    quantize_channels,
    quantize_tokens,
    rotate,
    scale,
)
from paro.config.vector_program import Added, Left, Partner, Reduce, Right

#: Streams that passes take, in the order of their names in the unit.
INPUTS = ("words", "others", "addends")


@dataclass
class Row:
    """One token's row: the words it holds, the passes so far, and what they take and send.

    Parameters
    ----------
    words : torch.Tensor
        int64 [1, channels].
    lanes : int
        Channels of a beat.
    bank : int
        Place of the row in the unit.
    """

    words: torch.Tensor
    lanes: int
    bank: int = 0
    loaded: bool = False
    memory: int = 0
    passes: list[dict[str, Any]] = field(default_factory=list)
    taken: list[dict[str, list[list[int]]]] = field(default_factory=list)
    sent: list[list[list[int]]] = field(default_factory=list)
    mantissas: list[list[int]] = field(default_factory=list)

    def _beats(self, values: torch.Tensor) -> list[list[int]]:
        return [part.tolist() for part in values.flatten().split(self.lanes)]

    def run(
        self,
        *,
        group: int = 0,
        others: torch.Tensor | None = None,
        addends: torch.Tensor | None = None,
        result: torch.Tensor | None = None,
        mantissas: Sequence[int] = (),
        sends: bool = False,
        **fields: Any,
    ) -> None:
        """Add a pass; ``result`` are the words that it makes of the row, if any."""
        channels = self.words.shape[1]
        command = {
            "bank": self.bank,
            "beats": channels // self.lanes - 1,
            "group": (group or channels) // self.lanes - 1,
            "loads": int(not self.loaded),
            "row": self.memory,
            "left": Left.WORD,
            "right": Right.STREAM,
            "added": Added.NOTHING,
            "partner": Partner.OWN,
            "reduce": Reduce.NOTHING,
            "sends": int(sends),
            **fields,
        }
        command["right"] = command["right"] if others is None else Right.STREAM
        if addends is not None:
            command["added"] = Added.STREAM
        inputs: dict[str, list[list[int]]] = {name: [] for name in INPUTS}
        if not self.loaded:
            inputs["words"] = self._beats(self.words)
        for name, values in (("others", others), ("addends", addends)):
            if values is not None:
                inputs[name] = self._beats(values)
        self.passes.append(command)
        self.taken.append(inputs)
        self.sent.append(self._beats(result) if sends and result is not None else [])
        self.mantissas.append(list(mantissas))

    def keep(self, result: torch.Tensor, **fields: Any) -> None:
        """Add a pass whose words stay, in the memory that is not read."""
        other = 1 - self.memory if self.loaded else self.memory
        self.run(result=result, keeps=1, kept=other, **fields)
        self.words, self.loaded, self.memory = result, True, other

    def load(self, reduce: Reduce = Reduce.NOTHING, group: int = 0, **fields: Any) -> None:
        """Words as they come, into memory: times 1, shifted by 0."""
        ones = torch.ones_like(self.words)
        self.keep(self.words, others=ones, reduce=reduce, group=group, **fields)

    def scale(self, constants: Constants, **fields: Any) -> None:
        self.keep(
            scale(self.words, constants),
            others=constants.factor,
            addends=constants.offset,
            shift=constants.shift,
            **fields,
        )

    def add(self, constants: Constants, base: torch.Tensor, **fields: Any) -> None:
        self.keep(
            add(self.words, constants, base),
            others=constants.factor,
            addends=base,
            shift=constants.shift,
            **fields,
        )

    def multiply(self, others: torch.Tensor, shift: int, **fields: Any) -> None:
        self.keep(multiply(self.words, others, shift), others=others, shift=shift, **fields)

    def norm(self, norm: Norm, **fields: Any) -> None:
        """After a pass that has found the sums of its groups, if centred."""
        left = Left.CENTRED if norm.centred else Left.DOUBLED
        self.run(
            group=norm.group,
            left=left,
            right=Right.ITSELF,
            reduce=Reduce.SQUARES,
            epsilon=norm.epsilon,
            places=norm.places,
        )
        made = normalize(self.words, norm)
        self.keep(made, group=norm.group, left=left, right=Right.FACTOR, **fields)

    def activate(self, kind: Any, fraction: int, **fields: Any) -> None:
        self.keep(
            activate(self.words, kind, fraction),
            left=Left.TABLE,
            right=Right.TABLE,
            added=Added.TABLE,
            silu=int(kind == "silu"),
            fraction=fraction,
            shift=24 - fraction,
            **fields,
        )

    def rotate(self, rotation: Rotation, offset: torch.Tensor | None, **fields: Any) -> None:
        """Straight into the other memory, then crossed: back over the row."""
        channels = rotation.cos.shape[1]
        heads = self.words.shape[1] // channels
        before, memory = self.words, self.memory
        straight = scale(
            before,
            Constants(
                rotation.cos.repeat(1, heads)[0],
                14,
                offset if offset is not None else torch.zeros_like(before[0]),
            ),
        )
        self.keep(
            straight, others=rotation.cos.repeat(1, heads), addends=offset, shift=14, group=channels
        )
        self.words, self.memory = before, memory
        made = rotate(before, rotation, offset)
        partner = Partner.HALVES if rotation.pairing == "halves" else Partner.NEIGHBOURS
        # What is read crossed must stay until it has been: the straight words give way.
        self.keep(
            made,
            others=rotation.sin.repeat(1, heads),
            added=Added.ROW,
            partner=partner,
            shift=14,
            group=channels,
            **fields,
        )

    def quantize_tokens(self, group: int, places: int, bits: int) -> None:
        """After a pass that has found the largest words of its groups."""
        x8, _ = quantize_tokens(self.words, group, places, bits)
        self.run(result=x8.long(), group=group, right=Right.FACTOR, bytes=1, sends=True)

    def found_largest(self, group: int, places: int, bits: int) -> dict[str, Any]:
        """Fields of a pass that finds the largest words of what it makes."""
        return {"reduce": Reduce.LARGEST, "places": places, "short": int(bits == 8)}

    def expect_mantissas(self, group: int, places: int, bits: int) -> None:
        """Mantissas of the words that the last pass made."""
        _, mantissas = quantize_tokens(self.words, group, places, bits)
        self.mantissas[-1] = mantissas.flatten().tolist()

    def quantize_channels(self, constants: Constants) -> None:
        made = quantize_channels(self.words, constants)
        self.run(
            result=made.long(),
            others=constants.factor,
            addends=constants.offset,
            shift=constants.shift,
            bytes=1,
            sends=True,
        )

    def send(self) -> None:
        """Words as they are."""
        self.run(result=self.words, others=torch.ones_like(self.words), sends=True)
