"""Clusters: cores that share loads of K and V give the words of the integer model, in any deal."""

import random

import pytest

from firmware_model.host.jobs import Job
from paro.config import Config
from sim.cycles.memory import Memory
from tests.sim.cosim.test_accelerator import MIXED
from tests.sim.cosim.test_accelerator_superblocks import (
    STALLS,
    WIDE,
    ending_in_turn,
    layers,
    run_queue,
)
from tests.sim.inputs import TINY, make_jobs


def cluster(cores: int, query_rows: int, key_slots: int = 2, config: Config = TINY) -> Config:
    values = {"cores": cores, "query_rows": query_rows, "key_slots": key_slots}
    return Config(**{**config.model_dump(), **values})


SHAPES = {
    "g2-s1": cluster(2, 1),
    "g2-s2-w4": cluster(2, 2, 4),
    "g4-s1-w4": cluster(4, 1, 4),
    "g4-s4": cluster(4, 4),
}


@pytest.mark.parametrize("memory", [Memory(), STALLS], ids=["ideal", "stalls"])
@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_heads_and_layers(config, memory, build_dir, tmp_path, seed) -> None:
    """In every order, with text, partial blocks and waves; layers in between."""
    jobs: list[Job] = list(make_jobs(config, (*MIXED, WIDE), seed))
    jobs.append(ending_in_turn(config, random.Random(seed)))
    for index, layer in enumerate(layers(config, seed)):
        jobs.insert(2 * index, layer)
    layout = {"misalign": (4, 60, 0, 8), "row_padding": 12} if memory == STALLS else {}
    run_queue(config, jobs, (build_dir, tmp_path), memory, **layout)
