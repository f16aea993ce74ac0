"""A network as a queue of the accelerator: its jobs, and where its tensors lie in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from firmware_model.host.image import Image, place_jobs
from firmware_model.host.tasks import Buffer, Columns, Task
from firmware_model.models.network import Parameters
from firmware_model.program import (
    Format,
    Kind,
)
from paro.config import Config
from paro.config.formats import OUT_BYTES

__all__ = ["DeviceProgram", "Item", "Stored"]


@dataclass(frozen=True, eq=False)
class Item:
    """One of several runs of a network in a queue, such as a half of the guidance.

    Parameters
    ----------
    inputs : Mapping
        Name to values [tokens, channels], which the host rounds to words.
    parameters : Parameters
        What the steps name.
    """

    inputs: Mapping[str, torch.Tensor]
    parameters: Parameters


@dataclass(frozen=True, eq=False)
class Stored:
    """Where a tensor lies.

    Parameters
    ----------
    columns : Columns
        Its rows in a buffer, in the natural order.
    format : Format
        Its format, with its channels.
    tokens : int
        Its rows.
    mantissas : tuple of Columns
        Of INT8 by token, those of each group of channels.
    orders : tuple of np.ndarray
        int64 [tokens], of each group: natural token of each of its mantissas.
    padding : int
        Words of no meaning behind each group of channels that share a mantissa.
    """

    columns: Columns
    format: Format
    tokens: int
    mantissas: tuple[Columns, ...] = ()
    orders: tuple[np.ndarray, ...] = ()
    padding: int = 0

    @property
    def word_bytes(self) -> int:
        """Bytes of a word."""
        return OUT_BYTES if self.format.kind == Kind.WORDS else 1

    def part(self, first: int) -> Columns:
        """Rows from channel ``first`` on."""
        place = int(self.places[first])
        return replace(self.columns, first=self.columns.first + self.word_bytes * place)

    @property
    def places(self) -> np.ndarray:
        """Word in a row that each channel has, int64 [channels]."""
        channels = np.arange(self.format.channels)
        return channels + channels // max(self.format.group, 1) * self.padding

    def rows(self, first: int) -> Columns:
        """Rows from token ``first`` on."""
        return replace(self.columns, token=self.columns.token + first)


@dataclass(frozen=True, eq=False)
class DeviceProgram:
    """A queue for some items of a network.

    Parameters
    ----------
    config : Config
        The accelerator that it is for.
    tasks : tuple of Task
        In the sequence of the queue, see `firmware_model.host.schedule`.
    tensors : tuple of Mapping
        For each item, where the tensors lie that are in memory at some time, by their names.
    """

    config: Config
    tasks: tuple[Task, ...]
    tensors: tuple[Mapping[str, Stored], ...]

    def image(self, base: int = 0, *, reuse: bool = True) -> Image:
        """Lay the queue out in memory; without ``reuse`` every tensor is there in the end."""
        return place_jobs(self.config, self.tasks, base, shared=True, reuse=reuse)

    def words(self, outputs: Sequence[np.ndarray], item: int, name: str) -> torch.Tensor:
        """Words of a tensor whose rows are each of one job, as `IntegerNetwork.run` gives them.

        Parameters
        ----------
        outputs : sequence of np.ndarray
            Of all jobs, see `firmware_model.host.driver.Driver.outputs`.
        item : int
            Index of the item.
        name : str
            Tensor.
        """
        buffer = self.tensors[item][name].columns.buffer
        parts = {
            task.output.token: outputs[place]
            for place, task in enumerate(self.tasks)
            if task.output is not None and task.output.buffer is buffer
        }
        rows = np.concatenate([parts[token] for token in sorted(parts)])
        return torch.from_numpy(rows.astype(np.int64))

    def integers(
        self, image: Image, memory: bytes, item: int, name: str
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Read a tensor from memory, as `IntegerNetwork.run` gives it.

        Parameters
        ----------
        image : Image
            The queue, see `image`.
        memory : bytes
            All bytes from ``image.base`` on, after the run.
        item : int
            Index of the item.
        name : str
            Tensor.
        """
        stored = self.tensors[item][name]
        token, word = stored.columns.token, stored.word_bytes
        rows = _rows(image, memory, stored.columns.buffer)[token : token + stored.tokens]
        words = rows.view(f"<i{word}")[:, stored.columns.first // word :]
        found = torch.from_numpy(words[:, stored.places])
        if not stored.mantissas:
            return found.long() if stored.format.kind == Kind.WORDS else found
        mantissas = np.empty((len(rows), len(stored.mantissas)), np.int32)
        for group, (own, order) in enumerate(zip(stored.mantissas, stored.orders, strict=True)):
            values = _rows(image, memory, own.buffer).view("<i4")[:, 0]
            mantissas[order, group] = values[own.token : own.token + len(order)]
        return found, torch.from_numpy(mantissas)


def _rows(image: Image, memory: bytes, buffer: Buffer) -> np.ndarray:
    """Bytes of a buffer, uint8 [tokens, bytes of a row]."""
    start, count = image.buffers.addresses[buffer.name] - image.base, buffer.tokens
    values = np.frombuffer(memory, np.uint8, count * buffer.row_bytes, start)
    return values.reshape(count, buffer.row_bytes)
