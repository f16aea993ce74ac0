"""`paro plan`: a mask of other work, and PAROAttention's two files."""

import numpy as np
import pytest
import torch

from firmware_model import DEMO_CAPTURE
from firmware_model.calibration.plan import load_model_plan


@pytest.fixture
def mask(tmp_path, seed):
    """One of the shipped capture's 16 heads and 512 tokens, in blocks of 64."""
    found = np.random.default_rng(seed).random((16, 8, 8)) < 0.3
    found |= np.eye(8, dtype=bool)
    np.savez(tmp_path / "mask.npz", map=found)
    torch.save({"sparse": torch.from_numpy(found)[None, None]}, tmp_path / "sparse_plan.pth")
    order = torch.arange(16)[None] % 6
    torch.save({"permute": order, "empty": 0 * order}, tmp_path / "permute_plan.pth")
    return found


def test_a_mask_is_a_plan_that_is_evaluated(paro, mask, tmp_path):
    plan = tmp_path / "plan.safetensors"
    outcome = paro("plan", tmp_path / "mask.npz", "--for", DEMO_CAPTURE, "-o", plan)
    assert outcome.status == 0, outcome.err
    assert np.array_equal(load_model_plan(plan).codes[0, 0].numpy() != 0, mask)
    assert f"{mask.mean():.1%}" in outcome.out
    options = ("--heads", "0", "-o", tmp_path / "e")
    assert paro("evaluate", DEMO_CAPTURE, "--plan", plan, *options).status == 0


def test_the_two_files_of_paroattention(paro, mask, tmp_path):
    plan = tmp_path / "plan.safetensors"
    files = ("--map", "sparse", "--order", "permute", "--order-file", tmp_path / "permute_plan.pth")
    outcome = paro("plan", tmp_path / "sparse_plan.pth", *files, "--for", DEMO_CAPTURE, "-o", plan)
    assert outcome.status == 0, outcome.err
    found = load_model_plan(plan)
    assert found.orders[0].tolist() == [head % 6 for head in range(16)]
    assert np.array_equal(found.codes[0, 0].numpy() != 0, mask)


@pytest.mark.parametrize(
    ("sentence", "options"),
    [
        ("has no array 'mask'; it has map", ["--map", "mask"]),
        ("has no array 'HH'; it has map", ["--order", "HH"]),
        ("bits = 5 is not legal; legal: 2, 4, 8", ["--bits", "5"]),
        ("file none.npz does not exist", ["--order", "o", "--order-file", "none.npz"]),
    ],
)
def test_what_does_not_fit_is_one_sentence(refused, mask, tmp_path, sentence, options):
    arguments = ("--for", DEMO_CAPTURE, *options, "-o", tmp_path / "out")
    refused(sentence, "plan", tmp_path / "mask.npz", *arguments)
