"""Codes as words, and back."""

import numpy as np
import pytest

from firmware_model.host.superblocks import (
    code_words,
    codes_of_words,
    deal,
    superblock_count,
    superblocks,
)
from paro.config import Config


@pytest.mark.parametrize("query_rows", [1, 2, 4])
@pytest.mark.parametrize("shape", [(1, 3), (5, 16), (7, 40)])
def test_words_hold_the_codes(shape, query_rows, seed) -> None:
    config = Config(query_rows=query_rows)
    codes = np.random.default_rng(seed).integers(0, 4, shape, np.uint8)
    found = codes_of_words(code_words(codes, config), len(codes), config)
    assert np.array_equal(found[:, : shape[1]], codes)
    assert not found[:, shape[1] :].any()


@pytest.mark.parametrize("cores", [1, 2, 8])
def test_superblocks_of_all_cores(cores) -> None:
    config = Config(query_rows=4, cores=cores)
    for rows in (1, 4, 37):
        counts = [len(superblocks(len(own), config)) for own in deal(rows, config)]
        assert superblock_count(rows, config) == sum(counts)
