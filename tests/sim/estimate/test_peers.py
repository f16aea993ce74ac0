"""Peers: their own published figures, and layers small enough for a calculation by hand."""

import pytest

from sim.estimate.machine import Resources
from sim.estimate.peers import (
    A100,
    BitFusion,
    DenseInt8,
    LayerWork,
    ParoAttention,
    Sanger,
    ViTCoD,
    array_peers,
    checks,
)
from sim.estimate.workloads import Workload

#: 128 tokens, 2 heads of 32 channels: 2 * 128^2 * 64 products in attention.
TINY = Workload(
    title="tiny", layers=3, heads=2, head_dim=32, ffn=0, grid=(2, 8, 8), steps=1, guidance_passes=1
)
ATTENTION, LINEAR = 2 * 128 * 128 * 64, 128 * 4 * 64 * 64
#: All blocks at 8 bits; half of them skipped, half at 4 bits.
FULL, MIXED = (0.0, 0.0, 0.0, 1.0), (0.5, 0.0, 0.5, 0.0)


def resources(bandwidth=1e18, buffer=0.0, macs=1024):
    return Resources(macs=macs, clock_hz=1e9, bandwidth=bandwidth, buffer=buffer)


def work(shares=FULL):
    return LayerWork(workload=TINY, shares=shares)


@pytest.mark.parametrize("check", checks(), ids=lambda check: check.peer)
def test_published_figures_are_met_within_the_stated_error(check):
    assert check.holds, check


def test_dense_int8_does_every_product_once():
    peer = DenseInt8()
    assert peer.attention_seconds(work(), resources()) == pytest.approx(ATTENTION / 1024e9)
    assert peer.linear_seconds(work(), resources()) == pytest.approx(LINEAR / 1024e9)


def test_a_slow_memory_counts_every_byte():
    # Two tiles of 64 queries: Q once, K and V twice, O as two bytes an element.
    bytes_ = 128 * 64 * (1 + 2 * 2 + 2)
    peer = DenseInt8()
    assert peer.attention_seconds(work(), resources(1.0)) == pytest.approx(bytes_)
    # A buffer for K and V of a head spares the second reading.
    spared = peer.attention_seconds(work(), resources(1.0, buffer=2 * 128 * 32))
    assert spared == pytest.approx(128 * 64 * (1 + 2 + 2))


def test_both_sides_variable_narrows_pv_alone():
    found = BitFusion().attention_seconds(work(MIXED), resources())
    # Skipped blocks at 2 bits, the others at 4: 3 bits of 8 in PV, all of QK.
    assert found == pytest.approx(ATTENTION / 2 * (1 + 3 / 8) / 1024e9)


def test_pruning_skips_weights_and_predicting_costs():
    assert ViTCoD(density=0.25).attention_seconds(work(), resources()) == pytest.approx(
        ATTENTION * 0.25 / 1024e9
    )
    assert Sanger(density=0.25).attention_seconds(work(), resources()) == pytest.approx(
        ATTENTION * (0.25 + 1 / 32) / 1024e9
    )


def test_int8_halves_the_time_of_a_gpu():
    fp16, int8 = A100(), A100(bits=8)
    for seconds in ("attention_seconds", "linear_seconds"):
        ratio = getattr(fp16, seconds)(work(), resources()) / getattr(int8, seconds)(
            work(), resources()
        )
        assert ratio == pytest.approx(2)
    assert A100.resources().macs_per_second == pytest.approx(312e12)


def test_sparse_attention_on_a_gpu_keeps_its_linear_layers():
    peer = ParoAttention(density=0.5, reorder=0)
    assert peer.linear_seconds(work(), resources()) == A100().linear_seconds(work(), resources())
    assert peer.attention_seconds(work(), resources()) == pytest.approx(
        A100(bits=8).attention_seconds(work(), resources()) / 2
    )


@pytest.mark.parametrize("peer", array_peers(0.5), ids=lambda peer: peer.name)
def test_more_never_takes_longer(peer):
    times = [peer.layer_seconds(work(), resources(bandwidth)) for bandwidth in (1e9, 1e10, 1e12)]
    assert times == sorted(times, reverse=True)
    assert times[0] > times[-1]
    times = [peer.layer_seconds(work(), resources(macs=macs)) for macs in (64, 256, 1024)]
    assert times == sorted(times, reverse=True)
    assert times[0] > times[-1]
