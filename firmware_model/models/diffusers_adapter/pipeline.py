"""A diffusers pipeline as a `firmware_model.models.pipeline.Pipeline`."""

import functools
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from firmware_model.models.diffusers_adapter.families import (
    Family,
    attention_layers,
    linear_layers,
    random_text,
)
from firmware_model.models.diffusers_adapter.replacement import Replacement, StepCounter
from firmware_model.models.pipeline import Attention, Linear, ModelShape, replaced_linears
from firmware_model.progress import Progress


class DiffusersPipeline:
    """A diffusers pipeline in memory; made by `load_diffusers`.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        Pipeline that generates.
    family : Family
        Properties of its class.
    identity : str
        Digest of the weights of its transformers.
    shape : ModelShape
        Its attention.
    size : (int, int, int)
        Frames, height, width of a video, in pixels.
    text : dict, optional
        Arguments of ``pipe`` that hold the prompt; random numbers by default.
    """

    def __init__(
        self,
        pipe: Any,
        family: Family,
        *,
        identity: str,
        shape: ModelShape,
        size: tuple[int, int, int],
        text: dict[str, torch.Tensor] | None,
    ) -> None:
        self.identity = identity
        self.shape = shape
        self.linears: Mapping[str, torch.nn.Linear] = linear_layers(pipe, family)
        self._pipe = pipe
        self._family = family
        self._size = size
        self._text = text
        self._parameters = inspect.signature(type(pipe).__call__).parameters

    def generate(
        self,
        sample: int,
        attention: Attention | None = None,
        progress: Progress | None = None,
        linear: Linear | None = None,
    ) -> torch.Tensor:
        """Generate one video or image, as `firmware_model.models.pipeline.Pipeline.generate`.

        ``sample`` seeds the noise and, where there is no text encoder, the text; DiT draws class
        ``sample`` modulo the number of classes.

        Raises
        ------
        ParoError
            If the attention or the scheduler of the pipeline is of a kind that is not supported.
        """
        pipe = self._pipe
        counter = StepCounter(self.shape.steps, type(pipe.scheduler).__name__, progress)
        arguments = self._arguments(sample)
        with ExitStack() as stack:
            # DiT hands no generator to its scheduler.
            devices = [pipe.device] if pipe.device.type == "cuda" else []
            stack.enter_context(torch.random.fork_rng(devices))
            torch.manual_seed(sample)
            stack.enter_context(_after(pipe.scheduler, "step", counter.advance))
            stack.enter_context(replaced_linears(self.linears, linear, lambda: counter.step))
            if attention is not None:
                dispatch = importlib.import_module("diffusers.models.attention_dispatch")
                stack.enter_context(dispatch.attention_backend("native"))
                replacement = Replacement(self.shape, attention, counter)
                replacement.watch(attention_layers(pipe, self._family), stack)
                stack.enter_context(replacement)
            images = pipe(**arguments)[0][0]
        counter.check(finished=True)
        images = images if self._family.is_video else images[None]
        return images.float().cpu().permute(0, 2, 3, 1).contiguous()

    def _arguments(self, sample: int) -> dict[str, Any]:
        # On the CPU, so that a sample starts from the same noise on every device.
        generator = torch.Generator().manual_seed(sample)
        frames, height, width = self._size
        sizes = {"num_frames": frames, "height": height, "width": width}
        arguments: dict[str, Any] = dict(self._family.arguments)
        arguments |= {name: value for name, value in sizes.items() if name in self._parameters}
        if not self._family.text_inputs:
            classes = self._pipe.transformer.config.num_embeds_ada_norm
            arguments["class_labels"] = [sample % classes]
        elif self._text is None:
            arguments |= random_text(self._pipe, self._family, generator)
        else:
            arguments |= self._text
        return arguments | {
            "generator": generator,
            "num_inference_steps": self.shape.steps,
            "output_type": "pt",
            "return_dict": False,
        }


@contextmanager
def _after(owner: Any, name: str, then: Callable[[], None]) -> Iterator[None]:
    """For a while, call ``then`` after each call of a method."""
    method = getattr(owner, name)

    @functools.wraps(method)  # pipelines look at the signature
    def with_more(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        then()
        return result

    setattr(owner, name, with_more)
    try:
        yield
    finally:
        delattr(owner, name)
