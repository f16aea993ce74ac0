"""Tiny random pipelines of every class of diffusers that the adapter knows."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

# What the library declares of its arguments is narrower than what it takes.
diffusers: Any = importlib.import_module("diffusers")

HEADS: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 16}
WIDTH: dict[str, Any] = {"block_out_channels": (4,) * 4, "layers_per_block": 1}
NO_TEXT = {"text_encoder": None, "tokenizer": None}
NO_TEXTS = NO_TEXT | {"text_encoder_2": None, "tokenizer_2": None}
STEPS = 2


def image_vae() -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=2,
        shift_factor=0.05,
    )


def cogvideox(patch_size_t: int | None = None, **text: Any) -> Any:
    return diffusers.CogVideoXPipeline(
        **NO_TEXT | text,
        transformer=diffusers.CogVideoXTransformer3DModel(
            **HEADS,
            in_channels=4,
            out_channels=4,
            time_embed_dim=8,
            text_embed_dim=12,
            num_layers=2,
            sample_width=6,
            sample_height=4,
            sample_frames=9,
            patch_size_t=patch_size_t,
            max_text_seq_length=6,
            use_rotary_positional_embeddings=True,
        ),
        vae=diffusers.AutoencoderKLCogVideoX(
            **WIDTH,
            down_block_types=("CogVideoXDownBlock3D",) * 4,
            up_block_types=("CogVideoXUpBlock3D",) * 4,
            latent_channels=4,
            norm_num_groups=2,
        ),
        scheduler=diffusers.CogVideoXDDIMScheduler(),
    )


def wan() -> Any:
    return diffusers.WanPipeline(
        **NO_TEXT,
        transformer=diffusers.WanTransformer3DModel(
            **HEADS,
            text_dim=12,
            freq_dim=8,
            ffn_dim=16,
            num_layers=2,
            rope_max_seq_len=32,
        ),
        vae=diffusers.AutoencoderKLWan(
            base_dim=3,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
        ),
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True
        ),
    )


def hunyuan(**text: Any) -> Any:
    return diffusers.HunyuanVideoPipeline(
        **NO_TEXTS | text,
        transformer=diffusers.HunyuanVideoTransformer3DModel(
            **HEADS,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            num_single_layers=1,
            num_refiner_layers=1,
            text_embed_dim=12,
            pooled_projection_dim=8,
            rope_axes_dim=(4, 6, 6),
        ),
        vae=diffusers.AutoencoderKLHunyuanVideo(
            **WIDTH,
            down_block_types=("HunyuanVideoDownBlock3D",) * 4,
            up_block_types=("HunyuanVideoUpBlock3D",) * 4,
            latent_channels=4,
            norm_num_groups=2,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


def flux(**text: Any) -> Any:
    return diffusers.FluxPipeline(
        **NO_TEXTS | text,
        transformer=diffusers.FluxTransformer2DModel(
            **HEADS,
            in_channels=16,
            num_layers=1,
            num_single_layers=2,
            joint_attention_dim=12,
            pooled_projection_dim=8,
            axes_dims_rope=(4, 4, 8),
        ),
        vae=image_vae(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


def dit(scheduler: Any = None) -> Any:
    return diffusers.DiTPipeline(
        transformer=diffusers.DiTTransformer2DModel(
            **HEADS, in_channels=4, out_channels=8, num_layers=2, sample_size=8
        ),
        vae=image_vae(),
        scheduler=scheduler or diffusers.DDIMScheduler(),
    )


def pixart(kind: Any) -> Any:
    return kind(
        **NO_TEXT,
        transformer=diffusers.PixArtTransformer2DModel(
            **HEADS,
            in_channels=4,
            num_layers=2,
            sample_size=8,
            caption_channels=12,
            cross_attention_dim=32,
        ),
        vae=image_vae(),
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )


class Case(NamedTuple):
    """A pipeline to build, the size to ask for, and what is expected of it."""

    build: Callable[[], Any]
    size: dict[str, Any]
    grid: tuple[int, int, int]
    prefix: int = 0
    suffix: int = 0
    layers: int = 2
    #: Rows of a call, and calls of each layer in a step: classifier-free guidance takes two.
    batch: int = 1
    calls: int = 1


VIDEO: dict[str, Any] = {"frames": 9, "height": 32, "width": 48}
IMAGE: dict[str, Any] = {"height": 32, "width": 48}
CASES = {
    "CogVideoX": Case(cogvideox, VIDEO, (3, 2, 3), prefix=6, batch=2),
    "CogVideoX 1.5": Case(lambda: cogvideox(2), VIDEO, (2, 2, 3), prefix=6, batch=2),
    "Wan": Case(wan, VIDEO | {"frames": 5}, (2, 2, 3), calls=2),
    "HunyuanVideo": Case(hunyuan, VIDEO, (3, 2, 3), suffix=256, layers=3),
    "Flux": Case(flux, IMAGE, (1, 8, 12), prefix=256, layers=3),
    "DiT": Case(dit, {}, (1, 4, 4), batch=2),
    "PixArt alpha": Case(lambda: pixart(diffusers.PixArtAlphaPipeline), IMAGE, (1, 8, 12), batch=2),
    "PixArt sigma": Case(lambda: pixart(diffusers.PixArtSigmaPipeline), IMAGE, (1, 8, 12), batch=2),
}


def write(build: Callable[[], Any], folder: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        build().save_pretrained(folder)
    return folder
