"""Jobs of a queue that hand results on through memory, and the golden reference of each."""

from typing import Any

import numpy as np
import torch

from firmware_model.host.jobs import HeadJob, HeadOperands, Job
from firmware_model.host.tasks import Buffer, Columns, Task
from firmware_model.reference.jobs import layer_job
from firmware_model.reference.linear import (
    QuantizedInputs,
    cut_words,
    fit_outputs,
    quantize_weights,
)
from firmware_model.reference.outputs import model_outputs
from firmware_model.reorder import token_permutation
from paro.config import Config
from paro.config.formats import OPERAND_MAX, QUERY_SCALE_BITS
from sim.verify.heads import random_codes

__all__ = ["Chain", "cut_outputs", "make_chain"]


def cut_outputs(words: np.ndarray, cut: int) -> np.ndarray:
    """Words as a job with ``cut`` puts them out, int16, INT8 widened."""
    if cut:
        words = cut_words(torch.from_numpy(words), cut).numpy()
    return words.astype(np.int16)


class Chain:
    """A queue that grows job by job.

    Parameters
    ----------
    config : Config
        The accelerator.
    tokens : int
        Of every job.
    seed : int
        Of weights and codes.

    Attributes
    ----------
    tasks, jobs : list
        So far.
    words : list of np.ndarray
        int16: what each of them must put out.
    """

    def __init__(self, config: Config, tokens: int, seed: int) -> None:
        self.config, self.tokens, self.seed = config, tokens, seed
        self.tasks: list[Task] = []
        self.jobs: list[Job] = []
        self.words: list[np.ndarray] = []

    def layer(self, x8: np.ndarray, outputs: int, cut: int, **places: Any) -> np.ndarray:
        """Append a layer with random weights; returns its output words, cut."""
        seed = self.seed + len(self.tasks)
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(outputs, x8.shape[1], generator=generator)
        shape = self.config.blocks_of(outputs), -(-x8.shape[1] // self.config.head_dim)
        codes = torch.randint(1, 4, shape, generator=generator).byte()
        mx = torch.full((self.tokens,), 2 ** (QUERY_SCALE_BITS - 1)).int()
        inputs = QuantizedInputs(torch.from_numpy(x8), mx, 1.0)
        weights = quantize_weights(weight, codes)
        bias = 1e5 * torch.randn(outputs, generator=generator)
        job = layer_job(inputs, weights, fit_outputs(inputs, weights, bias, self.config))
        return self._append(job, cut, places)

    def head(
        self, q8: np.ndarray, k8: np.ndarray, v8: np.ndarray, order: int, cut: int, **places: Any
    ) -> np.ndarray:
        """Append a head of operands in the natural order; returns its words in it, cut."""
        grid = (2, 4, self.tokens // 8)
        permutation = token_permutation(grid, self.tokens - 8 * grid[2], order, 0)
        scales = np.full(self.tokens, 37, np.int32)
        q8, k8, v8 = (values[permutation] for values in (q8, k8, v8))
        head = HeadOperands(q8, k8, v8, 50 * scales, scales, permutation, order)
        codes = random_codes(self.config.blocks_of(self.tokens), 4.8, self.seed + order).numpy()
        words = self._append(HeadJob(head, codes, grid, self.tokens - 8 * grid[2]), cut, places)
        natural = np.empty_like(words)
        natural[permutation] = words
        return natural

    def _append(self, job: Job, cut: int, places: dict[str, Any]) -> np.ndarray:
        self.tasks.append(Task(job, cut, **places))
        self.jobs.append(job)
        self.words.append(cut_outputs(model_outputs(self.config, job), cut))
        # What the next job reads of INT8 are bytes.
        return self.words[-1].astype(np.int8) if cut else self.words[-1]


def make_chain(config: Config, seed: int, tokens: int | None = None, heads: int = 3) -> Chain:
    """Q, K, V of some heads from one layer, their outputs into another, and two layers more.

    Operands that come from buffers are not placed: their rows in memory are the fill.

    Parameters
    ----------
    config : Config
        The accelerator, one that `cuts_outputs`.
    seed : int
        Of weights, codes and inputs.
    tokens : int, optional
        At least 8; a little more than two blocks by default.
    heads : int
        Heads.
    """
    tokens, channels = tokens or 2 * config.block + 11, config.head_dim
    chain = Chain(config, tokens, seed)
    generator = np.random.default_rng(seed)
    x8 = generator.integers(-OPERAND_MAX, OPERAND_MAX + 1, (tokens, 2 * channels + 9))
    projected = Buffer(
        f"projected {seed}", tokens, config.blocks_of(3 * heads * channels) * config.block + 4
    )
    attended = Buffer(f"attended {seed}", tokens, heads * channels)
    width = config.blocks_of(channels + 8) * config.block
    hidden = Buffer(f"hidden {seed}", tokens, max(-(-(channels + 8) // channels) * channels, width))
    qkv = chain.layer(x8.astype(np.int8), 3 * heads * channels, 7, output=Columns(projected))
    parts = []
    for head in range(heads):
        columns = [(3 * head + part) * channels for part in range(3)]
        places = {
            "inputs": {
                name: Columns(projected, first) for name, first in zip("qkv", columns, strict=True)
            },
            "output": Columns(attended, head * channels),
        }
        q8, k8, v8 = (qkv[:, first : first + channels] for first in columns)
        parts.append(chain.head(q8, k8, v8, (head + 2) % 6, 8, **places))
    together = np.concatenate(parts, axis=1)
    middle = chain.layer(
        together, channels + 8, 6, inputs={"q": Columns(attended)}, output=Columns(hidden)
    )
    chain.layer(middle, 21, 0, inputs={"q": Columns(hidden)})
    chain.layer(together, 5, 0, inputs={"q": Columns(attended)})
    return chain
