"""Opening a generating model, the project's own or a folder of diffusers', and capturing it."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from firmware_model.capture import Capture
from firmware_model.choices import CAPTURED, check_choice
from firmware_model.layer import Layer
from firmware_model.models.block_network import BlockPipeline
from firmware_model.models.diffusers_adapter import load_diffusers
from firmware_model.models.names import OWN_CHECKPOINT, OWN_MODEL
from firmware_model.models.pipeline import (
    AttentionCall,
    LinearCall,
    Pipeline,
    float_attention,
    float_linear,
)
from firmware_model.models.replacement import call_capture, call_layer
from firmware_model.models.video.pipeline import STEPS, VideoPipeline
from firmware_model.progress import Progress, Steps
from paro.config.config import HEAD_DIMS
from paro.config.errors import ParoError

#: Tokens that are kept of a linear layer at a time, unless the user says otherwise.
LAYER_TOKENS = 1024
#: Types of number that a model may compute in.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def open_model(
    path: Path,
    steps: int | None = None,
    prompt: str | None = None,
    height: int | None = None,
    width: int | None = None,
    frames: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    variant: str | None = None,
) -> BlockPipeline:
    """Open a model.

    Parameters
    ----------
    path : Path
        `OWN_MODEL`, a checkpoint of `firmware_model.models.video`, or the folder of a diffusers
        pipeline.
    steps : int, optional
        Denoising steps; 25 by default.
    prompt : str, optional
        Text of a diffusers pipeline.
    height, width, frames : int, optional
        Size of a diffusers pipeline's output, in pixels; its own default otherwise.
    device : str, optional
        Where torch computes the model, as torch names it; "cpu" by default.
    dtype : str, optional
        Type of its numbers, of `DTYPES`; float32 by default.
    variant : str, optional
        Which weights of a diffusers pipeline, such as fp16; the plain or only ones by default.

    Raises
    ------
    ParoError
        If it cannot be opened, diffusers is missing, an option is given that the model has not, the
        device is not there, or the heads are larger than the hardware's.
    """
    numbers = _numbers(dtype)
    device = _device(device)
    steps = STEPS if steps is None else steps
    if (path / "model_index.json").is_file():
        pipeline: BlockPipeline = load_diffusers(
            path,
            prompt=prompt,
            height=height,
            width=width,
            frames=frames,
            steps=steps,
            device=device,
            dtype=numbers,
            variant=variant,
        )
    else:
        given = {"prompt": prompt, "height": height, "width": width, "frames": frames}
        for name, value in (given | {"variant": variant}).items():
            if value is not None:
                raise ParoError(f"{name} = {value!r} is not legal: model {path} has no such choice")
        own = str(path) == OWN_MODEL and not path.exists()
        pipeline = VideoPipeline(OWN_CHECKPOINT if own else path, steps, device, numbers)
    if pipeline.shape.head_dim > HEAD_DIMS[-1]:
        raise ParoError(
            f"model {path} has heads of {pipeline.shape.head_dim} channels; legal: 1 to "
            f"{HEAD_DIMS[-1]}"
        )
    return pipeline


def _numbers(dtype: str | None) -> torch.dtype:
    if dtype is not None and dtype not in DTYPES:
        raise ParoError(f"dtype = {dtype!r} is not legal; legal: {', '.join(DTYPES)}")
    return DTYPES[dtype or "float32"]


def _device(name: str | None) -> str:
    if name is None:
        return "cpu"
    try:
        torch.zeros(1, device=name).item()
    # A device that torch or the machine lacks makes it raise errors of several classes.
    except Exception as error:
        kind = torch.accelerator.current_accelerator()
        legal = "cpu" if kind is None else f"cpu, {kind.type}"
        raise ParoError(f"device = {name!r} is not there; legal: {legal}") from error
    return name


def capture_model(
    pipeline: Pipeline,
    folder: Path,
    samples: int,
    at: tuple[float, ...],
    keep: Callable[[Capture | Layer], object],
    progress: Progress | None = None,
    what: str = "attention",
    layer_tokens: int = LAYER_TOKENS,
) -> None:
    """Run a model and keep the inputs of its attention, of its linear layers, or of both.

    Of a batch (the halves of guidance) the last item is kept, of several runs of the model in one
    step the first.

    Parameters
    ----------
    pipeline : Pipeline
        The model.
    folder : Path
        Where the captures' paths lie.
    samples : int
        Runs, of samples 0, 1, ...
    at : tuple of float
        When to capture, as shares of the steps, 0 <= share < 1: the first step that begins there
        or later.
    keep : callable
        Called with each capture, one for each sample, time and layer.
    progress : Progress, optional
        Called after each denoising step.
    what : str
        One of `choices.CAPTURED`.
    layer_tokens : int
        Tokens that are kept of a linear layer at most, evenly spread over all.

    Raises
    ------
    ParoError
        If ``samples``, ``at``, ``what`` or ``layer_tokens`` is not legal.
    """
    check_choice("what", what, CAPTURED)
    for name, count in (("samples", samples), ("layer_tokens", layer_tokens)):
        if count < 1:
            raise ParoError(f"{name} = {count} is not legal; legal: 1 or more")
    wanted = _steps_wanted(at, pipeline.shape.steps)
    shape = pipeline.shape
    steps = Steps(progress, samples * shape.steps)
    kept: set[Path] = set()

    def take(capture: Capture | Layer) -> None:
        path = folder / f"sample_{sample:02}_{capture.path.name}.safetensors"
        if path not in kept:
            kept.add(path)
            copies = {
                name: getattr(capture, name).clone()
                for name in ("q", "k", "v", "x")
                if hasattr(capture, name)
            }
            keep(replace(capture, path=path, **copies))

    def attend(call: AttentionCall) -> torch.Tensor:
        if call.last and call.step in wanted:
            take(call_capture(call, len(call.q) - 1, shape.layout, shape.steps, pipeline.identity))
        return float_attention(call)

    def multiply(call: LinearCall) -> torch.Tensor:
        if call.step in wanted:
            take(call_layer(call, layer_tokens, pipeline.identity))
        return float_linear(call)

    attention = None if what == "linear" else attend
    linear = None if what == "attention" else multiply
    for sample in range(samples):
        pipeline.generate(sample, attention, lambda _done, _total: steps.advance(), linear)


def _steps_wanted(at: tuple[float, ...], steps: int) -> set[int]:
    """Steps at which to capture; `ParoError` if the shares of the steps are not legal."""
    if not at or not all(0 <= share < 1 for share in at):
        raise ParoError(
            f"at = {','.join(map(str, at))} is not legal; legal: shares of the steps, 0 or more, "
            "below 1"
        )
    wanted = {math.ceil(share * steps - 1e-9) for share in at}
    if len(wanted) < len(at) or max(wanted) >= steps:
        raise ParoError(
            f"at = {','.join(map(str, at))} is not legal with {steps} steps; legal: shares "
            "at or after which a step begins, no two of them the same step"
        )
    return wanted
