"""Calibration of linear layers: a width for each tile, rounding with error feedback, formats.

Files are read one at a time, several times each; of a layer its second moments stay while it is
measured or rounded, and of all layers the errors of their tiles.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from firmware_model.calibration.allocation import HeadErrors, allocate_codes
from firmware_model.calibration.feedback import feedback_weights, second_moments
from firmware_model.calibration.layer_plan import LayerPlan
from firmware_model.choices import check_weight_bits
from firmware_model.layer import Layer, LayerSource, weights_digest
from firmware_model.parallel import map_rows
from firmware_model.progress import Progress, Steps
from firmware_model.reference.linear import (
    QuantizedWeights,
    dequantize_outputs,
    fitting_unit,
    inputs_unit,
    largest_product,
    output_format,
    quantize_inputs,
    quantize_weights,
    tile_values,
)
from firmware_model.transform import rotate_groups
from paro.config.config import Config, blocks_of
from paro.config.errors import ParoError
from paro.config.formats import CODE_BITS, EIGHT_BITS, OPERAND_MAX, OUT_BITS

__all__ = [
    "BY_LAYER",
    "LayerCalibration",
    "LayerErrors",
    "LayerReport",
    "PlannedLayer",
    "allocate_layers",
    "measure_layer",
    "plan_layer",
    "round_layer",
    "tile_config",
]

#: Mean width from which each layer has one width for all its tiles.
BY_LAYER = 4.0
#: A rotation is work for the host: it must lessen the expected error to this share.
ROTATION_GAIN = 0.5
#: Least channels that are rotated together.
_LEAST_GROUP = 16


@dataclass(frozen=True, eq=False)
class LayerErrors:
    """Errors that a layer's tiles would make at each width, before feedback.

    Parameters
    ----------
    rotation : int
        As `LayerPlan.rotation`.
    errors : torch.Tensor
        float64 [4, blocks of outputs, chunks of inputs]: squared error of the outputs, mean over
        the tokens, for each code.
    signal : float
        Squared outputs without bias, likewise.
    activations : float
        Expected squared error of the outputs by the rounding of the inputs, likewise.
    zero : torch.Tensor
        bool [blocks of outputs, chunks of inputs]: tiles whose weights are all zero.
    tokens : int
        Tokens that the layer takes at a time: what a tile costs.
    """

    rotation: int
    errors: torch.Tensor
    signal: float
    activations: float
    zero: torch.Tensor
    tokens: int

    def head_errors(self, cost: float, by_layer: bool) -> HeadErrors:
        """Relative errors for the shared allocation.

        Parameters
        ----------
        cost : float
            Cost of a bit of a tile.
        by_layer : bool
            Whether all tiles take one width.
        """
        errors, tiles = self.errors / (self.signal or 1.0), 1
        least = (~self.zero).byte()
        if by_layer:
            tiles = least.numel()
            errors = errors.sum(dim=(1, 2), keepdim=True)
            least = least.new_ones(1, 1)
        return HeadErrors((errors / (cost * tiles)).float(), least, cost * tiles)

    def relative(self, codes: torch.Tensor) -> float:
        """Error of tiles of some codes, as a share of the signal."""
        error = self.errors.gather(0, codes.long().unsqueeze(0)).sum().item()
        return error / (self.signal or 1.0)

    def codes(self, allocated: torch.Tensor) -> torch.Tensor:
        """Codes of the tiles from those that were allocated; zero tiles are skipped."""
        return allocated.expand(self.zero.shape).masked_fill(self.zero, 0).contiguous()


@dataclass(frozen=True)
class LayerReport:
    """Errors of a layer under its plan, over all inputs that it was calibrated on.

    Parameters
    ----------
    name : str
        Which one.
    rotation : int
        As `LayerPlan.rotation`.
    mean_bits : float
        Over its tiles.
    snr_db, eight_bit_snr_db : float
        Signal-to-noise ratio of its output, and with all weights at 8 bits, rounded to nearest.
    """

    name: str
    rotation: int
    mean_bits: float
    snr_db: float
    eight_bit_snr_db: float

    @property
    def loss_db(self) -> float:
        """Loss against 8 bits, in dB."""
        return 0.0 if self.snr_db == self.eight_bit_snr_db else self.eight_bit_snr_db - self.snr_db


@dataclass(frozen=True)
class PlannedLayer:
    """A layer's plan, what it does, and where it comes from.

    Parameters
    ----------
    model : str
        `Layer.model`.
    digests : tuple of str
        `Layer.digest` of its captures.
    plan : LayerPlan
        The plan.
    report : LayerReport
        Its errors.
    """

    model: str
    digests: tuple[str, ...]
    plan: LayerPlan
    report: LayerReport


def tile_config(block: int, head_dim: int) -> Config:
    """Configuration with tiles of ``block`` outputs and ``head_dim`` inputs; the array is any."""
    return Config(rows=4, cols=4, block=block, head_dim=head_dim)  # type: ignore[arg-type]  # refused


def plan_layer(
    layer: LayerSource | Sequence[LayerSource],
    avg_bits: float,
    config: Config,
    *,
    rotate: bool = True,
) -> LayerPlan:
    """Plan one layer on its own.

    Parameters
    ----------
    layer : LayerSource or sequence of LayerSource
        The layer; several captures of it are taken together.
    avg_bits : float
        Mean width of a weight, 2 to 8. From 4 on all tiles have the same: 4, or 8 at 8 bits.
    config : Config
        The core, whose ``block`` and ``head_dim`` are a tile.
    rotate : bool
        Whether inputs are rotated where that pays.

    Raises
    ------
    ParoError
        If the mean width is not legal, or captures of it differ in their weights.
    """
    check_weight_bits(avg_bits)
    sources = [layer] if isinstance(layer, LayerSource) else list(layer)
    errors = measure_layer(sources, avg_bits, config, rotate=rotate)
    (codes,) = allocate_layers([errors], avg_bits)
    return round_layer(sources, errors.rotation, codes, avg_bits, config).plan


class LayerCalibration:
    """Measurements of some layers, and the plans that are made of them.

    Parameters
    ----------
    sources : sequence of LayerSource
        At least one. Those of one model and name are captures of one layer.
    avg_bits : float
        Mean width of a weight over all layers, by tokens; 2 to 8.
    config : Config
        The core, whose ``block`` and ``head_dim`` are a tile.
    rotate : bool
        Whether inputs are rotated where that pays.
    progress : Progress, optional
        Called as the work goes on: for each layer when it is measured and when it is planned.

    Attributes
    ----------
    errors : list of LayerErrors
        For each layer, in the sequence of their first captures.

    Raises
    ------
    ParoError
        If the mean width is not legal, or captures of a layer differ in their weights.
    """

    def __init__(
        self,
        sources: Sequence[LayerSource],
        avg_bits: float,
        config: Config,
        *,
        rotate: bool = True,
        progress: Progress | None = None,
    ) -> None:
        check_weight_bits(avg_bits)
        self._avg_bits = avg_bits
        self._config = config
        groups: dict[tuple[str, str], list[LayerSource]] = {}
        for source in sources:
            groups.setdefault((source.model, source.name), []).append(source)
        self._groups = list(groups.values())
        self._steps = Steps(progress, 2 * len(groups))

        def measure(group: list[LayerSource]) -> LayerErrors:
            return measure_layer(group, avg_bits, config, rotate=rotate)

        self.errors = map_rows(measure, self._groups, self._steps)

    def results(self, codes: Sequence[torch.Tensor] | None = None) -> list[PlannedLayer]:
        """Round the weights of every layer, each step on one thread, so that bytes repeat.

        Parameters
        ----------
        codes : sequence of torch.Tensor, optional
            Codes of each layer's tiles; by default those of a budget of the layers alone.
        """
        chosen = allocate_layers(self.errors, self._avg_bits) if codes is None else codes

        def plan(work: tuple[list[LayerSource], LayerErrors, torch.Tensor]) -> PlannedLayer:
            group, errors, own = work
            return round_layer(group, errors.rotation, own, self._avg_bits, self._config)

        work = zip(self._groups, self.errors, chosen, strict=True)
        return map_rows(plan, work, self._steps)


def allocate_layers(layers: Sequence[LayerErrors], avg_bits: float) -> list[torch.Tensor]:
    """Codes of some layers' tiles under one budget, which counts tiles times tokens.

    Returns
    -------
    list of torch.Tensor
        For each layer uint8 [blocks of outputs, chunks of inputs].
    """
    heads = [layer.head_errors(layer.tokens, avg_bits >= BY_LAYER) for layer in layers]
    found = allocate_codes(heads, avg_bits)
    return [layer.codes(codes) for layer, codes in zip(layers, found, strict=True)]


def measure_layer(
    sources: Sequence[LayerSource], avg_bits: float, config: Config, *, rotate: bool = True
) -> LayerErrors:
    """Measure the tiles of a layer, rotated or not, whichever errs less on a budget of its own.

    Parameters and errors as `plan_layer`.
    """
    first = sources[0].load()
    group = first.inputs & -first.inputs
    groups = [1, group] if rotate and group >= _LEAST_GROUP else [1]
    inputs = _measure_inputs(sources, groups)
    found = []
    for chosen in groups:
        errors = _tile_errors(first, inputs, chosen, config)
        errors = replace(errors, tokens=first.run_tokens or first.tokens)
        (codes,) = allocate_layers([errors], avg_bits)
        own = errors.errors.gather(0, codes.long().unsqueeze(0)).sum().item()
        found.append((own + errors.activations, errors))
    (plain, errors), (rotated, turned) = found[0], found[-1]
    return turned if rotated < ROTATION_GAIN * plain else errors


def round_layer(
    sources: Sequence[LayerSource],
    rotation: int,
    codes: torch.Tensor,
    avg_bits: float,
    config: Config,
) -> PlannedLayer:
    """Round the weights of a layer at given widths, and measure what it does.

    Parameters
    ----------
    sources : sequence of LayerSource
        Captures of the layer.
    rotation : int
        As `LayerPlan.rotation`.
    codes : torch.Tensor
        uint8 [blocks of outputs, chunks of inputs].
    avg_bits : float
        Mean bits that were asked for.
    config : Config
        The core.
    """
    first = sources[0].load()
    inputs = _measure_inputs(sources, [rotation])
    weight = rotate_groups(first.weight.double(), rotation)
    weights = feedback_weights(_turned(inputs.moments, rotation), weight, codes, config)
    unit = inputs_unit(inputs.largest[rotation])
    eight = quantize_weights(weight, torch.full_like(codes, EIGHT_BITS))
    values = _values(eight, config)
    largest = eight_noise = 0.0
    for source in sources:
        layer = source.load()
        quantized = quantize_inputs(rotate_groups(layer.x.double(), rotation), unit)
        largest = max(largest, largest_product(quantized, weights, config))
        tokens = quantized.x8.double() * quantized.mx.double().unsqueeze(1) * unit
        y = tokens @ values.T
        y = y if layer.bias is None else y + layer.bias.double()
        exact = layer.reference()
        eight_noise += (y - exact).square().sum().item()
        # With 8-bit weights too, outputs are words, of a factor of 2 in reserve.
        word = 2 * exact.abs().max().item() / 2 ** (OUT_BITS - 1)
        eight_noise += exact.numel() * word**2 / 12
    fitting = fitting_unit(largest, unit, weights, first.bias, config)
    largest, unit = largest * unit / fitting, fitting
    plan = LayerPlan(
        name=first.name,
        digest=weights_digest(first.weight, first.bias),
        block=config.block,
        head_dim=config.head_dim,
        avg_bits=float(avg_bits),
        rotation=rotation,
        weights=weights,
        input_unit=unit,
        output=output_format(largest, unit, weights, first.bias, config),
    )
    signal = noise = 0.0
    digests = []
    for source in sources:
        layer = source.load()
        exact = layer.reference()
        digests.append(layer.digest)
        y = dequantize_outputs(plan.words(layer.x, config), plan.output)
        signal += exact.square().sum().item()
        noise += (y - exact).square().sum().item()
    report = LayerReport(
        first.name,
        rotation,
        plan.mean_bits(),
        _decibels(signal, noise),
        _decibels(signal, eight_noise),
    )
    return PlannedLayer(first.model, tuple(digests), plan, report)


@dataclass(frozen=True, eq=False)
class _Inputs:
    """Inputs of a layer over all its captures.

    Parameters
    ----------
    moments : torch.Tensor
        float64 [inputs, inputs]: products of channels, mean over the tokens, not rotated.
    largest : dict
        Rotation to the largest magnitude.
    token_power : dict
        Rotation to the square of a token's largest magnitude, mean over the tokens.
    """

    moments: torch.Tensor
    largest: dict[int, float]
    token_power: dict[int, float]


def _measure_inputs(sources: Sequence[LayerSource], rotations: Sequence[int]) -> _Inputs:
    """Read all captures of a layer; `ParoError` if their weights differ."""
    first: Layer | None = None
    tokens, digests = 0, set[str]()
    moments = torch.zeros(())
    largest, power = dict.fromkeys(rotations, 0.0), dict.fromkeys(rotations, 0.0)
    for source in sources:
        layer = source.load()
        first = first or layer
        digests.add(weights_digest(layer.weight, layer.bias))
        if len(digests) > 1:
            raise ParoError(
                f"layers {first.path} and {layer.path} are both called {layer.name}, but have "
                "other weights; legal: captures of one layer"
            )
        tokens += layer.tokens
        moments = moments + second_moments(layer.x)
        for rotation in rotations:
            peaks = rotate_groups(layer.x.double(), rotation).abs().amax(dim=1)
            largest[rotation] = max(largest[rotation], peaks.max().item())
            power[rotation] += peaks.square().sum().item()
    return _Inputs(moments / tokens, largest, {r: p / tokens for r, p in power.items()})


def _turned(moments: torch.Tensor, rotation: int) -> torch.Tensor:
    """Second moments of rotated inputs."""
    return rotate_groups(rotate_groups(moments, rotation).T.contiguous(), rotation)


def _tile_errors(layer: Layer, inputs: _Inputs, rotation: int, config: Config) -> LayerErrors:
    weight = rotate_groups(layer.weight.double(), rotation)
    moments = _turned(inputs.moments, rotation)
    shape = (config.blocks_of(layer.outputs), blocks_of(layer.inputs, config.head_dim))
    errors = torch.zeros(len(CODE_BITS), *shape, dtype=torch.float64)
    for code in range(len(CODE_BITS)):
        weights = quantize_weights(weight, torch.full(shape, code, dtype=torch.uint8))
        errors[code] = _by_tile(_values(weights, config) - weight, moments, config)
    scale = inputs.token_power[rotation] / OPERAND_MAX**2
    return LayerErrors(
        rotation=rotation,
        errors=errors,
        signal=((weight @ moments) * weight).sum().item(),
        # Rounding to a multiple of the scale errs by a twelfth of its square.
        activations=scale / 12 * weight.square().sum().item(),
        zero=_by_tile(weight, torch.eye(layer.inputs, dtype=torch.float64), config) == 0,
        tokens=layer.tokens,
    )


def _by_tile(moved: torch.Tensor, moments: torch.Tensor, config: Config) -> torch.Tensor:
    """Squared error of outputs by each tile's moved weights [outputs, inputs], others exact."""
    blocks = []
    for start in range(0, moved.shape[1], config.head_dim):
        chunk = slice(start, start + config.head_dim)
        each = ((moved[:, chunk] @ moments[chunk, chunk]) * moved[:, chunk]).sum(dim=1)
        padded = torch.nn.functional.pad(each, (0, -len(each) % config.block))
        blocks.append(padded.unflatten(0, (-1, config.block)).sum(dim=1))
    return torch.stack(blocks, dim=1).clamp(min=0)


def _values(weights: QuantizedWeights, config: Config) -> torch.Tensor:
    """Weights as they are multiplied, float64 [outputs, inputs]."""
    return tile_values(weights, config) * weights.mw.double().unsqueeze(1) * weights.unit


def _decibels(signal: float, error: float) -> float:
    return 10 * math.log10(signal / error) if signal and error else math.inf
