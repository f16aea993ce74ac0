"""The blocks of the video transformer as steps of a program, and what these name.

The host keeps what is not rows of tokens, or is the first or last thing done to them: patches and
positions, the condition by noise level and class, the last norm and layer, guidance and sampler.
"""

import torch

from firmware_model.models.device_program import Item
from firmware_model.models.network import ChannelConstants, Parameters
from firmware_model.models.video.transformer import Block, Shape, VideoTransformer
from firmware_model.program import (
    Activate,
    Add,
    Attend,
    Columns,
    Linear,
    Normalize,
    QuantizeChannels,
    QuantizeTokens,
    Rotate,
    Scale,
    Step,
)

__all__ = ["HOST", "INPUT", "block_outputs", "video_items", "video_parameters", "video_steps"]

#: Tensor that the steps begin with.
INPUT = "tokens"
#: What stays on the host, in words.
HOST = (
    "patches and positions",
    "noise level, class, scales, shifts and gates",
    "last norm and layer",
    "guidance and Euler steps",
)
_ROTATION = "positions"


def video_steps(shape: Shape) -> tuple[Step, ...]:
    """Steps of all blocks; the last one's result is the output."""
    steps: list[Step] = []
    tokens = INPUT
    for index in range(shape.layers):
        steps += _block(shape, index, tokens)
        tokens = steps[-1].result
    return tuple(steps)


def block_outputs(shape: Shape) -> tuple[str, ...]:
    """Tensors that the blocks make, in their order."""
    return tuple(f"blocks.{index}.network.sum" for index in range(shape.layers))


def _block(shape: Shape, index: int, tokens: str) -> list[Step]:
    width, name = shape.width, f"blocks.{index}"

    def conditioned(part: str, source: str, layer: str) -> list[Step]:
        """Norm, scale and shift, INT8 and the first layer of a part of the block."""
        own = f"{name}.{part}"
        return [
            Normalize(result=f"{own}.norm", source=source, group=width, centred=True, epsilon=1e-5),
            Scale(result=f"{own}.scaled", source=f"{own}.norm", constants=own),
            QuantizeTokens(result=f"{own}.input", source=f"{own}.scaled"),
            Linear(result=f"{name}.{layer}", source=f"{own}.input", layer=f"{name}.{layer}"),
        ]

    def ended(part: str, source: str, layer: str, base: str) -> list[Step]:
        """INT8, the last layer and the gate of a part of the block."""
        return [
            QuantizeTokens(result=f"{source}.input", source=source),
            Linear(result=f"{name}.{layer}", source=f"{source}.input", layer=f"{name}.{layer}"),
            Add(
                result=f"{name}.{part}.sum",
                source=f"{name}.{layer}",
                base=base,
                constants=f"{name}.{part}.gate",
            ),
        ]

    def operand(letter: str, place: int) -> list[Step]:
        """Q or K of all heads: norm, affine, rotation, INT8."""
        own = f"{name}.{letter}"
        head_dim = shape.head_dim
        return [
            Columns(result=own, source=f"{name}.qkv", first=place * width, channels=width),
            Normalize(result=f"{own}.norm", source=own, group=head_dim, centred=True, epsilon=1e-5),
            Scale(result=f"{own}.scaled", source=f"{own}.norm", constants=own),
            Rotate(
                result=f"{own}.rotated",
                source=f"{own}.scaled",
                rotation=_ROTATION,
                head_dim=head_dim,
                pairing="halves",
            ),
            QuantizeTokens(result=f"{own}.int8", source=f"{own}.rotated"),
        ]

    return [
        *conditioned("attention", tokens, "qkv"),
        *operand("q", 0),
        *operand("k", 1),
        Columns(result=f"{name}.v", source=f"{name}.qkv", first=2 * width, channels=width),
        QuantizeChannels(result=f"{name}.v.int8", source=f"{name}.v"),
        Attend(
            result=f"{name}.heads",
            source=f"{name}.q.int8",
            k=f"{name}.k.int8",
            v=f"{name}.v.int8",
            layer=index,
            head_dim=shape.head_dim,
        ),
        Scale(result=f"{name}.mixed", source=f"{name}.heads"),
        *ended("attention", f"{name}.mixed", "projection", tokens),
        *conditioned("network", f"{name}.attention.sum", "network.0"),
        Scale(result=f"{name}.hidden", source=f"{name}.network.0"),
        Activate(result=f"{name}.active", source=f"{name}.hidden", kind="gelu"),
        *ended("network", f"{name}.active", "network.2", f"{name}.attention.sum"),
    ]


def video_items(
    model: VideoTransformer, tokens: torch.Tensor, modulation: torch.Tensor
) -> list[Item]:
    """Each half of the guidance as a run of its own.

    Parameters
    ----------
    model : VideoTransformer
        The model.
    tokens, modulation : torch.Tensor
        What `VideoTransformer.embed` gives.
    """
    return [
        Item({INPUT: rows}, video_parameters(model, condition))
        for rows, condition in zip(tokens, modulation, strict=True)
    ]


def video_parameters(model: VideoTransformer, modulation: torch.Tensor) -> Parameters:
    """What the steps name, for one item of a batch.

    Parameters
    ----------
    model : VideoTransformer
        The model.
    modulation : torch.Tensor
        [6 * width]: the item's condition, without the blocks' own offsets.
    """
    shape = model.shape
    constants: dict[str, ChannelConstants] = {}
    nothing = torch.zeros(shape.width, dtype=torch.float64)
    linears = {}
    for index, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        name = f"blocks.{index}"
        parts = (modulation + block.offsets).detach().double().cpu().chunk(6)
        shift, factor, gate, network_shift, network_factor, network_gate = parts
        constants[f"{name}.attention"] = (1 + factor, shift)
        constants[f"{name}.attention.gate"] = (gate, nothing)
        constants[f"{name}.network"] = (1 + network_factor, network_shift)
        constants[f"{name}.network.gate"] = (network_gate, nothing)
        for letter, norm in (("q", block.q_norm), ("k", block.k_norm)):
            constants[f"{name}.{letter}"] = (
                norm.weight.detach().double().cpu().repeat(shape.heads),
                norm.bias.detach().double().cpu().repeat(shape.heads),
            )
        for layer, module in block.named_modules():
            if isinstance(module, torch.nn.Linear):
                linears[f"{name}.{layer}"] = module
    return Parameters(
        linears=linears,
        constants=constants,
        rotations={_ROTATION: model.rotation.double().cpu()},
        scale=shape.head_dim**-0.5,
    )
