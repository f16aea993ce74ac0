"""The host driver: what it lays out in memory, and what it says of errors.

The accelerator is a stand-in that finds its operands by the descriptors' words alone and computes
with the integer model.
"""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from firmware_model.choices import ORDERS
from firmware_model.host.driver import AcceleratorError, Driver, run_sync
from firmware_model.host.image import Image, load_image, order_axes, place_jobs, save_image
from firmware_model.host.jobs import LayerJob
from firmware_model.host.tasks import Buffer, Columns, Task
from firmware_model.reference.outputs import model_outputs
from paro.config import PRESETS, Config, ParoError
from paro.config.descriptor import DESCRIPTOR, pack_descriptor, unpack_descriptor
from paro.config.formats import Kind
from paro.config.registers import (
    PAGE_BYTES,
    WINDOWS,
    Cause,
    find_register,
    window_name,
)
from tests.firmware_model.host.jobs import make_job
from tests.firmware_model.host.standin import StandIn
from tests.places import ROOT

TINY = PRESETS["tiny"]
CONFIGS = [TINY, PRESETS["video-128"], Config(rows=16, cols=16, block=16, head_dim=32)]
FILL = 0xA5

#: A descriptor that is legal.
LEGAL = {
    "block": 16,
    "head_dim": 32,
    "key_tokens": 65,
    "first_block_row": 1,
    "query_tokens": 49,
    "prefix_tokens": 3,
    "suffix_tokens": 2,
    "outer_extent": 3,
    "middle_extent": 4,
    "inner_extent": 5,
    "outer_stride": 20,
    "middle_stride": 5,
    "inner_stride": 1,
    "q_row_stride": 32,
    "k_row_stride": 36,
    "v_row_stride": 40,
    "o_row_stride": 64,
    "q_address": 0x1_0000_0004,
    "k_address": 0x2000,
    "v_address": 0x3000,
    "o_address": 0x4000,
    "q_scales_address": 0x5000,
    "k_scales_address": 0x6000,
    "codes_address": 0xFF_FFFF_FFFC,
}


def ready(config: Config, image: Image) -> tuple[StandIn, Driver]:
    accelerator = StandIn(config, image.base, len(image.data))
    return accelerator, Driver(accelerator)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.digest())
@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"misalign": (4, 60, 0, 12), "row_padding": 4},
        {"interleaved": True, "alignment": 4096},
        {"interleaved": True, "misalign": (8, 20), "row_padding": 12},
    ],
    ids=["plain", "misaligned", "interleaved", "interleaved misaligned"],
)
def test_heads_find_their_way_there_and_back(config: Config, layout: dict, seed: int) -> None:
    """All orders, whole heads and parts of them, through descriptors and memory."""
    jobs = [make_job(config, order, seed + order) for order in range(len(ORDERS))]
    blocks = len(jobs[0].codes)
    jobs[1] = dataclasses.replace(jobs[1], query_blocks=range(blocks - 1, blocks))
    jobs[2] = dataclasses.replace(jobs[2], query_blocks=range(1))
    image = place_jobs(config, jobs, 0x7_0000_0000, **layout)
    _, driver = ready(config, image)
    outputs = run_sync(driver.run(image))
    for job, got in zip(jobs, outputs, strict=True):
        assert got.dtype == np.int16
        assert np.array_equal(got, model_outputs(config, job))


def test_places(seed: int) -> None:
    """Alignment, strides and what fills the rest."""
    jobs = [make_job(TINY, order, seed) for order in (0, 5)]
    image = place_jobs(TINY, jobs, 0x1000, interleaved=True, misalign=(4,), row_padding=8)
    memory = np.frombuffer(image.data, np.uint8)
    words = memory[image.queue_base - 0x1000 :].view("<u4").reshape(2, 32)
    assert words[:, 13:17].tolist() == [[72, 72, 72, 136]] * 2
    assert words[0, 17] == 0x1004
    assert (words[1, 17:25:2] - words[0, 17:25:2]).tolist() == [32, 32, 32, 64]
    assert (words[0, 17:31:2] % 64 == 4).all()
    assert image.queue_base % 64 == 4
    # Token 9 of K in the natural order, of the second head.
    position = jobs[1].head.permutation.tolist().index(9)
    start = words[1, 19] - 0x1000 + 9 * 72
    assert memory[start : start + 32].view(np.int8).tolist() == jobs[1].head.k8[position].tolist()
    assert (memory[start + 32 : start + 40] == FILL).all()
    assert (memory[words[0, 23] - 0x1000 :][: 91 * 136] == FILL).all()
    assert image.outputs[1].o_address == words[1, 23]
    assert image.outputs[1].tokens.tolist() == jobs[1].head.permutation.tolist()


