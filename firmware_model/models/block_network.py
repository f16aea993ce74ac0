"""A model's blocks as a network: observed in float, calibrated, computed in integers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from firmware_model.calibration.plan import ModelPlan
from firmware_model.models.device_program import Item
from firmware_model.models.network import IntegerNetwork, run_float, values_of
from firmware_model.models.network_formats import Ranges, choose_formats
from firmware_model.models.pipeline import Attention, Linear, Pipeline
from firmware_model.models.replacement import check_plan
from firmware_model.program import Linear as LinearStep
from firmware_model.program import Step
from firmware_model.progress import Progress, Steps
from paro.config.errors import ParoError

__all__ = [
    "OBSERVED_EVERY",
    "BlockPipeline",
    "BlockProgram",
    "Compute",
    "StepBlocks",
    "check_whole_plan",
    "integer_blocks",
    "observe",
    "plan_network",
]

#: Denoising steps from one that is observed to the next; the last is one too.
OBSERVED_EVERY = 4


@dataclass(frozen=True, kw_only=True)
class BlockProgram:
    """The blocks of a model as steps.

    Parameters
    ----------
    source : str
        Tensor that the steps begin with: tokens.
    steps : tuple of Step
        Of all blocks, in their order.
    blocks : tuple of str
        Tokens that each block makes; those of the last one are the output.
    scale : float
        Factor of the logits before softmax.
    host : tuple of str
        What stays on the host, in words.
    text : str
        Tensor of a text that the steps read too, in cross attention; empty where there is none.
    text_tokens : int
        Its tokens at most.
    """

    source: str
    steps: tuple[Step, ...]
    blocks: tuple[str, ...]
    scale: float
    host: tuple[str, ...]
    text: str = ""
    text_tokens: int = 0

    @property
    def inputs(self) -> tuple[str, ...]:
        """Tensors that the host gives."""
        return (self.source, self.text) if self.text else (self.source,)

    @property
    def output(self) -> str:
        """Tensor that the last block makes."""
        return self.blocks[-1]

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the linear layers."""
        return tuple(step.layer for step in self.steps if isinstance(step, LinearStep))


#: Computes all blocks of some runs: the output's values of each, [tokens, channels].
Compute = Callable[[Sequence[Item]], Sequence[torch.Tensor]]
#: What takes the place of the model's blocks at a denoising step, if anything.
StepBlocks = Callable[[int], Compute | None]


class BlockPipeline(Pipeline, Protocol):
    """A model whose blocks may be a program."""

    def block_program(self) -> BlockProgram:
        """Make the program of the blocks; `ParoError` if there is no rule for them."""
        ...

    def generate(
        self,
        sample: int,
        attention: Attention | None = None,
        progress: Progress | None = None,
        linear: Linear | None = None,
        blocks: StepBlocks | None = None,
    ) -> torch.Tensor:
        """As `Pipeline.generate`; ``blocks`` may take the place of all blocks in a step."""
        ...


def observe(pipeline: BlockPipeline, samples: Sequence[int], steps: Steps | None = None) -> Ranges:
    """Run the blocks in float and note what each of their tensors held.

    Parameters
    ----------
    pipeline : BlockPipeline
        The model.
    samples : sequence of int
        Videos to generate.
    steps : Steps, optional
        Advanced by the videos.
    """
    ranges, program = Ranges(), pipeline.block_program()

    def run(items: Sequence[Item]) -> list[torch.Tensor]:
        made = [run_float(program.steps, own.inputs, own.parameters, ranges) for own in items]
        return [tensors[program.output] for tensors in made]

    def blocks(step: int) -> Compute | None:
        return None if step % OBSERVED_EVERY and step != pipeline.shape.steps - 1 else run

    for sample in samples:
        pipeline.generate(sample, blocks=blocks)
        if steps is not None:
            steps.advance()
    return ranges


def check_whole_plan(pipeline: BlockPipeline, plan: ModelPlan) -> None:
    """Raise ParoError if a plan is not one of this model, with every linear layer."""
    check_plan(pipeline, plan)
    planned = {own.name for own in plan.linear}
    missing = [name for name in pipeline.block_program().layers if name not in planned]
    if missing:
        raise ParoError(f"the plan lacks layer {missing[0]}; legal: one with every linear layer")


def plan_network(pipeline: BlockPipeline, plan: ModelPlan, ranges: Ranges) -> IntegerNetwork:
    """Make the integer network of a plan.

    Parameters
    ----------
    pipeline : BlockPipeline
        The model.
    plan : ModelPlan
        Attention and all linear layers of its blocks; without transforms and rotations.
    ranges : Ranges
        What `observe` noted.

    Raises
    ------
    ParoError
        If the plan is not one of this model, whole, or as `IntegerNetwork`.
    """
    check_whole_plan(pipeline, plan)
    blocks = pipeline.block_program()
    program, layers = choose_formats(
        blocks.inputs,
        (blocks.output,),
        blocks.steps,
        ranges,
        {own.name: own for own in plan.linear},
        {name: pipeline.linears[name].bias for name in blocks.layers},
        blocks.scale,
    )
    return IntegerNetwork(
        program=program,
        layers=layers,
        attention=plan,
        tokens=pipeline.shape.layout,
        text=blocks.text,
    )


def integer_blocks(pipeline: BlockPipeline, network: IntegerNetwork) -> StepBlocks:
    """Blocks of every step in integers, each item of a batch a run of its own."""
    program = network.program
    (output,) = program.outputs

    def blocks(step: int) -> Compute:
        share = step / pipeline.shape.steps

        def run(items: Sequence[Item]) -> list[torch.Tensor]:
            runs = (network.run(own.inputs, own.parameters, share) for own in items)
            return [values_of(found[output], program.formats[output]) for found in runs]

        return run

    return blocks
