"""Cycles of a model's linear layers on our array.

Weights are the narrow operand, as K is: rows of the array are output channels, columns are tokens,
the reduction runs over input channels. They are cut into tiles of ``block`` outputs times
``head_dim`` inputs, each of 2, 4 or 8 bits; a weight takes 1, 2 or 4 digits, and a PE does 4 digits
a cycle. Tokens come in groups of min(``block``, ``head_dim``). What is no multiple of a tile is
computed as a whole one. Cycles come from the cycle model, of an idle core without latency.

A core takes one tile row of outputs for one group of tokens after the other, a cluster for as many
groups as it has cores; cores beyond the last of these wait.
"""

from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from paro.config import Config, ParoError
from paro.config.config import blocks_of
from paro.config.formats import CODE_BITS, CODE_DIGITS, LANES
from sim.estimate.workloads import Workload

__all__ = [
    "LINEAR_BITS",
    "LinearCycles",
    "check_linear_bits",
    "layer_codes",
    "layer_cycles",
    "linear_cycles",
]

#: Mean widths of weights by default; comparisons take the first. 8 is W8A8, 4 two digits for every
#: weight, the others are means of calibrations that mix widths by tile.
LINEAR_BITS = (4.0, 8.0, 3.5, 3.0, 2.64)
#: Codes that tiles have. Zero tiles cost nothing, but trained weights have none.
_CODES = (1, 2, 3)


def check_linear_bits(bits: float) -> None:
    """Raise ParoError unless tiles of 2, 4 and 8 bits can have this mean width."""
    least, most = (CODE_BITS[code] for code in (_CODES[0], _CODES[-1]))
    if not least <= bits <= most:
        raise ParoError(f"linear bits = {bits:g} is not legal; legal: {least} to {most}")


def layer_codes(outputs: int, inputs: int, config: Config, bits: float) -> np.ndarray:
    """Codes of a layer's tiles with a mean width: the two next to it, evenly mixed.

    Parameters
    ----------
    outputs, inputs : int
        Channels.
    config : Config
    bits : float
        Mean width, 2 to 8.

    Returns
    -------
    np.ndarray
        uint8 [blocks of outputs, chunks of inputs].

    Raises
    ------
    ParoError
        If the mean width is not legal.
    """
    check_linear_bits(bits)
    low = max(code for code in _CODES[:-1] if CODE_BITS[code] <= bits)
    narrow, wide = CODE_BITS[low], CODE_BITS[low + 1]
    shape = (config.blocks_of(outputs), blocks_of(inputs, config.head_dim))
    share = (bits - narrow) / (wide - narrow)
    wider = np.floor(np.arange(shape[0] * shape[1] + 1) * share + 0.5)
    return (low + np.diff(wider)).astype(np.uint8).reshape(shape)


def layer_cycles(config: Config, tokens: int, outputs: int, codes: np.ndarray) -> int:
    """Cycles of one linear layer on one core, or one cluster, by the cycle model.

    Parameters
    ----------
    config : Config
    tokens, outputs : int
    codes : np.ndarray
        uint8 [blocks of outputs, chunks of inputs].

    Raises
    ------
    ParoError
        If the core does not take so many tokens or channels.
    """
    # Not before: it loads numba, and commands check their options with this module.
    from sim.cycles.cycle_model import LayerWork, predict

    return predict(config, [LayerWork(codes, tokens, outputs)]).cycles[0]


def _valid_cycles(
    config: Config, tokens: int, codes: np.ndarray, outputs: int, inputs: int
) -> float:
    """Cycles if every lane worked in every cycle, on valid tokens and channels."""
    rows = np.full(codes.shape[0], config.block)
    rows[-1] = outputs - (len(rows) - 1) * config.block
    columns = np.full(codes.shape[1], config.head_dim)
    columns[-1] = inputs - (len(columns) - 1) * config.head_dim
    digits = np.einsum("oi,o,i->", np.array(CODE_DIGITS)[codes], rows, columns)
    return float(digits) * tokens / (LANES * config.rows * config.cols)


@dataclass(frozen=True, kw_only=True)
class LinearCycles:
    """Cycles of the linear layers of one transformer layer, of all cores together.

    Parameters
    ----------
    mean_bits : float
        Mean width of their weights.
    measured, ideal : tuple of float
        Of each: by the cycle model, and if every lane worked on valid tokens and channels.
    parts : tuple of int
        Of each: tile rows times groups of tokens, which cores take one after the other; of
        clusters, groups of as many tokens as all cores of one take.
    cluster : int
        Cores of a cluster.
    """

    mean_bits: float
    measured: tuple[float, ...]
    ideal: tuple[float, ...]
    parts: tuple[int, ...]
    cluster: int = 1

    @property
    def utilisation(self) -> float:
        """Share of the lanes that work on valid tokens and channels."""
        return sum(self.ideal) / sum(self.measured)

    def full(self) -> "LinearCycles":
        """The same if every lane worked in every cycle."""
        return replace(self, measured=self.ideal)

    def shared(self, cores: float) -> float:
        """Cycles that some cores take together."""
        return sum(self._each(cores))

    def shares(self, cores: float) -> list[float]:
        """Share of each layer in these."""
        each = self._each(cores)
        return [cycles / sum(each) for cycles in each]

    def _each(self, cores: float) -> list[float]:
        """Cycles that some cores take together for each layer."""
        clusters = cores / self.cluster
        return [
            cycles / (parts * self.cluster) * ceil(parts / clusters)
            for cycles, parts in zip(self.measured, self.parts, strict=True)
        ]


def linear_cycles(workload: Workload, config: Config, bits: float) -> LinearCycles:
    """Cycles of the linear layers of one transformer layer.

    Parameters
    ----------
    workload : Workload
        The model.
    config : Config
        The core.
    bits : float
        Mean width of the weights; activations have 8.

    Raises
    ------
    ParoError
        If the mean width is not legal.
    """
    tokens, group = workload.tokens, config.layer_tokens * config.cores
    measured, ideal, parts, codes_of = [], [], [], []
    for inputs, outputs in workload.linear_layers:
        codes = layer_codes(outputs, inputs, config, bits)
        measured.append(float(layer_cycles(config, tokens, outputs, codes) * config.cores))
        ideal.append(_valid_cycles(config, tokens, codes, outputs, inputs))
        parts.append(len(codes) * blocks_of(tokens, group))
        codes_of.append(codes.ravel())
    widths = np.array(CODE_BITS)[np.concatenate(codes_of)]
    return LinearCycles(
        mean_bits=float(widths.mean()),
        measured=tuple(measured),
        ideal=tuple(ideal),
        parts=tuple(parts),
        cluster=config.cores,
    )