def test_order_axes() -> None:
    assert order_axes((3, 4, 5), ORDERS.index("FHW")) == ([3, 4, 5], [20, 5, 1])
    assert order_axes((3, 4, 5), ORDERS.index("WFH")) == ([5, 3, 4], [1, 20, 5])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.digest())
def test_identify(config: Config) -> None:
    accelerator = StandIn(config, 0, 0)
    assert run_sync(Driver(accelerator).identify()) == config


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("IDENT", 0, r"no PARO accelerator answers: IDENT reads 0x00000000; legal: 0x4f524150"),
        ("VERSION", 2 << 16, r"registers have version 2\.0; legal: 3\.3 and later ones of 3"),
        ("ROWS", 5, r"rows = 5 is not legal"),
        ("DIGEST_HI", 1, r"configuration 0001\w{8}, but what it tells of it gives \w{12}"),
    ],
)
def test_strangers_are_refused(name: str, value: int, sentence: str) -> None:
    accelerator = StandIn(TINY, 0, 0)
    accelerator.registers[name] = value
    with pytest.raises(ParoError, match=sentence):
        run_sync(Driver(accelerator).identify())


def test_a_queue_for_another_configuration_is_not_started(seed: int) -> None:
    image = place_jobs(TINY, [make_job(TINY, 0, seed)], 0)
    other = TINY.changed(query_rows=2)
    accelerator, driver = ready(other, image)
    with pytest.raises(ParoError, match=f"laid out for configuration {TINY.digest()}; legal: the"):
        run_sync(driver.run(image))
    assert "STATUS" not in accelerator.registers


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ((1, 3, 7), "error BAD_DESCRIPTOR at head 3 of the queue: a descriptor has another magic"),
        ((5, 0, 7), "error EMPTY_ROW at head 0 of the queue: a block row of the codes, or an"),
        (
            (6, 2, 0x12_3456_7890),
            "error READ_ERROR at head 2 of the queue, in the burst at address 0x1234567890: the ",
        ),
        ((8, 3, 7), "error BUSY: a start came while"),
        ((40, 0, 0), "an error of the unknown cause 40"),
    ],
)
def test_errors_of_the_accelerator(error: tuple[int, int, int], sentence: str, seed: int) -> None:
    image = place_jobs(TINY, [make_job(TINY, 0, seed)], 0)
    accelerator, driver = ready(TINY, image)
    accelerator.error = error
    with pytest.raises(ParoError, match=sentence) as caught:
        run_sync(driver.run(image))
    if isinstance(caught.value, AcceleratorError):
        assert caught.value.cause == Cause(error[0])
        assert caught.value.head == (0 if error[0] == Cause.BUSY else error[1])
        assert caught.value.address == (error[2] if error[0] == Cause.READ_ERROR else 0)
    assert accelerator.registers["STATUS"] & 0b111 == 0, "acknowledged, and at rest"


def test_interrupt_and_polls(seed: int) -> None:
    image = place_jobs(TINY, [make_job(TINY, 0, seed)], 0)
    accelerator, driver = ready(TINY, image)

    async def interrupt() -> None:
        assert accelerator.interrupt_enabled
        accelerator.finish()

    assert len(run_sync(driver.run(image, interrupt()))) == 1
    assert accelerator.registers["STATUS"] == 0
    accelerator.looks_to_done = 100
    run_sync(driver.start(image))
    assert not accelerator.interrupt_enabled
    with pytest.raises(ParoError, match="not done after 5 looks at STATUS; 1 heads are"):
        run_sync(driver.wait(polls=5))


def test_reset_then_start(seed: int) -> None:
    """A reset returns when a start is not refused any more, and nothing is left of the queue."""
    image = place_jobs(TINY, [make_job(TINY, 0, seed)], 0)
    accelerator, driver = ready(TINY, image)
    run_sync(driver.load(image))
    run_sync(driver.start(image))
    run_sync(driver.reset())
    assert accelerator.registers["STATUS"] == 0
    assert len(run_sync(driver.run(image))) == 1
    run_sync(driver.reset())
    assert accelerator.registers["STATUS"] == 0, "at rest already"


