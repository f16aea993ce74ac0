"""Codes as they are packed, measured and checked, of arrays and of tensors."""

import numpy as np
import pytest
import torch

from firmware_model.codes import check_codes, density, mean_bits, pack_codes, unpack_codes
from paro.config import ParoError


@pytest.mark.parametrize("count", [1, 3, 4, 5, 275])
def test_packing(count, seed):
    codes = np.random.default_rng(seed).integers(0, 4, (2, count), np.uint8)
    packed = pack_codes(codes)
    assert packed.shape == (2, -(-count // 4))
    assert packed.dtype == np.uint8
    assert np.array_equal(unpack_codes(packed, count), codes)
    assert int(packed[0, 0]) & 3 == int(codes[0, 0])


def test_packing_puts_the_first_code_lowest():
    codes = torch.tensor([1, 2, 3, 0, 3], dtype=torch.uint8)
    assert pack_codes(codes).tolist() == [0b00_11_10_01, 0b11]


def test_means():
    codes = torch.tensor([[0, 1], [2, 3]], dtype=torch.uint8)
    for values in (codes, codes.numpy()):
        assert mean_bits(values) == 3.5
        assert density(values) == 0.75


def test_codes_that_are_refused():
    codes = np.ones((3, 3), np.uint8)
    check_codes(codes, 3)
    codes[1] = 0
    with pytest.raises(ParoError, match="block row 1 has no live block; legal: 1 or more"):
        check_codes(codes, 3)
    sentence = r"codes are uint8 \[3, 3\]; legal: uint8 \[4, 4\], 0 to 3"
    with pytest.raises(ParoError, match=sentence):
        check_codes(codes, 4)
    with pytest.raises(ParoError, match=r"codes are int64 \[1, 1\]; legal: uint8 \[1, 1\], 0 to 3"):
        check_codes(np.ones((1, 1), int), 1)
    with pytest.raises(ParoError, match=r"codes are uint8 \[1, 1\]; legal: uint8 \[1, 1\], 0 to 3"):
        check_codes(np.full((1, 1), 4, np.uint8), 1)
