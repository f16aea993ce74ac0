"""A program's steps, in integers as the device computes them, and in float as the model does.

Both run one item of a batch: tensors are [tokens, channels].
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from firmware_model.arrays import Tokens
from firmware_model.calibration.layer_plan import LayerPlan
from firmware_model.calibration.layers import tile_config
from firmware_model.calibration.plan import ModelPlan, Plan
from firmware_model.cross import CrossHead
from firmware_model.parallel import map_rows
from firmware_model.program import (
    Activate,
    Add,
    Attend,
    Attention,
    Columns,
    CrossAttend,
    Format,
    Join,
    Linear,
    Normalize,
    Program,
    QuantizeChannels,
    QuantizeTokens,
    Rotate,
    Rows,
    Scale,
    Step,
    activation_places,
    check_program,
    count_tokens,
    mantissa_places,
    norm_places,
)
from firmware_model.reference.integer import integer_attention
from firmware_model.reference.linear import QuantizedInputs, integer_linear
from firmware_model.reference.quantize import QuantizedHead
from firmware_model.reference.vector import (
    Constants,
    Norm,
    Rotation,
    activate,
    add,
    make_constants,
    make_norm,
    make_rotation,
    normalize,
    quantize_channels,
    quantize_tokens,
    rotate,
    scale,
    to_words,
)
from firmware_model.reorder import token_permutation
from paro.config.config import Config, padded_head_dim
from paro.config.errors import ParoError

__all__ = ["ChannelConstants", "IntegerNetwork", "Parameters", "run_float", "values_of"]

#: Factor and offset of each channel, float64 [channels].
ChannelConstants = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, eq=False, kw_only=True)
class Parameters:
    """What a program's steps name, in float.

    Parameters
    ----------
    linears : Mapping
        Name to linear layer.
    constants : Mapping
        Name to factors and offsets of channels; those of a noise level and class change with it.
    rotations : Mapping
        Name to angles, float64 [tokens, pairs].
    scale : float
        Factor of the logits before softmax.
    """

    linears: Mapping[str, torch.nn.Linear]
    constants: Mapping[str, ChannelConstants]
    rotations: Mapping[str, torch.Tensor]
    scale: float


#: Is given every tensor that is made, by its name.
Observer = Callable[[str, torch.Tensor], None]


def run_float(
    steps: Sequence[Step],
    inputs: Mapping[str, torch.Tensor],
    parameters: Parameters,
    observe: Observer | None = None,
) -> dict[str, torch.Tensor]:
    """Run steps in float, nothing rounded.

    Parameters
    ----------
    steps : sequence of Step
        In their order.
    inputs : Mapping
        Name to values [tokens, channels].
    parameters : Parameters
        What the steps name.
    observe : callable, optional
        Is given the inputs and every tensor that is made.

    Returns
    -------
    dict
        Name to values of all tensors, the type of the inputs.
    """
    tensors = dict(inputs)
    for name, values in inputs.items():
        if observe:
            observe(name, values)
    for step in steps:
        made = _FLOAT[type(step)](step, tensors, parameters)
        tensors[step.result] = made
        if observe:
            observe(step.result, made)
    return tensors


def _float_constants(
    name: str, parameters: Parameters, like: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor] | tuple[float, float]:
    if not name:
        return 1.0, 0.0
    factor, offset = parameters.constants[name]
    return factor.to(like), offset.to(like)


_Tensors = Mapping[str, torch.Tensor]


def _float_scale(step: Scale, tensors: _Tensors, parameters: Parameters) -> torch.Tensor:
    x = tensors[step.source]
    factor, offset = _float_constants(step.constants, parameters, x)
    return x * factor + offset


def _float_add(step: Add, tensors: _Tensors, parameters: Parameters) -> torch.Tensor:
    x = tensors[step.source]
    return tensors[step.base] + x * _float_constants(step.constants, parameters, x)[0]


def _float_linear(step: Linear, tensors: _Tensors, parameters: Parameters) -> torch.Tensor:
    layer, x = parameters.linears[step.layer], tensors[step.source]
    bias = None if layer.bias is None else layer.bias.to(x)
    return torch.nn.functional.linear(x, layer.weight.to(x), bias)


def _float_attend(step: Attention, tensors: _Tensors, parameters: Parameters) -> torch.Tensor:
    q, k, v = (
        tensors[name].unflatten(1, (-1, step.head_dim)).transpose(0, 1) for name in step.reads
    )
    mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=parameters.scale)
    return mixed.transpose(0, 1).flatten(1)


def _float_normalize(step: Normalize, tensors: _Tensors, _: Parameters) -> torch.Tensor:
    groups = tensors[step.source].unflatten(1, (-1, step.group))
    if step.centred:
        groups = groups - groups.mean(dim=2, keepdim=True)
    power = groups.square().mean(dim=2, keepdim=True)
    return (groups * (power + step.epsilon).rsqrt()).flatten(1)


def _float_activate(step: Activate, tensors: _Tensors, _: Parameters) -> torch.Tensor:
    x = tensors[step.source]
    if step.kind == "silu":
        return torch.nn.functional.silu(x)
    return torch.nn.functional.gelu(x, approximate="tanh")


def _float_rotate(step: Rotate, tensors: _Tensors, parameters: Parameters) -> torch.Tensor:
    heads = tensors[step.source].unflatten(1, (-1, step.head_dim))
    angles = parameters.rotations[step.rotation].to(heads).unsqueeze(1)
    cos, sin = angles.cos(), angles.sin()
    if step.pairing == "halves":
        first, second = heads.chunk(2, dim=2)
        turned = [first * cos - second * sin, first * sin + second * cos]
        return torch.cat(turned, dim=2).flatten(1)
    first, second = heads[..., ::2], heads[..., 1::2]
    turned = [first * cos - second * sin, first * sin + second * cos]
    return torch.stack(turned, dim=3).flatten(1)


def _same(step: Step, tensors: _Tensors, _: Parameters) -> torch.Tensor:
    return tensors[step.source]


_FLOAT: dict[type[Step], Callable[..., torch.Tensor]] = {
    Columns: lambda step, tensors, _: tensors[step.source][
        :, step.first : step.first + step.channels
    ],
    Rows: lambda step, tensors, _: tensors[step.source][step.first : step.first + step.tokens],
    Join: lambda step, tensors, _: torch.cat([tensors[name] for name in step.reads]),
    Linear: _float_linear,
    Attend: _float_attend,
    CrossAttend: _float_attend,
    Scale: _float_scale,
    Add: _float_add,
    Normalize: _float_normalize,
    Activate: _float_activate,
    Rotate: _float_rotate,
    QuantizeTokens: _same,
    QuantizeChannels: _same,
}


def values_of(words: torch.Tensor, made: Format) -> torch.Tensor:
    """Values of a tensor of words, float64."""
    return words.double() * _units(made) + _zeros(made)


def _units(made: Format) -> torch.Tensor:
    return torch.tensor(made.unit, dtype=torch.float64)


def _zeros(made: Format) -> torch.Tensor:
    if not made.zero:
        return torch.zeros(made.channels, dtype=torch.float64)
    return torch.tensor(made.zero, dtype=torch.float64)


@dataclass(frozen=True, eq=False, kw_only=True)
class IntegerNetwork:
    """A program with its plans: every step bit for bit as the device computes it.

    Parameters
    ----------
    program : Program
        Checked.
    layers : Mapping
        Name to plan of each linear layer.
    attention : ModelPlan
        Orders and codes of every head; without transforms.
    tokens : Tokens
        What the tokens are.
    text : str
        Input that has a number of tokens of its own in every run, if there is one.

    Raises
    ------
    ParoError
        If the program is not legal, or its plans are not those of its steps and formats.
    """

    program: Program
    layers: Mapping[str, LayerPlan]
    attention: ModelPlan
    tokens: Tokens
    text: str = ""
    _kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        check_program(self.program)
        self.token_counts()
        if self.attention.transforms.any():
            raise ParoError(
                "the plan transforms channels of Q and K, which the vector unit does not; legal: "
                "a plan calibrated with --transform none"
            )
        for step in self.program.steps:
            if isinstance(step, Linear):
                self._check_layer(step)

    def token_counts(self, text_tokens: int = 1) -> dict[str, int]:
        """Tokens of every tensor, where a text has ``text_tokens``."""
        others = {self.text: text_tokens} if self.text else {}
        return count_tokens(self.program, self.tokens.count, others)

    def _check_layer(self, step: Linear) -> None:
        """Raise ParoError unless there is a plan of the layer, with the formats of its tensors."""
        read, made = self.program.formats[step.source], self.program.formats[step.result]
        if step.layer not in self.layers:
            raise ParoError(f"linear layer {step.layer} has no plan; legal: one for each layer")
        plan = self.layers[step.layer]
        if plan.rotation != 1:
            raise ParoError(
                f"the plan rotates the inputs of layer {step.layer}, which the vector unit does "
                "not; legal: a plan calibrated with --input-transform none"
            )
        sizes = (plan.inputs, plan.outputs)
        units = (plan.input_unit, plan.output.unit)
        if sizes != (read.channels, made.channels) or not all(
            math.isclose(own, unit, rel_tol=1e-9)
            for own, tensor in zip(units, (read, made), strict=True)
            for unit in tensor.unit
        ):
            raise ParoError(
                f"tensors {step.source} and {step.result} do not fit the plan of layer "
                f"{step.layer}; legal: its {sizes[0]} inputs, {sizes[1]} outputs and its units"
            )

    def run(
        self, inputs: Mapping[str, torch.Tensor], parameters: Parameters, progress: float = 0.0
    ) -> dict[str, torch.Tensor]:
        """Run the program.

        Parameters
        ----------
        inputs : Mapping
            Name to values [tokens, channels]: the host rounds them to words.
        parameters : Parameters
            What the steps name.
        progress : float
            Share of the denoising steps that are done.

        Returns
        -------
        dict
            Name to integers of every tensor: words int64, INT8 by channel int8, INT8 by token a
            pair with its mantissas, int32 [tokens, groups].
        """
        tensors: dict[str, Any] = self.input_words(inputs)
        run = _Run(self, tensors, parameters, progress)
        for step in self.program.steps:
            tensors[step.result] = _INTEGER[type(step)](run, step)
        return tensors

    def input_words(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Words of the inputs' values, int64 [tokens, channels], as the host rounds them."""
        return {
            name: to_words(inputs[name].double(), _units(self.program.formats[name]))
            for name in self.program.inputs
        }

    def constants(self, step: Scale | Add | QuantizeChannels, parameters: Parameters) -> Constants:
        """Constants from a step's source to its result, a change of format among them."""
        read, made = (self.program.formats[name] for name in (step.source, step.result))
        into = _units(made)
        factor: torch.Tensor | float = 1.0
        offset: torch.Tensor | float = 0.0
        if isinstance(step, Scale | Add) and step.constants:
            factor, offset = (part.double() for part in parameters.constants[step.constants])
        moved = factor * _zeros(read) + offset - _zeros(made)
        return make_constants(factor * _units(read) / into, moved / into)

    def attention_plan(self, step: Attend, progress: float) -> Plan:
        """Orders and codes of an attention's heads after a share of the denoising steps."""
        return self.attention.at(step.layer, progress, self.tokens.prefix + self.tokens.suffix)

    def tiles(self, plan: LayerPlan) -> Config:
        """Configuration of a layer's tiles."""
        return self._keep(f"tiles {plan.name}", lambda: tile_config(plan.block, plan.head_dim))

    def norm(self, step: Normalize) -> Norm:
        """Format of a norm."""
        formats = self.program.formats

        def make() -> Norm:
            places = norm_places(step, formats[step.result])
            unit = formats[step.source].unit[0]
            made = make_norm(step.group, centred=step.centred, epsilon=step.epsilon, unit=unit)
            return Norm(made.group, made.centred, made.epsilon, places)

        return self._keep(f"norm {step.result}", make)

    def quantized_places(self, step: QuantizeTokens) -> int:
        """Places between a largest word and its mantissa."""
        read, made = (self.program.formats[name] for name in (step.source, step.result))
        return mantissa_places(step, read, made)

    def rotation_offset(self, step: Rotate) -> torch.Tensor | None:
        """Words that a rotation adds: what the result's zero takes off; none without one."""
        made = self.program.formats[step.result]
        return to_words(-_zeros(made), _units(made)) if made.zero else None

    def rotation(self, step: Rotate, parameters: Parameters) -> Rotation:
        """Words of a rotation, which is the same in every run."""
        return self._keep(
            f"rotation {step.rotation}",
            lambda: make_rotation(parameters.rotations[step.rotation], step.pairing),
        )

    def permutation(self, order: int) -> torch.Tensor:
        """Which token stands at each position of an order."""
        tokens = self.tokens
        return self._keep(
            f"order {order}",
            lambda: torch.from_numpy(
                token_permutation(tokens.grid, tokens.prefix, order, tokens.suffix)
            ),
        )

    def _keep(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]


