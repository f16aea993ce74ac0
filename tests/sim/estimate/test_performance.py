"""Estimates: by hand where that is possible, monotone where it is not, and the papers' figures."""

import json
import math
import tomllib
from dataclasses import replace

import numpy as np
import pytest
import torch

from firmware_model.calibration.allocation import HeadErrors
from firmware_model.calibration.plan import ModelPlan
from paro.config import Config, ParoError
from paro.config.formats import CODE_BITS
from sim.cycles.attention_time import attention_cycles, ideal_cycles, read_bytes, written_bytes
from sim.estimate.area import load_area_model
from sim.estimate.assumptions import Assumption, Counting, Rival
from sim.estimate.comparison import Comparison, compare
from sim.estimate.gates import Measure, worth
from sim.estimate.grid import Grid
from sim.estimate.head_plans import HeadPlans, assumed_plans, calibrated_plans, plans_of
from sim.estimate.linear_layers import LINEAR_BITS, linear_cycles
from sim.estimate.machine import Machine
from sim.estimate.paper_figures import checkpoints, peak_speedup
from sim.estimate.peers import DenseInt8, Sanger, ViTCoD
from sim.estimate.performance import HeadCycles
from sim.estimate.performance import estimate as estimate_pass
from sim.estimate.sweep import sweep
from sim.estimate.targets import WANTED, width_limit
from sim.estimate.traffic import attention_bytes, linear_bytes, linear_reads
from sim.estimate.workloads import Workload, load_workload
from tests.places import ROOT

CONFIG = Config(rows=4, cols=4, block=16, head_dim=32)
#: 72 tokens, 8 of them text: 5 blocks of 16, the last of 8 tokens.
TINY = Workload(
    title="tiny",
    layers=3,
    heads=2,
    head_dim=32,
    ffn=64,
    prefix_tokens=8,
    grid=(1, 8, 8),
    steps=5,
    guidance_passes=2,
)


def estimate(workload, machine, plans, cycles=None, bits=8.0):
    linear = linear_cycles(workload, machine.config, bits)
    return estimate_pass(workload, machine, plans, linear, cycles)


def full_plans(code=3):
    codes = np.full((1, 5, 5), code, np.uint8)
    return HeadPlans(source="full", assumed=False, block=16, codes=codes, counts=np.array([6.0]))


def measured_heads(blocks, count, seed):
    generator = torch.Generator().manual_seed(seed)
    heads = []
    for _ in range(count):
        # Errors fall with the width and with the distance from the diagonal.
        places = torch.arange(blocks)
        near = 0.5 ** (places.unsqueeze(1) - places).abs() + 1e-3 * torch.rand(
            blocks, blocks, generator=generator
        )
        errors = torch.stack([near * 4.0**-bits for bits in CODE_BITS])
        heads.append(HeadErrors(errors, torch.zeros(blocks, blocks, dtype=torch.bool)))
    return heads


def test_ideal_cycles_by_hand():
    codes = np.array([[[3, 1], [0, 2]]], np.uint8)
    # 16 + 8 tokens: digits 4, 1, 0, 2 times queries times keys, both products of 32 channels.
    products = 4 * 16 * 16 + 1 * 16 * 8 + 2 * 8 * 8
    assert ideal_cycles(CONFIG, codes, 24)[0] == 2 * 32 * products / (4 * 4 * 4)


def test_bytes_by_hand():
    codes = np.array([[[3, 1], [0, 2]]], np.uint8)
    port, least = read_bytes(CONFIG, codes, 24)
    # Descriptor, Q with scales, a word of codes a row; K with scales, V of 16 + 8 and of 8 keys.
    once = 128 + 24 * (32 + 4) + 2 * 4
    assert port[0] == once + (16 + 8 + 8) * (2 * 32 + 4)
    assert least[0] == once + 24 * (2 * 32 + 4)
    assert written_bytes(CONFIG, 24) == 24 * 32 * 2


def test_bytes_of_superblocks_by_hand():
    config = CONFIG.changed(query_rows=2)
    codes = np.array([[[3, 0, 0], [0, 0, 2], [0, 0, 1]]], np.uint8)
    port, least = read_bytes(config, codes, 40)
    # Two superblocks: a word more of codes each; keys of blocks 0 and 2, then of block 2.
    once = 128 + 40 * (32 + 4) + (3 + 2) * 4
    assert port[0] == once + (16 + 8 + 8) * (2 * 32 + 4)
    assert least[0] == once + 40 * (2 * 32 + 4)


