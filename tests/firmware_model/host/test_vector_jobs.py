"""Vector steps in memory: programs, tables, rows, mantissas, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from firmware_model.choices import ORDERS
from firmware_model.host.image import load_image, place_jobs, save_image
from firmware_model.host.jobs import HeadOperands
from firmware_model.host.tasks import Buffer, Columns, Task
from firmware_model.host.vector_job import VectorJob
from firmware_model.reorder import token_permutation
from paro.config import Config, ParoError
from paro.config.descriptor import unpack_descriptor
from paro.config.vector_program import (
    PROGRAM_BYTES,
    SECOND_ROW,
    Added,
    Partner,
    Reduce,
    Right,
    pack_program,
)
from tests.firmware_model.host.jobs import make_job

CONFIG = Config(rows=8, cols=8, block=16, head_dim=32, vector_channels=128)
GRID, TOKENS = (2, 3, 4), 29
PASSES = (
    {"group": 64, "loads": 1, "others": 0, "keeps": 1, "reduce": Reduce.LARGEST, "places": 2},
    {"group": 64, "others": SECOND_ROW, "keeps": 1, "kept": 1, "shift": 3},
    {"group": 64, "row": 1, "right": Right.FACTOR, "bytes": 1, "sends": 1},
)


def step(seed: int, **changes) -> VectorJob:
    rng = np.random.default_rng(seed)

    def words(*shape: int) -> np.ndarray:
        return rng.integers(-(2**15) + 1, 2**15, shape).astype(np.int16)

    job = VectorJob(
        passes=PASSES,
        rows=words(TOKENS, 64),
        tables=words(1, 64),
        second=words(TOKENS, 64),
        grid=GRID,
        prefix_tokens=3,
        suffix_tokens=2,
        order=4,
    )
    return replace(job, **changes)


def test_a_step_in_memory(seed: int, tmp_path: Path) -> None:
    job = step(seed)
    image = place_jobs(CONFIG, [job], 0x1000, misalign=(4, 12), row_padding=32)
    memory = np.frombuffer(image.data, np.uint8)
    fields = unpack_descriptor(image.data[image.queue_base - 0x1000 :])
    shape = ("kind", "chunks", "key_tokens", "query_tokens", "prefix_tokens", "suffix_tokens")
    assert [fields[name] for name in shape] == [2, 2, TOKENS, TOKENS, 3, 2]
    axes = ("outer", "middle", "inner")
    assert ORDERS[4] == "WHF"
    assert [fields[f"{axis}_extent"] for axis in axes] == [4, 3, 2]
    assert [fields[f"{axis}_stride"] for axis in axes] == [1, 4, 12]
    assert [fields[f"{name}_row_stride"] for name in "qvo"] == [160, 160, 96]
    rows = np.lib.stride_tricks.as_strided(
        memory[fields["q_address"] - 0x1000 :], (TOKENS, 128), (160, 1)
    )
    assert np.array_equal(np.ascontiguousarray(rows).view("<i2"), job.rows)
    start = fields["k_address"] - 0x1000
    assert np.array_equal(memory[start : start + 128].view("<i2"), job.tables[0])
    start = fields["codes_address"] - 0x1000
    header = {"tables": 1, "seconds": 1, "rows": 1, "int8": 1, "mantissas": 1}
    program = memory[start : start + PROGRAM_BYTES].tobytes()
    assert program == pack_program(header, PASSES)
    (output,) = image.outputs
    unit = CONFIG.output_bytes
    assert len(output.mantissas) == -(-4 * TOKENS // unit) * unit
    assert output.mantissas.start == fields["q_scales_address"]
    assert set(output.mantissas) <= set(image.output_bytes())
    assert (output.words, output.word_bytes, output.row_words) == (64, 1, 64)
    assert output.tokens.tolist() == token_permutation(GRID, 3, 4, 2).tolist()
    save_image(image, tmp_path / "image.safetensors")
    loaded = load_image(tmp_path / "image.safetensors")
    assert loaded.outputs[0].mantissas == output.mantissas
    assert loaded.buffers == image.buffers


def test_equal_arrays_are_there_once(seed: int) -> None:
    jobs = [step(seed), step(seed, rows=step(seed + 1).rows)]
    apart, shared = (place_jobs(CONFIG, jobs, 0, shared=shared) for shared in (False, True))
    first, second = (
        unpack_descriptor(shared.data[shared.queue_base + 128 * place :]) for place in range(2)
    )
    same = [name for name in first if name.endswith("address") and first[name] == second[name]]
    assert same == ["k_address", "v_address", "k_scales_address", "codes_address"]
    assert len(shared.data) < len(apart.data) - jobs[0].rows.nbytes


def test_a_head_reads_what_steps_make(seed: int) -> None:
    """Operands and scales from buffers with the head's own content: the same head."""
    job = make_job(CONFIG, 3, seed)
    head = job.head
    scales = {
        f"{name}_scales": Buffer(f"{name} scales", head.tokens, 4, content=values[:, None])
        for name, values in (("q", head.mq), ("k", head.mk))
    }
    natural = np.empty((head.tokens, 96), np.int8)
    natural[head.permutation] = np.concatenate([head.q8, head.k8, head.v8], axis=1)
    rows = Buffer("rows", head.tokens, 96, content=natural)
    inputs = {name: Columns(rows, 32 * place) for place, name in enumerate("qkv")}
    inputs |= {name: Columns(buffer) for name, buffer in scales.items()}
    empty = replace(job, head=HeadOperands.in_buffers(head.permutation, head.order, 32))
    image = place_jobs(CONFIG, [Task(empty, inputs=inputs)], 0x400)
    fields = unpack_descriptor(image.data[image.queue_base - 0x400 :])
    memory = np.frombuffer(image.data, np.uint8)
    start = fields["k_scales_address"] - 0x400
    assert np.array_equal(memory[start : start + 4 * head.tokens].view("<i4"), head.mk)
    start = fields["v_address"] - 0x400
    found = np.lib.stride_tricks.as_strided(memory[start:], (head.tokens, 32), (96, 1))
    assert np.array_equal(found[head.permutation].view(np.int8), head.v8)
    assert fields["after"] == 0


