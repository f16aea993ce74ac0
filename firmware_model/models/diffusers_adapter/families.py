"""Properties of each pipeline class that the adapter needs: blocks, sizes and text."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from firmware_model.models.diffusers_adapter.block_rules import block_layers, cut_layers
from paro.config.errors import ParoError


@dataclass(frozen=True, kw_only=True)
class Family:
    """Properties of a pipeline class that the adapter needs.

    Parameters
    ----------
    transformers : tuple of str
        Components that may denoise, one of them in each step; all but the first may be absent. The
        layers are numbered through them all.
    blocks : tuple of (str, str)
        Lists of blocks in a transformer, in the order of execution, and the name of the
        self-attention over all tokens in each block.
    patch : Callable
        Patch (frames, height, width) in latents, from the configuration of the transformer.
    scale : Callable
        Frames and height of a latent in frames and pixels, from the pipeline.
    size : Callable
        Default (frames, height, width) of a video, from the pipeline and the height of a latent in
        pixels.
    size_multiple : int
        Divisor that the library wants of height and width.
    size_fixed : bool
        Whether the default size is the only one.
    latent_frame_multiple : int
        Frames of a video are 1 + this * frames per latent * n; 0 for images.
    text_inputs : tuple of str
        Arguments of the pipeline, in the order in which its ``encode_prompt`` returns them.
    text_channels : str
        Entry of the transformer's configuration: channels of the embedded text.
    text_tokens : Callable
        Tokens of the text, from the configuration of the transformer.
    clip_tokens : int
        How many of those the library adds to the length that it is asked for.
    text_place : str
        "prefix" or "suffix" where text takes part in the self-attention, else "".
    arguments : Mapping
        Further arguments of the pipeline.
    has_rules : bool
        Whether there are rules that make a program of its blocks.
    """

    transformers: tuple[str, ...] = ("transformer",)
    blocks: tuple[tuple[str, str], ...] = (("transformer_blocks", "attn1"),)
    patch: Callable[[Any], tuple[int, int, int]]
    scale: Callable[[Any], tuple[int, int]]
    size: Callable[[Any, int], tuple[int, int, int]]
    size_multiple: int = 8
    size_fixed: bool = False
    latent_frame_multiple: int = 0
    text_inputs: tuple[str, ...] = ()
    text_channels: str = ""
    text_tokens: Callable[[Any], int] = lambda config: 0
    clip_tokens: int = 0
    text_place: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    has_rules: bool = False

    @property
    def is_video(self) -> bool:
        """Whether the pipeline makes videos."""
        return self.latent_frame_multiple > 0


def _image_scale(pipe: Any) -> tuple[int, int]:
    return 1, 2 ** (len(pipe.vae.config.block_out_channels) - 1)


def _video_scale(pipe: Any) -> tuple[int, int]:
    return pipe.vae_scale_factor_temporal, pipe.vae_scale_factor_spatial


def _square(pipe: Any, scale: int) -> tuple[int, int, int]:
    side = pipe.transformer.config.sample_size * scale
    return 1, side, side


def _square_128(pipe: Any, scale: int) -> tuple[int, int, int]:
    return 1, 128 * scale, 128 * scale


def _flat_patch(config: Any) -> tuple[int, int, int]:
    return 1, config.patch_size, config.patch_size


def _deep_patch(config: Any) -> tuple[int, int, int]:
    return config.patch_size_t or 1, config.patch_size, config.patch_size


def _packed_patch(config: Any) -> tuple[int, int, int]:
    """2 x 2 latents, which the pipeline packs into a token, whatever the configuration says."""
    return 1, 2, 2


_BOTH_PROMPTS = ("prompt_embeds", "negative_prompt_embeds")
_MASKED_PROMPT = ("prompt_embeds", "prompt_attention_mask")
_BOTH_MASKED_PROMPTS = (*_MASKED_PROMPT, *(f"negative_{name}" for name in _MASKED_PROMPT))
_TWO_TEXTS = ("prompt_embeds", "prompt_embeds_mask", "prompt_embeds_2", "prompt_embeds_mask_2")
_JOINT_BLOCKS = (("transformer_blocks", "attn"), ("single_transformer_blocks", "attn"))


def _pixart(text_tokens: int) -> Family:
    return Family(
        patch=_flat_patch,
        scale=_image_scale,
        size=_square,
        text_inputs=_BOTH_MASKED_PROMPTS,
        text_channels="caption_channels",
        text_tokens=lambda config: text_tokens,
        # Binning would compute another height and width than asked for.
        arguments={"negative_prompt": None, "use_resolution_binning": False},
        has_rules=True,
    )


def _wan(*blocks: str, has_rules: bool = False) -> Family:
    return Family(
        transformers=("transformer", "transformer_2"),
        blocks=tuple((name, "attn1") for name in blocks),
        patch=lambda config: tuple(config.patch_size),
        scale=_video_scale,
        size=lambda pipe, scale: (81, 480, 832),
        size_multiple=16,
        latent_frame_multiple=1,
        text_inputs=_BOTH_PROMPTS,
        text_channels="text_dim",
        text_tokens=lambda config: 512,
        has_rules=has_rules,
    )


FAMILIES = {
    "CogVideoXPipeline": Family(
        patch=_deep_patch,
        scale=_video_scale,
        size=lambda pipe, scale: (
            pipe.transformer.config.sample_frames,
            pipe.transformer.config.sample_height * scale,
            pipe.transformer.config.sample_width * scale,
        ),
        # Its decoder makes too many frames of an even number of latents.
        latent_frame_multiple=2,
        text_inputs=_BOTH_PROMPTS,
        text_channels="text_embed_dim",
        text_tokens=lambda config: config.max_text_seq_length,
        text_place="prefix",
        has_rules=True,
    ),
    "WanPipeline": _wan("blocks", has_rules=True),
    "WanVACEPipeline": _wan("vace_blocks", "blocks"),
    "HunyuanVideoPipeline": Family(
        blocks=_JOINT_BLOCKS,
        patch=_deep_patch,
        scale=_video_scale,
        size=lambda pipe, scale: (129, 720, 1280),
        size_multiple=16,
        latent_frame_multiple=1,
        text_inputs=("prompt_embeds", "pooled_prompt_embeds", "prompt_attention_mask"),
        text_channels="text_embed_dim",
        text_tokens=lambda config: 256,
        text_place="suffix",
    ),
    "HunyuanVideo15Pipeline": Family(
        blocks=(("transformer_blocks", "attn"),),
        patch=_deep_patch,
        scale=_video_scale,
        size=lambda pipe, scale: (
            121,
            *pipe.video_processor.calculate_default_height_width(
                *reversed(pipe.default_aspect_ratio), pipe.target_size
            ),
        ),
        latent_frame_multiple=1,
        text_inputs=(*_TWO_TEXTS, *(f"negative_{name}" for name in _TWO_TEXTS)),
        text_channels="text_embed_dim",
        text_tokens=lambda config: 1000,
        text_place="suffix",
    ),
    "LTXPipeline": Family(
        patch=_deep_patch,
        scale=lambda pipe: (
            pipe.vae_temporal_compression_ratio,
            pipe.vae_spatial_compression_ratio,
        ),
        size=lambda pipe, scale: (161, 512, 704),
        size_multiple=32,
        latent_frame_multiple=1,
        text_inputs=_BOTH_MASKED_PROMPTS,
        text_channels="caption_channels",
        text_tokens=lambda config: 128,
    ),
    "MochiPipeline": Family(
        patch=_flat_patch,
        scale=lambda pipe: (pipe.vae_temporal_scale_factor, pipe.vae_spatial_scale_factor),
        size=lambda pipe, scale: (19, 480, 848),
        latent_frame_multiple=1,
        text_inputs=_BOTH_MASKED_PROMPTS,
        text_channels="text_embed_dim",
        text_tokens=lambda config: config.max_sequence_length,
        text_place="suffix",
    ),
    "FluxPipeline": Family(
        blocks=_JOINT_BLOCKS,
        patch=_packed_patch,
        scale=_image_scale,
        size=_square_128,
        text_inputs=("prompt_embeds", "pooled_prompt_embeds"),
        text_channels="joint_attention_dim",
        # Flux schnell, the one without guidance, was trained with 256.
        text_tokens=lambda config: 512 if config.guidance_embeds else 256,
        text_place="prefix",
        has_rules=True,
    ),
    "Flux2Pipeline": Family(
        blocks=_JOINT_BLOCKS,
        patch=_packed_patch,
        scale=_image_scale,
        size=_square_128,
        text_inputs=("prompt_embeds",),
        text_channels="joint_attention_dim",
        text_tokens=lambda config: 512,
        text_place="prefix",
    ),
    "StableDiffusion3Pipeline": Family(
        # Some of its blocks also attend over the image alone, in attn2: that stays the library's.
        blocks=(("transformer_blocks", "attn"),),
        patch=_flat_patch,
        scale=_image_scale,
        size=_square,
        text_inputs=(*_BOTH_PROMPTS, "pooled_prompt_embeds", "negative_pooled_prompt_embeds"),
        text_channels="joint_attention_dim",
        text_tokens=lambda config: 77 + 256,
        clip_tokens=77,
        text_place="suffix",
    ),
    "CogView4Pipeline": Family(
        patch=_flat_patch,
        scale=_image_scale,
        size=_square,
        size_multiple=16,
        text_inputs=_BOTH_PROMPTS,
        text_channels="text_embed_dim",
        text_tokens=lambda config: 1024,
        text_place="prefix",
    ),
    "QwenImagePipeline": Family(
        blocks=(("transformer_blocks", "attn"),),
        patch=_packed_patch,
        scale=lambda pipe: (1, pipe.vae_scale_factor),
        size=_square_128,
        text_inputs=("prompt_embeds", "prompt_embeds_mask"),
        text_channels="joint_attention_dim",
        text_tokens=lambda config: 512,
        text_place="prefix",
        # It has no negative prompt to be guided by, and says so.
        arguments={"true_cfg_scale": 1.0},
    ),
    "DiTPipeline": Family(
        patch=_flat_patch, scale=_image_scale, size=_square, size_fixed=True, has_rules=True
    ),
    "PixArtAlphaPipeline": _pixart(120),
    "PixArtSigmaPipeline": _pixart(300),
}


def transformers(pipe: Any, family: Family) -> list[Any]:
    """Components that denoise, of those that the family may have."""
    found = [getattr(pipe, name) for name in family.transformers]
    return [transformer for transformer in found if transformer is not None]


def attention_layers(pipe: Any, family: Family) -> list[torch.nn.Module]:
    """Modules that attend over all tokens, in the order of execution."""
    return [
        getattr(block, attention)
        for transformer in transformers(pipe, family)
        for blocks, attention in family.blocks
        for block in getattr(transformer, blocks)
    ]


def linear_layers(pipe: Any, family: Family) -> dict[str, torch.nn.Linear]:
    """Linear layers within the blocks, by name, in their sequence, as `block_layers`."""
    found = {}
    for name, block in _named_blocks(pipe, family):
        found |= block_layers(name, block)
    return found


def layers_in_parts(pipe: Any, family: Family) -> list[tuple[torch.nn.Module, dict[str, int]]]:
    """Layers of which `linear_layers` has parts, and by their names the inputs of each."""
    return [
        (
            block.get_submodule(layer),
            {f"{name}.{layer}.{part}": inputs for part, inputs in parts.items()},
        )
        for name, block in _named_blocks(pipe, family)
        for layer, parts in cut_layers(block).items()
    ]


def _named_blocks(pipe: Any, family: Family) -> Iterator[tuple[str, torch.nn.Module]]:
    """All blocks, by name, in the order of execution."""
    for name in family.transformers:
        transformer = getattr(pipe, name)
        if transformer is not None:
            for blocks, _ in family.blocks:
                for index, block in enumerate(getattr(transformer, blocks)):
                    yield f"{name}.{blocks}.{index}", block


def random_text(pipe: Any, family: Family, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Arguments of a pipeline that take the place of an encoded prompt: random numbers."""
    config = pipe.transformer.config
    text = {}
    for name in family.text_inputs:
        # The second text of HunyuanVideo 1.5 is what stands in quotation marks: nothing, hidden.
        second = name.endswith("_2")
        tokens = 1 if second else family.text_tokens(config)
        if "_mask" in name:
            tensor = torch.full((1, tokens), 0.0 if second else 1.0)
        elif "pooled_" in name:
            tensor = torch.randn(1, config.pooled_projection_dim, generator=generator)
        else:
            field = "text_embed_2_dim" if second else family.text_channels
            channels = config[field]
            if channels is None:
                raise ParoError(
                    f"{field} of the transformer is not given, so a random text has no channels; "
                    "legal: a pipeline with a text encoder, or a transformer that gives it"
                )
            tensor = torch.randn(1, tokens, channels, generator=generator)
        text[name] = tensor.to(pipe.device, pipe.transformer.dtype)
    return text


