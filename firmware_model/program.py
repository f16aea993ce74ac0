"""A network as the device runs it: steps in their order, tensors by name, a format for each.

A tensor is rows of tokens, [tokens, channels]. What a step computes is section 7 or 8 of
`docs/numerics.md` (attention: 2 to 6); its shifts follow from the formats of what it reads and
makes. Weights, the channels' constants and rotations stand apart from a program, by their names.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from paro.config.errors import ParoError
from paro.config.formats import KEY_SCALE_BITS, OPERAND_MAX, OUT_FRAC, QUERY_SCALE_BITS
from paro.config.vector_formats import (
    ACTIVATION_PLACES,
    MANTISSA_PLACES,
    NORM_PLACES_MAX,
    Activation,
    Pairing,
)

__all__ = [
    "Activate",
    "Add",
    "Attend",
    "Attention",
    "Columns",
    "CrossAttend",
    "Format",
    "Join",
    "Kind",
    "Linear",
    "Normalize",
    "Program",
    "QuantizeChannels",
    "QuantizeTokens",
    "Rotate",
    "Rows",
    "Scale",
    "Step",
    "activation_places",
    "check_program",
    "count_tokens",
    "cut_program",
    "mantissa_places",
    "norm_places",
]


class Kind(StrEnum):
    """What a tensor consists of."""

    WORDS = "words"  # signed 16 bits
    BY_TOKEN = "INT8 by token"  # INT8, a mantissa for each group of channels of a token
    BY_CHANNEL = "INT8 by channel"  # INT8, a unit for each channel


@dataclass(frozen=True, kw_only=True)
class Format:
    """Format of a tensor: a value is its integer (times its mantissa) times a unit, plus a zero.

    Parameters
    ----------
    kind : Kind
        What it consists of.
    unit : tuple of float
        For each channel.
    zero : tuple of float
        Value of 0 in each channel; empty where it is 0 in all.
    group : int
        Channels that share a mantissa; 0 without mantissas.
    bits : int
        Width of a mantissa; 0 without.
    """

    kind: Kind = Kind.WORDS
    unit: tuple[float, ...]
    zero: tuple[float, ...] = ()
    group: int = 0
    bits: int = 0

    @property
    def channels(self) -> int:
        """Channels of the tensor."""
        return len(self.unit)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a program.

    Parameters
    ----------
    result : str
        Tensor that it makes.
    source : str
        Tensor that it reads.
    """

    result: str
    source: str

    @property
    def reads(self) -> tuple[str, ...]:
        """All tensors that it reads."""
        return (self.source,)


@dataclass(frozen=True, kw_only=True)
class Columns(Step):
    """Some neighbouring channels of a tensor, where they lie: no work."""

    first: int
    channels: int


@dataclass(frozen=True, kw_only=True)
class Rows(Step):
    """Some neighbouring tokens of a tensor, where they lie: no work."""

    first: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Join(Step):
    """The tokens of the source, then those of ``rest``, each made where it lies here: no work."""

    rest: tuple[str, ...]

    @property
    def reads(self) -> tuple[str, ...]:
        """All tensors that it reads."""
        return (self.source, *self.rest)


@dataclass(frozen=True, kw_only=True)
class Linear(Step):
    """A linear layer, by its name in the model."""

    layer: str


@dataclass(frozen=True, kw_only=True)
class Attention(Step):
    """Attention of some kind, all heads; the source is Q."""

    k: str
    v: str
    head_dim: int

    @property
    def reads(self) -> tuple[str, ...]:
        """All tensors that it reads."""
        return (self.source, self.k, self.v)


@dataclass(frozen=True, kw_only=True)
class Attend(Attention):
    """Attention ``layer`` of the model, over all its tokens, as the plan says."""

    layer: int


@dataclass(frozen=True, kw_only=True)
class CrossAttend(Attention):
    """Attention to other tokens, such as a text's: without a plan, in 8 bits, as they stand."""


@dataclass(frozen=True, kw_only=True)
class Scale(Step):
    """A factor and an offset for each channel; with none named, another format alone."""

    constants: str = ""


@dataclass(frozen=True, kw_only=True)
class Add(Step):
    """``base`` plus the source times a factor for each channel; with none named, times 1."""

    base: str
    constants: str = ""

    @property
    def reads(self) -> tuple[str, ...]:
        """All tensors that it reads."""
        return (self.source, self.base)


@dataclass(frozen=True, kw_only=True)
class Normalize(Step):
    """LayerNorm (``centred``) or RMSNorm of groups of channels."""

    group: int
    centred: bool
    epsilon: float


@dataclass(frozen=True, kw_only=True)
class Activate(Step):
    """GELU or SiLU."""

    kind: Activation