def changed(place: int, **changes: int) -> dict:
    passes = list(PASSES)
    passes[place] = passes[place] | changes
    return {"passes": tuple(passes)}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"grid": (2, 3, 5)}, "has rows of 29 tokens and walks over 35; legal: as many"),
        ({"rows": np.ones((29, 48), np.int16)}, "rows of 48 channels; legal: multiples of 32"),
        (
            {"rows": np.ones((29, 256), np.int16)},
            "rows of 256 channels; legal: up to vector_channels = 128",
        ),
        ({"second": np.ones((29, 192), np.int16)}, "second rows of 192 words; legal: up to vector"),
        ({"second": np.ones((29, 96), np.int16)}, r"second rows of shape \(29, 96\); legal: 29"),
        ({"second": None}, "takes 1 second rows and has 0; legal: each once"),
        ({"tables": np.ones((5, 64), np.int16)}, r"tables of shape \(5, 64\); legal: up to 4 of"),
        ({"passes": PASSES * 3}, "has 9 passes; legal: 1 to 7"),
        (changed(1, loads=1), "loads rows in a pass that is not the first"),
        (changed(1, sends=1), "has no pass that sends, or several; legal: one"),
        (changed(0, others=1), "takes table 1 of 1"),
        (changed(0, group=32), "pass 0 that finds mantissas of 32 of 64 channels"),
        (changed(2, group=6), "pass 2 with groups of 6 channels; legal: whole beats of 4"),
        (changed(1, partner=Partner.HALVES, kept=0), "pass 1 that keeps words where it reads"),
        (changed(1, partner=Partner.HALVES, group=4), "pass 1 that pairs halves of 1 beats"),
        (changed(1, added=Added.STREAM, addends=SECOND_ROW), "takes 2 second rows and has 1"),
        (changed(1, shift=36), "shift = 36 is not legal"),
    ],
)
def test_steps_that_are_refused(change: dict, sentence: str, seed: int) -> None:
    with pytest.raises(ParoError, match=sentence):
        place_jobs(CONFIG, [step(seed, **change)], 0)


def test_devices_and_buffers_that_do_not_fit(seed: int) -> None:
    def refused(sentence: str, task: Task, config: Config = CONFIG) -> None:
        with pytest.raises(ParoError, match=sentence):
            place_jobs(config, [task], 0)

    job = step(seed)
    words, bytes_ = (np.zeros((TOKENS, 64), kind) for kind in (np.int16, np.int8))
    refused("has no vector unit", Task(job), CONFIG.changed(vector_channels=0))
    refused("is a vector step with out_cut = 4; legal: 0", Task(job, 4))
    rows = Buffer("rows", TOKENS, 64, content=bytes_)
    refused(
        "reads q from buffer 'rows', to which no job before it has written words of 16 bits",
        Task(job, inputs={"q": Columns(Buffer("rows", TOKENS, 128, content=bytes_.repeat(2, 1)))}),
    )
    refused("has q in bytes 0 to 127 of a row", Task(job, inputs={"q": Columns(rows)}))
    refused("cannot read q_scales from a buffer", Task(job, inputs={"q_scales": Columns(rows)}))
    refused("a content of shape", Task(job, output=Columns(Buffer("o", 9, 64, content=words))))
    refused(
        "q_scales in buffer 'rows' of rows of 64 bytes; legal: 4",
        Task(job, mantissas=Columns(rows)),
    )
    refused("finds no mantissas", Task(step(seed, **changed(0, reduce=0)), mantissas=Columns(rows)))