def test_bytes_of_clusters_by_hand():
    config = CONFIG.changed(cores=2)
    codes = np.array([[[3, 0, 0], [0, 0, 2], [0, 0, 1]]], np.uint8)
    port, _ = read_bytes(config, codes, 40)
    # Two waves: keys of blocks 0 and 2, then of block 2; a word of codes a row.
    assert port[0] == 128 + 40 * (32 + 4) + 3 * 4 + (16 + 8 + 8) * (2 * 32 + 4)


def test_a_cluster_counts_until_its_last_core_ends():
    """Five rows on two cores: three and two; five rows a head on four cores, two clusters."""
    config = CONFIG.changed(cores=2, key_slots=4)
    plans = full_plans()
    cycles = attention_cycles(config, plans.codes, 72)[0]
    single = attention_cycles(CONFIG, plans.codes, 72)[0]
    assert cycles == pytest.approx(single * 6 / 5, rel=0.05)
    machine = Machine(config=config, clock_mhz=100, bandwidth_gbs=1e6, cores=4)
    found = estimate(TINY, machine, plans)
    # Two heads of three rows a cluster: each cluster has a head.
    assert found.attention_seconds == pytest.approx(6 * cycles / (4 * 100e6))
    assert found.utilisation == pytest.approx(ideal_cycles(config, plans.codes, 72)[0] / cycles)
    apart = estimate(TINY, replace(machine, config=CONFIG), plans)
    assert found.core_reads < 0.7 * apart.core_reads


def test_some_rows_by_hand():
    # The second row of the two: 8 queries.
    codes = np.array([[[0, 2]]], np.uint8)
    assert ideal_cycles(CONFIG, codes, 24, range(16, 24))[0] == 2 * 32 * 2 * 8 * 8 / (4 * 4 * 4)
    port, _ = read_bytes(CONFIG, codes, 24, range(16, 24))
    assert port[0] == 128 + 8 * (32 + 4) + 4 + 8 * (2 * 32 + 4)
    # And no more than three of them.
    assert ideal_cycles(CONFIG, codes, 24, range(16, 19))[0] == 2 * 32 * 2 * 3 * 8 / (4 * 4 * 4)
    port, _ = read_bytes(CONFIG, codes, 24, range(16, 19))
    assert port[0] == 128 + 3 * (32 + 4) + 4 + 8 * (2 * 32 + 4)


def test_a_fast_memory_leaves_the_array_alone():
    machine = Machine(config=CONFIG, clock_mhz=100, bandwidth_gbs=1e6, cores=2)
    plans = full_plans()
    found = estimate(TINY, machine, plans)
    cycles = attention_cycles(CONFIG, plans.codes, 72)[0]
    assert found.attention_bounds == {"array": 1.0, "port": 0.0, "buffer": 0.0, "memory": 0.0}
    assert found.attention_seconds == pytest.approx(6 * cycles / (2 * 100e6))
    # 80 tokens are computed for 72.
    layers = linear_cycles(TINY, CONFIG, 8.0)
    linear = 3 * sum(layers.measured) / (2 * 100e6)
    whole = 80 * (4 * 64 * 64 + 2 * 64 * 64) / 16
    assert sum(layers.measured) == pytest.approx(whole, rel=0.01)
    assert found.linear_seconds == pytest.approx(linear)
    assert found.linear_utilisation == pytest.approx(layers.utilisation)
    halved = estimate(TINY, machine, plans, bits=4.0)
    assert halved.linear_seconds < 0.65 * linear
    assert halved.attention_seconds == found.attention_seconds
    assert found.utilisation == pytest.approx(ideal_cycles(CONFIG, plans.codes, 72)[0] / cycles)


