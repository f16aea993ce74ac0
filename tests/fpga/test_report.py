"""Figures from the tools' JSON, on small hand-written examples of their formats."""

from fpga.report import cell_counts, critical_path, fmax_mhz, placed_clocks, utilisation


def _element(kind, delay, source, target):
    return {"type": kind, "delay": delay, "from": {"cell": source}, "to": {"cell": target}}


TIMING = {
    "fmax": {
        "design.clk": {"achieved": 61.5, "constraint": 50.0},
        "other": {"achieved": 80.0, "constraint": 50.0},
    },
    "utilization": {
        "TRELLIS_COMB": {"used": 12, "available": 83640},
        "DP16KD": {"used": 0, "available": 208},
    },
    "critical_paths": [
        {"from": "<async>", "to": "posedge clk", "path": [_element("routing", 99.0, "p", "q")]},
        {
            "from": "posedge clk",
            "to": "posedge clk",
            "path": [
                _element("clk-to-q", 0.5, "a", "a"),
                _element("routing", 1.25, "a", "b"),
                _element("logic", 0.25, "b", "b"),
                _element("setup", 0.0, "c", "c"),
            ],
        },
    ],
}


def test_cells_are_counted_and_those_absent_are_zero():
    counts = cell_counts({"design": {"num_cells_by_type": {"LUT4": 7, "CCU2C": 2, "X": 1}}})
    assert counts == {
        "lut4": 7,
        "carry": 2,
        "ff": 0,
        "dsp": 0,
        "bram": 0,
        "lutram": 0,
        "cells": {"CCU2C": 2, "LUT4": 7, "X": 1},
    }


def test_the_slowest_clock_is_the_frequency():
    assert fmax_mhz(TIMING) == 61.5


def test_utilisation_names_what_is_used():
    assert utilisation(TIMING) == {"TRELLIS_COMB": {"used": 12, "available": 83640}}


def test_the_critical_path_is_the_slowest_within_a_clock():
    assert critical_path(TIMING) == {
        "delay_ns": 2.0,
        "routing_ns": 1.25,
        "logic_levels": 1,
        "from": "a",
        "to": "c",
    }


def test_a_design_without_such_a_path_has_none():
    assert critical_path({"critical_paths": []}) is None


def test_each_clock_has_its_own_goal():
    """The system's clock is the one that wants its frequency; all must meet theirs."""
    clocks = {
        "$glbnet$sys_clk": {"achieved": 61.5, "constraint": 50.0},
        "$glbnet$eth_rx_clk": {"achieved": 120.0, "constraint": 125.0},
    }
    figures = placed_clocks(TIMING | {"fmax": clocks}, 50.0)
    assert figures["fmax_mhz"] == 61.5
    assert figures["clocks"]["eth_rx_clk"] == {"achieved": 120.0, "wanted": 125.0}
    assert figures["timing_met"] is False
    clocks["$glbnet$eth_rx_clk"]["achieved"] = 125.0
    assert placed_clocks(TIMING | {"fmax": clocks}, 50.0)["timing_met"] is True
