"""`paro capture`: the inputs of a running model's attention and linear layers, as files."""

from typing import Annotated

import typer

from paro.cli.console import progress_bar, stdout
from paro.cli.options import (
    DeviceOption,
    DtypeOption,
    FramesOption,
    HeightOption,
    ModelArgument,
    OutputDirectory,
    PromptOption,
    StepsOption,
    VariantOption,
    WidthOption,
    parse_numbers,
)
from paro.config import ParoError


def capture(
    model: ModelArgument,
    output: OutputDirectory,
    samples: Annotated[
        int, typer.Option("--samples", metavar="N", help="runs: videos 0 .. N - 1")
    ] = 1,
    at: Annotated[
        str,
        typer.Option(
            "--at", metavar="LIST", help="when, as shares of the denoising steps, below 1"
        ),
    ] = "0,0.25,0.5,0.75",
    what: Annotated[
        str, typer.Option("--what", metavar="WHAT", help="attention, linear (layers) or both")
    ] = "attention",
    layer_tokens: Annotated[
        int,
        typer.Option(
            "--layer-tokens", metavar="N", help="tokens kept of a linear layer, evenly spread"
        ),
    ] = 1024,
    steps: StepsOption = None,
    prompt: PromptOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    frames: FramesOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    variant: VariantOption = None,
) -> None:
    """Run a model and write Q, K and V of its attention, after rotation, or its layers' inputs.

    Writes one capture for each layer, time and sample. All carry the model's identity, so that a
    plan that is calibrated on some of them fits the others. Linear layers are those within the
    transformer blocks that are applied to tokens; a capture has the layer's weights, too. MODEL is
    moving-digits (the video transformer that comes with the project), a checkpoint of it, or a
    folder that a diffusers pipeline was saved to (CogVideoX, Wan, HunyuanVideo, LTX, Mochi, Flux,
    Stable Diffusion 3, CogView 4, Qwen-Image, DiT, PixArt).

    [bold]Examples[/bold]

      paro capture moving-digits -o captures

      paro capture moving-digits -o captures --samples 2 --at 0,0.3,0.6,0.9 --steps 10

      paro capture moving-digits -o captures --what both

      paro capture CogVideoX-2b/ -o captures --prompt "a panda" --frames 9 --at 0.1,0.5

      paro capture Wan2.2-T2V-A14B/ -o captures --prompt "a panda" --device cuda --dtype bfloat16
    """
    from firmware_model.choices import CAPTURED, check_choice
    from firmware_model.models.names import check_model

    check_choice("what", what, CAPTURED)
    times = parse_numbers("at", at)
    check_model(model)

    from firmware_model.capture import Capture, save_capture
    from firmware_model.layer import Layer, save_layer
    from firmware_model.models.models import capture_model, open_model

    pipeline = open_model(model, steps, prompt, height, width, frames, device, dtype, variant)
    if output.is_dir() and any(output.glob("*.safetensors")):
        raise ParoError(f"folder {output} holds captures already; legal: an empty or a new one")
    attention, layers = 0, list[str]()

    def keep(found: Capture | Layer) -> None:
        nonlocal attention
        if isinstance(found, Layer):
            save_layer(found)
            layers.append(found.name)
        else:
            save_capture(found)
            attention += 1

    with progress_bar("capture") as progress:
        capture_model(pipeline, output, samples, times, keep, progress, what, layer_tokens)
    shape = pipeline.shape
    if attention:
        stdout.print(
            f"written: {attention} captures in {output} ({shape.layers} layers, {shape.heads} "
            f"heads of {shape.head_dim}, {shape.tokens} tokens)",
            highlight=False,
        )
    if layers:
        stdout.print(
            f"written: {len(layers)} captures of {len(set(layers))} linear layers in {output}",
            highlight=False,
        )
