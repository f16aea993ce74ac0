"""The small piece of attention that a self test computes, and what must come out.

Both lie in `TILE_FILE`, which `fpga.tile_data` computes: building for a board needs no golden
reference.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from amaranth.lib import crc
from safetensors.numpy import load_file

from firmware_model.host.jobs import HeadJob, HeadOperands
from paro.config import Config
from paro.config.formats import OUT_BITS, Operand
from sim.cosim.core_stimulus import make_stimulus

__all__ = [
    "OPERANDS",
    "SIGNATURE",
    "TILE_FILE",
    "Tile",
    "make_tile",
    "operand_name",
    "output_name",
    "signature_parameters",
    "tile_codes",
    "tile_tokens",
]

#: Operands of the head, and outputs for all that they depend on, see `fpga.tile_data`.
TILE_FILE = Path(__file__).parent / "data" / "tile.safetensors"
#: What the core reads of a head, as `HeadOperands` names it.
OPERANDS = ("q8", "k8", "v8", "mq", "mk")
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
        CRC of their payloads, by the golden reference.
    """

    beats: dict[str, list[int]]
    blocks: dict[Operand, list[tuple[int, int]]]
    output_beats: int
    signature: int


def signature_parameters(config: Config) -> crc.Parameters:
    """CRC over whole beats of the core's output."""
    return SIGNATURE(data_width=OUT_BITS * config.output_words)


def tile_tokens(block: int) -> int:
    """Tokens of the tile: the last block is partial."""
    return block * (len(CODES) - 1) + block // 2 - 3


def tile_codes() -> np.ndarray:
    """Codes of the head, uint8 [blocks, blocks], of which the first row counts."""
    codes = np.full((len(CODES), len(CODES)), CODES[0], np.uint8)
    codes[0] = CODES
    return codes


def make_tile(config: Config) -> Tile:
    """The tile for a core, with what the golden reference makes of it."""
    tensors, tokens = load_file(TILE_FILE), tile_tokens(config.block)
    head = HeadOperands(
        **{name: tensors[operand_name(config, name)][:tokens] for name in OPERANDS},
        permutation=np.arange(tokens),
        order=0,
    )
    job = HeadJob(head, tile_codes(), (1, 1, tokens), prefix_tokens=0, query_blocks=range(1))
    stimulus = make_stimulus(config, [job])
    (described,) = stimulus.commands
    output = tensors[output_name(config)].astype("<i2").reshape(-1, config.output_words)
    return Tile(
        beats={
            name: [int.from_bytes(row.tobytes(), "little") for row in rows]
            for name, rows in stimulus.beats.items()
        },
        blocks={operand: described.fetch[operand.name] for operand in Operand},
        output_beats=described.output_beats,
        signature=signature_parameters(config).compute(
            int.from_bytes(np.ascontiguousarray(row).tobytes(), "little") for row in output
        ),
    )


def operand_name(config: Config, name: str) -> str:
    """Name in `TILE_FILE` of one of `OPERANDS`."""
    return f"{name}_d{config.head_dim}"


def output_name(config: Config) -> str:
    """Name in `TILE_FILE` of the outputs, int16 [block, head_dim]: of what they depend on."""
    return f"o_b{config.block}_d{config.head_dim}_e{config.exp_segments}"
