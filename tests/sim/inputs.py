"""Configurations that simulations share, and heads that they compute."""

import dataclasses
import random
from dataclasses import dataclass

from firmware_model.host.jobs import HeadJob
from firmware_model.reference.jobs import head_job
from firmware_model.reference.quantize import quantize_head
from paro.config import Config
from sim.verify.heads import random_capture, random_codes

TINY = Config(rows=4, cols=4, block=16, head_dim=32, axi_bits=64)
#: An operand's beat is wider than the memory port.
NARROW_PORT = Config(rows=16, cols=16, block=64, head_dim=64, axi_bits=64)
LARGE = (
    Config(rows=8, cols=8, block=16, head_dim=32, axi_bits=64),
    Config(rows=16, cols=16, block=64, head_dim=64, axi_bits=512),
    Config(rows=16, cols=16, block=16, head_dim=32, axi_bits=256),
    Config(rows=4, cols=16, block=32, head_dim=128, axi_bits=512),
    Config(rows=4, cols=4, block=16, head_dim=256, axi_bits=128),
)


@dataclass(frozen=True)
class Shape:
    """A head of some tokens. Frames and text are counted in sixteenths of a block."""

    grid: tuple[int, int, int]
    text: tuple[int, int] = (0, 0)
    rows: range | None = None
    mean_bits: float = 3.0

    def job(self, config: Config, order: int, seed: int) -> HeadJob:
        unit = config.block // 16
        grid = (unit * self.grid[0], *self.grid[1:])
        prefix, suffix = (unit * tokens for tokens in self.text)
        tokens = prefix + grid[0] * grid[1] * grid[2] + suffix
        capture = dataclasses.replace(
            random_capture(tokens, config.head_dim, seed, heads=1),
            grid=grid,
            prefix_tokens=prefix,
            suffix_tokens=suffix,
        )
        codes = random_codes(config.blocks_of(tokens), self.mean_bits, seed)
        head = quantize_head(capture, 0, order, config)
        return head_job(capture, head, codes, self.rows)


def make_jobs(config: Config, shapes: tuple[Shape, ...], seed: int) -> list[HeadJob]:
    """Heads of these shapes; their orders begin with another one for each seed."""
    return [
        shape.job(config, (seed + index) % 6, seed % 1000 + index)
        for index, shape in enumerate(shapes)
    ]


def short_jobs(config: Config, heads: int, generator: random.Random) -> list[HeadJob]:
    """Heads of one token, of one block or of a few, with some text and any grid, some in part."""
    jobs = []
    for _ in range(heads):
        tokens = generator.choice(
            (1, config.block, generator.randrange(1, config.block), generator.randrange(1, 50))
        )
        prefix = generator.randrange(min(tokens, 6))
        suffix = generator.randrange(min(tokens - prefix, 6))
        grid, rest = [], tokens - prefix - suffix
        for _ in range(2):
            grid.append(generator.choice([n for n in range(1, rest + 1) if rest % n == 0]))
            rest //= grid[-1]
        capture = dataclasses.replace(
            random_capture(tokens, config.head_dim, generator.randrange(1000), heads=1),
            grid=(*grid, rest),
            prefix_tokens=prefix,
            suffix_tokens=suffix,
        )
        blocks = config.blocks_of(tokens)
        codes = random_codes(
            blocks, generator.choice((2.0, 3.0, 4.8, 8.0)), generator.randrange(1000)
        )
        first = generator.randrange(blocks)
        rows = range(first, generator.randrange(first, blocks) + 1)
        head = quantize_head(capture, 0, generator.randrange(6), config)
        jobs.append(head_job(capture, head, codes, rows))
    return jobs
