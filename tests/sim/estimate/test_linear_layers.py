"""Cycles of linear layers: by hand, and against what they must not depend on."""

import numpy as np
import pytest

from paro.config import Config, ParoError
from paro.config.formats import CODE_BITS
from sim.estimate.linear_layers import (
    LINEAR_BITS,
    LinearCycles,
    layer_codes,
    layer_cycles,
    linear_cycles,
)
from sim.estimate.workloads import Workload, load_workload

CONFIG = Config(rows=4, cols=4, block=16, head_dim=32)


@pytest.mark.parametrize(("code", "digits"), [(1, 1), (2, 2), (3, 4)])
def test_a_layer_takes_its_digits(code, digits):
    # 20 blocks of 16 outputs x 10 chunks of 32 inputs x 5 groups of 16 tokens, the last partial:
    # four digits a cycle in each of 16 PEs. It ends with its last valid output.
    codes = np.full((20, 10), code, np.uint8)
    ideal = 320 * 320 * 80 * digits / (4 * 16)
    assert layer_cycles(CONFIG, 70, 310, codes) == pytest.approx(ideal, abs=400)


def test_zero_tiles_cost_next_to_nothing():
    codes = np.full((20, 10), 3, np.uint8)
    whole = layer_cycles(CONFIG, 80, 320, codes)
    codes[:, 1::2] = 0
    assert layer_cycles(CONFIG, 80, 320, codes) == pytest.approx(whole / 2, rel=0.02)


def test_a_layer_beyond_the_core_is_refused():
    with pytest.raises(ParoError, match="cycle model: 320 outputs do not make codes"):
        layer_cycles(CONFIG, 80, 320, np.ones((2, 2), np.uint8))


@pytest.mark.parametrize("bits", [2, 2.64, 3, 3.5, 4, 4.8, 6.1, 8])
def test_codes_have_their_mean_width_everywhere(bits):
    codes = layer_codes(640, 1000, CONFIG, bits)
    assert codes.shape == (40, 32)
    assert codes.dtype == np.uint8
    widths = np.array(CODE_BITS)[codes]
    assert widths.mean() == pytest.approx(bits, abs=4 / codes.size)
    # Each row of tiles has about the mean, and no width but the two next to it.
    assert np.abs(widths.mean(axis=1) - bits).max() <= 4 / 32
    assert set(np.unique(widths)) <= ({2, 4} if bits <= 4 else {4, 8})
    assert len(np.unique(widths)) == (1 if bits in (2, 4, 8) else 2)


@pytest.mark.parametrize("bits", [1.99, 8.01, 0, float("nan")])
def test_widths_that_cannot_be_are_refused(bits):
    with pytest.raises(ParoError, match=r"linear bits = \S+ is not legal; legal: 2 to 8"):
        layer_codes(64, 64, CONFIG, bits)


@pytest.mark.parametrize("bits", LINEAR_BITS)
def test_ideal_cycles_are_products_times_width(bits):
    workload = load_workload("flux.1-dev")
    config = Config(rows=16, cols=32, block=64, head_dim=128)
    found = linear_cycles(workload, config, bits)
    assert found.mean_bits == pytest.approx(bits, abs=1e-3)
    assert sum(found.ideal) == pytest.approx(workload.linear_macs * bits / 8 / 512, rel=1e-3)
    assert 0.995 < found.utilisation <= 1
    assert found.full().utilisation == 1


def test_ideal_cycles_count_valid_tokens_and_channels_alone():
    # QKV 24 -> 72 and output 24 -> 24: chunks of 32 inputs, blocks of 16 outputs, groups of 16.
    workload = Workload(
        title="odd", layers=1, heads=1, head_dim=24, ffn=0, grid=(1, 3, 3), steps=1,
        guidance_passes=1,
    )  # fmt: skip
    found = linear_cycles(workload, CONFIG, 8)
    assert found.ideal == (9 * 24 * 72 / 16, 9 * 24 * 24 / 16)
    codes = np.full((5, 1), 3, np.uint8)
    assert found.measured[0] == layer_cycles(CONFIG, 9, 72, codes)
    assert found.parts == (5, 2)


def test_cores_beyond_the_last_part_wait():
    work = LinearCycles(mean_bits=8, measured=(60.0, 20.0), ideal=(60.0, 20.0), parts=(6, 2))
    assert work.shared(1) == 80
    assert work.shared(2) == 40
    assert work.shared(4) == 2 * 10 + 10
    assert work.shared(100) == 20
    assert work.shared(0.5) == 160


def test_clusters_beyond_the_last_part_wait():
    """A part is of all cores of a cluster."""
    work = LinearCycles(mean_bits=8, measured=(60.0,), ideal=(60.0,), parts=(3,), cluster=2)
    assert work.shared(2) == 30
    assert work.shared(4) == 20
    assert work.shared(100) == 10


def test_a_cluster_shares_the_tokens_of_a_layer():
    workload = load_workload("flux.1-dev")
    config = Config(rows=16, cols=32, block=64, head_dim=128)
    four = config.changed(cores=4, key_slots=4)
    one, cluster = (linear_cycles(workload, each, 4) for each in (config, four))
    assert cluster.ideal == one.ideal
    assert cluster.utilisation == pytest.approx(one.utilisation, rel=0.02)
    assert cluster.shared(4) == pytest.approx(one.shared(4), rel=0.02)
