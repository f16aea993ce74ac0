"""Networks as queues of the accelerator: every tensor in memory is the integer network's."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from firmware_model.host.dependences import Wait, done_before
from firmware_model.host.image import Image
from firmware_model.host.jobs import LayerJob
from firmware_model.host.vector_job import VectorJob
from firmware_model.models.compiler import check_heads, compile_network
from firmware_model.models.device_program import DeviceProgram, Item
from firmware_model.models.network import IntegerNetwork
from firmware_model.program import Attend, Normalize, Rotate
from paro.config import Config, ParoError
from tests.firmware_model.models.memory_player import MemoryPlayer
from tests.firmware_model.models.network_tensors import assert_tensors
from tests.firmware_model.models.small_network import small_items, small_network
from tests.firmware_model.models.unit_player import play_steps

CONFIG = Config(rows=8, cols=8, block=16, head_dim=32, vector_channels=256)


def played(
    network: IntegerNetwork, items: Sequence[Item], program: DeviceProgram, *, reuse: bool
) -> tuple[MemoryPlayer, int]:
    """Play the queue, compare all tensors that are there in the end; returns their number."""
    image = program.image(0x1000, reuse=reuse)
    player = MemoryPlayer(program.config, program.tasks, image)
    wanted = [network.run(item.inputs, item.parameters) for item in items]
    names = network.program.outputs if reuse else None
    return player, assert_tensors(program, image, player.play(), wanted, names)


@pytest.mark.parametrize("reuse", [False, True])
def test_every_tensor_in_memory(seed, reuse):
    items = small_items(seed, 2)
    network = small_network(items, CONFIG, seed)
    program = compile_network(network, items, CONFIG)
    _, compared = played(network, items, program, reuse=reuse)
    assert compared == (2 if reuse else 2 * len(program.tensors[0]))
    # Chains leave their ends alone; of each item 11 vector steps, 4 layers and 2 heads.
    assert len(program.tasks) == 2 * 17
    assert "blocks.0.q.norm" not in program.tensors[0]


def test_the_vector_steps_on_the_unit(seed):
    """What is compared with the network is what the hardware makes of the same streams."""
    items = small_items(seed, 1)
    network = small_network(items, CONFIG, seed)
    player, _ = played(network, items, compile_network(network, items, CONFIG), reuse=False)
    assert len(player.steps) == 11
    cycles = play_steps(CONFIG, player.steps, range(2), random.Random(seed))
    print(f"{cycles} cycles")


def test_a_network_that_does_not_fit(seed):
    items = small_items(seed, 1)
    network = small_network(items, CONFIG, seed)

    def refused(sentence: str, **changes) -> None:
        with pytest.raises(ParoError, match=sentence):
            compile_network(network, items, CONFIG.changed(**changes)).image()

    refused("block = 32 does not fit the plan of layer blocks.0.qkv", block=32)
    refused("job 0 of the queue is a vector step, but the device has no", vector_channels=0)
    refused("has rows of 256 channels; legal: up to vector_channels = 128", vector_channels=128)
    refused("has rows of 64 channels; legal: multiples of 128|head_dim = 128", head_dim=128)


def touched(config: Config, fields: dict[str, int], job: object) -> tuple[set[int], set[int]]:
    """Bytes that a job reads and writes, as its descriptor tells, in units of 4."""

    def rows(operand: str, row_bytes: int, own: Iterable[int] | None = None) -> set[int]:
        start, stride = fields[f"{operand}_address"], fields[f"{operand}_row_stride"]
        return {
            place // 4
            for token in (range(tokens) if own is None else own)
            for place in range(start + token * stride, start + token * stride + row_bytes, 4)
        }

    def scales(name: str, own: Iterable[int] | None = None) -> set[int]:
        start = fields[f"{name}_address"] // 4
        return {start + token for token in (range(tokens) if own is None else own)}

    width = config.head_dim * max(fields["chunks"], 1)
    if isinstance(job, LayerJob):
        tokens = fields["query_tokens"]
        made = config.blocks_of(fields["key_tokens"]) * config.block
        return rows("q", width) | scales("q_scales"), rows("o", 2 * made)
    tokens = fields["key_tokens"]
    if isinstance(job, VectorJob):
        read = rows("q", 2 * width) | (rows("v", 2 * width * job.seconds) if job.seconds else set())
        written = rows("o", width if job.sends_bytes else 2 * width)
        if job.finds_mantissas:
            unit, start = config.output_bytes, fields["q_scales_address"]
            count = -(-4 * tokens // unit) * unit
            written |= set(range(start // 4, (start + count) // 4))
        return read, written
    live = job.codes[list(job.rows(config))].any(axis=0).repeat(config.block)[:tokens]
    queries, keys = job.queries(config), np.flatnonzero(live)
    asking, asked = job.head.permutation[list(queries)], job.head.permutation[keys]
    read = rows("q", width, asking) | rows("k", width, asked) | rows("v", width, asked)
    read |= scales("q_scales", queries) | scales("k_scales", keys)
    return read, rows("o", 2 * width, asking)


def test_no_job_meets_one_that_may_still_run(seed):
    """From the bytes of the descriptors alone, where memory is used again and again."""
    items = small_items(seed, 3)
    network = small_network(items, CONFIG, seed)
    program = compile_network(network, items, CONFIG)
    image = program.image(0x1000)
    assert len(image.buffers.used) < 0.6 * image.buffers.without_reuse
    # On average another job runs beside one.
    assert checked_overlaps(program, image) > len(program.tasks)


def checked_overlaps(program: DeviceProgram, image: Image) -> int:
    """Check that no job meets one that may still run; returns how many may, in all."""
    player = MemoryPlayer(program.config, program.tasks, image)
    bytes_of = [
        touched(program.config, fields, task.job)
        for fields, task in zip(player.fields, program.tasks, strict=True)
    ]
    done, overlaps = 0, 0
    for index, (read, written) in enumerate(bytes_of):
        fields = player.fields[index]
        done = done_before(Wait(fields["after"], fields["overlap"]), index, done)
        overlaps += index - done
        for other_read, other_written in bytes_of[done:index]:
            assert not written & other_written
            assert not written & other_read
            assert not read & other_written
    return overlaps


@pytest.mark.parametrize(
    ("head_dim", "step", "sentence"),
    [
        (18, None, "heads of 18 channels, and no accelerator takes those; legal: multiples of 4"),
        (260, None, "heads of 260 channels, and no accelerator takes those; .* up to 256"),
        (
            24,
            Rotate(result="r", source="q", rotation="p", head_dim=24, pairing="halves"),
            "r turns halves of heads that no accelerator has, and zeros up to 32 channels would",
        ),
        (
            72,
            Normalize(result="n", source="q", group=72, centred=True, epsilon=1e-5),
            "n has a LayerNorm of heads that no accelerator has, and zeros up to 128 channels",
        ),
    ],
)
def test_heads_that_no_accelerator_takes(head_dim, step, sentence):
    attend = Attend(result="heads", source="q", k="k", v="v", layer=0, head_dim=head_dim)
    with pytest.raises(ParoError, match=sentence):
        check_heads([attend] if step is None else [step, attend])
    check_heads([replace(attend, head_dim=72)])
