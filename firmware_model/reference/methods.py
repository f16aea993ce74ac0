"""One interface to every attention of the project: the integer model and the number formats."""

from dataclasses import dataclass

import torch

from firmware_model.capture import Capture
from firmware_model.choices import INTEGER, METHODS, check_choice
from firmware_model.codes import checked_query_blocks
from firmware_model.progress import Steps
from firmware_model.reference.integer import integer_attention
from firmware_model.reference.number_formats import FormatHead, Groups, number_format
from firmware_model.reference.quantize import dequantize, quantize_head
from paro.config.config import Config
from paro.config.errors import ParoError


@dataclass(frozen=True)
class Method:
    """How attention is computed.

    Parameters
    ----------
    name : str
        One of `choices.METHODS`.
    groups : {"block", "row"}
        Range of a scale of uniform weights; "row" only with formats that have such scales.

    Raises
    ------
    ParoError
        If one of them is not legal.
    """

    name: str = INTEGER
    groups: Groups = "block"

    def __post_init__(self) -> None:
        check_choice("format", self.name, METHODS)
        if self.name != INTEGER:
            number_format(self.name, self.groups)
        elif self.groups != "block":
            raise ParoError(
                f"groups = {self.groups!r} is not legal with format 'integer'; legal: block"
            )

    def attend(
        self,
        capture: Capture,
        head: int,
        order: int,
        codes: torch.Tensor,
        config: Config,
        query_blocks: range | None = None,
        steps: Steps | None = None,
        transform: int = 0,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention of one head of a capture.

        Parameters
        ----------
        capture : Capture
            Source of the head.
        head : int
            Index in the capture.
        order : int
            Index in `choices.ORDERS`.
        codes : torch.Tensor
            uint8 [blocks, blocks].
        config : Config
            The core: ``block``, ``head_dim`` and ``max_tokens`` matter.
        query_blocks : range, optional
            Block rows to compute; all by default.
        steps : Steps, optional
            Advanced by the block rows.
        transform : int
            Index in `choices.TRANSFORMS`.

        Returns
        -------
        token_index : torch.Tensor
            int64 [rows], ascending: tokens of the capture.
        output : torch.Tensor
            float32 [rows, head_dim], row by row for ``token_index``.

        Raises
        ------
        ParoError
            If configuration, codes or query blocks do not fit, or as `quantize_head`.
        """
        steps = steps or Steps(None, 0)
        rows = checked_query_blocks(query_blocks, capture.blocks(config.block))
        if self.name == INTEGER:
            quantized = quantize_head(capture, head, order, config, transform)
            words = integer_attention(
                quantized, codes, config, rows, lambda _done, _total: steps.advance()
            )
            output = dequantize(words, quantized)
        else:
            rounding = number_format(self.name, self.groups)
            formed = FormatHead.from_capture(capture, head, order, config, rounding, transform)
            output = formed.attend(codes, rows, steps).float()
        return in_capture_order(capture.permutation(order), rows, config.block, output)


def in_capture_order(
    permutation: torch.Tensor, query_blocks: range, block: int, output: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put the rows of some query blocks, in a head's order, into the order of the capture.

    Returns
    -------
    token_index : torch.Tensor
        int64 [rows], ascending.
    output : torch.Tensor
        The rows of ``output`` for ``token_index``.
    """
    positions = computed_positions(len(permutation), query_blocks, block)
    token_index, by_token = permutation[positions].sort()
    return token_index, output[by_token]


def computed_positions(tokens: int, query_blocks: range, block: int) -> torch.Tensor:
    """Positions (in a head's order) of the queries in some block rows, int64 [rows]."""
    starts = torch.tensor(list(query_blocks)) * block
    positions = (starts.unsqueeze(1) + torch.arange(block)).flatten()
    return positions[positions < tokens]
