"""Attention on a plan's live blocks alone, against attention under the mask that they are."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

import paro
from firmware_model.calibration.maps import plan_of_maps
from firmware_model.calibration.plan import ModelPlan
from firmware_model.models.diffusers_adapter import load_diffusers
from firmware_model.models.pipeline import AttentionCall
from firmware_model.models.sparse import SparseAttention
from firmware_model.reorder import token_permutation
from paro.config import ParoError
from tests.firmware_model.models.tiny_pipelines import CASES, STEPS, write

TOKENS = paro.Tokens(grid=(3, 5, 6), prefix=7, suffix=4)
HEADS, CHANNELS = 3, 16


def random_plan(seed, block=16, share=0.4):
    """Two layers and step groups; the last head of each is left out."""
    generator = torch.Generator().manual_seed(seed)
    blocks = -(-TOKENS.count // block)
    shape = (2, 2, HEADS, blocks, blocks)
    codes = torch.where(torch.rand(shape, generator=generator) < share, 2, 0).byte()
    codes |= torch.eye(blocks, dtype=torch.uint8)
    codes[:, :, -1] = 0
    return ModelPlan(
        model="m",
        calibrated_on=("",),
        block=block,
        grid=TOKENS.grid,
        prefix_tokens=TOKENS.prefix,
        suffix_tokens=TOKENS.suffix,
        avg_bits=3.0,
        layers=(0, 1),
        heads=tuple(range(HEADS)),
        step_groups=(0.0, 0.5),
        orders=torch.tensor([[2, 5, 0], [0, 1, 0]], dtype=torch.uint8),
        transforms=torch.zeros(2, HEADS, dtype=torch.uint8),
        codes=codes,
    )


def random_call(seed, layer=1, step=0, batch=2):
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, batch, HEADS, TOKENS.count, CHANNELS, generator=generator).unbind()
    return AttentionCall(layer=layer, step=step, q=q, k=k, v=v, scale=0.4)


def masked(plan, call, group):
    """Attention under the plan's mask, in the model's own order of tokens."""
    layer = plan.layers.index(call.layer)
    outputs = []
    for head in range(HEADS):
        order = int(plan.orders[layer, head])
        place = torch.from_numpy(
            token_permutation(TOKENS.grid, TOKENS.prefix, order, TOKENS.suffix)
        ).argsort()
        own = plan.codes[group, layer, head] != 0
        block = place // plan.block
        mask = own[block][:, block] if own.any() else None
        q, k, v = (x[:, head] for x in (call.q, call.k, call.v))
        outputs.append(scaled_dot_product_attention(q, k, v, mask, scale=call.scale))
    return torch.stack(outputs, 1)


@pytest.mark.parametrize("block", [16, 64])
def test_rows_compute_what_the_mask_leaves(seed, block):
    plan = random_plan(seed, block)
    attend = SparseAttention(plan, TOKENS, steps=2, kernel="rows")
    for layer, step in ((0, 0), (1, 0), (1, 1)):
        call = random_call(seed, layer, step)
        want = masked(plan, call, group=step)
        torch.testing.assert_close(attend(call), want, rtol=0, atol=3e-6)
        assert (want - masked(plan, call, group=1 - step)).abs().max() > 1e-2 or block == 64


def test_numbers_stay_those_of_the_model(seed):
    plan, call = random_plan(seed), random_call(seed)
    half = replace(call, q=call.q.bfloat16(), k=call.k.bfloat16(), v=call.v.bfloat16())
    found = SparseAttention(plan, TOKENS, kernel="rows")(half)
    assert found.dtype == torch.bfloat16
    want = masked(plan, call, 0)
    assert (found - want).norm() < 0.02 * want.norm()


def test_what_it_cannot_do_is_said(seed):
    plan, call = random_plan(seed), random_call(seed)
    call.q.requires_grad_()
    with pytest.raises(ParoError, match="has no gradients; legal: within torch"):
        SparseAttention(plan, TOKENS)(call)
    with pytest.raises(ParoError, match="kernel = 'triton' is not legal; legal: rows, flex"):
        SparseAttention(plan, TOKENS, kernel="triton")
    with pytest.raises(ParoError, match="the plan is for 90 tokens"):
        SparseAttention(plan, paro.Tokens((1, 9, 10)))


class Network(torch.nn.Module):
    def forward(self, q, k, v):
        first = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=0.4)
        return torch.nn.functional.scaled_dot_product_attention(q, k, first, scale=0.4)


def test_a_network_computes_sparse(seed):
    plan, call = random_plan(seed), random_call(seed)
    network = Network()
    with torch.no_grad(), paro.sparse(plan, steps=2, kernel="rows") as seen:
        found = [network(call.q, call.k, call.v) for _ in range(2)]
    assert seen.calls == 4
    for group, output in enumerate(found):
        first = masked(plan, AttentionCall(0, 0, call.q, call.k, call.v, 0.4), group)
        want = masked(plan, AttentionCall(1, 0, call.q, call.k, first, 0.4), group)
        torch.testing.assert_close(output, want, rtol=0, atol=3e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own compiler
@pytest.mark.parametrize("block", [16, 64])
def test_flex_attention_computes_the_same(seed, block):
    """Compiled; also blocks that are finer than its own, and tokens that fill no whole block."""
    plan, call = random_plan(seed, block), random_call(seed)
    with torch.no_grad(), paro.sparse(plan, kernel="flex"):
        found = Network()(call.q, call.k, call.v)
    first = masked(plan, AttentionCall(0, 0, call.q, call.k, call.v, 0.4), 0)
    want = masked(plan, AttentionCall(1, 0, call.q, call.k, first, 0.4), 0)
    torch.testing.assert_close(found, want, rtol=0, atol=3e-6)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", ["CogVideoX", "Wan", "LTX", "Flux"])
def test_a_pipeline_of_diffusers_computes_sparse(tmp_path, name):
    """With all blocks as by itself, in every order; with some of them otherwise."""
    case = CASES[name]
    pipeline = load_diffusers(write(case.build, tmp_path / "pipeline"), steps=STEPS, **case.size)
    shape, tokens = pipeline.shape, pipeline.shape.layout
    own, zeros = pipeline.generate(0), torch.zeros(shape.heads, tokens.count, 16)
    whole = plan_of_maps(
        torch.ones(shape.layers, shape.heads, *[-(-tokens.count // 16)] * 2),
        [paro.capture(zeros, zeros, zeros, tokens, layer=layer) for layer in range(shape.layers)],
        "HWF",
    ).plan
    blocks = whole.codes.shape[-1]
    some = replace(whole, codes=whole.codes * torch.eye(blocks).byte())
    for plan, close in ((whole, True), (some, blocks == 1)):
        with torch.no_grad(), paro.sparse(plan, kernel="rows") as seen:
            found = pipeline.generate(0)
        assert seen.calls == STEPS * shape.layers * case.calls
        assert torch.allclose(found, own, atol=1e-5) == close
