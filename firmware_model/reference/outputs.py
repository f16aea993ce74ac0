"""Outputs of the host's jobs by the integer model."""

import numpy as np
import torch

from firmware_model.host.jobs import HeadOperands, Job, LayerJob
from firmware_model.host.vector_job import VectorJob
from firmware_model.reference.integer import integer_attention
from firmware_model.reference.linear import (
    OutputFormat,
    QuantizedInputs,
    QuantizedWeights,
    integer_linear,
)
from firmware_model.reference.passes import run_passes
from firmware_model.reference.quantize import QuantizedHead
from paro.config import Config

__all__ = ["model_outputs", "step_outputs"]


def _quantized(head: HeadOperands) -> QuantizedHead:
    """A head for the integer model; it has no units of V."""
    return QuantizedHead(
        *(torch.from_numpy(values) for values in (head.q8, head.k8, head.v8, head.mq, head.mk)),
        v_scale=torch.zeros(0),
        v_mean=torch.zeros(0),
        permutation=torch.from_numpy(head.permutation),
        order=head.order,
    )


def model_outputs(config: Config, job: Job) -> np.ndarray:
    """Words of a head, int16 [queries, head_dim], in its order; of a layer [tokens, outputs]."""
    if isinstance(job, LayerJob):
        return _layer_outputs(config, job)
    codes = torch.from_numpy(job.codes)
    words = integer_attention(_quantized(job.head), codes, config, job.query_blocks)
    return words[: len(job.queries(config))].numpy()


def step_outputs(job: VectorJob) -> tuple[np.ndarray, np.ndarray | None]:
    """Outputs of a vector step.

    Parameters
    ----------
    job : VectorJob
        The step.

    Returns
    -------
    words : np.ndarray
        int16 [tokens, channels], in the order of its walk; INT8 is widened.
    mantissas : np.ndarray or None
        int32 [tokens], likewise, if it finds any.
    """
    order = job.permutation
    second = np.zeros((job.tokens, 0), np.int16) if job.second is None else job.second
    operands = (job.rows[order], job.tables, second[order])
    sent, mantissas = run_passes(
        job.passes, *(torch.from_numpy(values.astype(np.int64)) for values in operands)
    )
    found = None if mantissas is None else mantissas.numpy().astype(np.int32)
    return sent.numpy().astype(np.int16), found


def _layer_outputs(config: Config, job: LayerJob) -> np.ndarray:
    x8, mx, w8, mw, codes, bias = (
        torch.from_numpy(values) for values in (job.x8, job.mx, job.w8, job.mw, job.codes, job.bias)
    )
    inputs = QuantizedInputs(x8, mx, unit=1.0)
    weights = QuantizedWeights(w8, mw, 1.0, codes)
    output = OutputFormat(job.sum_shift, job.out_shift, bias, unit=1.0)
    return integer_linear(inputs, weights, output, config).numpy()
