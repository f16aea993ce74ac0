"""Any network: its attention is watched, calibrated, computed in integers, and runs in RTL."""

import functools
import math
import operator

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import paro
from paro.config import ParoError

TOKENS = paro.Tokens(grid=(1, 6, 6), prefix=1)
HEADS, WIDTH = 2, 48


class Block(nn.Module):
    """A block of a vision transformer that no adapter knows."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(q, k, v)
        return x + self.out(found.transpose(1, 2).flatten(2))


class Library(nn.Module):
    """The same with PyTorch's own attention, whose fast path calls no Python."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.attention(x, x, x, need_weights=False)[0]


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(Block(), Library(), Block()).eval()


@torch.no_grad()
def test_a_network_without_an_adapter(seed) -> None:
    model, x = network(seed), torch.randn(2, TOKENS.count, WIDTH)
    exact = model(x)
    with paro.watch(TOKENS, "mine") as seen:
        torch.testing.assert_close(model(x), exact)
    assert [capture.layer for capture in seen.captures] == [0, 1, 2]
    assert seen.captures[0].q.shape == (HEADS, TOKENS.count, WIDTH // HEADS)
    assert seen.captures[1].scale == pytest.approx(1 / math.sqrt(WIDTH // HEADS))

    plan = paro.calibrate(seen.captures, bits=8, block=16)
    with paro.planned(plan):
        got = model(x)
    error = (got - exact).norm() / exact.norm()
    assert 0 < error < 0.02

    capture = seen.captures[1]
    own = paro.attention(capture.q, capture.k, capture.v, plan=plan, tokens=TOKENS, layer=1)
    want = functional.scaled_dot_product_attention(capture.q, capture.k, capture.v)
    assert own.shape == want.shape
    assert (own - want).norm() < 0.02 * want.norm()
    quality = paro.evaluate(capture, plan)
    assert len(quality) == HEADS
    assert min(quality) > 30


def test_arrays_of_any_kind(tmp_path, seed) -> None:
    """numpy and torch, three dimensions and a batch of one; files are those of the commands."""
    generator = np.random.default_rng(seed)
    q, k, v = generator.standard_normal((3, HEADS, TOKENS.count, 24)).astype(np.float32)
    one = paro.capture(q, k, v, TOKENS, model="mine")
    batch = [torch.from_numpy(values)[None] for values in (q, k, v)]
    other = paro.capture(batch[0], batch[1], batch[2], TOKENS, model="mine")
    assert torch.equal(one.k, other.k)
    path = paro.save_capture(one, tmp_path / "one.safetensors")
    assert torch.equal(paro.load_capture(path).v, one.v)
    plan = paro.calibrate([one], bits=4, block=16)
    saved = paro.load_plan(paro.save_plan(plan, tmp_path / "plan.safetensors"))
    results = [
        paro.attention(*operands, plan=saved, tokens=TOKENS)
        for operands in ((q, k, v), (q[None], k[None], v[None]))
    ]
    assert torch.equal(results[0], results[1][0])


def test_other_arrays_are_refused() -> None:
    good = torch.zeros(2, 37, 24)
    for bad, sentence in (
        ([1.0], "q is a list; legal: numpy arrays, torch tensors"),
        (good.int(), "q has torch.int32; legal: floats"),
        (good.to_sparse(), "q has layout torch.sparse_coo; legal: dense"),
        (good.clone().fill_(math.nan), "q has values that are not finite"),
    ):
        with pytest.raises(ParoError, match=sentence):
            paro.capture(bad, good, good, TOKENS)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"attn_mask": torch.ones(37, 37, dtype=torch.bool)}, "has a mask"),
        ({"is_causal": True}, "has a causal mask"),
        ({"dropout_p": 0.1}, "has dropout"),
    ],
)
def test_attention_that_the_hardware_lacks(arguments, sentence) -> None:
    x = torch.randn(1, HEADS, 37, 24)
    with pytest.raises(ParoError, match=sentence), paro.watch(TOKENS):
        functional.scaled_dot_product_attention(x, x, x, **arguments)


def test_other_attention_is_left_alone() -> None:
    """Cross attention, and windows; if nothing else is there, that is an error."""
    x, other = torch.randn(1, HEADS, 37, 24), torch.randn(1, HEADS, 8, 24)
    with paro.watch(TOKENS) as seen:
        functional.scaled_dot_product_attention(x, other, other)
        functional.scaled_dot_product_attention(x, x, x)
    assert seen.others == [8]
    assert len(seen.captures) == 1
    with (
        pytest.raises(
            ParoError, match=r"no attention over 37 tokens was computed \(tokens seen: 8"
        ),
        paro.watch(TOKENS),
    ):
        functional.scaled_dot_product_attention(other, other, other)


def test_grouped_queries(seed) -> None:
    """A head of K and V that serves two of Q is a capture of two heads."""
    torch.manual_seed(seed)
    q, k = torch.randn(1, 4, 37, 24), torch.randn(1, 2, 37, 24)
    with paro.watch(TOKENS) as seen:
        got = functional.scaled_dot_product_attention(q, k, k, enable_gqa=True)
    (capture,) = seen.captures
    assert torch.equal(capture.k[0], capture.k[1])
    both = k.repeat_interleave(2, 1)
    want = functional.scaled_dot_product_attention(q, both, both)
    torch.testing.assert_close(got, want)


