"""Training of the video transformer: `python -m firmware_model.models.video.train --help`."""

import argparse
import copy
import time
from pathlib import Path

import torch
from rich.progress import track
from torch.nn.functional import mse_loss

from firmware_model.models.video.checkpoint import save_model
from firmware_model.models.video.dataset import MovingDigits
from firmware_model.models.video.transformer import NO_CLASS, Shape, VideoTransformer

#: Peak of the learning rate; it rises over the first steps and falls to 0 along a cosine.
LEARNING_RATE = 2e-3
WARM_UP = 200
#: Share of the videos whose class is hidden, for guidance.
CLASS_HIDDEN = 0.1
#: The weights kept are a running mean over about the last twentieth of the steps.
AVERAGED_SHARE = 1 / 20


def train(shape: Shape, steps: int, batch: int, seed: int) -> tuple[VideoTransformer, list[float]]:
    """Train on moving digits by flow matching.

    A video is mixed with noise, (1 - t) video + t noise; the model learns the velocity noise -
    video. Levels t are drawn from a logistic-normal distribution.

    Returns
    -------
    model : VideoTransformer
        With averaged weights.
    losses : list of float
        Mean squared error of every step.
    """
    torch.manual_seed(seed)
    data = MovingDigits(seed)
    model = VideoTransformer(shape)
    averaged = copy.deepcopy(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, total_steps=steps, pct_start=min(WARM_UP / steps, 0.3)
    )
    losses: list[float] = []
    start = time.monotonic()
    for step in track(range(steps), "train"):
        videos, classes = data.batch(batch)
        classes[torch.rand(batch) < CLASS_HIDDEN] = NO_CLASS
        noise, level = torch.randn_like(videos), torch.sigmoid(torch.randn(batch))
        mix = level.view(-1, 1, 1, 1)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = model((1 - mix) * videos + mix * noise, level, classes)
        loss = mse_loss(predicted.float(), noise - videos)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        decay = min(1 - 1 / (steps * AVERAGED_SHARE), (step + 1) / (step + 10))
        with torch.no_grad():
            for mean, now in zip(averaged.parameters(), model.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)
        losses.append(loss.item())
        if (step + 1) % 100 == 0:
            recent = sum(losses[-100:]) / 100
            print(
                f"step {step + 1}: loss {recent:.4f}, {time.monotonic() - start:.0f} s", flush=True
            )
    return averaged, losses


def main() -> None:
    """Train and write the checkpoint."""
    parser = argparse.ArgumentParser(description="Train the video transformer on moving digits.")
    parser.add_argument("-o", "--output", type=Path, required=True, help="checkpoint to write")
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    model, _ = train(Shape(), arguments.steps, arguments.batch, arguments.seed)
    save_model(model, arguments.output)


if __name__ == "__main__":
    main()
