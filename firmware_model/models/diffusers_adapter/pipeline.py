"""A diffusers pipeline as a `firmware_model.models.pipeline.Pipeline`."""

import functools
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from firmware_model.models.block_network import BlockProgram, StepBlocks
from firmware_model.models.device_program import Item
from firmware_model.models.diffusers_adapter.families import (
    FAMILIES,
    Family,
    attention_layers,
    layers_in_parts,
    linear_layers,
    random_text,
    transformers,
)
from firmware_model.models.diffusers_adapter.programs import (
    HOST,
    INPUT,
    Blocks,
    block_inputs,
    block_outputs,
    cross_text,
    replaced_blocks,
    transformer_parameters,
    transformer_steps,
)
from firmware_model.models.diffusers_adapter.replacement import Replacement, StepCounter
from firmware_model.models.names import OWN_MODEL
from firmware_model.models.pipeline import Attention, Linear, ModelShape, replaced_linears
from firmware_model.progress import Progress
from paro.config.errors import ParoError


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

    def block_program(self) -> BlockProgram:
        """Make the program of the blocks, as `BlockPipeline.block_program`."""
        if not self._family.has_rules:
            legal = ", ".join(name for name, family in FAMILIES.items() if family.has_rules)
            raise ParoError(
                f"no rules make a program of the blocks of {type(self._pipe).__name__}; legal: "
                f"{OWN_MODEL}, {legal}"
            )
        if len(transformers(self._pipe, self._family)) > 1:
            raise ParoError(
                f"this {type(self._pipe).__name__} has two transformers, and a program is of the "
                "blocks of one; legal: a pipeline of one transformer"
            )
        transformer = self._pipe.transformer
        text = cross_text(transformer)
        return BlockProgram(
            source=INPUT,
            steps=transformer_steps(transformer, self.shape.layout),
            blocks=tuple(block_outputs(transformer)),
            scale=self.shape.head_dim**-0.5,
            host=HOST,
            text=text,
            text_tokens=self._text_tokens() if text else 0,
        )

    def _text_tokens(self) -> int:
        """Tokens of the text, those that a mask hides among them."""
        if self._text is None:
            return self._family.text_tokens(self._pipe.transformer.config)
        names = ("prompt_embeds", "negative_prompt_embeds")
        return max(self._text[name].shape[1] for name in names if name in self._text)

    def generate(
        self,
        sample: int,
        attention: Attention | None = None,
        progress: Progress | None = None,
        linear: Linear | None = None,
        blocks: StepBlocks | None = None,
    ) -> torch.Tensor:
        """Generate one video or image, as `BlockPipeline.generate`.

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
            if linear is not None:
                stack.enter_context(self._in_parts())
            stack.enter_context(replaced_linears(self.linears, linear, lambda: counter.step))
            if blocks is not None:
                computed = self._computed(blocks, counter)
                stack.enter_context(replaced_blocks(pipe.transformer, computed))
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

    def _computed(self, blocks: StepBlocks, counter: StepCounter) -> Blocks:
        """Blocks of the step that is running, of the items of a batch."""
        transformer = self._pipe.transformer

        def compute(given: Mapping[str, Any]) -> torch.Tensor | None:
            counter.check(finished=False)
            own = blocks(counter.step)
            if own is None:
                return None
            items = [
                Item(inputs, transformer_parameters(transformer, given, item))
                for item, inputs in enumerate(block_inputs(transformer, given))
            ]
            return torch.stack(list(own(items)))

        return compute

    @contextmanager
    def _in_parts(self) -> Iterator[None]:
        """For a while, have layers that read several tensors computed as one for each."""

        def forward(parts: Mapping[str, int], x: torch.Tensor) -> torch.Tensor:
            read = x.split(list(parts.values()), dim=-1)
            made = [self.linears[name](own) for name, own in zip(parts, read, strict=True)]
            return torch.stack(made).sum(dim=0)

        with ExitStack() as stack:
            for layer, parts in layers_in_parts(self._pipe, self._family):
                vars(layer)["forward"] = functools.partial(forward, parts)
                stack.callback(vars(layer).pop, "forward")
            yield

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