@torch.no_grad()
def test_passes_compute_the_same_layers(seed) -> None:
    """Of a whole network, of its blocks one by one, and of one that is called within another."""
    model, x = network(seed), torch.randn(2, 1, TOKENS.count, WIDTH)

    def steps(run) -> None:
        for one in x:
            run(one)

    def blocks(one: torch.Tensor) -> None:
        for block in model.children():
            one = block(one)

    class Sampler(nn.Module):
        def forward(self) -> None:
            steps(model)

    ways = [(lambda: steps(model), None), (lambda: steps(blocks), None), (Sampler(), model)]
    found = []
    for run, named in ways:
        with paro.watch(TOKENS, "mine", network=named, steps=2) as seen:
            run()
        assert [capture.layer for capture in seen.captures] == [0, 1, 2] * 2
        assert [capture.progress for capture in seen.captures] == [0] * 3 + [0.5] * 3
        found.append(seen.captures)
    for other in found[1:]:
        assert all(torch.equal(a.q, b.q) for a, b in zip(found[0], other, strict=True))

    plan = paro.calibrate(found[0], bits=8, block=16)
    exact = [model(one) for one in x]
    with paro.planned(plan) as counted:
        outputs = [model(one) for one in x]
        again = [model(one) for one in x]
    assert counted.calls == 12
    for got, other, want in zip(outputs, again, exact, strict=True):
        assert torch.equal(got, other)
        assert 0 < (got - want).norm() < 0.02 * want.norm()
    sentence = "the plan has no layer 3; legal: 0, 1, 2"
    with pytest.raises(ParoError, match=sentence), paro.planned(plan):
        Sampler()()


@torch.no_grad()
def test_a_network_alone_is_meant(seed) -> None:
    """Attention over as many tokens outside the one that is given is left alone."""
    model, x = network(seed), torch.randn(1, TOKENS.count, WIDTH)
    with paro.watch(TOKENS, network=model) as seen:
        network(seed + 1)(x)
        model(x)
    assert seen.others == [TOKENS.count] * 3
    assert len(seen.captures) == 3


@torch.no_grad()
def test_a_pass_with_more_layers_is_refused() -> None:
    class Growing(nn.Module):
        times = 0

        def forward(self, x: torch.Tensor) -> None:
            self.times += 1
            for _ in range(self.times):
                functional.scaled_dot_product_attention(x, x, x)

    growing, x = Growing(), torch.randn(1, HEADS, TOKENS.count, 24)
    sentence = "a call of Growing computes more attention than its first, which had 1 layers"
    with paro.watch(TOKENS):
        growing(x)
        with pytest.raises(ParoError, match=sentence):
            growing(x)
    with pytest.raises(ParoError, match="steps = 0 is not legal"), paro.watch(TOKENS, steps=0):
        pass


@torch.no_grad()
def test_an_attention_stands_in_for_torchs(seed) -> None:
    """With its parameters, types and grouped queries."""
    torch.manual_seed(seed)
    q, k, v = (torch.randn(2, heads, TOKENS.count, 24).bfloat16() for heads in (4, 2, 2))
    plan = paro.calibrate([paro.capture(q[0], k[0], v[0], TOKENS)], bits=8, block=16)
    attend = functools.partial(paro.attention, plan=plan)
    options = {"scale": 0.2, "enable_gqa": True}
    want = functional.scaled_dot_product_attention(q, k, v, None, 0.0, False, **options)
    got = attend(q, k, v, None, 0.0, False, **options)
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    assert (got - want).norm() < 0.05 * want.norm()
    with pytest.raises(ParoError, match="has a causal mask"):
        attend(q, k, v, is_causal=True)


def test_a_plan_that_lacks_a_layer(seed) -> None:
    model, x = network(seed), torch.randn(1, TOKENS.count, WIDTH)
    with torch.no_grad(), paro.watch(TOKENS) as seen:
        model(x)
    plan = paro.calibrate(seen.captures[:1], block=16)
    with (
        pytest.raises(ParoError, match="the plan has no layer 1; legal: 0"),
        torch.no_grad(),
        paro.planned(plan, TOKENS),
    ):
        model(x)


def test_a_watched_head_in_rtl(tmp_path, seed) -> None:
    """Watched, calibrated, and word for word the same in RTL."""
    from sim.cosim.core import CoreTarget
    from sim.cosim.cosim import Heads, cosim
    from sim.cosim.run import Setup
    from tests.sim.inputs import TINY

    with torch.no_grad(), paro.watch(TOKENS, "mine") as seen:
        network(seed)(torch.randn(1, TOKENS.count, WIDTH))
    capture = seen.captures[1]
    plan = paro.calibrate(seen.captures, bits=4, block=16).for_capture(capture)
    setup = Setup("verilator", tmp_path / "out")
    report = cosim(Heads(capture, plan, [0], TINY), CoreTarget(), setup)
    assert report.bit_exact
    assert report.outputs_compared == TOKENS.count * TINY.head_dim


def test_the_package_offers_what_its_api_does() -> None:
    """`paro` has the names of `paro.api`, which it imports when one of them is first used."""
    from paro import api

    assert paro.__all__ == api.__all__
    assert all(getattr(paro, name) is getattr(api, name) for name in paro.__all__)
    with pytest.raises(AttributeError, match="module 'paro' has no attribute 'nothing'"):
        operator.attrgetter("nothing")(paro)