@pytest.mark.parametrize("error", [None, (Cause.READ_ERROR, 0, 64)])
def test_an_accelerator_that_does_not_come_to_rest(error: tuple[int, int, int], seed: int) -> None:
    image = place_jobs(TINY, [make_job(TINY, 0, seed)], 0)
    accelerator, driver = ready(TINY, image)
    accelerator.error, accelerator.looks_to_rest = error, 20_000
    run_sync(driver.start(image))
    cause = "" if error is None else "reports error READ_ERROR .*; then "
    sentence = f"^the accelerator {cause}.*is not at rest after 10000 looks at STATUS; a burst of "
    with pytest.raises(ParoError, match=sentence):
        run_sync(driver.reset() if error is None else driver.wait())


def test_a_start_that_is_refused_while_a_queue_ends(seed: int) -> None:
    """The error is told and acknowledged, the end of the queue remains to be waited for."""
    image = place_jobs(TINY, [make_job(TINY, 0, seed)], 0)
    accelerator, driver = ready(TINY, image)
    run_sync(driver.load(image))
    for _ in range(2):
        run_sync(driver.start(image))
    accelerator.registers["STATUS"] |= 0b010
    with pytest.raises(AcceleratorError, match="error BUSY: a start came while a queue was being"):
        run_sync(driver.wait())
    run_sync(driver.wait(polls=1))


def test_counters() -> None:
    """Registers of the stand-in that it does not know read as their own address."""
    accelerator = StandIn(TINY, 0, 0)
    accelerator.registers |= {"CYCLES_LO": 5, "CYCLES_HI": 1, "HEADS_DONE": 3, "CORES": 2}
    counters = run_sync(Driver(accelerator).counters())
    assert counters.cycles == 2**32 + 5
    assert counters.heads_done == 3
    assert counters.write_beats == 0x94
    assert len(counters.cores) == 2
    assert counters.cores[1]["scheduler"] == {"busy": 0x100, "starved": 0x104, "blocked": 0x108}
    assert counters.stages["output"]["blocked"] == 2 * 0x15C


def test_cycles_that_carry_between_two_reads() -> None:
    accelerator = StandIn(TINY, 0, 0)
    accelerator.registers |= {"CYCLES_LO": 0xFFFFFFFF, "CYCLES_HI": 0, "CORES": 1}
    plain = accelerator.read32

    async def counting(address: int) -> int:
        value = await plain(address)
        if address == find_register("CYCLES_LO").offset:
            accelerator.registers |= {"CYCLES_LO": 2, "CYCLES_HI": 1}
        return value

    accelerator.read32 = counting
    assert run_sync(Driver(accelerator).counters()).cycles == 2**32 + 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"grid": (4, 3, 7)}, r"head 1 of the queue does not stand in order HWF of 5 prefix"),
        ({"prefix_tokens": 4}, r"does not stand in order HWF of 4 prefix tokens, grid \(3, 4, 7\)"),
        ({"query_blocks": range(3, 9)}, r"query blocks 3:9 are not legal"),
        ({"query_blocks": range(0, 4, 2)}, r"head 1 of the queue: query blocks must be contigu"),
        (
            {"query_tokens": 80},
            r"has 80 queries to compute; legal: 81 to \d\d, in its last block",
        ),
        ({"query_tokens": 97}, r"head 1 of the queue has 97 queries to compute; legal: 81 to \d\d"),
        ({"codes": np.zeros((6, 6), np.uint8)}, r"block row 0 has no live block"),
        ({"codes": np.ones((5, 6), np.uint8)}, r"legal: uint8 \[6, 6\]"),
    ],
)
def test_heads_that_do_not_fit(change: dict, sentence: str, seed: int) -> None:
    jobs = [make_job(TINY, 2, seed), make_job(TINY, 2, seed, **change)]
    with pytest.raises(ParoError, match=sentence):
        place_jobs(TINY, jobs, 0)