def check_size(
    pipe: Any, name: str, family: Family, size: tuple[int | None, int | None, int | None]
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Fill in and check the size of a video.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        Pipeline that generates it.
    name : str
        Its class, for messages.
    family : Family
        Properties of its class.
    size : (int or None, int or None, int or None)
        Frames, height, width; ``None`` takes the default.

    Returns
    -------
    (int, int, int), (int, int, int)
        Frames, height, width of the video, and of its token grid.

    Raises
    ------
    ParoError
        If the pipeline cannot make that size.
    """
    frame_scale, scale = family.scale(pipe)
    default = family.size(pipe, scale)
    frames, height, width = (d if s is None else s for s, d in zip(size, default, strict=True))
    patch = family.patch(pipe.transformer.config)
    for what, value, own, patch_side in (
        ("height", height, default[1], patch[1]),
        ("width", width, default[2], patch[2]),
    ):
        multiple = math.lcm(family.size_multiple, scale * patch_side)
        if family.size_fixed and value != own:
            raise ParoError(f"{what} = {value} is not legal for this {name}; legal: {own}")
        if value < 1 or value % multiple:
            raise ParoError(
                f"{what} = {value} is not legal for this {name}; legal: multiples of {multiple}"
            )
    step = family.latent_frame_multiple * frame_scale
    if frames < 1 or (frames != 1 if step == 0 else (frames - 1) % step):
        legal = f"1 + {step} * n" if step else "1"
        raise ParoError(f"frames = {frames} is not legal for this {name}; legal: {legal}")
    latent_frames = (frames - 1) // frame_scale + 1
    grid = (
        # CogVideoX 1.5 fills up the last patch.
        math.ceil(latent_frames / patch[0]),
        height // (scale * patch[1]),
        width // (scale * patch[2]),
    )
    return (frames, height, width), grid
