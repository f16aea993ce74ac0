"""Best points of a sweep: by hand, and against every pair."""

import numpy as np

from sim.estimate.pareto import mark_best, pareto, without_equals


def point(luts, seconds, snr, bandwidth=1.0):
    return {
        "luts": luts,
        "sample_seconds": seconds,
        "mean_snr_db": snr,
        "bandwidth_gbs": bandwidth,
    }


def test_pareto_by_hand():
    points = [(1, 5), (2, 4), (2, 6), (3, 4), (4, 1), (4, 1), (0, 9), (5, 1)]
    assert pareto(points) == [True, True, False, False, True, True, True, False]


def test_pareto_against_every_pair(seed):
    points = [tuple(pair) for pair in np.random.default_rng(seed).integers(0, 12, (60, 2)).tolist()]
    beaten = [any(a <= x and b <= y and (a, b) != (x, y) for a, b in points) for x, y in points]
    assert pareto(points) == [not one for one in beaten]


def test_the_best_of_a_sweep_are_marked_by_luts_and_by_quality():
    points = [point(10, 5.0, 30.0), point(20, 4.0, 20.0), point(20, 6.0, 40.0), point(5, 9.0, None)]
    mark_best(points)
    assert [one["pareto_time_luts"] for one in points] == [True, True, False, True]
    assert [one["pareto_quality_time"] for one in points] == [True, True, True, False]
    slower = [point(10, 5.0, 30.0), point(10, 6.0, 30.0)]
    mark_best(slower)
    assert [one["pareto_quality_time"] for one in slower] == [True, False]


def test_of_equal_points_the_least_bandwidth_is_kept():
    wide, narrow, other = point(10, 5.0, 30.0, 8), point(10, 5.0, 30.0, 2), point(11, 5.0, 30.0, 4)
    assert without_equals([wide, narrow, other]) == [narrow, other]