def test_cross_attention_is_a_head_more_of_each():
    """40 tokens of text: heads of 72 queries and 40 keys at 8 bits, and two layers."""
    crossing = TINY.model_copy(update={"cross_tokens": 40})
    plans, queries = full_plans(code=1), range(72)
    dense = np.full((1, 5, 3), 3, np.uint8)
    (cycles,) = attention_cycles(CONFIG, dense, 40, queries)
    (ideal,) = ideal_cycles(CONFIG, dense, 40, queries)
    assert 0.7 < ideal / cycles < 1

    fast = Machine(config=CONFIG, clock_mhz=100, bandwidth_gbs=1e6)
    plain, crossed = (estimate(work, fast, plans) for work in (TINY, crossing))
    attention = crossed.attention_seconds - plain.attention_seconds
    assert attention == pytest.approx(6 * cycles / 100e6)
    both = linear_cycles(TINY, CONFIG, 8.0), linear_cycles(crossing, CONFIG, 8.0)
    more = sum(both[1].measured) - sum(both[0].measured)
    # Two of 64 by 64, as the output's is.
    assert more == pytest.approx(2 * both[0].measured[1])
    assert crossed.linear_seconds - plain.linear_seconds == pytest.approx(3 * more / 100e6)
    assert (crossed.mean_bits, crossed.density) == (plain.mean_bits, plain.density)

    slow = Machine(config=CONFIG, bandwidth_gbs=1e-6)
    plain, crossed = (estimate(work, slow, plans) for work in (TINY, crossing))
    port, _ = read_bytes(CONFIG, dense, 40, queries)
    attention = crossed.attention_seconds - plain.attention_seconds
    assert attention == pytest.approx(6 * (port[0] + written_bytes(CONFIG, 72)) / 1e3)


def test_bytes_of_a_peers_cross_attention_by_hand():
    crossing = TINY.model_copy(update={"cross_tokens": 40})
    more = attention_bytes(crossing, 2, 0) - attention_bytes(TINY, 2, 0)
    # Q and O once; K and V for each of two tiles of 64 queries.
    assert more == 64 * (72 * (2 + 2) + 2 * 2 * 40 * 2)


def test_a_slow_memory_counts_alone():
    machine = Machine(config=CONFIG, bandwidth_gbs=1e-6)
    plans = full_plans()
    found = estimate(TINY, machine, plans)
    port, _ = read_bytes(CONFIG, plans.codes, 72)
    assert found.attention_bounds["memory"] == 1.0
    assert found.attention_seconds == pytest.approx(6 * (port[0] + written_bytes(CONFIG, 72)) / 1e3)
    kept = estimate(TINY, Machine(config=CONFIG, bandwidth_gbs=1e-6, buffer_mib=1), plans)
    assert kept.attention_seconds < found.attention_seconds


def test_cores_beyond_the_rows_wait():
    # Three layers of two heads of five rows; a core of seven has no row of the last round.
    plans, cycles = full_plans(), HeadCycles(np.array([5e6]), np.array([5e6]))

    def seconds(cores, **fields):
        machine = Machine(config=CONFIG, clock_mhz=1, bandwidth_gbs=1e6, cores=cores, **fields)
        return estimate(TINY, machine, plans, cycles).attention_seconds

    assert seconds(7) == pytest.approx(3 * 2)
    assert seconds(10) == pytest.approx(3 * 1)
    assert seconds(100) == pytest.approx(3 * 1)
    # K and V of a head are 4,608 bytes; room for one head: one after the other.
    one = 5000 / 2**20
    assert seconds(7, buffer_mib=one) == pytest.approx(3 * 2 * 1)
    assert seconds(4, buffer_mib=one) == pytest.approx(3 * 2 * 2)
    assert seconds(4, buffer_mib=2 * one) == pytest.approx(3 * 3)


def test_a_slow_buffer_counts_alone():
    plans = full_plans()
    machine = Machine(config=CONFIG, bandwidth_gbs=1e6, buffer_mib=1, buffer_gbs=1e-3)
    found = estimate(TINY, machine, plans)
    port, _ = read_bytes(CONFIG, plans.codes, 72)
    assert found.attention_bounds["buffer"] == 1.0
    assert found.attention_seconds == pytest.approx(6 * port[0] / 1e6)
    assert found.core_reads == pytest.approx(1e6)
    assert found.linear_bound == "buffer"
    assert found.linear_core_reads == pytest.approx(1e6)
    assert found.linear_seconds == pytest.approx(3 * linear_reads(TINY, 1, 16) / 1e6)
    # Without a buffer there is none to wait for.
    bare = replace(machine, buffer_mib=0)
    assert estimate(TINY, bare, plans).attention_bounds["buffer"] == 0.0