@pytest.mark.parametrize(
    ("layout", "sentence"),
    [
        ({"base": 2}, r"base = 0x2 is not legal; legal: multiples of the alignment, 64"),
        ({"alignment": 6}, r"alignment = 6 is not legal; legal: multiples of 4"),
        ({"misalign": (4, 2)}, r"misalign = 4, 2 is not legal; legal: multiples of 4, 0 or more"),
        ({"misalign": ()}, r"misalign = nothing is not legal"),
        ({"row_padding": 1}, r"row_padding = 1 is not legal"),
        ({"fill": 256}, r"fill = 256 is not legal; legal: a byte, 0 to 255"),
        (
            {"base": 2**40 - 64},
            r"placed from 0xffffffffc0 on leave the memory; legal: addresses below 0x10000000000",
        ),
        ({"jobs": []}, r"a queue of 0 jobs is not legal; legal: 1 to 65535"),
        ({"config": Config(rows=4, cols=4)}, r"head 0 .* has 32 channels; legal: head_dim = 64"),
        (
            {"config": Config(rows=4, cols=4, block=16, head_dim=32, max_tokens=64)},
            r"head 0 of the queue has 91 tokens; legal: up to max_tokens = 64",
        ),
    ],
)
def test_layouts_that_are_refused(layout: dict, sentence: str, seed: int) -> None:
    arguments = {"config": TINY, "jobs": [make_job(TINY, 0, seed)], "base": 0} | layout
    with pytest.raises(ParoError, match=sentence):
        place_jobs(**arguments)


