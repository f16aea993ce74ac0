"""Calibration plans: for each head its token order and the 2-bit code of every block; layers.

A `ModelPlan` holds all layers, heads and step groups of a model and is what plan files store; a
`Plan` is the part of it that one capture needs, a `LayerPlan` that of one linear layer.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from firmware_model.arrays import Tokens
from firmware_model.calibration.layer_plan import (
    TENSORS,
    LayerPlan,
    layer_fields,
    layer_tensors,
    read_layer_plan,
)
from firmware_model.capture import CaptureSource
from firmware_model.choices import ORDERS, TRANSFORMS, check_block
from firmware_model.codes import CODES_PER_BYTE, density, mean_bits, pack_codes, unpack_codes
from firmware_model.layer import Layer
from firmware_model.tensorfile import parse_integers, read_header, read_tensors, write_tensors
from paro.config.config import BLOCKS, blocks_of
from paro.config.errors import ParoError, quoted
from paro.config.formats import CODE_BITS, EIGHT_BITS

#: Version of the file format; a plan of another version is refused.
VERSION = "paro-plan-4"
#: Layers that a message names at most.
_NAMED = 8
_ATTENTION = ("layers", "heads", "step_groups", "orders", "transforms", "codes")


@dataclass(frozen=True, eq=False)
class Plan:
    """Orders and codes of some heads of one attention layer at one time.

    Parameters
    ----------
    block : int
        Tokens on a side of a block.
    avg_bits : float
        Mean bits that were asked for, over the whole model.
    heads : tuple of int
        Heads of the layer that it holds.
    orders : tuple of int
        Index in `choices.ORDERS` for each of ``heads``.
    transforms : tuple of int
        Index in `choices.TRANSFORMS` for each of ``heads``.
    codes : torch.Tensor
        uint8 [heads, blocks, blocks]: code 0 .. 3 of each (query block, key block).
    """

    block: int
    avg_bits: float
    heads: tuple[int, ...]
    orders: tuple[int, ...]
    transforms: tuple[int, ...]
    codes: torch.Tensor

    @property
    def blocks(self) -> int:
        """Blocks on a side of the attention map."""
        return self.codes.shape[1]

    def head_order(self, head: int) -> int:
        """Order of one head; `ParoError` if the plan does not hold it."""
        return self.orders[self._position(head)]

    def head_transform(self, head: int) -> int:
        """Transform of one head; `ParoError` if the plan does not hold it."""
        return self.transforms[self._position(head)]

    def head_codes(self, head: int) -> torch.Tensor:
        """Codes of one head, uint8 [blocks, blocks]; `ParoError` if the plan does not hold it."""
        return self.codes[self._position(head)]

    def _position(self, head: int) -> int:
        if head not in self.heads:
            legal = ", ".join(map(str, self.heads))
            raise ParoError(f"the plan has no head {head}; legal: {legal}")
        return self.heads.index(head)


@dataclass(frozen=True, eq=False, kw_only=True)
class ModelPlan:
    """Orders and codes of a whole model's attention, and plans of its linear layers.

    One may be missing: see `of_layers`.

    Parameters
    ----------
    model : str
        `Capture.model` of the captures it was calibrated on: the weights that it belongs to.
    calibrated_on : tuple of str
        `Capture.digest` of each capture that went into it.
    block : int
        Tokens on a side of a block.
    grid : (int, int, int)
        Token grid.
    prefix_tokens, suffix_tokens : int
        Tokens before and after the grid, of the longest text that it was calibrated on. Captures
        with other numbers of them take its codes by `fit_codes`.
    avg_bits : float
        Mean bits over all blocks that were asked for.
    layers : tuple of int
        Attention layers of the model that it holds, ascending.
    heads : tuple of int
        Heads of each layer that it holds.
    step_groups : tuple of float
        Where each group of denoising steps begins, as a share of all steps: ascending from 0.
    orders : torch.Tensor
        uint8 [layers, heads]: index in `choices.ORDERS`, the same for all steps.
    transforms : torch.Tensor
        uint8 [layers, heads]: index in `choices.TRANSFORMS`, the same for all steps.
    codes : torch.Tensor
        uint8 [step groups, layers, heads, blocks, blocks]. A head of a layer whose codes are all 0
        is left out: the number format does not hold its logits.
    linear : tuple of LayerPlan
        Linear layers that it holds, each of another name.
    """

    model: str
    calibrated_on: tuple[str, ...]
    block: int
    grid: tuple[int, int, int]
    prefix_tokens: int
    suffix_tokens: int
    avg_bits: float
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    step_groups: tuple[float, ...]
    orders: torch.Tensor
    transforms: torch.Tensor
    codes: torch.Tensor
    linear: tuple[LayerPlan, ...] = ()

    @classmethod
    def of_layers(
        cls, model: str, calibrated_on: tuple[str, ...], linear: Sequence[LayerPlan]
    ) -> "ModelPlan":
        """Make a plan of linear layers alone, one or more; its attention is empty."""
        return cls(
            model=model,
            calibrated_on=calibrated_on,
            block=linear[0].block,
            grid=(0, 0, 0),
            prefix_tokens=0,
            suffix_tokens=0,
            avg_bits=0.0,
            layers=(),
            heads=(),
            step_groups=(0.0,),
            orders=torch.zeros(0, 0, dtype=torch.uint8),
            transforms=torch.zeros(0, 0, dtype=torch.uint8),
            codes=torch.zeros(1, 0, 0, 0, 0, dtype=torch.uint8),
            linear=tuple(linear),
        )

    @property
    def has_attention(self) -> bool:
        """Whether it holds attention, and not linear layers alone."""
        return bool(self.layers)

    @property
    def text_tokens(self) -> int:
        """Tokens outside the grid."""
        return self.prefix_tokens + self.suffix_tokens

    @property
    def tokens(self) -> Tokens:
        """What the tokens of its attention are."""
        self.check_attention()
        return Tokens(self.grid, self.prefix_tokens, self.suffix_tokens)

    @property
    def held(self) -> torch.Tensor:
        """Which heads it holds: bool [layers, heads]."""
        return (self.codes != 0).flatten(3).any(dim=3).any(dim=0)

    def mean_bits(self) -> float:
        """Mean width over all blocks of attention and all denoising steps."""
        return self._over_steps(mean_bits)

    def weight_bits(self) -> float:
        """Mean width over all weights of its linear layers."""
        sizes = [plan.outputs * plan.inputs for plan in self.linear]
        bits = [plan.mean_bits() for plan in self.linear]
        return sum(s * b for s, b in zip(sizes, bits, strict=True)) / sum(sizes)

    def density(self) -> float:
        """Share of the blocks that are live, over all denoising steps."""
        return self._over_steps(density)

    def _over_steps(self, mean: Callable[[torch.Tensor], float]) -> float:
        shares = group_shares(self.step_groups)
        held = self.held
        return sum(
            share * mean(codes[held]) for share, codes in zip(shares, self.codes, strict=True)
        )

    def at(self, layer: int, progress: float, text_tokens: int | None = None) -> Plan:
        """Select the part for an attention layer after a share ``progress`` of the steps.

        Parameters
        ----------
        layer : int
            Attention layer of the model.
        progress : float
            Share of the steps, 0 <= progress < 1.
        text_tokens : int, optional
            Tokens outside the grid; those of the plan by default.

        Raises
        ------
        ParoError
            If the plan does not hold the layer, or a text as `fit_codes`.
        """
        self.check_attention()
        if layer not in self.layers:
            legal = ", ".join(map(str, self.layers))
            raise ParoError(f"the plan has no layer {layer}; legal: {legal}")
        index, group = self.layers.index(layer), step_group(self.step_groups, progress)
        held = self.held[index]
        codes = self.codes[group, index, held]
        if text_tokens is not None:
            grid_tokens = math.prod(self.grid)
            codes = fit_codes(codes, self.block, grid_tokens, self.text_tokens, text_tokens)
        return Plan(
            block=self.block,
            avg_bits=self.avg_bits,
            heads=tuple(torch.tensor(self.heads)[held].tolist()),
            orders=tuple(self.orders[index, held].tolist()),
            transforms=tuple(self.transforms[index, held].tolist()),
            codes=codes,
        )

    def for_capture(self, capture: CaptureSource) -> Plan:
        """Select the part for a capture of the same model.

        Raises
        ------
        ParoError
            If the capture is of another model, or the plan does not hold its layer.
        """
        self.check_attention()
        if capture.model != self.model:
            raise ParoError(
                f"the plan is of another capture or model than {capture.path}; calibrate this one, "
                "or give the one that the plan was made from"
            )
        if capture.grid != self.grid:
            raise ParoError(f"the plan has another token grid than capture {capture.path}")
        if max(self.heads) >= capture.heads:
            raise ParoError(
                f"the plan has a head {max(self.heads)}, but capture {capture.path} only heads 0 "
                f"to {capture.heads - 1}"
            )
        return self.at(capture.layer, capture.progress, capture.text_tokens)

    def check_attention(self) -> None:
        """Raise ParoError if it holds linear layers alone."""
        if not self.has_attention:
            raise ParoError("the plan has linear layers alone; legal: one with attention")

    def check_grid(self, grid: tuple[int, int, int]) -> None:
        """Raise ParoError unless it holds attention over this grid of tokens."""
        self.check_attention()
        if self.grid != grid:
            raise ParoError(
                f"the plan is for {_grid_text(self.grid)}, not for {_grid_text(grid)}; legal: the "
                "same"
            )

    def for_layer(self, layer: Layer) -> LayerPlan:
        """Select the plan of a linear layer.

        Raises
        ------
        ParoError
            If it holds none of that name, or one of other weights.
        """
        for plan in self.linear:
            if plan.name == layer.name:
                plan.check(layer)
                return plan
        legal = ", ".join(plan.name for plan in self.linear[:_NAMED])
        more = ", ..." if len(self.linear) > _NAMED else ""
        raise ParoError(
            f"the plan has no linear layer {layer.name}; legal: {legal or 'none'}{more}"
        )


def _grid_text(grid: tuple[int, int, int]) -> str:
    return f"{math.prod(grid)} tokens ({' x '.join(map(str, grid))})"


def fit_codes(
    codes: torch.Tensor, block: int, grid_tokens: int, text_tokens: int, wanted: int
) -> torch.Tensor:
    """Codes of heads with another number of text tokens.

    Blocks of grid tokens alone keep their codes, since the grid stands first in every order. A
    block with text takes the widest code of any block of text in its row or column, as it is not
    known which words it will hold. A row that only its text kept alive takes its own block at the
    widest code.

    Parameters
    ----------
    codes : torch.Tensor
        uint8 [heads, blocks, blocks].
    block : int
        Tokens on a side of a block.
    grid_tokens : int
        Tokens of the grid.
    text_tokens : int
        Text tokens that the codes are for.
    wanted : int
        Text tokens that they shall be for.

    Returns
    -------
    torch.Tensor
        uint8 [heads, blocks, blocks] with the blocks of ``grid_tokens + wanted`` tokens.

    Raises
    ------
    ParoError
        If text is wanted, and the codes know none.
    """
    if wanted == text_tokens:
        return codes
    if text_tokens == 0:
        raise ParoError(
            f"the plan was calibrated without text tokens, and there are {wanted}; legal: a plan "
            "calibrated on captures with text"
        )
    pure = grid_tokens // block
    mixed = blocks_of(grid_tokens + wanted, block) - pure
    for side in (-2, -1):
        kept, text = codes.split([pure, codes.shape[side] - pure], dim=side)
        widest = text.amax(dim=side, keepdim=True)
        codes = torch.cat([kept, *[widest] * mixed], dim=side)
    own = torch.eye(codes.shape[-1], dtype=torch.bool)
    dead = (codes == 0).all(dim=-1, keepdim=True)
    return codes.masked_fill(dead & own, EIGHT_BITS)


def step_group(step_groups: Sequence[float], progress: float) -> int:
    """Index of the group of steps that a share ``progress`` of all steps lies in."""
    return sum(start <= progress for start in step_groups) - 1


def group_shares(step_groups: Sequence[float]) -> tuple[float, ...]:
    """Share of the steps in each group, from where the groups begin."""
    return tuple(end - start for start, end in pairwise((*step_groups, 1.0)))


def uniform_plan(
    capture: CaptureSource, heads: Sequence[int], block: int = 64, code: int = 3, order: int = 0
) -> Plan:
    """Build a plan that gives every block of every head the same code.

    Parameters
    ----------
    capture : Capture
        Capture that it is for.
    heads : sequence of int
        Heads of the capture.
    block : int
        16, 32 or 64.
    code : int
        1, 2 or 3 for 2, 4 or 8 bits.
    order : int
        Index in `choices.ORDERS`.

    Raises
    ------
    ParoError
        If a parameter is not legal.
    """
    check_block(block)
    if code not in (1, 2, 3):
        raise ParoError(f"code = {code} is not legal in a uniform plan; legal: 1, 2, 3")
    blocks = capture.blocks(block)
    return Plan(
        block=block,
        avg_bits=float(CODE_BITS[code]),
        heads=tuple(heads),
        orders=(order,) * len(heads),
        transforms=(0,) * len(heads),
        codes=torch.full((len(heads), blocks, blocks), code, dtype=torch.uint8),
    )


def save_plan(plan: ModelPlan, path: Path) -> None:
    """Write a plan, whole or not at all.

    Raises
    ------
    ParoError
        If the file cannot be written.
    """
    tensors: dict[str, torch.Tensor] = {}
    metadata = {
        "format": VERSION,
        "model": plan.model,
        "calibrated_on": ",".join(plan.calibrated_on),
    }
    if plan.has_attention:
        tensors |= {
            "layers": torch.tensor(plan.layers, dtype=torch.int32),
            "heads": torch.tensor(plan.heads, dtype=torch.int32),
            "step_groups": torch.tensor(plan.step_groups, dtype=torch.float64),
            "orders": plan.orders,
            "transforms": plan.transforms,
            "codes": torch.from_numpy(pack_codes(plan.codes)),
        }
        metadata |= {
            "block": str(plan.block),
            "grid": ",".join(map(str, plan.grid)),
            "prefix_tokens": str(plan.prefix_tokens),
            "suffix_tokens": str(plan.suffix_tokens),
            "avg_bits": repr(plan.avg_bits),
        }
    if plan.linear:
        metadata["linear"] = json.dumps([layer_fields(own) for own in plan.linear])
    for index, own in enumerate(plan.linear):
        for name, values in layer_tensors(own).items():
            tensors[_layer_tensor(index, name)] = values
    write_tensors(path, tensors, metadata)


def load_plan(path: Path, capture: CaptureSource) -> Plan:
    """Read a plan and select the part for ``capture``; errors of both."""
    return plan_part(path, load_model_plan(path), capture)


def plan_part(path: Path, plan: ModelPlan, capture: CaptureSource) -> Plan:
    """Select the part of the plan of a file for a capture; errors also name the file."""
    try:
        return plan.for_capture(capture)
    except ParoError as error:
        raise ParoError(f"plan {path}: {error}") from error


def load_model_plan(path: Path) -> ModelPlan:
    """Read and check a plan.

    Raises
    ------
    ParoError
        If the file is missing, truncated or of another version, or if anything in it is not as
        `ModelPlan` states.
    """
    path = Path(path)
    _, metadata = read_header(path, "plan", ())
    version = metadata.get("format")
    if version != VERSION:
        raise ParoError(f"plan {path} has format {quoted(version)}; legal: {VERSION!r}")
    model = metadata.get("model", "")
    calibrated_on = tuple(metadata.get("calibrated_on", "").split(","))
    entries = _layer_entries(path, metadata)
    attention = () if entries and "block" not in metadata else _ATTENTION
    of_layers = [_layer_tensor(index, name) for index in range(len(entries)) for name in TENSORS]
    tensors, _, _ = read_tensors(path, "plan", (*attention, *of_layers))
    linear = _layer_plans(path, entries, tensors)
    if not attention:
        return ModelPlan.of_layers(model, calibrated_on, linear)
    block = _integers(path, metadata, "block", 1)[0]
    if block not in BLOCKS:
        raise ParoError(f"plan {path}: block = {block} is not legal")
    frames, height, width = _integers(path, metadata, "grid", 3)
    prefix_tokens = _integers(path, metadata, "prefix_tokens", 1)[0]
    suffix_tokens = _integers(path, metadata, "suffix_tokens", 1)[0]
    avg_bits = _avg_bits(path, metadata)
    layers = _indices(path, tensors, "layers")
    if list(layers) != sorted(layers):
        raise ParoError(f"plan {path}: layers are not legal; legal: ascending")
    heads = _indices(path, tensors, "heads")
    step_groups = _step_groups(path, tensors["step_groups"])

    expected = [len(layers), len(heads)]
    for name, count in (("orders", len(ORDERS)), ("transforms", len(TRANSFORMS))):
        values = tensors[name]
        if values.dtype != torch.uint8 or list(values.shape) != expected or values.max() >= count:
            raise ParoError(
                f"plan {path}: {name} are not legal; legal: uint8 {expected}, 0 to {count - 1}"
            )
    packed = tensors["codes"]
    tokens = prefix_tokens + frames * height * width + suffix_tokens
    blocks = blocks_of(tokens, block)
    expected = [len(step_groups), *expected, blocks, -(-blocks // CODES_PER_BYTE)]
    if packed.dtype != torch.uint8 or list(packed.shape) != expected:
        raise ParoError(
            f"plan {path}: codes are {packed.dtype} {list(packed.shape)}; legal: uint8 {expected}"
        )
    codes = torch.from_numpy(unpack_codes(packed, blocks))
    # A head without any live block is one that the plan leaves out.
    held = (codes != 0).flatten(3).any(dim=3).any(dim=0)
    if not held.any():
        raise ParoError(f"plan {path} holds no head; legal: one or more with live blocks")
    dead = ((codes == 0).all(dim=-1) & held.unsqueeze(-1)).nonzero()
    if len(dead):
        _, layer, head, row = dead[0].tolist()
        raise ParoError(
            f"plan {path}: block row {row} of head {heads[head]} in layer {layers[layer]} has no "
            "live block"
        )
    return ModelPlan(
        model=model,
        calibrated_on=calibrated_on,
        block=block,
        grid=(frames, height, width),
        prefix_tokens=prefix_tokens,
        suffix_tokens=suffix_tokens,
        avg_bits=avg_bits,
        layers=layers,
        heads=heads,
        step_groups=step_groups,
        orders=tensors["orders"],
        transforms=tensors["transforms"],
        codes=codes,
        linear=linear,
    )


def _layer_tensor(index: int, name: str) -> str:
    return f"linear.{index}.{name}"


def _layer_entries(path: Path, metadata: dict[str, str]) -> list[Any]:
    """`layer_fields` of each linear layer of a file, not checked yet."""
    try:
        entries = json.loads(metadata.get("linear", "[]"))
    except (ValueError, RecursionError):
        entries = None
    if not isinstance(entries, list):
        raise ParoError(f"plan {path}: linear is not legal; legal: a list in JSON")
    return entries


def _layer_plans(
    path: Path, entries: list[Any], tensors: dict[str, torch.Tensor]
) -> tuple[LayerPlan, ...]:
    """Linear layers of a file."""
    found = []
    for index, fields in enumerate(entries):
        own = {name: tensors[_layer_tensor(index, name)] for name in TENSORS}
        try:
            plan = read_layer_plan(fields, own)
        except ParoError as error:
            raise ParoError(f"plan {path}: {error}") from error
        found.append(plan)
    named = [plan.name for plan in found]
    if len(set(named)) < len(named):
        raise ParoError(f"plan {path}: two layers have one name; legal: a name of its own for each")
    return tuple(found)


def _integers(path: Path, metadata: dict[str, str], name: str, count: int) -> tuple[int, ...]:
    text = metadata.get(name, "")
    numbers = parse_integers(text)
    if numbers is None or len(numbers) != count:
        raise ParoError(f"plan {path}: {name} = {quoted(text)} is not legal")
    return numbers


def _avg_bits(path: Path, metadata: dict[str, str]) -> float:
    text = metadata.get("avg_bits", "")
    try:
        avg_bits = float(text)
    except ValueError:
        avg_bits = 0.0
    if not 0 < avg_bits <= CODE_BITS[-1]:
        raise ParoError(
            f"plan {path}: avg_bits = {quoted(text)} is not legal; "
            f"legal: above 0, at most {CODE_BITS[-1]}"
        )
    return avg_bits


def _indices(path: Path, tensors: dict[str, torch.Tensor], name: str) -> tuple[int, ...]:
    values = tensors[name]
    legal = (
        values.dtype == torch.int32
        and values.dim() == 1
        and len(values) > 0
        and len(values.unique()) == len(values)
        and values.min() >= 0
    )
    if not legal:
        raise ParoError(f"plan {path}: {name} are not legal; legal: int32 [{name}], distinct")
    return tuple(values.tolist())


def _step_groups(path: Path, starts: torch.Tensor) -> tuple[float, ...]:
    legal = (
        starts.dtype == torch.float64
        and starts.dim() == 1
        and len(starts) > 0
        and starts[0] == 0
        and (starts.diff() > 0).all()
        and starts[-1] < 1
    )
    if not legal:
        raise ParoError(
            f"plan {path}: step_groups are not legal; legal: float64, ascending from 0, below 1"
        )
    return tuple(starts.tolist())
