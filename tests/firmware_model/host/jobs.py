"""A small head to compute."""

import dataclasses
from pathlib import Path

import torch

from firmware_model.capture import Capture
from firmware_model.host.jobs import HeadJob
from firmware_model.reference.jobs import head_job
from firmware_model.reference.quantize import quantize_head
from paro.config import Config


def make_job(config: Config, order: int, seed: int, **changes) -> HeadJob:
    generator = torch.Generator().manual_seed(seed)
    grid, prefix, suffix = (3, 4, 7), 5, 2
    tokens = 84 + prefix + suffix
    q, k, v = torch.randn(3, 1, tokens, config.head_dim, generator=generator).unbind()
    capture = Capture(Path("random"), q, k, v, grid, prefix, 0.2, "", "", "", suffix)
    blocks = config.blocks_of(tokens)
    codes = torch.randint(0, 4, (blocks, blocks), generator=generator).to(torch.uint8)
    codes[:, 0] |= 1
    head = quantize_head(capture, 0, order, config)
    return dataclasses.replace(head_job(capture, head, codes), **changes)