def test_linear_traffic_by_hand():
    # Width 64, ffn 64, 72 tokens; tiles of 32 outputs: operands once for each tile beside them.
    def read(outputs):
        return 64 * (72 * math.ceil(outputs / 32) + outputs * 3)

    reads = read(192) + 3 * read(64)
    assert linear_reads(TINY, 1, 32) == reads
    assert linear_bytes(TINY, 1, 32) == reads + 2 * 72 * (192 + 3 * 64)
    # Tiles of 32 outputs and 16 tokens: weights are read for five groups of tokens.
    narrow = sum(64 * (72 * math.ceil(outputs / 32) + outputs * 5) for outputs in (192, 64, 64, 64))
    assert linear_reads(TINY, 1, 32, 16) == narrow
    without = TINY.model_copy(update={"ffn": 0})
    assert linear_reads(without, 1, 32) == read(192) + read(64)
    assert linear_bytes(without, 1, 32) == linear_reads(without, 1, 32) + 2 * 72 * (192 + 64)


def test_more_never_takes_longer():
    plans = full_plans(1)

    def seconds(**changes):
        machine = Machine(**({"config": CONFIG, "clock_mhz": 100, "bandwidth_gbs": 0.1} | changes))
        return estimate(TINY, machine, plans).pass_seconds

    for name, values in (
        ("bandwidth_gbs", (0.01, 0.1, 1.0, 10.0)),
        ("clock_mhz", (1.0, 10.0, 100.0)),
        ("cores", (0.5, 1.0, 4.0)),
        ("buffer_mib", (0.0, 0.001, 1.0)),
        ("config", tuple(Config(rows=4, cols=c, block=16, head_dim=32) for c in (4, 8, 16))),
    ):
        times = [seconds(**{name: value}) for value in values]
        assert times == sorted(times, reverse=True), name
    assert seconds(bandwidth_gbs=0.01) > seconds(bandwidth_gbs=10.0)
    wider = [
        estimate(TINY, Machine(config=CONFIG), full_plans(code)).pass_seconds for code in (1, 2, 3)
    ]
    assert wider == sorted(wider)
    assert wider[0] < wider[2]


@pytest.mark.parametrize(
    ("sentence", "changes"),
    [
        ("cores = 0 is not legal; legal: 1e-06 or more", {"cores": 0}),
        (
            "cores = 1 is not legal; legal: 2 or more, those of a cluster",
            {"config": CONFIG.changed(cores=2)},
        ),
        ("clock_mhz = -1 is not legal", {"clock_mhz": -1}),
        ("bandwidth_gbs = inf is not legal", {"bandwidth_gbs": float("inf")}),
        ("buffer_mib = -1 is not legal", {"buffer_mib": -1}),
        ("buffer_gbs = -1 is not legal", {"buffer_gbs": -1}),
        ("bandwidth_gbs = 1e-310 is not legal", {"bandwidth_gbs": 1e-310}),
        ("latency = -1 is not legal", {"latency": -1}),
    ],
)
def test_machines_that_cannot_be_are_refused(sentence, changes):
    with pytest.raises(ParoError) as refusal:
        Machine(**{"config": CONFIG, **changes})
    assert sentence in str(refusal.value)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ParoError, match="head_dim = 64 does not fit tiny; legal: 32"):
        estimate(TINY, Machine(config=Config(block=16)), full_plans())
    with pytest.raises(ParoError, match="block = 32 does not fit the plan, which has 16"):
        estimate(TINY, Machine(config=Config(block=32, head_dim=32)), full_plans())
    with pytest.raises(ParoError, match="do not make 4 blocks"):
        ideal_cycles(CONFIG, np.ones((1, 4, 4), np.uint8), 72)


