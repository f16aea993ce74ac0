"""Generating moving digits: the video transformer as a `Pipeline` of `firmware_model.models`."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch

from firmware_model.models.block_network import BlockProgram, Compute, StepBlocks
from firmware_model.models.pipeline import (
    Attention,
    AttentionCall,
    Linear,
    ModelShape,
    block_linears,
    replaced_linears,
)
from firmware_model.models.video.checkpoint import load_model
from firmware_model.models.video.dataset import CLASSES, FRAMES, HEIGHT, WIDTH
from firmware_model.models.video.program import (
    HOST,
    INPUT,
    block_outputs,
    video_items,
    video_steps,
)
from firmware_model.models.video.transformer import (
    GRID,
    NO_CLASS,
    LayerAttention,
    plain_attention,
)
from firmware_model.progress import Progress, Steps
from paro.config.errors import ParoError

#: Denoising steps unless the user says otherwise.
STEPS = 25
#: How much further than the classless prediction the one for the class is followed.
GUIDANCE = 1.5


class VideoPipeline:
    """The trained video transformer with its sampler.

    The sampler follows the velocity from noise to video in equal Euler steps; both halves of
    the guidance (with class and without) run as one batch.

    Parameters
    ----------
    path : Path
        Checkpoint.
    steps : int
        Denoising steps.
    device : str
        Where torch computes.
    dtype : torch.dtype
        Type of the network's numbers; the sampler takes its steps in float32.

    Attributes
    ----------
    model : VideoTransformer
        The network.

    Raises
    ------
    ParoError
        If the checkpoint is not legal or ``steps`` is below 1.
    """

    def __init__(
        self,
        path: Path,
        steps: int = STEPS,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if steps < 1:
            raise ParoError(f"steps = {steps} is not legal; legal: 1 or more")
        model, self.identity = load_model(path)
        self.model = model.to(device, dtype)
        self.linears: Mapping[str, torch.nn.Linear] = block_linears(self.model.blocks, "blocks")
        shape = model.shape
        self.shape = ModelShape(
            layers=shape.layers,
            heads=shape.heads,
            head_dim=shape.head_dim,
            grid=GRID,
            steps=steps,
        )

    def block_program(self) -> BlockProgram:
        """Make the program of the blocks, as `BlockPipeline.block_program`."""
        shape = self.model.shape
        return BlockProgram(
            source=INPUT,
            steps=video_steps(shape),
            blocks=block_outputs(shape),
            scale=shape.head_dim**-0.5,
            host=HOST,
        )

    @torch.no_grad()
    def generate(
        self,
        sample: int,
        attention: Attention | None = None,
        progress: Progress | None = None,
        linear: Linear | None = None,
        blocks: StepBlocks | None = None,
    ) -> torch.Tensor:
        """Generate a video of the digit ``sample`` modulo 10; as `BlockPipeline.generate`."""
        # On the CPU, so that a sample starts from the same noise on every device.
        random = torch.Generator().manual_seed(sample)
        video = torch.randn(1, FRAMES, HEIGHT, WIDTH, generator=random)
        classes = torch.tensor([NO_CLASS, sample % CLASSES])
        levels = torch.linspace(1, 0, self.shape.steps + 1)
        steps = Steps(progress, self.shape.steps)
        for step, (level, following) in enumerate(pairwise(levels)):
            with replaced_linears(self.linears, linear, lambda step=step: step):
                classless, velocity = self._velocities(
                    video,
                    level,
                    classes,
                    _hook(attention, step),
                    None if blocks is None else blocks(step),
                )
            velocity = classless + GUIDANCE * (velocity - classless)
            video = video + (following - level) * velocity
            steps.advance()
        return ((video[0] + 1) / 2).clamp(0, 1).unsqueeze(-1)

    def _velocities(
        self,
        video: torch.Tensor,
        level: torch.Tensor,
        classes: torch.Tensor,
        attention: LayerAttention,
        compute: Compute | None,
    ) -> torch.Tensor:
        """Both halves of the guidance, float32 on the CPU."""
        weights = self.model.positions
        halves = video.expand(2, -1, -1, -1).to(weights)
        levels, classes = level.expand(2).to(weights.device), classes.to(weights.device)

        def blocks(tokens: torch.Tensor, modulation: torch.Tensor) -> torch.Tensor:
            assert compute is not None
            return torch.stack(list(compute(video_items(self.model, tokens, modulation))))

        own = None if compute is None else blocks
        return self.model(halves, levels, classes, attention, own).float().cpu()


def _hook(attention: Attention | None, step: int):
    """Attention of the transformer at one step."""
    if attention is None:
        return plain_attention

    def replaced(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return attention(AttentionCall(layer, step, q, k, v, q.shape[-1] ** -0.5))

    return replaced