@dataclass(frozen=True, kw_only=True)
class Rotate(Step):
    """Rotary positions of heads; what the result's zero says is taken off."""

    rotation: str
    head_dim: int
    pairing: Pairing


@dataclass(frozen=True, kw_only=True)
class QuantizeTokens(Step):
    """INT8 with a mantissa for each token, and each head where the result's format says so."""


@dataclass(frozen=True, kw_only=True)
class QuantizeChannels(Step):
    """INT8 with a unit and a zero for each channel."""


@dataclass(frozen=True)
class Program:
    """A network, or a part of one.

    Parameters
    ----------
    inputs, outputs : tuple of str
        Tensors that it is given, and that it leaves.
    steps : tuple of Step
        In their order.
    formats : Mapping
        Name to format of every tensor.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    steps: tuple[Step, ...]
    formats: Mapping[str, Format]


def norm_places(step: Normalize, made: Format) -> int:
    """Fractional bits of a norm's result: ``p`` of section 8."""
    places = _exponent(math.sqrt(step.group) / made.unit[0])
    if places is None or not 0 <= places <= NORM_PLACES_MAX or len(set(made.unit)) > 1:
        raise ParoError(
            f"{step.result} has a unit of {made.unit[0]:.3g}; legal for a norm of {step.group} "
            f"channels: the root of {step.group} times a power of two from 2^-{NORM_PLACES_MAX} to "
            "1, the same for all"
        )
    return places


def activation_places(step: Activate, made: Format) -> int:
    """Fractional bits of an activation's words: ``q`` of section 8."""
    low, high = ACTIVATION_PLACES
    places = _exponent(1 / made.unit[0])
    if places is None or not low <= places <= high or len(set(made.unit)) > 1:
        raise ParoError(
            f"{step.result} has a unit of {made.unit[0]:.3g}; legal for an activation: a power of "
            f"two from 2^-{high} to 2^-{low}, the same for all channels"
        )
    return places


def mantissa_places(step: QuantizeTokens, read: Format, made: Format) -> int:
    """Places between a largest word and its mantissa: ``j`` of section 8."""
    low, high = MANTISSA_PLACES
    found = {
        _exponent(unit / (OPERAND_MAX * other))
        for unit, other in zip(read.unit, made.unit, strict=True)
    }
    places = found.pop()
    if places is None or found or not low <= places <= high:
        raise ParoError(
            f"units of {step.source} and {step.result} do not fit; legal: a word of one is 127 "
            f"mantissas of the other times a power of two from 2^{low} to 2^{high}, the same for "
            "all channels"
        )
    return places


