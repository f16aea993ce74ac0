"""Quantised heads and layers as jobs of the host, which knows no torch."""

import torch

from firmware_model.capture import Capture
from firmware_model.host.jobs import HeadJob, HeadOperands, LayerJob
from firmware_model.reference.linear import OutputFormat, QuantizedInputs, QuantizedWeights
from firmware_model.reference.quantize import QuantizedHead

__all__ = ["head_job", "head_operands", "layer_job"]


def head_operands(head: QuantizedHead) -> HeadOperands:
    """Arrays of a head, which share its memory."""
    return HeadOperands(
        q8=head.q8.numpy(),
        k8=head.k8.numpy(),
        v8=head.v8.numpy(),
        mq=head.mq.numpy(),
        mk=head.mk.numpy(),
        permutation=head.permutation.numpy(),
        order=head.order,
    )


def head_job(
    capture: Capture, head: QuantizedHead, codes: torch.Tensor, query_blocks: range | None = None
) -> HeadJob:
    """Head of a capture as a job.

    Parameters
    ----------
    capture : Capture
        Tells how the tokens lie.
    head : QuantizedHead
        One of its heads.
    codes : torch.Tensor
        uint8 [blocks, blocks], of the whole head.
    query_blocks : range, optional
        Block rows to compute, contiguous; all by default.
    """
    return HeadJob(
        head=head_operands(head),
        codes=codes.numpy(),
        grid=capture.grid,
        prefix_tokens=capture.prefix_tokens,
        suffix_tokens=capture.suffix_tokens,
        query_blocks=query_blocks,
    )


def layer_job(inputs: QuantizedInputs, weights: QuantizedWeights, output: OutputFormat) -> LayerJob:
    """Return a quantised layer as a job, which shares its memory."""
    return LayerJob(
        x8=inputs.x8.numpy(),
        mx=inputs.mx.numpy(),
        w8=weights.w8.numpy(),
        mw=weights.mw.numpy(),
        bias=output.bias.numpy(),
        codes=weights.codes.numpy(),
        sum_shift=output.sum_shift,
        out_shift=output.out_shift,
    )
