"""The small piece of attention that a self test computes, and what must come out."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from amaranth.lib import crc

from firmware_model import DEMO_CAPTURE
from firmware_model.capture import Capture, load_capture
from firmware_model.host.image import HeadJob
from firmware_model.reference.integer import integer_attention
from firmware_model.reference.jobs import head_operands
from firmware_model.reference.quantize import QuantizedHead, quantize_head
from paro.config import Config
from paro.config.formats import OUT_BITS, Operand
from sim.cosim.core_stimulus import make_stimulus

__all__ = ["SIGNATURE", "Tile", "make_tile", "signature_parameters"]

#: Block codes of the one block row: every width, a skipped block, a partial last block.
CODES = (3, 2, 0, 1, 3)
#: CRC of the output stream that stands for all of it.
SIGNATURE = crc.catalog.CRC32_ISO_HDLC


@dataclass(frozen=True)
class Tile:
    """One block row of one head, ready for block RAM.

    Parameters
    ----------
    beats : dict of str to list of int
        Payloads of each input stream of the core, in order.
    blocks : dict of Operand to list of (int, int)
        For each operand and block: its first beat and how many it has.
    output_beats : int
        Beats that the core answers with.
    signature : int
        CRC of their payloads, by the integer model.
    """

    beats: dict[str, list[int]]
    blocks: dict[Operand, list[tuple[int, int]]]
    output_beats: int
    signature: int


def signature_parameters(config: Config) -> crc.Parameters:
    """CRC over whole beats of the core's output."""
    return SIGNATURE(data_width=OUT_BITS * config.output_words)


def make_tile(config: Config) -> Tile:
    """Cut a tile out of the capture that ships with the project.

    Its heads have 32 channels; for larger ones several are put side by side.
    """
    blocks = len(CODES)
    tokens = config.block * (blocks - 1) + config.block // 2 - 3
    head = _first_tokens(quantize_head(_widened(config.head_dim), 0, 0, config), tokens)
    codes = torch.full((blocks, blocks), CODES[0], dtype=torch.uint8)
    codes[0] = torch.tensor(CODES, dtype=torch.uint8)
    # The core takes no notice of the grid.
    grid = (1, 1, tokens)
    job = HeadJob(head_operands(head), codes.numpy(), grid, 0, query_blocks=range(1))
    stimulus = make_stimulus(config, [job])
    beats = {
        name: [int.from_bytes(row.tobytes(), "little") for row in rows]
        for name, rows in stimulus.beats.items()
    }
    (command,) = stimulus.commands
    words = integer_attention(head, codes, config, range(1)).numpy().astype("<i2")
    output = words.reshape(-1, config.output_words)
    return Tile(
        beats=beats,
        blocks={operand: command.fetch[operand.name] for operand in Operand},
        output_beats=command.output_beats,
        signature=signature_parameters(config).compute(
            int.from_bytes(np.ascontiguousarray(row).tobytes(), "little") for row in output
        ),
    )


def _widened(head_dim: int) -> Capture:
    """One head of ``head_dim`` channels out of as many heads of the capture as that takes."""
    capture = load_capture(DEMO_CAPTURE)
    heads = head_dim // capture.head_dim

    def beside(values: torch.Tensor) -> torch.Tensor:
        return torch.cat(list(values[:heads]), dim=1).unsqueeze(0)

    return replace(
        capture,
        q=beside(capture.q),
        k=beside(capture.k),
        v=beside(capture.v),
        scale=capture.scale / heads**0.5,
    )


def _first_tokens(head: QuantizedHead, tokens: int) -> QuantizedHead:
    fields = ("q8", "k8", "v8", "mq", "mk", "permutation")
    return replace(head, **{name: getattr(head, name)[:tokens] for name in fields})