def cut_program(program: Program, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Program:
    """Cut a program to the steps that make some tensors from others, such as a block of it."""
    wanted, steps = set(outputs) - set(inputs), []
    for step in reversed(program.steps):
        if step.result in wanted:
            steps.insert(0, step)
            wanted |= set(step.reads) - set(inputs)
    return Program(inputs, outputs, tuple(steps), program.formats)


def check_program(program: Program) -> None:
    """Check that every step can run, in its place.

    Raises
    ------
    ParoError
        If tensors go in a circle, one is missing, comes too late or twice, a format is not what
        a step reads or makes, or what is joined cannot be made in its place.
    """
    _check_order(program)
    _check_joins(program)
    for step in program.steps:
        for name in (*step.reads, step.result):
            if name not in program.formats:
                raise ParoError(f"tensor {name} has no format; legal: one for each tensor")
        sentence = _RULES[type(step)](step, program.formats)
        if sentence:
            raise ParoError(f"step {type(step).__name__} that makes {step.result}: {sentence}")


def count_tokens(
    program: Program, tokens: int, others: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Count the tokens of every tensor.

    Parameters
    ----------
    program : Program
        Checked.
    tokens : int
        Tokens of the inputs, and of what attention over all tokens reads.
    others : Mapping, optional
        Name to tokens of inputs that have another number.

    Raises
    ------
    ParoError
        If a step reads tokens that are not there, or other ones than it should.
    """
    counts = dict.fromkeys(program.inputs, tokens) | dict(others or {})
    for step in program.steps:
        counts[step.result] = _made_tokens(step, [counts[name] for name in step.reads], tokens)
    return counts


def _made_tokens(step: Step, read: Sequence[int], tokens: int) -> int:
    """Tokens that a step makes of those that it reads."""
    if isinstance(step, Rows):
        if step.first < 0 or step.tokens < 1 or step.first + step.tokens > read[0]:
            last = step.first + step.tokens - 1
            raise ParoError(
                f"{step.result} has tokens {step.first} to {last} of {step.source}; legal: "
                f"within 0 to {read[0] - 1}"
            )
        return step.tokens
    if isinstance(step, Join):
        return sum(read)
    if isinstance(step, CrossAttend):
        queries, keys, values = read
        if keys != values:
            raise ParoError(
                f"{step.result} is made from {keys} tokens of K and {values} of V; legal: as many"
            )
        return queries
    legal = tokens if isinstance(step, Attend) else read[0]
    if set(read) != {legal}:
        raise ParoError(f"{step.result} is made from {read} tokens; legal: {legal} of each")
    return legal


def _check_joins(program: Program) -> None:
    """Refuse parts of a joined tensor that no vector step makes, or that lie elsewhere too."""
    makers = {step.result: step for step in program.steps}
    joined = [name for step in program.steps if isinstance(step, Join) for name in step.reads]
    for name in joined:
        maker = makers.get(name)
        if isinstance(maker, Attention | Columns | Join | Linear | Rows | None):
            raise ParoError(f"{name} is joined to others; legal: what a vector step makes")
        if joined.count(name) > 1:
            raise ParoError(f"{name} is joined {joined.count(name)} times; legal: once")


def _check_order(program: Program) -> None:
    """Refuse tensors that are missing, late, made twice or in a circle."""
    makers: dict[str, Step] = {}
    for step in program.steps:
        if step.result in makers or step.result in program.inputs:
            raise ParoError(f"tensor {step.result} is made twice; legal: once")
        makers[step.result] = step
    known = set(program.inputs)
    for step in program.steps:
        for name in step.reads:
            if name in known:
                continue
            if name not in makers:
                raise ParoError(
                    f"{step.result} is made from {name}, which is no input and which no step makes"
                )
            circle = _circle(makers, name, step.result)
            if circle:
                raise ParoError(f"tensors go in a circle: {' from '.join(circle)}")
            raise ParoError(f"{step.result} is made from {name}, which a later step makes")
        known.add(step.result)
    for name in program.outputs:
        if name not in known:
            raise ParoError(f"output {name} is no input, and no step makes it")


def _circle(makers: Mapping[str, Step], name: str, target: str) -> tuple[str, ...]:
    """Way from ``target`` over what it is made from, ``name`` first, back to itself, if any."""
    ways, seen = [(target, name)], set[str]()
    while ways:
        way = ways.pop()
        if way[-1] == target:
            return way
        if way[-1] in makers and way[-1] not in seen:
            seen.add(way[-1])
            ways += [(*way, more) for more in makers[way[-1]].reads]
    return ()


def _exponent(value: float) -> int | None:
    """Exponent of what is a power of two, but for rounding."""
    exponent = round(math.log2(value)) if value > 0 else 0
    return exponent if math.isclose(value, 2.0**exponent, rel_tol=1e-9) else None


_Formats = Mapping[str, Format]


def _kinds(names: Sequence[str], formats: _Formats, kind: Kind = Kind.WORDS) -> str:
    wrong = [name for name in names if formats[name].kind != kind]
    return f"{wrong[0]} is {formats[wrong[0]].kind}; legal: {kind}" if wrong else ""


def _alike(step: Step, formats: _Formats, kind: Kind = Kind.WORDS) -> str:
    """One kind and number of channels in all that a step reads and makes."""
    names = (*step.reads, step.result)
    counts = [formats[name].channels for name in names]
    wrong = _kinds(step.reads, formats) or _kinds((step.result,), formats, kind)
    if not wrong and len(set(counts)) > 1:
        return f"its tensors have {counts} channels; legal: as many in each"
    return wrong


def _groups(step: Step, formats: _Formats, group: int) -> str:
    channels = formats[step.source].channels
    if group < 1 or channels % group:
        return f"groups of {group} channels; legal: those that divide {channels}"
    return ""


def _columns(step: Columns, formats: _Formats) -> str:
    read, made = formats[step.source], formats[step.result]
    end = step.first + step.channels
    if step.first < 0 or step.channels < 1 or end > read.channels:
        return f"channels {step.first} to {end - 1}; legal: within 0 to {read.channels - 1}"
    if made.kind != read.kind or made.unit != read.unit[step.first : end]:
        return f"format of {step.result}; legal: that of the channels it has of {step.source}"
    return ""


def _in_place(step: Rows | Join, formats: _Formats) -> str:
    """One format of whole tokens and of those among them."""
    made = formats[step.result]
    if made.kind == Kind.BY_TOKEN:
        return f"{step.result} is {made.kind}; legal: {Kind.WORDS} or {Kind.BY_CHANNEL}"
    wrong = [name for name in step.reads if formats[name] != made]
    return f"formats of {wrong[0]} and {step.result} differ; legal: one for both" if wrong else ""


def _mantissas(name: str, formats: _Formats, group: int, bits: int) -> str:
    found = formats[name]
    wrong = _kinds((name,), formats, Kind.BY_TOKEN)
    if not wrong and (found.group, found.bits) != (group, bits):
        return (
            f"{name} has mantissas of {found.bits} bits for {found.group} channels; legal: {bits} "
            f"bits for {group}"
        )
    return wrong


def _linear(step: Linear, formats: _Formats) -> str:
    channels = formats[step.source].channels
    return (
        _mantissas(step.source, formats, channels, QUERY_SCALE_BITS)
        or _kinds((step.result,), formats)
        or _zeroless((step.source, step.result), formats)
    )


def _attend(step: Attention, formats: _Formats) -> str:
    made, v = formats[step.result], formats[step.v]
    wrong = (
        _mantissas(step.source, formats, step.head_dim, QUERY_SCALE_BITS)
        or _mantissas(step.k, formats, step.head_dim, KEY_SCALE_BITS)
        or _kinds((step.v,), formats, Kind.BY_CHANNEL)
        or _kinds((step.result,), formats)
        or _zeroless((step.source,), formats)
        or _groups(step, formats, step.head_dim)
    )
    counts = [formats[name].channels for name in (*step.reads, step.result)]
    if not wrong and len(set(counts)) > 1:
        return f"its tensors have {counts} channels; legal: as many in each"
    if not wrong and (made.unit, made.zero) != (
        tuple(unit * 2.0**-OUT_FRAC for unit in v.unit),
        v.zero,
    ):
        return f"format of {step.result}; legal: units of {step.v} over 2^{OUT_FRAC}, its zeros"
    return wrong


def _add(step: Add, formats: _Formats) -> str:
    base, made = formats[step.base], formats[step.result]
    if base != made:
        return f"formats of {step.base} and {step.result} differ; legal: one for both"
    return _alike(step, formats) or _zeroless((step.source,), formats)


def _zeroless(names: Sequence[str], formats: _Formats) -> str:
    wrong = [name for name in names if formats[name].zero]
    return f"{wrong[0]} has zeros; legal: none" if wrong else ""


def _normalize(step: Normalize, formats: _Formats) -> str:
    read = formats[step.source]
    wrong = (
        _alike(step, formats)
        or _groups(step, formats, step.group)
        or _zeroless((step.source, step.result), formats)
    )
    if not wrong and len(set(read.unit)) > 1:
        return f"{step.source} has several units; legal: one"
    if not wrong:
        norm_places(step, formats[step.result])
    return wrong


def _activate(step: Activate, formats: _Formats) -> str:
    wrong = _alike(step, formats)
    if not wrong and formats[step.source] != formats[step.result]:
        return f"formats of {step.source} and {step.result} differ; legal: one for both"
    if not wrong:
        activation_places(step, formats[step.result])
    return wrong


def _rotate(step: Rotate, formats: _Formats) -> str:
    read, made = formats[step.source], formats[step.result]
    wrong = (
        _alike(step, formats)
        or _groups(step, formats, step.head_dim)
        or _zeroless((step.source,), formats)
    )
    heads = [
        made.unit[first : first + step.head_dim] for first in range(0, made.channels, step.head_dim)
    ]
    if not wrong and (read.unit != made.unit or any(len(set(head)) > 1 for head in heads)):
        return f"units of {step.source} and {step.result}; legal: the same, one for each head"
    return wrong


def _quantize_tokens(step: QuantizeTokens, formats: _Formats) -> str:
    made = formats[step.result]
    wrong = _alike(step, formats, Kind.BY_TOKEN) or _groups(step, formats, made.group)
    if not wrong and made.zero != formats[step.source].zero:
        return f"zeros of {step.source} and {step.result} differ; legal: the same"
    if not wrong and made.bits not in (KEY_SCALE_BITS, QUERY_SCALE_BITS):
        return f"mantissas of {made.bits} bits; legal: {KEY_SCALE_BITS} or {QUERY_SCALE_BITS}"
    if not wrong:
        mantissa_places(step, formats[step.source], made)
    return wrong


_RULES: dict[type[Step], Callable[..., str]] = {
    Columns: _columns,
    Rows: _in_place,
    Join: _in_place,
    Linear: _linear,
    Attend: _attend,
    CrossAttend: _attend,
    Scale: _alike,
    Add: _add,
    Normalize: _normalize,
    Activate: _activate,
    Rotate: _rotate,
    QuantizeTokens: _quantize_tokens,
    QuantizeChannels: lambda step, formats: _alike(step, formats, Kind.BY_CHANNEL),
}
