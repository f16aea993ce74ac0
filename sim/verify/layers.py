"""Linear layers of any shape: their sizes, codes and operands from a few words and a seed."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from firmware_model.host.jobs import LayerJob
from firmware_model.reference.jobs import layer_job
from firmware_model.reference.linear import (
    OutputFormat,
    QuantizedInputs,
    QuantizedWeights,
    fit_outputs,
    quantize_inputs,
    quantize_weights,
)
from paro.config import Config
from paro.config.formats import KEY_SCALE_BITS, OPERAND_MAX, OUT_BITS, OUT_SHIFTS, QUERY_SCALE_BITS

__all__ = ["LAYER_VALUES", "LayerShape", "LayerValues"]

#: Operands: as a model has them, at the ends of INT8 and of the scales, or of any bits.
LayerValues = Literal["normal", "extreme", "any"]
LAYER_VALUES: tuple[LayerValues, ...] = get_args(LayerValues)


@dataclass(frozen=True)
class LayerShape:
    """A linear layer of any size.

    Parameters
    ----------
    tokens, inputs, outputs : int
        Its sizes.
    codes : int, optional
        Code of all tiles; by default any, 0 included.
    outliers : bool
        Of normal operands: some input channels are a hundred times the others, as in vision
        transformers, and the tokens' scales differ as much.
    biased : bool
        Whether there is a bias.
    values : LayerValues
        Operands; but for normal ones the last shift is any, so that words saturate.
    """

    tokens: int
    inputs: int
    outputs: int
    codes: int | None = None
    outliers: bool = False
    biased: bool = True
    values: LayerValues = "normal"

    @property
    def line(self) -> str:
        """All of it in a few words."""
        codes = "any codes" if self.codes is None else f"code {self.codes}"
        words = [f"layer {self.tokens}x{self.inputs}x{self.outputs}", codes, self.values]
        words += ["outliers"] * self.outliers + ["bias"] * self.biased
        return " ".join(words)

    def job(self, config: Config, seed: int) -> LayerJob:
        """Make the layer."""
        generator = torch.Generator().manual_seed(seed)
        if self.values != "normal":
            return self._saturating(config, generator)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator)

        x, weight = normal(self.tokens, self.inputs), normal(self.outputs, self.inputs)
        if self.outliers:
            x[:, ::7] *= 100
            x *= torch.exp(2 * normal(self.tokens, 1))
        codes = self._codes(config, generator)
        bias = 10 * normal(self.outputs) if self.biased else None
        inputs, weights = quantize_inputs(x), quantize_weights(weight, codes)
        return layer_job(inputs, weights, fit_outputs(inputs, weights, bias, config))

    def _codes(self, config: Config, generator: torch.Generator) -> torch.Tensor:
        shape = (config.blocks_of(self.outputs), -(-self.inputs // config.head_dim))
        codes = torch.randint(0, 4, shape, generator=generator).byte()
        if self.codes is not None:
            return codes.fill_(self.codes)
        # Of several tiles two differ.
        codes.view(-1)[:: codes.numel() - 1 or 1] = torch.tensor([1, 3][: codes.numel()]).byte()
        return codes

    def _saturating(self, config: Config, generator: torch.Generator) -> LayerJob:
        """Operands that no model has; the shift of the sums holds them, as it must."""

        def integers(largest: int, *shape: int, least: int | None = None) -> torch.Tensor:
            low = -largest if least is None else least
            if self.values == "extreme":
                ends = torch.tensor([low, largest])
                return ends[torch.randint(0, 2, shape, generator=generator)]
            return torch.randint(low, largest + 1, shape, generator=generator)

        def scales(bits: int, count: int) -> torch.Tensor:
            return integers(2**bits - 1, count, least=1).int()

        x8 = integers(OPERAND_MAX, self.tokens, self.inputs).to(torch.int8)
        w8 = integers(OPERAND_MAX, self.outputs, self.inputs).to(torch.int8)
        inputs = QuantizedInputs(x8, scales(QUERY_SCALE_BITS, self.tokens), unit=1.0)
        mw, codes = scales(KEY_SCALE_BITS, self.outputs), self._codes(config, generator)
        weights = QuantizedWeights(w8, mw, 1.0, codes)
        largest = (2 ** (OUT_BITS - 1) - 1) * self.biased
        bias = integers(largest, self.outputs).int()
        shift = OUT_SHIFTS[int(torch.randint(0, len(OUT_SHIFTS), (), generator=generator))]
        fitted = fit_outputs(inputs, weights, None, config)
        return layer_job(inputs, weights, OutputFormat(fitted.sum_shift, shift, bias, 1.0))
