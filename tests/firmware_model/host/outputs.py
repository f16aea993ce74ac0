"""Outputs of the host's jobs by the integer model."""

import numpy as np
import torch

from firmware_model.host.jobs import HeadJob, HeadOperands
from firmware_model.reference.integer import integer_attention
from firmware_model.reference.quantize import QuantizedHead
from paro.config import Config


def quantized(head: HeadOperands) -> QuantizedHead:
    """A head for the integer model; it has no units of V."""
    return QuantizedHead(
        *(torch.from_numpy(values) for values in (head.q8, head.k8, head.v8, head.mq, head.mk)),
        v_scale=torch.zeros(0),
        v_mean=torch.zeros(0),
        permutation=torch.from_numpy(head.permutation),
        order=head.order,
    )


def model_outputs(config: Config, job: HeadJob) -> np.ndarray:
    """int16 [queries, head_dim], in the head's order."""
    codes = torch.from_numpy(job.codes)
    return integer_attention(quantized(job.head), codes, config, job.query_blocks).numpy()
