"""Pipelines of the diffusers library as a `firmware_model.models.pipeline.Pipeline`.

Only the product softmax(Q K^T) V of a self-attention over all tokens is ever replaced: projections,
norms and rotation stay the library's own, and so does every other attention.
"""

from firmware_model.models.diffusers_adapter.loading import load_diffusers as load_diffusers
from firmware_model.models.diffusers_adapter.pipeline import DiffusersPipeline as DiffusersPipeline
