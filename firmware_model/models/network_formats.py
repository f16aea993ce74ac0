"""Formats of a program's tensors, from what they held while its steps ran in float."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from firmware_model.calibration.layer_plan import LayerPlan
from firmware_model.calibration.layers import tile_config
from firmware_model.program import (
    Activate,
    Add,
    Attention,
    Columns,
    Format,
    Join,
    Kind,
    Linear,
    Normalize,
    Program,
    QuantizeTokens,
    Rotate,
    Rows,
    Step,
)
from firmware_model.reference.linear import OutputFormat
from paro.config.config import padded_head_dim
from paro.config.errors import ParoError
from paro.config.formats import (
    KEY_SCALE_BITS,
    LOGIT_FRAC,
    OPERAND_MAX,
    OUT_BITS,
    OUT_FRAC,
    QUERY_SCALE_BITS,
    QUERY_SCALE_SHIFT,
)
from paro.config.vector_formats import ACTIVATION_PLACES, MANTISSA_PLACES, WORD_MAX

__all__ = ["KEY_MARGIN", "MARGIN", "VALUE_MARGIN", "Ranges", "choose_formats"]

#: How far beyond what was seen words reach; of K, whose mantissas have 8 bits; and of V.
MARGIN, KEY_MARGIN, VALUE_MARGIN = 2.0, 1.25, 1.1
#: Words of a linear layer's inputs for each of its input units: 127 mantissas of 4 units.
_INPUT_WORDS = OPERAND_MAX * 2.0 ** MANTISSA_PLACES[1]


@dataclass(frozen=True, eq=False)
class Ranges:
    """What tensors held, channel by channel; an `Observer` of `run_float`."""

    _low: dict[str, torch.Tensor] = field(default_factory=dict)
    _high: dict[str, torch.Tensor] = field(default_factory=dict)
    _total: dict[str, torch.Tensor] = field(default_factory=dict)
    _tokens: dict[str, int] = field(default_factory=dict)

    def __call__(self, name: str, values: torch.Tensor) -> None:
        """Take note of a tensor [tokens, channels]."""
        values = values.detach().double()
        low, high, total = values.amin(dim=0), values.amax(dim=0), values.sum(dim=0)
        if name in self._low:
            low, high = low.minimum(self._low[name]), high.maximum(self._high[name])
            total = total + self._total[name]
        self._low[name], self._high[name], self._total[name] = low, high, total
        self._tokens[name] = self._tokens.get(name, 0) + len(values)

    def mean(self, name: str) -> torch.Tensor:
        """Mean of each channel, float64 [channels]."""
        return self._total[self._seen(name)] / self._tokens[name]

    def largest(self, name: str, middle: torch.Tensor | float = 0.0) -> torch.Tensor:
        """Largest distance of each channel from ``middle``, float64 [channels]."""
        low, high = self._low[self._seen(name)], self._high[name]
        return (high - middle).abs().maximum((low - middle).abs())

    def _seen(self, name: str) -> str:
        if name not in self._low:
            raise ParoError(f"tensor {name} was not observed; legal: run the steps in float first")
        return name


def choose_formats(
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    steps: Sequence[Step],
    ranges: Ranges,
    layers: Mapping[str, LayerPlan],
    biases: Mapping[str, torch.Tensor | None],
    scale: float,
) -> tuple[Program, dict[str, LayerPlan]]:
    """Give every tensor a format.

    Words reach `MARGIN` times what was seen, unless a reader asks for a unit. A residual has one
    unit all along, and a tensor that of tokens cut from it or joined to it. What an activation
    makes has the unit of its table, and a layer that reads it takes that unit: its plan changes.

    Parameters
    ----------
    inputs, outputs : tuple of str
        Tensors that the program is given, and leaves.
    steps : sequence of Step
        In their order.
    ranges : Ranges
        What every tensor held.
    layers : Mapping
        Name to plan of each linear layer.
    biases : Mapping
        Name to bias of each of these.
    scale : float
        Factor of the logits before softmax.

    Returns
    -------
    program : Program
        The steps with their formats, not checked.
    layers : dict
        The plans, with the units that the formats have.

    Raises
    ------
    ParoError
        If a tensor was not observed, a layer has no plan, or logits are beyond the format.
    """
    chooser = _Chooser(tuple(steps), ranges, dict(layers), biases, scale)
    return Program(inputs, outputs, tuple(steps), chooser.formats(inputs)), chooser.layers


@dataclass(eq=False)
class _Chooser:
    """Formats found so far: first those that something asks for, then all others in order."""

    steps: tuple[Step, ...]
    ranges: Ranges
    layers: dict[str, LayerPlan]
    biases: Mapping[str, torch.Tensor | None]
    scale: float
    found: dict[str, Format] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.makers = {step.result: step for step in self.steps}
        self.sharers = _sharers(self.steps)

    def formats(self, inputs: tuple[str, ...]) -> dict[str, Format]:
        for step in self.steps:
            if isinstance(step, Add):
                self._give(self._words(step.result), step.result)
        # An activation's unit decides that of the layer behind it.
        asked = {Activate: self._activation, Linear: self._layer, Attention: self._attention}
        for kind, choose in asked.items():
            for step in self.steps:
                if isinstance(step, kind):
                    choose(step)
        for name in inputs:
            if name not in self.found:
                self._give(self._words(name), name)
        for step in self.steps:
            if step.result not in self.found:
                self._give(self._derived(step), step.result)
        return self.found

    def _give(self, given: Format, name: str) -> None:
        """Give a tensor its format, and all that share it."""
        self.found |= dict.fromkeys(self._sharing(name), given)

    def _sharing(self, name: str) -> set[str]:
        return self.sharers.get(name, {name})

    def _largest(self, name: str) -> float:
        """Largest value of a tensor and of all that share its format."""
        return max(self.ranges.largest(own).max().item() for own in self._sharing(name))

    def _words(self, name: str) -> Format:
        """One unit for all channels of a tensor."""
        channels = len(self.ranges.largest(name))
        return Format(unit=(_unit(self._largest(name)),) * channels)

    def _activation(self, step: Activate) -> None:
        largest = self._largest(step.result)
        low, high = ACTIVATION_PLACES
        places = min(max(math.floor(math.log2(1 / _unit(largest))), low), high)
        channels = len(self.ranges.largest(step.source))
        self._give(Format(unit=(2.0**-places,) * channels), step.result)

    def _layer(self, step: Linear) -> None:
        if step.layer not in self.layers:
            raise ParoError(f"linear layer {step.layer} has no plan; legal: one for each layer")
        plan = self.layers[step.layer]
        quantized = self.makers.get(step.source)
        words = quantized.source if isinstance(quantized, QuantizeTokens) else ""
        if words in self.found:
            unit = self.found[words].unit[0] / _INPUT_WORDS
            plan = _with_unit(plan, unit, self.biases[step.layer])
            self.layers[step.layer] = plan
        elif words:
            unit = plan.input_unit * _INPUT_WORDS
            self._give(Format(unit=(unit,) * plan.inputs), words)
        self.found[step.source] = Format(
            kind=Kind.BY_TOKEN,
            unit=(plan.input_unit,) * plan.inputs,
            group=plan.inputs,
            bits=QUERY_SCALE_BITS,
        )
        self._give(Format(unit=(plan.output.unit,) * plan.outputs), step.result)

    def _attention(self, step: Attention) -> None:
        """Q, K and V of an attention: units of each head, of V of each channel."""
        head_dim = step.head_dim
        q, k = (self._quantized(name) for name in (step.source, step.k))
        mean = self.ranges.mean(k)
        largest = KEY_MARGIN * self.ranges.largest(k, mean).maximum(self._before(k))
        # Half of a rotation, the mean taken off, must not saturate either.
        largest = largest.maximum(self._before(k) + mean.abs())
        units = _heads(largest, head_dim) / (OPERAND_MAX * (2**KEY_SCALE_BITS - 1))
        shift = tile_config(64, padded_head_dim(head_dim)).key_scale_shift + QUERY_SCALE_SHIFT
        product = 2.0 ** -(shift + LOGIT_FRAC) / (self.scale * math.log2(math.e))
        reached = _heads(self.ranges.largest(q).maximum(self._before(q)), head_dim)
        fitting = _positive(MARGIN * reached / (WORD_MAX * OPERAND_MAX), 1.0)
        # Keys that are nothing have the unit that suits the queries.
        units = _positive(units, product / fitting)
        places = KEY_SCALE_BITS - OUT_BITS + 1
        self._operand(step.k, k, units, places, head_dim, KEY_SCALE_BITS, mean)

        query_units = product / units
        low, high = MANTISSA_PLACES
        wanted = torch.log2(fitting / query_units)[reached > 0]
        most = math.ceil(wanted.max().item()) if len(wanted) else low
        if most > high:
            raise ParoError(
                f"logits of {step.result} are beyond the format of section 1; legal: queries "
                f"a factor of {2.0 ** (most - high):g} smaller"
            )
        places = max(most, low)
        self._operand(step.source, q, query_units, places, head_dim, QUERY_SCALE_BITS)

        mean = self.ranges.mean(step.v)
        unit = VALUE_MARGIN * self.ranges.largest(step.v, mean) / OPERAND_MAX
        # A channel that is the same for all tokens is its zero, a whole number of units.
        unit = _positive(_positive(unit, mean.abs() / OPERAND_MAX), self._byte_units(step.v))
        zero = tuple((torch.round(mean / unit) * unit).tolist())
        self._give(Format(kind=Kind.BY_CHANNEL, unit=tuple(unit.tolist()), zero=zero), step.v)
        self._give(Format(unit=tuple((unit * 2.0**-OUT_FRAC).tolist()), zero=zero), step.result)

    def _byte_units(self, name: str) -> torch.Tensor:
        """Units at which INT8 reaches as far as the words that it is made of."""
        words = self.found.get(self._quantized(name))
        channels = len(self.ranges.largest(name))
        units = torch.ones(channels) if words is None else torch.tensor(words.unit)
        return units.double() * WORD_MAX / OPERAND_MAX

    def _quantized(self, name: str) -> str:
        """Words that INT8 is made of."""
        return self.makers[name].source if name in self.makers else name

    def _before(self, name: str) -> torch.Tensor:
        """Largest words before a rotation, which have the same unit."""
        step = self.makers.get(name)
        return self.ranges.largest(step.source if isinstance(step, Rotate) else name)

    def _operand(
        self,
        quantized: str,
        words: str,
        units: torch.Tensor,
        places: int,
        head_dim: int,
        bits: int,
        mean: torch.Tensor | None = None,
    ) -> None:
        """Formats of Q or K, of its words, and of these before a rotation."""
        each = units.repeat_interleave(head_dim)
        word = each * OPERAND_MAX * 2.0**places
        zero = () if mean is None else tuple((torch.round(mean / word) * word).tolist())
        unit = tuple(word.tolist())
        self._give(Format(unit=unit, zero=zero), words)
        self.found[quantized] = Format(
            kind=Kind.BY_TOKEN, unit=tuple(each.tolist()), zero=zero, group=head_dim, bits=bits
        )
        rotation = self.makers.get(words)
        if isinstance(rotation, Rotate):
            self._give(Format(unit=unit), rotation.source)

    def _derived(self, step: Step) -> Format:
        if isinstance(step, Columns):
            read = self.found[step.source]
            columns = slice(step.first, step.first + step.channels)
            return replace(read, unit=read.unit[columns], zero=read.zero[columns])
        if isinstance(step, Normalize):
            largest = self._largest(step.result)
            places = math.floor(math.log2(math.sqrt(step.group) / _unit(largest)))
            channels = len(self.ranges.largest(step.result))
            unit = math.sqrt(step.group) * 2.0 ** -min(max(places, 0), 17)
            return Format(unit=(unit,) * channels)
        return self._words(step.result)


def _sharers(steps: Sequence[Step]) -> dict[str, set[str]]:
    """Tensors that share a format with others, and all those that do."""
    found: dict[str, set[str]] = {}
    for step in steps:
        if isinstance(step, Rows | Join | Activate):
            names = (*step.reads, step.result)
        elif isinstance(step, Add):
            names = (step.base, step.result)
        else:
            continue
        group = set(names).union(*(found.get(name, ()) for name in names))
        found |= dict.fromkeys(group, group)
    return found


def _heads(largest: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Largest of each head's channels: [heads]."""
    return largest.unflatten(0, (-1, head_dim)).amax(dim=1)


def _positive(values: torch.Tensor, others: torch.Tensor | float) -> torch.Tensor:
    """Values that are above 0, others in the place of those that are not."""
    return torch.where(values > 0, values, others)


def _unit(largest: float) -> float:
    """Unit at which words reach `MARGIN` times ``largest``."""
    return MARGIN * largest / WORD_MAX or 1.0


def _with_unit(plan: LayerPlan, unit: float, bias: torch.Tensor | None) -> LayerPlan:
    """A layer's plan for inputs of another unit: its words keep their integers."""
    own = plan.output
    output_unit = own.unit * unit / plan.input_unit
    largest = 2 ** (OUT_BITS - 1) - 1
    values = torch.zeros(plan.outputs) if bias is None else bias.detach()
    rounded = torch.round(values.double() / output_unit)
    if rounded.abs().max() > largest:
        raise ParoError(
            f"the bias of layer {plan.name} is {values.abs().max().item():.3g}, beyond the "
            f"{largest * output_unit:.3g} that its outputs reach with the inputs that it has"
        )
    output = OutputFormat(own.sum_shift, own.out_shift, rounded.int(), output_unit)
    return replace(plan, input_unit=unit, output=output)