def make_layer(tokens: int, inputs: int, outputs: int, seed: int, **changes) -> LayerJob:
    """A layer of `TINY`."""
    rng = np.random.default_rng(seed)
    shape = TINY.blocks_of(outputs), -(-inputs // TINY.head_dim)
    job = LayerJob(
        x8=rng.integers(-127, 128, (tokens, inputs)).astype(np.int8),
        mx=rng.integers(1, 2**17, tokens).astype(np.int32),
        w8=rng.integers(-127, 128, (outputs, inputs)).astype(np.int8),
        mw=rng.integers(1, 256, outputs).astype(np.int32),
        bias=rng.integers(-(2**15), 2**15, outputs).astype(np.int32),
        codes=rng.integers(0, 4, shape).astype(np.uint8),
        sum_shift=5,
        out_shift=16,
    )
    return dataclasses.replace(job, **changes)


def test_a_layer_in_memory(seed: int, tmp_path: Path) -> None:
    """Rows of whole chunks, scales with biases, outputs in whole blocks; also from files."""
    job = make_layer(5, 40, 21, seed)
    image = place_jobs(TINY, [job], 0x1000, misalign=(4, 12), row_padding=8)
    memory = np.frombuffer(image.data, np.uint8)
    fields = unpack_descriptor(image.data[image.queue_base - 0x1000 :])
    shape = ("kind", "query_tokens", "key_tokens", "chunks", "sum_shift", "out_shift", "after")
    assert [fields[name] for name in shape] == [1, 5, 21, 2, 5, 2, 0]
    strides = {"q": 64 + 8, "k": 64 + 8, "v": 32, "o": 64 + 8}
    assert {name: fields[f"{name}_row_stride"] for name in strides} == strides

    def at(name: str, count: int) -> np.ndarray:
        start = fields[f"{name}_address"] - 0x1000
        return memory[start : start + count]

    inputs = at("q", 5 * 72).reshape(5, 72).view(np.int8)
    assert np.array_equal(inputs[:, :40], job.x8)
    assert (inputs[:, 40:64] == 0).all()
    scales = at("k_scales", 4 * 21).view("<u4")
    assert np.array_equal(scales & 255, job.mw)
    assert np.array_equal((scales >> 8).astype(np.uint16).view(np.int16), job.bias)
    assert (scales >> 24 == 0).all()
    save_image(image, tmp_path / "image.safetensors")
    loaded = load_image(tmp_path / "image.safetensors")
    assert (loaded.base, loaded.data, loaded.queue_base) == (0x1000, image.data, image.queue_base)
    (got,), (want,) = ([vars(place) for place in i.outputs] for i in (loaded, image))
    assert got.pop("tokens").tolist() == want.pop("tokens").tolist() == list(range(5))
    assert got == want
    assert (want["words"], want["row_words"], want["word_bytes"]) == (21, 32, 2)


def test_chained_jobs_share_their_buffers(seed: int) -> None:
    """A head reads columns that a layer writes, and waits; the second layer reads its rows."""
    hidden, out = Buffer("hidden", 91, 112), Buffer("out", 91, 40)
    columns = {name: Columns(hidden, 32 * i) for i, name in enumerate("qkv")}
    tasks = [
        Task(make_layer(91, 40, 96, seed), 7, output=Columns(hidden, 4)),
        Task(make_layer(2, 3, 4, seed)),
        Task(make_job(TINY, 3, seed), 8, inputs=columns, output=Columns(out, 8)),
        Task(make_layer(91, 32, 5, seed), inputs={"q": Columns(out, 8)}),
    ]
    image = place_jobs(TINY, tasks, 0x1000)
    start = image.queue_base - 0x1000
    first, _, head, last = (
        unpack_descriptor(image.data[start + 128 * i :]) for i in range(len(tasks))
    )
    base = first["o_address"] - 4
    assert [head[f"{name}_address"] - base for name in "qkv"] == [0, 32, 64]
    assert last["q_address"] == head["o_address"]
    assert {first["o_row_stride"], *(head[f"{name}_row_stride"] for name in "qkv")} == {112}
    assert head["o_row_stride"] == last["q_row_stride"] == 40
    assert [fields["after"] for fields in (first, head, last)] == [0, 1, 1]
    assert [fields["out_cut"] for fields in (first, head, last)] == [7, 8, 0]


HIDDEN = Buffer("hidden", 10, 32)
WRITES = Task(make_layer(10, 40, 32, 1), 7, output=Columns(HIDDEN))
READS = Task(make_layer(10, 32, 4, 1), inputs={"q": Columns(HIDDEN)})


@pytest.mark.parametrize(
    ("tasks", "sentence"),
    [
        ([READS, WRITES], r"job 0 .* reads q from buffer 'hidden', to which no job before it has"),
        (
            [dataclasses.replace(WRITES, out_cut=0, job=make_layer(10, 40, 16, 1)), READS],
            r"job 1 .* no job before it has written INT8; legal: outputs with out_cut",
        ),
        (
            [dataclasses.replace(WRITES, output=Columns(HIDDEN, 4))],
            r"job 0 .* has o in bytes 4 to 35 of a row of buffer 'hidden'; legal: 0 to 31",
        ),
        (
            [dataclasses.replace(WRITES, output=Columns(HIDDEN, -4))],
            r"o in bytes -4 to 27 of a row",
        ),
        ([dataclasses.replace(WRITES, out_cut=0)], r"o in bytes 0 to 63 of a row of buffer"),
        (
            [WRITES, dataclasses.replace(READS, job=make_layer(10, 33, 4, 1))],
            r"job 1 of the queue has q in bytes 0 to 63 of a row of buffer 'hidden'",
        ),
        (
            [dataclasses.replace(WRITES, job=make_layer(11, 40, 32, 1))],
            r"job 0 of the queue has 11 tokens; legal: up to those of buffer 'hidden', 10",
        ),
        (
            [WRITES, dataclasses.replace(WRITES, output=Columns(Buffer("hidden", 10, 32)))],
            r"two buffers are named 'hidden'; legal: one",
        ),
        (
            [dataclasses.replace(WRITES, output=Columns(Buffer("odd", 10, 34), 0))],
            r"o_row_stride = 34 is not legal",
        ),
        (
            [WRITES, dataclasses.replace(READS, inputs={"k": Columns(HIDDEN)})],
            r"job 1 of the queue cannot read k from a buffer; legal: q",
        ),
        ([dataclasses.replace(WRITES, out_cut=9)], r"out_cut = 9 is not legal; legal: 0 to 8"),
    ],
)
def test_buffers_that_do_not_fit(tasks: list[Task], sentence: str) -> None:
    with pytest.raises(ParoError, match=sentence):
        place_jobs(TINY, tasks, 0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"codes": np.ones((2, 3), np.uint8)}, r"job 0 .* has codes of shape \(2, 3\); legal: \(2"),
        ({"codes": np.full((2, 2), 4, np.uint8)}, r"job 0 of the queue has codes of shape"),
        ({"w8": np.ones((21, 39), np.int8)}, r"has 40 inputs and weights of 39; legal: as many"),
        ({"out_shift": 13}, r"job 0 of the queue has out_shift = 13; legal: 12, 14, 16, 18"),
        ({"sum_shift": 13}, r"sum_shift = 13 is not legal; legal: 0 to 12"),
    ],
)
def test_layers_that_do_not_fit(change: dict, sentence: str, seed: int) -> None:
    with pytest.raises(ParoError, match=sentence):
        place_jobs(TINY, [make_layer(5, 40, 21, seed, **change)], 0)


