"""Transformers of which a part is nothing, or the same for all tokens, as pruned ones are."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from firmware_model.arrays import Tokens
from firmware_model.models.diffusers_adapter.programs import block_outputs
from firmware_model.quality.metrics import snr_db
from tests.firmware_model.models.small_transformers import HEADS, Example, dit, pixart, wan

Built = tuple[Any, dict[str, Any], Tokens]


def without(build: Callable[[], Built], name: str, rows: int | None = None) -> Built:
    """A transformer whose parameters of a name are 0, all of them or the first rows."""
    transformer, inputs, tokens = build()
    parameters = [own for key, own in transformer.named_parameters() if name in key]
    assert parameters
    for own in parameters:
        own.data[:rows].zero_()
    return transformer, inputs, tokens


def with_text(build: Callable[[], Built], change: Callable[[dict[str, Any]], object]) -> Built:
    transformer, inputs, tokens = build()
    change(inputs)
    return transformer, inputs, tokens


def one_token(inputs: dict[str, Any]) -> None:
    """One token of text, the same in all of the batch."""
    mask, text = inputs["encoder_attention_mask"], inputs["encoder_hidden_states"]
    mask.zero_()
    mask[:, 0] = 1
    text[1:] = text[:1]


CASES: dict[str, Callable[[], Built]] = {
    "no queries": lambda: without(dit, "attn1.to_q"),
    "no keys": lambda: without(dit, "attn1.to_k"),
    "no keys of a head": lambda: without(dit, "attn1.to_k", HEADS["attention_head_dim"]),
    "no values": lambda: without(dit, "attn1.to_v"),
    "no queries to the text": lambda: without(pixart, "attn2.to_q"),
    "no values of the text": lambda: without(pixart, "attn2.to_v"),
    "one token of text": lambda: with_text(pixart, one_token),
    "an empty text": lambda: with_text(wan, lambda own: own["encoder_hidden_states"].zero_()),
}


@pytest.mark.parametrize("case", CASES)
def test_the_network_is_near_float(case):
    example = Example(CASES[case])
    for name, wanted in zip(block_outputs(example.transformer), example.blocks, strict=True):
        got = torch.stack([example.values(run, name) for run in example.integers])
        assert snr_db(got, wanted) > 45
