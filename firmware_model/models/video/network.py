"""The video transformer's blocks as a program: observed in float, computed in integers."""

from collections.abc import Sequence

import torch

from firmware_model.calibration.plan import ModelPlan
from firmware_model.models.device_program import Item
from firmware_model.models.network import IntegerNetwork, run_float, values_of
from firmware_model.models.network_formats import Ranges, choose_formats
from firmware_model.models.replacement import check_plan
from firmware_model.models.video.pipeline import StepBlocks, VideoPipeline
from firmware_model.models.video.program import INPUT, video_parameters, video_steps
from firmware_model.models.video.transformer import Blocks, VideoTransformer
from firmware_model.progress import Steps
from paro.config.errors import ParoError

__all__ = [
    "OBSERVED_EVERY",
    "check_whole_plan",
    "integer_blocks",
    "observe",
    "plan_network",
    "video_items",
]

#: Denoising steps from one that is observed to the next; the last is one too.
OBSERVED_EVERY = 4


def observe(pipeline: VideoPipeline, samples: Sequence[int], steps: Steps | None = None) -> Ranges:
    """Run the blocks in float and note what each of their tensors held.

    Parameters
    ----------
    pipeline : VideoPipeline
        The model.
    samples : sequence of int
        Videos to generate.
    steps : Steps, optional
        Advanced by the videos.
    """
    ranges, model = Ranges(), pipeline.model
    program_steps = video_steps(model.shape)

    def blocks(step: int) -> Blocks | None:
        if step % OBSERVED_EVERY and step != pipeline.shape.steps - 1:
            return None

        def run(tokens: torch.Tensor, modulation: torch.Tensor) -> torch.Tensor:
            items = []
            for item, condition in zip(tokens, modulation, strict=True):
                parameters = video_parameters(model, condition)
                tensors = run_float(program_steps, {INPUT: item}, parameters, ranges)
                items.append(tensors[program_steps[-1].result])
            return torch.stack(items)

        return run

    for sample in samples:
        pipeline.generate(sample, blocks=blocks)
        if steps is not None:
            steps.advance()
    return ranges


def check_whole_plan(pipeline: VideoPipeline, plan: ModelPlan) -> None:
    """Raise ParoError if a plan is not one of this model, with every linear layer."""
    check_plan(pipeline, plan)
    missing = [name for name in pipeline.linears if name not in {own.name for own in plan.linear}]
    if missing:
        raise ParoError(f"the plan lacks layer {missing[0]}; legal: one with every linear layer")


def plan_network(pipeline: VideoPipeline, plan: ModelPlan, ranges: Ranges) -> IntegerNetwork:
    """Make the integer network of a plan.

    Parameters
    ----------
    pipeline : VideoPipeline
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
    steps = video_steps(pipeline.model.shape)
    program, layers = choose_formats(
        (INPUT,),
        (steps[-1].result,),
        steps,
        ranges,
        {own.name: own for own in plan.linear},
        {name: layer.bias for name, layer in pipeline.linears.items()},
        pipeline.shape.head_dim**-0.5,
    )
    return IntegerNetwork(
        program=program, layers=layers, attention=plan, tokens=pipeline.shape.layout
    )


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


def integer_blocks(pipeline: VideoPipeline, network: IntegerNetwork) -> StepBlocks:
    """Blocks of every step in integers, each half of the guidance a run of its own."""
    program = network.program
    (output,) = program.outputs

    def blocks(step: int) -> Blocks:
        def run(tokens: torch.Tensor, modulation: torch.Tensor) -> torch.Tensor:
            results = []
            for item in video_items(pipeline.model, tokens, modulation):
                found = network.run(item.inputs, item.parameters, step / pipeline.shape.steps)
                results.append(values_of(found[output], program.formats[output]))
            return torch.stack(results)

        return run

    return blocks