def test_sizes_of_layers_beyond_the_format(seed: int) -> None:
    """One more than the most inputs, tokens and outputs; an array without INT8 outputs."""
    few = Config(rows=4, cols=4, block=16, head_dim=32, max_tokens=64)
    with pytest.raises(ParoError, match=r"job 0 .* has 65 tokens; legal: 1 to max_tokens = 64"):
        place_jobs(few, [make_layer(65, 3, 3, seed)], 0)
    with pytest.raises(ParoError, match=r"job 0 .* has 65 outputs; legal: 1 to max_tokens = 64"):
        place_jobs(few, [make_layer(3, 3, 65, seed)], 0)
    place_jobs(few, [make_layer(1, 2**15, 1, seed)], 0)
    with pytest.raises(ParoError, match=r"1025 is not legal|has 32,800 inputs"):
        place_jobs(few, [make_layer(1, 2**15 + 1, 1, seed)], 0)
    wide = Config(rows=64, cols=64, block=64, head_dim=64)
    codes = np.ones((1, 1), np.uint8)
    with pytest.raises(ParoError, match=r"has 8-bit outputs, but a row of this accelerator is not"):
        place_jobs(wide, [Task(make_layer(3, 3, 3, seed, codes=codes), 8)], 0)


def test_descriptor_of_known_words() -> None:
    words = np.frombuffer(pack_descriptor(**LEGAL), "<u4").tolist()
    head = [0x4F524150, 16 | 3 << 8 | 32 << 16, 65, 1, 49, 3, 2, 3, 4, 5, 20, 5, 1, 32, 36, 40, 64]
    addresses = [4, 1, 0x2000, 0, 0x3000, 0, 0x4000, 0, 0x5000, 0, 0x6000, 0, 0xFFFFFFFC, 0xFF]
    assert words == [*head, *addresses, 0]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"block": 24}, r"block = 24 is not legal; legal: 16, 32, 64"),
        ({"key_tokens": 0}, r"key_tokens = 0 is not legal; legal: 1 to 1048576"),
        ({"suffix_tokens": -1}, r"suffix_tokens = -1 is not legal; legal: 0 to 1048575"),
        ({"q_address": 6}, r"q_address = 6 is not legal; legal: 0 to 1099511627772, multiples of"),
        ({"o_row_stride": 66}, r"o_row_stride = 66 is not legal"),
        ({"head_dim": 64}, r"q_row_stride = 32 is less than a row; legal: 64 or more"),
        ({"key_tokens": 64}, r"key_tokens = 64, but prefix, grid and suffix have 3 \+ 60 \+ 2"),
        ({"inner_stride": 2}, r"strides \[20, 5, 2\] lead to token 63 of a grid of 60"),
        ({"query_tokens": 50}, r"queries 16 to 65 do not lie in a head of 65 tokens"),
        ({"o_address": 2**40 - 4096}, r"O ends at 0x10000000040; legal: up to 0x10000000000"),
        ({"color": 1}, r"descriptor has no field color"),
        ({"reserved": 0, "magic": 1}, r"descriptor has no field reserved, magic"),
        ({"kind": Kind.VECTOR, "chunks": 0}, r"a vector step of no channels; legal: 1 chunk"),
        ({"kind": Kind.VECTOR, "chunks": 1}, r"a vector step from block row 1 on; legal: 0"),
    ],
)
def test_descriptors_that_are_refused(change: dict, sentence: str) -> None:
    with pytest.raises(ParoError, match=sentence):
        pack_descriptor(**(LEGAL | change))


def test_descriptor_without_a_value() -> None:
    without = {name: value for name, value in LEGAL.items() if name not in ("block", "v_address")}
    with pytest.raises(ParoError, match="descriptor has no value for block, v_address"):
        pack_descriptor(**without)