@pytest.mark.parametrize("avg_bits", [3.9, 4.8, 6.0])
def test_scaled_plans_meet_the_mean_width_and_the_models_text(avg_bits):
    workload = TINY.model_copy(update={"grid": (4, 16, 16), "suffix_tokens": 20, "layers": 5})
    plans = calibrated_plans(measured_heads(12, 4, 1), workload, 16, avg_bits, "test")
    blocks = -(-workload.tokens // 16)
    assert plans.codes.shape == (4, blocks, blocks)
    assert plans.counts.tolist() == [3, 3, 2, 2]
    assert avg_bits - 0.01 <= plans.mean_bits <= avg_bits + 1e-6
    assert (plans.codes[:, 64:] == 3).all()
    assert (plans.codes[:, :, 64:] == 3).all()
    assert not (plans.codes[:, :64, :64] == 3).all()


def test_scaled_plans_keep_the_diagonal():
    workload = TINY.model_copy(update={"grid": (4, 16, 16), "prefix_tokens": 0})
    (codes,) = calibrated_plans(measured_heads(8, 1, 2), workload, 16, 3.0, "test").codes
    bits = np.array(CODE_BITS)[codes]
    distance = np.abs(np.subtract.outer(*2 * [np.arange(len(bits))]))
    near, far = bits[distance <= 3].mean(), bits[distance > 24].mean()
    assert near >= bits[(distance > 3) & (distance <= 24)].mean() >= far
    assert near > far + 1


def test_a_width_below_the_text_is_refused():
    with pytest.raises(ParoError, match="its text and its last block need"):
        calibrated_plans(measured_heads(8, 1, 3), TINY, 16, 2.0, "test")


def test_assumed_plans_are_labelled_and_have_their_density():
    workload = TINY.model_copy(update={"grid": (4, 16, 16), "prefix_tokens": 0})
    plans = assumed_plans(workload, 16, 0.3)
    assert plans.assumed
    assert plans.source.startswith("assumed: 30%")
    assert plans.density == pytest.approx(0.3, abs=1e-3)
    assert plans.codes.any(axis=2).all()
    with pytest.raises(ParoError, match="density = 0 is not legal"):
        assumed_plans(workload, 16, 0.0)


def model_plan(grid, prefix, blocks, block=16):
    codes = torch.full((2, 1, 2, blocks, blocks), 2, dtype=torch.uint8)
    codes[1, 0, 0] = 1
    return ModelPlan(
        model="m",
        calibrated_on=("d",),
        block=block,
        grid=grid,
        prefix_tokens=prefix,
        suffix_tokens=0,
        avg_bits=4.0,
        layers=(0,),
        heads=(0, 1),
        step_groups=(0.0, 0.25),
        orders=torch.zeros(1, 2, dtype=torch.uint8),
        transforms=torch.zeros(1, 2, dtype=torch.uint8),
        codes=codes,
    )


def test_a_plan_of_the_same_grid_is_taken_as_it_is():
    plans = plans_of(model_plan((1, 8, 8), 8, 5), TINY, 16, "plan")
    assert plans.codes.shape == (4, 5, 5)
    # Three layers of two heads, in turn; a quarter of the steps in the first group.
    assert plans.counts.tolist() == [0.75, 0.75, 2.25, 2.25]
    assert plans.mean_bits == pytest.approx((0.75 * 4 + 0.75 * 4 + 2.25 * 2 + 2.25 * 4) / 6)


def test_a_plan_of_another_grid_is_scaled():
    workload = TINY.model_copy(update={"grid": (4, 16, 16)})
    plans = plans_of(model_plan((1, 8, 8), 8, 5), workload, 16, "plan")
    assert plans.codes.shape[1:] == (65, 65)
    assert "scaled" in plans.source
    assert (plans.codes[:, -1] == 3).all()
    with pytest.raises(ParoError, match="block = 32 does not fit the plan, which has 16"):
        plans_of(model_plan((1, 8, 8), 8, 5), workload, 32, "plan")


@pytest.mark.parametrize(("text", "blocks"), [(0, 4), (1, 5), (100, 11)])
def test_codes_of_the_grid_carry_over_to_text_of_any_length(text, blocks):
    plan = model_plan((1, 8, 8), 8, 5)
    plan.codes[..., :4, :4] = torch.randint(1, 4, (2, 1, 2, 4, 4)).byte()
    workload = TINY.model_copy(update={"prefix_tokens": text})
    codes = torch.tensor(plans_of(plan, workload, 16, "plan").codes)
    assert torch.equal(codes[:, :4, :4], plan.codes[..., :4, :4].reshape(4, 4, 4))
    assert codes.shape == (4, blocks, blocks)
    codes[:, :4, :4] = 3
    assert (codes == 3).all()


@pytest.mark.parametrize("point", checkpoints(), ids=lambda point: point.figure[:40])
def test_checkpoints_lie_in_their_ranges(point):
    assert point.holds, point


def test_the_convention_by_hand():
    # Half of the time is attention, at a quarter of its 8-bit time; the rest halves.
    assert peak_speedup(0.5, 0.25) == pytest.approx(1 / (0.25 * 0.25 + 0.25))
    assert load_workload("cogvideox-5b").map_bytes == 2 * 48 * 17776**2 * 2


@pytest.fixture
def comparison():
    machine = Machine(config=CONFIG, cores=2, clock_mhz=500, bandwidth_gbs=1e6)
    return Comparison(TINY, machine, [full_plans(3), full_plans(1)], 0.5)


def test_the_machine_at_the_a100s_peak(comparison):
    gpu = comparison.gpu_machine
    assert gpu.cores * 16 * 2 * 500e6 == pytest.approx(624e12)
    assert gpu.bandwidth_gbs == pytest.approx(2039)
    assert gpu.buffer_mib == pytest.approx(40)
    # More cores than rows: a head's rows at once, the length of one.
    row = attention_cycles(CONFIG, full_plans().codes, 72)[0] / 5
    assert comparison.ours_at_peak[0].attention_seconds == pytest.approx(3 * row / 500e6)


def test_speed_ups_by_hand(comparison):
    # Attention takes half, linear layers a quarter of the 8-bit time at the peak.
    found = replace(
        comparison.ours_at_peak[0],
        attention_seconds=0.5 * 3 * TINY.attention_macs / 312e12,
        linear_seconds=0.25 * 3 * TINY.linear_macs / 312e12,
    )
    assert comparison.over_a100(found, 0.6) == pytest.approx(1 / (0.3 * 0.5 + 0.2 * 0.25))
    resources = comparison.machine.resources
    over = comparison.over_peer
    dense = 3 * (TINY.attention_macs + TINY.linear_macs) / (32 * 500e6)
    own = replace(found, attention_seconds=dense / 8, linear_seconds=dense / 8)
    peer = DenseInt8(bits=16)
    assert over(peer, own, resources) == pytest.approx(4)
    alone = 8 * TINY.attention_macs / (TINY.attention_macs + TINY.linear_macs)
    assert over(peer, own, resources, attention_alone=True) == pytest.approx(alone)


def test_equal_gates_leave_a_peer_what_its_multipliers_are_worth(comparison):
    many, few = comparison.equal_rows(), comparison.gate_rows()
    assert [row["machine"] for row in many] == [row["machine"] for row in few]
    names = {"ITA-like, dense INT8": "mac", "Bit Fusion-like": "fixed", "Sanger": "mac-16"}
    for before, row in zip(many, few, strict=True):
        part = worth(names.get(row["machine"], "mac-16"))
        if row["machine"].startswith("PARO"):
            part = 1
        assert row["multipliers"] == pytest.approx(32 / part)
        assert row["step_seconds"] == pytest.approx(before["step_seconds"] * part)
    assert few[-1]["machine"] == "ViTCoD"


def test_rows_are_of_every_width_and_speed_ups_of_the_first(comparison):
    rows = comparison.equal_rows()
    assert [row["machine"] for row in rows[: 1 + len(LINEAR_BITS)]] == [
        "PARO at 8.00 / 4.00 bit",
        "PARO at 2.00 / 4.00 bit",
        "PARO at 2.00 / 8.00 bit",
        "PARO at 2.00 / 3.50 bit",
        "PARO at 2.00 / 3.00 bit",
        "PARO at 2.00 / 2.71 bit",
    ]
    assert rows[1]["speedup"] == 1
    assert rows[2]["speedup"] > 1 > rows[3]["speedup"] > rows[4]["speedup"]
    assert rows[2]["linear_seconds"] > 1.5 * rows[1]["linear_seconds"]


def test_each_assumption_changes_what_it_says(comparison, monkeypatch):
    monkeypatch.setattr("sim.estimate.comparison.A100_BUFFER_GBS", 1e-3)
    changes = comparison.sensitivity()
    assert list(dict.fromkeys(change.assumption for change in changes)) == list(Assumption)
    found = {change.assumption: change.speedups for change in reversed(changes)}
    base = found[Assumption.NONE]
    assert base[Rival.SANGER] == pytest.approx(
        comparison.over_peer(Sanger(density=0.5), comparison.ours[-1], comparison.machine.resources)
    )
    assert found[Assumption.UNPRUNED][Rival.SANGER] > base[Rival.SANGER]
    assert found[Assumption.PRUNED_TO_30][Rival.VITCOD] < base[Rival.VITCOD]
    assert base[Rival.SANGER_GATES] == pytest.approx(worth("mac-16") * base[Rival.SANGER])
    assert found[Assumption.NARROWED][Rival.VITCOD] == pytest.approx(base[Rival.VITCOD])
    assert found[Assumption.NARROWED][Rival.VITCOD_GATES] == pytest.approx(
        worth("mac") * base[Rival.VITCOD]
    )
    assert found[Assumption.CELL_AREAS] == pytest.approx(
        {
            over: worth("mac-16", Measure.CELL_AREA) * base[over.value.split(",")[0]]
            for over in Rival
            if over.equal_gates
        }
    )
    for over in Rival:
        # The first of the other widths is 8 bits, in place of 4.
        assert found[Assumption.LINEAR_WIDTH][over] < base[over]
    assert found[Assumption.UNPRUNED_LINEAR].keys() == set(Rival) - {Rival.A100}
    assert found[Assumption.FULL_LANES][Rival.A100] > base[Rival.A100]
    assert found[Assumption.FULL_LANES][Rival.SANGER] > base[Rival.SANGER]
    assert found[Assumption.SLOW_BUFFER][Rival.A100] < base[Rival.A100]


def test_a_target_is_of_its_own_width_and_accounting(comparison):
    targets = comparison.targets(comparison.sensitivity())
    assert [target.wanted for target in targets] == [*WANTED, *WANTED]
    assert [target.bits for target in targets] == [8.0] * len(WANTED) + [2.0] * len(WANTED)
    machine, plans = comparison.machine, comparison.plans[-1]
    for target in targets[len(WANTED) :]:
        wanted = target.wanted
        if wanted.over is Rival.A100:
            own = estimate(TINY, comparison.gpu_machine, plans, bits=wanted.linear_bits)
            assert target.found == pytest.approx(comparison.over_a100(own))
            assert "papers' convention" in target.assumption
            continue
        own = estimate(TINY, machine, plans, bits=wanted.linear_bits)
        kind = Sanger if wanted.over.startswith("Sanger") else ViTCoD
        peer = kind(density=1.0 if wanted.keeps_all else 0.5)
        found = comparison.over_peer(peer, own, machine.resources)
        part = worth("mac-16") if wanted.over.equal_gates else 1
        assert target.found == pytest.approx(part * found)
        kept = "all" if wanted.keeps_all else "50%"
        each = f"{worth('mac-16'):.2f} PEs" if wanted.over.equal_gates else "one PE"
        assert target.assumption == (
            f"a 16-bit multiplier for {each}, pruning keeps {kept} of the attention"
        )


def test_at_its_limit_a_target_is_just_reached(comparison):
    plans, machine = comparison.plans[-1], comparison.machine
    targets = comparison.targets(comparison.sensitivity())
    limits = [(target.wanted, target.linear_bits_limit) for target in targets[len(WANTED) :]]
    inner = [(wanted, limit) for wanted, limit in limits if limit is not None and limit < 8]
    assert inner
    for wanted, limit in inner:
        own = estimate(TINY, machine, plans, bits=wanted.linear_bits)
        at_limit = replace(own, linear_seconds=own.linear_seconds * limit / wanted.linear_bits)
        counting = Counting(density=1.0 if wanted.keeps_all else 0.5)
        found = comparison._over_pruners(at_limit, machine.resources, counting)[wanted.over]
        assert found == pytest.approx(wanted.speedup)


def test_limits_beyond_all_widths():
    wanted = WANTED[1]
    assert wanted.speedup == 5
    assert width_limit(wanted, 4.9, 5.01) is None
    assert width_limit(wanted, 40, 1e9) == 8
    # All but linear layers takes a tenth of the peer's time, these a sixth at 4 bits.
    assert width_limit(wanted, 1 / (1 / 10 + 1 / 6), 10) == pytest.approx(4 * 6 / 10)


def test_a_comparison_names_what_decides():
    plans = [full_plans(3), full_plans(1)]
    report = compare(TINY, Machine(config=CONFIG, bandwidth_gbs=1e3), plans, 0.5)
    assert json.loads(json.dumps(report))["multipliers"]["paro"]["gates"] > 0
    ours = report["equal_resources"][1]
    assert ours["speedup"] == 1.0
    dense = next(row for row in report["equal_resources"] if "ITA" in row["machine"])
    assert dense["attention_speedup"] == pytest.approx(
        dense["attention_seconds"] / ours["attention_seconds"]
    )
    for target in report["targets"]:
        assert target["holds"] == (target["found"] >= target["wanted"])
        rows = {row["assumption"]: row for row in report["sensitivity"]}
        for assumption in target["decided_by"] if target["mean_bits"] == 2 else ():
            assert rows[assumption][target["over"]] >= target["wanted"]
    assert any(not target["holds"] for target in report["targets"])


def test_doubling_cores_and_memory_halves_the_time():
    plans = full_plans()
    one, two = (
        estimate(TINY, Machine(config=CONFIG, cores=n, bandwidth_gbs=n * 0.1), plans)
        for n in (1, 2)
    )
    assert one.pass_seconds == pytest.approx(2 * two.pass_seconds)


def test_known_cycles_are_not_computed_again():
    plans = full_plans()
    known = HeadCycles(np.array([1e6]), np.array([9e5]))
    machine = Machine(config=CONFIG, clock_mhz=1, bandwidth_gbs=1e6)
    found = estimate(TINY, machine, plans, known)
    assert found.attention_seconds == pytest.approx(6)
    assert found.utilisation == pytest.approx(0.9)


def test_area_grows_by_pes():
    area = load_area_model()
    points = tomllib.loads((ROOT / "sim/estimate/data/area.toml").read_text())
    assert len(points["point"]) >= 3
    for point in points["point"]:
        measured = point["lut4"] + 2 * point["carry"]
        assert area.luts(point["rows"], point["cols"]) == pytest.approx(measured, rel=0.02)
    assert area.luts(16, 16) > area.luts(8, 16) > area.luts(8, 8)
    assert area.extrapolated(64, 64)
    assert not area.extrapolated(8, 8)


def test_a_sweep_is_resumed(tmp_path, monkeypatch):
    grid = Grid(configs=(CONFIG,), clocks_mhz=(50.0, 100.0), bandwidths_gbs=(0.1, 10.0))
    plans = [full_plans(3), full_plans(1)]
    told = []
    points = sweep(TINY, grid, plans, tmp_path, jobs=1, progress=lambda *step: told.append(step))
    assert told[-1] == (8, 8)
    files = sorted(tmp_path.iterdir())
    assert len(files) == len(points) == 8
    own = estimate(TINY, next(grid.machines(CONFIG)), plans[0])
    assert points[0]["sample_seconds"] == pytest.approx(own.pass_seconds * TINY.passes)

    # One point is lost: only its job runs again, and writes nothing else.
    times = {path: path.stat().st_mtime_ns for path in files}
    files[3].unlink()
    assert sweep(TINY, grid, plans, tmp_path, jobs=1) == points
    assert {p for p in files if p.stat().st_mtime_ns != times[p]} == {files[3]}

    # Nothing is lost: nothing is computed.
    monkeypatch.setattr("sim.estimate.sweep.head_cycles", None)
    assert sweep(TINY, grid, plans, tmp_path, jobs=1) == points

    files[0].write_text("{")
    with pytest.raises(ParoError, match="delete it to compute it anew"):
        sweep(TINY, grid, plans, tmp_path, jobs=1)


def test_an_empty_sweep_is_refused(tmp_path):
    grid = Grid(configs=(), clocks_mhz=(1.0,), bandwidths_gbs=(1.0,))
    with pytest.raises(ParoError, match="the sweep has no point"):
        sweep(TINY, grid, [full_plans()], tmp_path)