@dataclass(frozen=True, eq=False)
class _Run:
    """One run of a network: what its steps read."""

    network: IntegerNetwork
    tensors: dict[str, Any]
    parameters: Parameters
    progress: float

    def format(self, name: str) -> Format:
        return self.network.program.formats[name]


def _scale(run: _Run, step: Scale) -> torch.Tensor:
    constants = run.network.constants(step, run.parameters)
    return scale(run.tensors[step.source], constants)


def _add(run: _Run, step: Add) -> torch.Tensor:
    constants = run.network.constants(step, run.parameters)
    return add(run.tensors[step.source], constants, run.tensors[step.base])


def _linear(run: _Run, step: Linear) -> torch.Tensor:
    plan = run.network.layers[step.layer]
    x8, mantissa = run.tensors[step.source]
    inputs = QuantizedInputs(x8, mantissa.flatten(), plan.input_unit)
    return integer_linear(inputs, plan.weights, plan.output, run.network.tiles(plan)).long()


def _normalize(run: _Run, step: Normalize) -> torch.Tensor:
    return normalize(run.tensors[step.source], run.network.norm(step))


def _activate(run: _Run, step: Activate) -> torch.Tensor:
    places = activation_places(step, run.format(step.result))
    return activate(run.tensors[step.source], step.kind, places)


