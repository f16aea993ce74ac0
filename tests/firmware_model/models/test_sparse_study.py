"""The study of processors: what it measures, on small shapes."""

import pytest

from firmware_model.arrays import Tokens
from firmware_model.models import sparse_study

TOKENS = Tokens(grid=(4, 8, 8), prefix=20)


@pytest.fixture
def measured():
    return sparse_study.head_study(
        [sparse_study.local_head(TOKENS)], [0.5, 0.3], 16, kernels=["rows"]
    )


def test_a_head_is_measured_beside_torch(measured):
    rows, plans = measured
    assert [row["density"] for row in rows] == pytest.approx([0.5, 0.3], abs=0.02)
    assert [plan.density() for plan in plans] == pytest.approx([0.5, 0.3], abs=0.02)
    for row in rows:
        assert (row["what"], row["kernel"]) == ("head 0 of neighbourhood_276", "rows")
        assert row["tokens"] == TOKENS.count
        ratio = row["dense_seconds"] / row["sparse_seconds"]
        assert row["ratio"] == pytest.approx(ratio, rel=0.2)
        assert row["ratio_times_density"] == pytest.approx(row["ratio"] * row["density"], abs=0.01)
    assert rows[0]["snr_db"] > rows[1]["snr_db"] > 5


def test_a_block_of_cogvideox_takes_the_mask(measured, monkeypatch):
    for name, value in (("_HEADS", 2), ("_CHANNELS", 16), ("_TIME", 8)):
        monkeypatch.setattr(sparse_study, name, value)
    rows = sparse_study.block_study(measured[1], "rows")
    assert [row["what"] for row in rows] == ["CogVideoX-2B block"] * 2
    assert all(row["snr_db"] > 0 for row in rows)
    assert rows[0]["snr_db"] > rows[1]["snr_db"]
