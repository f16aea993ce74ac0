"""The studies, on the shipped capture; the figures of the docs come from the shared ones."""

import pytest

from firmware_model.quality.study import (
    ABLATIONS,
    ablation_study,
    format_study,
    pruning_study,
    rounding_study,
    sparsity_study,
)
from paro.config import ParoError


def test_formats(demo):
    told = []
    study = format_study([demo], (2.0, 3.0, 4.0), progress=lambda *done: told.append(done))
    assert told[-1] == (9 * 16, 9 * 16)
    assert study["heads"] == 16
    by_format = {
        name: [row for row in study["rows"] if row["format"] == name]
        for name in ("integer", "paper")
    }
    for rows in by_format.values():
        assert [row["avg_bits"] for row in rows] == [2.0, 3.0, 4.0, 4.8]
        quality = [row["mean_snr_db"] for row in rows]
        assert quality == sorted(quality)
        for row in rows:
            assert row["mean_bits"] == pytest.approx(row["avg_bits"], abs=0.01)
            assert row["worst_snr_db"] <= row["mean_snr_db"]
            assert row["mean_loss_db"] == pytest.approx(
                study["all_8_bit_mean_snr_db"] - row["mean_snr_db"], abs=2e-3
            )
            assert row["worst_head"].startswith("tiny_video_dit_t03:")
    for ours, paper in zip(by_format["integer"], by_format["paper"], strict=True):
        assert ours["mean_snr_db"] > paper["mean_snr_db"]
    assert 2.0 <= study["equal_bits"] < 3.0


def test_no_width_equals_the_paper(demo):
    assert format_study([demo], (4.8,))["equal_bits"] is None


def test_roundings(demo):
    told = []
    names = ("int8", "linear", "paper", "digit-4", "digit")
    rows = rounding_study(
        [demo], names, (4.8, 3.0), heads=(2, 9), progress=lambda *done: told.append(done)
    )
    assert told[-1] == (5 * 3 * 2, 5 * 3 * 2)
    found = {row["format"]: row for row in rows}
    assert tuple(found) == names
    eight = found["digit"]["logit_rmse"]["8"]
    assert found["int8"]["logit_rmse"] == {"8": eight, "4": None, "2": None}
    for name in names[1:]:
        errors = list(found[name]["logit_rmse"].values())
        assert errors == sorted(errors)
        quality = found[name]["mean_snr_db"]
        assert quality["4.8"] > quality["3"] >= found[name]["worst_snr_db"]["3"]
        assert quality["4.8"] > found["int8"]["mean_snr_db"]["4.8"]
    for width in ("4", "2"):
        ours, linear = (found[name]["logit_rmse"][width] for name in ("digit", "linear"))
        assert ours < linear / 2


def test_sparsity(demo):
    rows = sparsity_study([demo], (0.5, 0.25))
    assert [row["head"] for row in rows] == list(range(16))
    for row in rows:
        half, quarter = row["densities"]
        assert (half["density"], quarter["density"]) == (0.5, 0.25)
        assert quarter["cosine"] < half["cosine"] <= 1
        assert quarter["snr_db"] < half["snr_db"]
        if row["order"] == "FHW":
            assert half["cosine"] == half["cosine_without_reorder"]
    assert len({row["order"] for row in rows}) > 1


def test_reorder_helps_where_another_order_is_preferred(shared_capture):
    rows = sparsity_study([shared_capture("dinov2_video_l3")], (0.3, 0.2))
    for head in (1, 4, 5):
        assert rows[head]["order"] != "FHW"
        for part in rows[head]["densities"]:
            assert part["cosine"] > part["cosine_without_reorder"]
            assert part["snr_db"] > part["snr_db_without_reorder"] + 3


def test_pruning_finds_the_density_of_a_quality(demo):
    study = pruning_study([demo], (0.05, 0.2, 1.0), 36.0)
    assert study["heads"] == 16
    assert [row["threshold"] for row in study["rows"]] == [1.0, 0.2, 0.05]
    for name in ("density", "mean_snr_db", "worst_snr_db"):
        values = [row[name] for row in study["rows"]]
        assert values == sorted(values)
    # At most as many weights can be above the mean as there are, and some always are.
    assert 0 < study["rows"][0]["density"] < 1
    around = next(row for row in study["rows"] if row["mean_snr_db"] >= 36)
    assert study["rows"][0]["density"] < study["equal_density"] <= around["density"]


def test_pruning_nothing_loses_nothing(demo):
    study = pruning_study([demo], (1e-30,), 36.0)
    assert study["rows"][0]["density"] == 1
    assert study["rows"][0]["mean_snr_db"] > 200
    assert study["equal_density"] is None
    with pytest.raises(ParoError, match=r"thresholds 0\.0 are not legal; legal: one or more"):
        pruning_study([demo], (0.0,), 36.0)


def test_ablation(demo):
    rows = ablation_study([demo])
    assert len(rows) == 2 * len(ABLATIONS)

    def mean(density, name, groups="block"):
        (row,) = [
            row
            for row in rows
            if row["reorder"]
            and (row["density"], row["format"], row["groups"]) == (density, name, groups)
        ]
        return row["mean_snr_db"]

    assert mean(1.0, "pv-int8") > mean(1.0, "pv-int8", "row")
    assert mean(1.0, "pv-int8") > mean(1.0, "int8") > mean(1.0, "int4")
    assert mean(0.5, "float") > mean(0.3, "float") > mean(0.2, "float")
    assert mean(0.5, "float") > mean(0.5, "int8") > mean(0.5, "int4")