def test_descriptor_table() -> None:
    """Fields do not overlap, fill 128 bytes and hold whatever a configuration may have."""
    ends = [field.offset + field.width for field in DESCRIPTOR]
    starts = [field.offset for field in DESCRIPTOR]
    assert all(start >= end for start, end in zip(starts[1:], ends, strict=False))
    assert ends[-1] == 1024
    legal = {field.name: field.legal for field in DESCRIPTOR}
    longest = legal["key_tokens"][-1]
    assert Config(max_tokens=longest).max_tokens == longest
    with pytest.raises(ParoError):
        Config(max_tokens=longest + 1)
    assert all(field.legal[-1] < 2**field.width for field in DESCRIPTOR)


def test_transport_that_waits() -> None:
    class Suspended:
        def __await__(self):
            yield

    async def wait() -> None:
        await Suspended()

    with pytest.raises(RuntimeError, match="await the driver instead"):
        run_sync(wait())


def test_a_host_needs_neither_torch_nor_numba() -> None:
    """In a process of its own, from the image to the outputs, on memory that it may write."""
    program = """
import sys

import numpy as np

from firmware_model.host.driver import Driver, run_sync
from firmware_model.host.image import place_jobs
from firmware_model.host.jobs import HeadJob, HeadOperands
from paro.config import PRESETS
from paro.config.registers import REGISTERS, find_register

MEMORY = bytearray(1 << 16)
RESET = {register.offset: register.initial(PRESETS["tiny"]) for register in REGISTERS}


class Transport:
    async def read32(self, address):
        return 0b010 if address == find_register("STATUS").offset else RESET[address]

    async def write32(self, address, value):
        pass

    async def read(self, address, count):
        return bytes(MEMORY[address : address + count])

    async def write(self, address, data):
        MEMORY[address : address + len(data)] = data


config, tokens = PRESETS["tiny"], 24
rows, scales = np.ones((tokens, config.head_dim), np.int8), np.ones(tokens, np.int32)
head = HeadOperands(rows, rows, rows, scales, scales, np.arange(tokens), 0)
job = HeadJob(head, np.ones((2, 2), np.uint8), (2, 3, 4), 0, query_blocks=range(1, 2))
(output,) = run_sync(Driver(Transport()).run(place_jobs(config, [job], 0x1000)))
# What the image holds where nothing was written.
assert output.shape == (8, 32) and output.dtype == np.int16 and (output == -0x5A5B).all()
print(*sorted({"numba", "torch", "safetensors.torch", "amaranth"} & sys.modules.keys()))
"""
    outcome = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert outcome.stderr == ""
    assert outcome.stdout == "\n"


def windows_of(accelerator: StandIn) -> dict[str, tuple[int, int]]:
    """First and last page of each window."""
    return {
        window: (
            accelerator.registers[window_name(window, "first")],
            accelerator.registers[window_name(window, "last")],
        )
        for window in WINDOWS
    }


def test_the_accelerator_sees_no_more_than_its_image(seed: int) -> None:
    base = 0x2_0000_0000
    image = place_jobs(TINY, [make_job(TINY, 0, seed)] * 2, base)
    accelerator, driver = ready(TINY, image)
    run_sync(driver.run(image))
    first, last = base // PAGE_BYTES, (base + len(image.data) - 1) // PAGE_BYTES
    windows = windows_of(accelerator)
    assert windows["inputs"] == (first, last)
    assert windows["weights"] == (1, 0), "closed"
    low, high = windows["outputs"]
    assert first <= low <= high <= last
    for placed in image.outputs:
        end = placed.o_address + max(placed.tokens) * placed.o_row_stride + 2 * placed.words
        assert low * PAGE_BYTES <= placed.o_address < end <= (high + 1) * PAGE_BYTES
    assert high * PAGE_BYTES < end, "and no page more"
    run_sync(driver.start(image, open_memory=True))
    windows = windows_of(accelerator)
    assert windows["inputs"] == windows["outputs"] == (0, (1 << 28) - 1)


def test_windows_that_are_refused() -> None:
    driver = Driver(StandIn(TINY, 0, 0))
    with pytest.raises(ParoError, match="no window 'codes'; legal: inputs, weights, outputs"):
        run_sync(driver.set_windows(codes=range(4)))
    for addresses in (range(-1, 5), range(0, (1 << 40) + 1)):
        with pytest.raises(ParoError, match="window of weights leaves the memory; legal: address"):
            run_sync(driver.set_windows(weights=addresses))