def _rotate(run: _Run, step: Rotate) -> torch.Tensor:
    rotation = run.network.rotation(step, run.parameters)
    return rotate(run.tensors[step.source], rotation, run.network.rotation_offset(step))


def _quantize_tokens(run: _Run, step: QuantizeTokens) -> tuple[torch.Tensor, torch.Tensor]:
    made = run.format(step.result)
    places = run.network.quantized_places(step)
    return quantize_tokens(run.tensors[step.source], made.group, places, made.bits)


def _quantize_channels(run: _Run, step: QuantizeChannels) -> torch.Tensor:
    constants = run.network.constants(step, run.parameters)
    return quantize_channels(run.tensors[step.source], constants)


@dataclass(frozen=True, eq=False)
class _Operands:
    """Q, K and V of all heads of an attention, and the mantissas of Q and K."""

    q8: torch.Tensor
    mq: torch.Tensor
    k8: torch.Tensor
    mk: torch.Tensor
    v8: torch.Tensor
    head_dim: int

    @classmethod
    def of(cls, run: _Run, step: Attention) -> "_Operands":
        (q8, mq), (k8, mk) = run.tensors[step.source], run.tensors[step.k]
        return cls(q8, mq, k8, mk, run.tensors[step.v], step.head_dim)

    @property
    def heads(self) -> range:
        return range(self.q8.shape[1] // self.head_dim)

    def config(self, block: int, tokens: int) -> Config:
        """Configuration of a core that takes them."""
        config = tile_config(block, padded_head_dim(self.head_dim))
        return config.changed(max_tokens=max(tokens, config.max_tokens))

    def head(
        self,
        head: int,
        queries: torch.Tensor,
        keys: torch.Tensor,
        permutation: torch.Tensor,
        order: int = 0,
    ) -> QuantizedHead:
        """One head, with the query and the key that stand at each position, from 0; -1 for none."""

        def rows(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
            return torch.where((places >= 0).unsqueeze(1), values[places], 0)

        def operands(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
            own = values[:, head * self.head_dim : (head + 1) * self.head_dim]
            missing = padded_head_dim(self.head_dim) - self.head_dim
            return torch.nn.functional.pad(rows(own, places), (0, missing))

        return QuantizedHead(
            q8=operands(self.q8, queries),
            k8=operands(self.k8, keys),
            v8=operands(self.v8, keys),
            mq=rows(self.mq[:, head : head + 1], queries).flatten(),
            mk=rows(self.mk[:, head : head + 1], keys).flatten(),
            v_scale=torch.ones(self.head_dim),
            v_mean=torch.zeros(self.head_dim),
            permutation=permutation,
            order=order,
        )


def _attend(run: _Run, step: Attend) -> torch.Tensor:
    """All heads of an attention, each by the integer model."""
    network = run.network
    plan = network.attention_plan(step, run.progress)
    operands = _Operands.of(run, step)
    config = operands.config(plan.block, network.tokens.count)

    def one(head: int) -> torch.Tensor:
        order = plan.head_order(head)
        permutation = network.permutation(order)
        quantized = operands.head(head, permutation, permutation, permutation, order)
        words = integer_attention(quantized, plan.head_codes(head), config)
        output = torch.empty(len(words), step.head_dim, dtype=torch.int64)
        output[permutation] = words[:, : step.head_dim].long()
        return output

    return torch.cat(map_rows(one, operands.heads), dim=1)


def _cross_attend(run: _Run, step: CrossAttend) -> torch.Tensor:
    """All heads of a cross attention, each by the integer model as a head of both tokens."""
    operands = _Operands.of(run, step)
    queries, keys = len(operands.q8), len(operands.k8)
    cross = CrossHead(queries, keys, run.network.attention.block)
    config = operands.config(cross.block, cross.count)
    places = torch.arange(cross.count)
    codes = torch.from_numpy(cross.codes)

    def one(head: int) -> torch.Tensor:
        quantized = operands.head(
            head,
            torch.where(places < queries, places, -1),
            (places - cross.first_key).clamp(min=-1),
            places,
        )
        words = integer_attention(quantized, codes, config, cross.query_blocks)
        return words[:queries, : step.head_dim].long()

    return torch.cat(map_rows(one, operands.heads), dim=1)


def _columns(run: _Run, step: Columns) -> Any:
    columns = slice(step.first, step.first + step.channels)
    return run.tensors[step.source][:, columns]


_INTEGER: dict[type[Step], Callable[..., Any]] = {
    Columns: _columns,
    Rows: lambda run, step: run.tensors[step.source][step.first : step.first + step.tokens],
    Join: lambda run, step: torch.cat([run.tensors[name] for name in step.reads]),
    Linear: _linear,
    Attend: _attend,
    CrossAttend: _cross_attend,
    Scale: _scale,
    Add: _add,
    Normalize: _normalize,
    Activate: _activate,
    Rotate: _rotate,
    QuantizeTokens: _quantize_tokens,
    QuantizeChannels: _quantize_channels,
}
