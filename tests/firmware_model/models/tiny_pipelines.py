"""Tiny random pipelines of every class of diffusers that the adapter knows."""

import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

# What the library declares of its arguments is narrower than what it takes.
diffusers: Any = importlib.import_module("diffusers")

HEADS: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 16}
#: Those of an accelerator.
WIDE_HEADS = HEADS | {"attention_head_dim": 32}
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


def cogvideox(patch_size_t: int | None = None, heads: dict[str, Any] = HEADS, **text: Any) -> Any:
    return diffusers.CogVideoXPipeline(
        **NO_TEXT | text,
        transformer=diffusers.CogVideoXTransformer3DModel(
            **heads,
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


def wan_vae(kind: Any = diffusers.AutoencoderKLWan) -> Any:
    return kind(
        base_dim=3,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )


def wan_transformer(kind: Any = diffusers.WanTransformer3DModel, **options: Any) -> Any:
    return kind(
        **HEADS | options,
        text_dim=12,
        freq_dim=8,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
    )


def wan_scheduler() -> Any:
    return diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True
    )


def wan(heads: dict[str, Any] = HEADS, **parts: Any) -> Any:
    return diffusers.WanPipeline(
        **NO_TEXT,
        **{"transformer": wan_transformer(**heads), "vae": wan_vae(), "scheduler": wan_scheduler()}
        | parts,
    )


def wan_of_two_transformers() -> Any:
    """The first step is the first transformer's, the second one the second's."""
    return wan(transformer_2=wan_transformer(), boundary_ratio=0.8)


def wan_vace() -> Any:
    return diffusers.WanVACEPipeline(
        **NO_TEXT,
        transformer=wan_transformer(
            diffusers.WanVACETransformer3DModel, vace_layers=[0], vace_in_channels=96
        ),
        vae=wan_vae(),
        scheduler=wan_scheduler(),
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


def hunyuan_15(**text: Any) -> Any:
    guider = importlib.import_module("diffusers.guiders").ClassifierFreeGuidance
    return diffusers.HunyuanVideo15Pipeline(
        **NO_TEXTS | text,
        guider=guider(),
        transformer=diffusers.HunyuanVideo15Transformer3DModel(
            **HEADS,
            in_channels=9,
            out_channels=4,
            num_layers=2,
            num_refiner_layers=1,
            text_embed_dim=12,
            text_embed_2_dim=10,
            image_embed_dim=6,
            rope_axes_dim=(4, 6, 6),
        ),
        vae=diffusers.AutoencoderKLHunyuanVideo15(
            latent_channels=4, block_out_channels=(32,) * 5, layers_per_block=1
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


def ltx(**text: Any) -> Any:
    return diffusers.LTXPipeline(
        **NO_TEXT | text,
        transformer=diffusers.LTXVideoTransformer3DModel(
            **HEADS,
            in_channels=4,
            out_channels=4,
            cross_attention_dim=32,
            num_layers=2,
            caption_channels=12,
        ),
        vae=diffusers.AutoencoderKLLTXVideo(
            latent_channels=4,
            block_out_channels=(4,) * 4,
            decoder_block_out_channels=(4,) * 4,
            layers_per_block=(1,) * 5,
            decoder_layers_per_block=(1,) * 5,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


def mochi(**text: Any) -> Any:
    pipe = diffusers.MochiPipeline(
        **NO_TEXT | text,
        transformer=diffusers.MochiTransformer3DModel(
            **HEADS,
            num_layers=2,
            pooled_projection_dim=16,
            text_embed_dim=16,
            time_embed_dim=8,
            max_sequence_length=16,
        ),
        vae=diffusers.AutoencoderKLMochi(
            encoder_block_out_channels=(32,) * 4,
            decoder_block_out_channels=(32,) * 4,
            layers_per_block=(1,) * 5,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )
    torch.nn.init.normal_(pipe.transformer.pos_frequencies)
    return pipe


def flux(heads: dict[str, Any] = HEADS, **text: Any) -> Any:
    pairs = heads["attention_head_dim"] // 8
    return diffusers.FluxPipeline(
        **NO_TEXTS | text,
        transformer=diffusers.FluxTransformer2DModel(
            **heads,
            in_channels=16,
            num_layers=1,
            num_single_layers=2,
            joint_attention_dim=12,
            pooled_projection_dim=8,
            axes_dims_rope=(2 * pairs, 2 * pairs, 4 * pairs),
        ),
        vae=image_vae(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


def flux_2(**text: Any) -> Any:
    return diffusers.Flux2Pipeline(
        **NO_TEXT | text,
        transformer=diffusers.Flux2Transformer2DModel(
            **HEADS,
            in_channels=16,
            num_layers=1,
            num_single_layers=2,
            joint_attention_dim=12,
            timestep_guidance_channels=8,
            axes_dims_rope=(4, 4, 4, 4),
        ),
        vae=diffusers.AutoencoderKLFlux2(
            block_out_channels=(4, 4),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=2,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )


def stable_diffusion_3(**text: Any) -> Any:
    return diffusers.StableDiffusion3Pipeline(
        **NO_TEXTS | {"text_encoder_3": None, "tokenizer_3": None} | text,
        transformer=diffusers.SD3Transformer2DModel(
            **HEADS,
            sample_size=8,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            joint_attention_dim=16,
            caption_projection_dim=32,
            pooled_projection_dim=16,
            pos_embed_max_size=16,
            dual_attention_layers=(0,),
        ),
        vae=image_vae(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


def cogview_4(**text: Any) -> Any:
    return diffusers.CogView4Pipeline(
        **NO_TEXT | text,
        transformer=diffusers.CogView4Transformer2DModel(
            **HEADS,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            text_embed_dim=12,
            time_embed_dim=8,
            condition_dim=4,
            sample_size=8,
            rope_axes_dim=(16, 16),
        ),
        vae=image_vae(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )


def qwen_image(**text: Any) -> Any:
    return diffusers.QwenImagePipeline(
        **NO_TEXT | text,
        transformer=diffusers.QwenImageTransformer2DModel(
            **HEADS,
            in_channels=64,
            out_channels=16,
            num_layers=2,
            joint_attention_dim=12,
            axes_dims_rope=(4, 6, 6),
        ),
        vae=wan_vae(diffusers.AutoencoderKLQwenImage),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )


def dit(scheduler: Any = None, **heads: Any) -> Any:
    return diffusers.DiTPipeline(
        transformer=diffusers.DiTTransformer2DModel(
            **HEADS | heads, in_channels=4, out_channels=8, num_layers=2, sample_size=8
        ),
        vae=image_vae(),
        scheduler=scheduler or diffusers.DDIMScheduler(),
    )


def pixart(kind: Any, heads: dict[str, Any] = HEADS) -> Any:
    return kind(
        **NO_TEXT,
        transformer=diffusers.PixArtTransformer2DModel(
            **heads,
            in_channels=4,
            num_layers=2,
            sample_size=8,
            caption_channels=12,
            cross_attention_dim=math.prod(heads.values()),
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
    #: Rows of a call, and runs of the model in a step: classifier-free guidance takes two.
    batch: int = 1
    calls: int = 1
    #: Calls of a layer in a run: one for each item of the batch where that is how a model works.
    items: int = 1
    #: Layers of each step, if they are not all.
    steps: tuple[range, ...] = ()


VIDEO: dict[str, Any] = {"frames": 9, "height": 32, "width": 48}
IMAGE: dict[str, Any] = {"height": 32, "width": 48}
CASES = {
    "CogVideoX": Case(cogvideox, VIDEO, (3, 2, 3), prefix=6, batch=2),
    "CogVideoX 1.5": Case(lambda: cogvideox(2), VIDEO, (2, 2, 3), prefix=6, batch=2),
    "Wan": Case(wan, VIDEO | {"frames": 5}, (2, 2, 3), calls=2),
    "Wan 2.2": Case(
        wan_of_two_transformers,
        VIDEO | {"frames": 5},
        (2, 2, 3),
        layers=4,
        calls=2,
        steps=(range(2), range(2, 4)),
    ),
    "Wan VACE": Case(wan_vace, VIDEO | {"frames": 5}, (2, 2, 3), layers=3, calls=2),
    "HunyuanVideo": Case(hunyuan, VIDEO, (3, 2, 3), suffix=256, layers=3),
    "HunyuanVideo 1.5": Case(hunyuan_15, VIDEO, (3, 2, 3), suffix=1000, calls=2),
    "LTX": Case(ltx, {"frames": 9, "height": 64, "width": 96}, (2, 2, 3), batch=2),
    "Mochi": Case(mochi, VIDEO | {"frames": 7}, (2, 2, 3), suffix=16, items=2),
    "Flux": Case(flux, IMAGE, (1, 8, 12), prefix=256, layers=3),
    "Flux 2": Case(flux_2, IMAGE, (1, 8, 12), prefix=512, layers=3),
    "Stable Diffusion 3": Case(stable_diffusion_3, IMAGE, (1, 8, 12), suffix=333, batch=2),
    "CogView 4": Case(cogview_4, IMAGE, (1, 8, 12), prefix=1024, calls=2),
    "Qwen-Image": Case(qwen_image, IMAGE, (1, 2, 3), prefix=512),
    "DiT": Case(dit, {}, (1, 4, 4), batch=2),
    "PixArt alpha": Case(lambda: pixart(diffusers.PixArtAlphaPipeline), IMAGE, (1, 8, 12), batch=2),
    "PixArt sigma": Case(lambda: pixart(diffusers.PixArtSigmaPipeline), IMAGE, (1, 8, 12), batch=2),
}


def write(build: Callable[[], Any], folder: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        build().save_pretrained(folder)
    return folder
