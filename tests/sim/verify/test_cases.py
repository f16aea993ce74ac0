"""Random cases: the same from the same seed, legal, and of all functional bins."""

import dataclasses
import random

import pytest

from firmware_model.host.image import Image
from firmware_model.host.jobs import HeadJob
from firmware_model.host.tasks import Task
from paro.config import Config
from paro.config.registers import Cause
from rtl.bus.axi_lite import Response
from sim.cycles.bursts import head_fields
from sim.verify.bins import CROSSES, all_bins, hit_bins, summary
from sim.verify.cases import BATCH, GROUP, batch_seeds, make_case
from sim.verify.faults import FAULT_KINDS, Fault, disturbed, refusal
from sim.verify.heads import SKIPS, VALUES, WIDTHS, HeadShape
from sim.verify.images import changed, owners, regions
from sim.verify.layers import LAYER_VALUES, LayerShape
from sim.verify.queues import ChainShape, Item, Layout, Queue, make_queue
from sim.verify.steps import StepShape, legal_channels
from tests.sim.inputs import TINY


def test_a_case_is_the_same_from_the_same_seed(seed):
    one, other = make_case(seed % 10000), make_case(seed % 10000)
    assert one == other
    assert one.line == other.line
    assert one != make_case(seed % 10000 + 1)


def test_batches_share_what_is_dear():
    batches = list(batch_seeds(range(3, 3 * GROUP)))
    assert [number for batch in batches for number in batch] == list(range(3, 3 * GROUP))
    for batch in batches:
        cases = [make_case(number) for number in batch]
        assert len(cases) <= BATCH
        assert len({(c.config, c.target, c.simulator, c.memory) for c in cases}) == 1
    names = {make_case(number).name for number in range(0, 25 * GROUP, GROUP)}
    assert len(names) == 25


def test_a_configuration_that_is_given_stays(seed):
    cases = [make_case(seed % 1000 + number, TINY) for number in range(0, 5 * GROUP, 7)]
    assert all(case.config == TINY for case in cases)
    assert {case.target for case in cases} == {"core", "accelerator"}
    cluster = TINY.changed(cores=2)
    assert {make_case(number, cluster).target for number in range(0, 5 * GROUP, 7)} == {
        "accelerator"
    }


@pytest.mark.parametrize("order", range(6))
def test_heads_are_what_they_say(order, seed):
    generator = random.Random(seed)
    for width in WIDTHS:
        for skips in SKIPS:
            shape = HeadShape(
                (generator.randrange(1, 4), 3, 16), 2, 5, order, width, skips, VALUES[order]
            )
            case = dataclasses.replace(make_case(0, TINY), items=(Item(shape, seed),))
            queue = make_queue(TINY, case.items)
            (job,) = queue.core_jobs
            assert isinstance(job, HeadJob)
            assert job.head.order == order
            assert job.head.tokens == shape.tokens
            wanted = f"head: values {shape.values}, width {width}, target accelerator"
            assert wanted in hit_bins(case, queue.tasks, [])


@pytest.mark.parametrize("values", LAYER_VALUES)
def test_layers_hold_at_the_ends_of_their_formats(values, seed):
    """The golden reference checks every width."""
    for codes in (None, 1, 3):
        shape = LayerShape(20, 70, 40, codes, values=values)
        (words,) = make_queue(TINY, [Item(shape, seed % 1000)]).words
        assert words.shape == (20, 40)
    assert abs(words.astype(int)).max() > 1000


@pytest.mark.parametrize("lanes", [(4, 4), (16, 16)], ids=["2-lanes", "16-lanes"])
def test_programs_are_legal(lanes, seed):
    config = Config(rows=lanes[0], cols=lanes[1], vector_channels=1024)
    generator, lengths = random.Random(seed), legal_channels(config)
    for _ in range(40):
        shape = StepShape((1, 2, 2), generator.choice(lengths[:6]), generator.randrange(1, 8))
        job = shape.job(config, generator.randrange(2**20))
        job.check(config, 0)
        assert len(job.passes) == shape.passes


CONFIG = TINY.changed(vector_channels=128)


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    """A head, a layer, a step and a chain."""
    items = [
        Item(HeadShape((2, 3, 6), 2, 1, 3), 1),
        Item(LayerShape(20, 40, 30), 2),
        Item(StepShape((1, 2, 3), 64, 3), 3),
        Item(ChainShape(11, 1), 4),
    ]
    return make_queue(CONFIG, items).tasks


@pytest.fixture
def image(tasks) -> Image:
    return Layout(misalign=(4, 0, 60), row_padding=12).place(CONFIG, Queue(tasks, [], []))


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_faults_are_of_the_queue(kind, tasks, image, seed):
    causes = set()
    for number in range(20):
        fault = Fault(kind, number / 20, Response.DECERR, seed + number)
        wrong, step, ending = disturbed(CONFIG, tasks, image, 5000, fault)
        assert (wrong is image) == (step.disturb is not None)
        causes.add(ending.cause)
        if step.disturb is None and kind in ("descriptor", "outside"):
            assert ending.head is not None
            fields = head_fields(wrong, ending.head)
            found = refusal(CONFIG, fields)
            assert (found and found.name) == (ending.cause if kind == "descriptor" else None)
    assert causes != {None} or kind.endswith("reset")


@pytest.mark.parametrize("cause", [Cause.BAD_TOKENS, Cause.BAD_LAYER, Cause.BAD_DESCRIPTOR])
def test_descriptors_are_refused_for_the_cause_that_is_asked_for(cause, tasks, image):
    assert all(refusal(CONFIG, head_fields(image, index)) is None for index in range(len(tasks)))
    _, _, ending = disturbed(CONFIG, tasks, image, 1, Fault("descriptor", 0.3, cause=cause))
    assert ending.cause == cause.name


def test_every_byte_has_its_owners(tasks, image):
    found = list(regions(CONFIG, image, tasks))
    assert {region.name for region in found} >= {"descriptor", "codes", "q", "k", "v", "o"}
    for region in found:
        last = region.start + (region.rows - 1) * region.stride + region.width - 1
        for address in (region.start, last):
            assert region.job in owners(CONFIG, image, tasks, address, region.direction)
    assert not owners(CONFIG, image, tasks, image.bytes().stop + 64, "read")
    assert changed(image, 0).data == image.data


@pytest.mark.slow
def test_a_thousand_seeds_meet_every_bin_of_their_work():
    """All but those that only the simulation tells: what an error of the bus met."""
    hit = set()
    for seed in range(1000):
        case = make_case(seed)
        hit |= hit_bins(case, make_queue(case.config, case.items).tasks, [])
    missed = {name for name in all_bins() - hit if not name.startswith(("error:", "burst:"))}
    assert not missed


def test_bins_are_counted_by_cross():
    bins = all_bins()
    assert len(bins) > 4000
    assert len({cross.name for cross in CROSSES}) == len(CROSSES)
    some = set(sorted(bins)[::2])
    told = summary(some)
    assert told["all"] == len(bins)
    assert told["hit"] == len(some)
    assert set(told["missed"]) == bins - some
    assert all(reason for cross in CROSSES if cross.cannot for reason in [cross.reason])
