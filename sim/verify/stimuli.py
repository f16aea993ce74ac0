"""The script that mutants play: every kind of work, every fault, every register, in few cycles."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from firmware_model.host.image import Image
from gen.names import ACCELERATOR
from paro.config import Config
from paro.config.descriptor import DESCRIPTOR, DESCRIPTOR_BYTES
from paro.config.registers import (
    MEMORY_ADDRESS_BITS,
    PAGE_BYTES,
    REGISTERS,
    STAGES,
    START_CAUSES,
    STATES,
    WINDOWS,
    Cause,
    Register,
    counter_name,
    find_register,
    window_name,
)
from rtl.bus.axi_lite import Response
from sim.cycles.bursts import head_fields
from sim.cycles.stalls import CHANNELS, REGISTER_CHANNELS
from sim.verify.cases import GROUP, make_case
from sim.verify.faults import refusal
from sim.verify.heads import HeadShape
from sim.verify.images import changed, changed_bytes, descriptor_at
from sim.verify.layers import LayerShape
from sim.verify.queues import ChainShape, Item, Layout, Queue, make_queue
from sim.verify.script import MEMORY_BYTES, Script, Weight, expected_bytes
from sim.verify.steps import StepShape, legal_channels

__all__ = ["make_scripts"]

#: Tokens of a block for which heads are described.
_BLOCK = 16
#: Addresses at which the memory begins, so that each bit of an address is 0 in one, 1 in another.
_BASES = (0, 0xA5A5_A580_0000, 0x5A5A_5A00_0000, 0xFFFF_FF80_0000)
#: Random cases.
_ANY = 40
_START, _RESET, _ENABLE = (
    1 << find_register("CONTROL").field(name).low for name in ("start", "reset", "interrupt_enable")
)
_BUSY, _DONE, _ERROR = (
    find_register("STATUS").field(name).mask for name in ("busy", "done", "error")
)


@dataclass(frozen=True)
class _Around:
    """How memory and registers behave: latencies, chances of stalls of 256, a seed."""

    latency: tuple[int, int] = (0, 0)
    stalls: Mapping[str, int] = field(default_factory=dict)
    registers: int = 0
    seed: int = 1

    def settings(self) -> dict[str, int]:
        low, high = self.latency
        rates = dict.fromkeys(CHANNELS, 0) | dict(self.stalls)
        rates |= dict.fromkeys(REGISTER_CHANNELS, self.registers)
        return {
            "latency_low": low,
            "latency_span": high - low,
            "stall_seed": self.seed,
            **{f"{channel}_stall_rate": rate for channel, rate in rates.items()},
        }


_IDEAL = _Around()
_SLOW = _Around((150, 250), seed=5)
_STALLS = _Around((1, 60), dict.fromkeys(CHANNELS, 64), 77, 3)
_READS_STALL = _Around((0, 9), {"ar": 128, "r": 192}, 26, 11)
_WRITES_STALL = _Around((0, 40), {"aw": 192, "w": 128, "b": 192}, 154, 7)


def _scaled(shape: HeadShape, unit: int) -> HeadShape:
    """Make a head for blocks so many times as long."""
    frames, *rest = shape.grid
    grid = (unit * frames, *rest)
    return replace(shape, grid=grid, prefix=unit * shape.prefix, suffix=unit * shape.suffix)


@dataclass(frozen=True, eq=False)
class _Placed:
    """A queue in memory."""

    queue: Queue
    image: Image

    def wanted(self) -> tuple[np.ndarray, np.ndarray]:
        """Bytes when it is done, and which of them are known."""
        mantissas = {
            index: found for index, found in enumerate(self.queue.mantissas) if found is not None
        }
        return expected_bytes(self.image, self.queue.words, mantissas)


def make_scripts(config: Config, seed: int = 1) -> list[Script]:
    """Make the scripts of a configuration: what most mutants fail, and what some others do.

    Parameters
    ----------
    config : Config
        The accelerator.
    seed : int
        Of all operands and choices.
    """
    first = (
        _quick,
        _registers,
        _heads,
        _layers,
        _steps,
        _programs,
        _mixed,
        _short,
        _far,
        _any,
        _counters,
        _refused_starts,
        _refused_descriptors,
        _outside,
        _bad_programs,
        _bus_errors,
        _given_up,
        _long,
    )
    second = (_many, _lanes, _late, _strides, _anywhere, _more_programs, _any, _bus_errors)
    return [_script(config, seed, first), _script(config, seed + 1, second)]


def _script(config: Config, seed: int, parts: Sequence[Callable[["_Stage"], None]]) -> Script:
    """Make a script of some parts."""
    stage = _Stage(config, random.Random(seed))
    stage.settings(memory_words=MEMORY_BYTES * 8 // config.axi_bits)
    for part in parts:
        part(stage)
        # Nothing else was written.
        stage.script.check(0, MEMORY_BYTES, weight=Weight.TIED)
    return stage.script


class _Stage:
    """A script that grows, and where its memory is."""

    def __init__(self, config: Config, chance: random.Random) -> None:
        self.config, self.chance = config, chance
        self.script = Script()
        self.base = 0
        self.script.reset()

    # -- settings -------------------------------------------------------------------------------

    def settings(self, **values: int) -> None:
        """Change settings of the harness."""
        self.script.set(**values)

    def around(self, around: _Around) -> None:
        """Change how memory and registers behave."""
        self.settings(**around.settings())

    def move(self, number: int | None = None) -> None:
        """Let the memory begin at one of `_BASES`, or anywhere."""
        if number is None:
            place = self.chance.randrange(MEMORY_BYTES, 2**MEMORY_ADDRESS_BITS - 2 * MEMORY_BYTES)
            self.base = place // PAGE_BYTES * PAGE_BYTES
        else:
            self.base = _BASES[number] & ((1 << MEMORY_ADDRESS_BITS) - 1)
        self.settings(memory_base=self.base)

    # -- queues ---------------------------------------------------------------------------------

    def item(self, shape: HeadShape | LayerShape | ChainShape, cut: int = 0) -> Item | None:
        """Make an item of a queue, with operands of its own; none of what the device cannot do."""
        config = self.config
        cuts = config.cuts_outputs
        if isinstance(shape, HeadShape):
            shape = _scaled(shape, config.block // _BLOCK)
        if shape.tokens > config.max_tokens or (isinstance(shape, ChainShape) and not cuts):
            return None
        return Item(shape, self.chance.randrange(2**20), cut if cuts else 0)

    def step(self, grid: tuple[int, int, int], length: int, passes: int, *walk: int) -> Item | None:
        """Make a vector step, if there is a vector unit that takes as many tokens.

        Its rows have one of the legal lengths, counted from the least, and from the largest below
        0; ``walk`` are prefix, suffix and order.
        """
        if not self.config.vector_channels:
            return None
        channels = legal_channels(self.config)
        own = channels[min(length, len(channels) - 1)]
        shape = StepShape(grid, own, passes, *walk)
        if shape.tokens > self.config.max_tokens:
            return None
        return Item(shape, self.chance.randrange(2**20))

    def place(self, *items: Item | None, **layout: object) -> _Placed:
        """Lay out a queue."""
        where = replace(Layout(base=self.base + 0x10000), **layout)  # pyright: ignore
        placed = self.fitted([item for item in items if item is not None], where)
        assert placed is not None
        return placed

    def fitted(self, items: Sequence[Item], layout: Layout) -> _Placed | None:
        """Lay out a queue as is said; None if the memory does not hold it."""
        queue = make_queue(self.config, items)
        image = layout.place(self.config, queue)
        fits = image.bytes().stop <= self.base + MEMORY_BYTES
        return _Placed(queue, image) if fits else None

    def load(self, image: Image) -> None:
        """Write an image to memory."""
        self.script.load(image.base - self.base, image.data)

    def begin(
        self, image: Image, *, reads: str = "inputs", control: int = _START | _ENABLE
    ) -> None:
        """Open windows for an image, and start."""
        pages = {
            "inputs": image.bytes(),
            "weights": range(0),
            "outputs": image.output_bytes(),
        }
        if reads != "inputs":
            pages |= {"inputs": range(0), reads: image.bytes()}
        for window in WINDOWS:
            addresses = pages[window]
            first, last = (addresses[0], addresses[-1]) if addresses else (PAGE_BYTES, 0)
            self.script.write(window_name(window, "first"), first // PAGE_BYTES)
            self.script.write(window_name(window, "last"), last // PAGE_BYTES)
        self.start(image, control)

    def start(self, image: Image, control: int = _START | _ENABLE) -> None:
        """Start with the windows as they are."""
        self.script.write("QUEUE_BASE_LO", image.queue_base % 2**32)
        self.script.write("QUEUE_BASE_HI", image.queue_base >> 32)
        self.script.write("QUEUE_COUNT", len(image.outputs))
        self.script.write("CONTROL", control)

    def done(self, placed: _Placed) -> None:
        """Wait for the end of a queue, and look at all that it leaves."""
        script, image = self.script, placed.image
        script.interrupt()
        script.read("STATUS", _DONE, mask=_BUSY | _DONE | _ERROR)
        script.write("STATUS", _DONE)
        script.read("STATUS", 0, mask=_BUSY | _DONE | _ERROR)
        self.counters(len(image.outputs))
        self.look(image, placed.wanted())

    def counters(self, heads: int | None = None) -> None:
        """Read all counters."""
        script = self.script
        script.read("HEADS_DONE", heads, weight=Weight.TIMED if heads is None else Weight.FIRM)
        for name in ("READ_BURSTS", "READ_BEATS", "WRITE_BURSTS", "WRITE_BEATS"):
            script.read(name, weight=Weight.TIMED if heads is None else Weight.FIRM)
        script.read("CYCLES_LO", weight=Weight.TIMED)
        script.read("CYCLES_HI", weight=Weight.TIMED)
        for core in range(self.config.cores):
            script.write("COUNTED_CORE", core)
            for stage in STAGES:
                for state in STATES:
                    script.read(counter_name(stage, state), weight=Weight.TIMED)

    def look(
        self,
        image: Image,
        wanted: tuple[np.ndarray, np.ndarray] | None,
        *,
        weight: Weight = Weight.FIRM,
    ) -> None:
        """Look at the bursts, and at an image in memory."""
        script = self.script
        script.bursts(weight=weight)
        script.check(image.base - self.base, len(image.data), weight=weight, wanted=wanted)

    def error(self, cause: Cause, head: int | None = None, weight: Weight = Weight.FIRM) -> None:
        """Wait for an error, and look at all that is told of it."""
        script, status = self.script, find_register("STATUS")
        script.interrupt()
        word = _ERROR | int(cause) << status.field("cause").low
        mask = _DONE | _ERROR | status.field("cause").mask
        script.read("STATUS", word, mask=mask, weight=weight)
        if cause not in START_CAUSES:
            script.rest("STATUS", _BUSY, 0)
            script.read("ERROR_HEAD", head, weight=weight)
        script.write("STATUS", _ERROR)
        script.read("STATUS", mask=_BUSY | _DONE | _ERROR, weight=weight)
        script.read("HEADS_DONE", weight=Weight.TIMED)

    def ended(self, image: Image) -> None:
        """Wait for the end, of whatever kind, of a queue that met an error."""
        script, tied = self.script, Weight.TIED
        script.interrupt()
        script.rest("STATUS", _BUSY, 0)
        script.read("STATUS", weight=tied)
        for name in ("ERROR_HEAD", "ERROR_ADDRESS_LO", "ERROR_ADDRESS_HI"):
            script.read(name, weight=tied)
        script.write("STATUS", _DONE | _ERROR)
        script.read("STATUS", weight=tied)
        self.counters()
        self.look(image, None, weight=tied)

    def run(self, name: str, placed: _Placed, around: _Around = _IDEAL, **windows: Any) -> None:
        """Work on a queue."""
        self.script.mark(name)
        self.around(around)
        self.load(placed.image)
        self.begin(placed.image, **windows)
        self.done(placed)


# -- registers ----------------------------------------------------------------------------------


def _registers(stage: _Stage) -> None:
    """Read, write and read again every register, and addresses that have none."""
    script, config = stage.script, stage.config
    script.mark("registers after reset")
    script.reset()
    for register in REGISTERS:
        script.read(register.name, register.initial(config))
    script.mark("registers written")
    read_only = [register for register in REGISTERS if register.access == "ro"]
    plain = [r for r in REGISTERS if r.access == "rw" and r.name not in ("CONTROL", "STATUS")]
    for number, register in enumerate(read_only):
        script.write(register.name, 0xFFFF_FFFF, later=number % 3 - 1, refused=True)
    for number, register in enumerate(plain):
        _write_patterns(script, register, number)
    for register in plain:
        script.read(register.name)
    script.mark("no registers")
    known = {register.offset for register in REGISTERS}
    offsets = [offset for offset in range(0, 1 << 12, 4) if offset not in known]
    for offset in [*offsets[:64], *offsets[64::7]]:
        script.read(offset, 0, refused=True)
    for offset in offsets[::11]:
        script.write(offset, 0xFFFF_FFFF, refused=True)
    script.mark("registers under stalls")
    stage.around(_Around(registers=120, seed=9))
    for number, register in enumerate(plain):
        script.read(register.name)
        script.write(register.name, 0x1111_1111 * number, later=number % 9 - 4)
        script.read(register.name)
    script.write("CONTROL", _ENABLE)
    script.read("CONTROL", _ENABLE)
    script.reset()
    for register in REGISTERS:
        script.read(register.name, register.initial(config))
    stage.around(_IDEAL)


def _write_patterns(script: Script, register: Register, number: int) -> None:
    """Write a register whole, and lane by lane."""
    mask = sum(each.mask for each in register.fields if each.access == "rw")
    script.write(register.name, 0xFFFF_FFFF, later=number % 5 - 2)
    script.read(register.name, mask)
    value = 0xFFFF_FFFF
    for lane, pattern in enumerate((0x5A69_96A5, 0xA596_695A, 0x0F33_55C3, 0x9669_A55A)):
        script.write(register.name, pattern, lanes=1 << lane, later=lane - 1)
        value = value & ~(0xFF << 8 * lane) | pattern & 0xFF << 8 * lane
        script.read(register.name, value & mask)
    script.write(register.name, 0x1234_5678 * (number + 1) % 2**32, lanes=0)
    script.read(register.name, value & mask)
    script.write(register.name, 0xC33C_5AA5)
    script.read(register.name, 0xC33C_5AA5 & mask)


# -- work ---------------------------------------------------------------------------------------

#: Six heads for the six orders: partial blocks, whole blocks, less than one, some rows of many.
_HEADS = (
    HeadShape((3, 4, 3), 3, 2, 0),
    HeadShape((2, 3, 5), order=1, values="extreme"),
    HeadShape((1, 1, 7), 4, 5, 2, "8", "none", "one-hot"),
    HeadShape((1, 3, 2), order=3, values="any"),
    HeadShape((3, 5, 4), 15, 4, 4, rows=(2, 4)),
    HeadShape((4, 4, 3), 8, 8, 5, "2", rows=(1, 3)),
)


def _quick(stage: _Stage) -> None:
    """A few short jobs of each kind: what most mutants fail."""
    items = [
        stage.item(HeadShape((1, 3, 4), 5, 2, 4, "mixed")),
        stage.item(LayerShape(5, 40, 20)),
        *(stage.step((1, 1, 2), 0, passes) for passes in (3, 5, 7)),
        stage.step((2, 1, 2), stage.chance.randrange(4), 4, 0, 0, 2),
        stage.item(HeadShape((2, 1, 1), order=2, width="8", skips="none"), 3),
    ]
    stage.run("a few jobs", stage.place(*items))
    stage.run("a few jobs under stalls", stage.place(*items), _STALLS)


def _heads(stage: _Stage) -> None:
    stage.move(1)
    stage.run("heads", stage.place(*map(stage.item, _HEADS)))
    stage.move(2)
    same = [stage.item(HeadShape((2, 3, 5), 1, 2, order, "mixed")) for order in (5, 2, 4)]
    placed = stage.place(
        *same, interleaved=True, alignment=4, misalign=(4, 12, 20, 60, 0, 36), row_padding=28
    )
    stage.run("heads side by side", placed, _STALLS, reads="weights")
    few = [stage.item(replace(shape, order=(shape.order + 3) % 6)) for shape in _HEADS[:4]]
    stage.run("heads, reads stall", stage.place(*few, row_padding=32), _READS_STALL)


def _layers(stage: _Stage) -> None:
    block, chunk = stage.config.block, stage.config.head_dim
    layers = [
        stage.item(LayerShape(stage.config.layer_tokens + 5, chunk + 9, block + 3)),
        stage.item(LayerShape(1, 5, 1, values="any"), 3),
        stage.item(LayerShape(2 * stage.config.layer_tokens, 3 * chunk, 2 * block), 8),
        stage.item(LayerShape(3, 2 * chunk, 5, outliers=True, biased=False)),
        stage.item(LayerShape(7, chunk, block, values="extreme"), 1),
    ]
    stage.move(3)
    stage.run("layers", stage.place(*layers, misalign=(4, 60, 8), alignment=4))
    chain = stage.item(ChainShape(stage.config.block + 3, 1))
    stage.run("chain", stage.place(chain), _WRITES_STALL)
    stage.move(0)
    stage.run("chain under stalls", stage.place(chain, *layers[:2], row_padding=12), _STALLS)


def _steps(stage: _Stage) -> None:
    """Programs of every length, of rows of every length."""
    if not stage.config.vector_channels:
        return
    for number, around in enumerate((_IDEAL, _STALLS, _IDEAL, _WRITES_STALL, _READS_STALL)):
        steps = [
            stage.step((1, 2, 2), stage.chance.randrange(2), passes, number % 3, 1, number)
            for passes in range(1, 8)
        ]
        steps.append(stage.step((3, 1, 1), -1, 1 + number, 0, 0, 5))
        stage.move(number % len(_BASES))
        placed = stage.place(
            *steps, misalign=(0, 8, 24) if number % 2 else (0,), row_padding=8 * (number % 3)
        )
        stage.run(f"vector steps {number}", placed, around)


def _programs(stage: _Stage) -> None:
    """Short vector steps of many programs."""
    if not stage.config.vector_channels:
        return
    for number, around in enumerate((_IDEAL, _READS_STALL)):
        steps = [
            stage.step((1, 1, 1 + place % 3), stage.chance.randrange(2), passes)
            for place, passes in enumerate((2, 3, 4, 5, 6, 7, 7, 6, 4))
        ]
        stage.run(f"programs {number}", stage.place(*steps), around)


def _mixed(stage: _Stage) -> None:
    """Heads, layers and steps by turns."""
    chance, config = stage.chance, stage.config
    items = []
    for number in range(4):
        items += [
            stage.item(HeadShape((1, 2, 4 + number), number, 1, number), number),
            stage.step((1, 3, 1), chance.randrange(2), 3, 2, 0, number + 1),
            stage.item(LayerShape(5 + number, config.head_dim + 1, 20), 2 * number),
            stage.step((1, 1, 2), 0, 2),
        ]
    stage.run("all kinds", stage.place(*items), _SLOW, reads="outputs")
    stage.run("all kinds under stalls", stage.place(*items, alignment=8, misalign=(8, 0)), _STALLS)


def _short(stage: _Stage) -> None:
    """Jobs of one row or a few."""
    chance = stage.chance
    items = []
    for number in range(12):
        if chance.random() < 0.6:
            tokens, width = chance.choice((1, 1, 5, 17)), chance.choice(("2", "8"))
            shape = HeadShape((tokens, 1, 1), order=number % 6, width=width, skips="none")
            items.append(stage.item(shape))
        else:
            layer = LayerShape(chance.choice((1, 3)), chance.choice((5, 40)), 3)
            items.append(stage.item(layer))
    placed = stage.place(*items)
    stage.run("short jobs", placed)
    stage.run("short jobs, slow memory", placed, _SLOW)


def _long(stage: _Stage) -> None:
    """As many tokens and blocks as there can be, few of them live."""
    config, block = stage.config, stage.config.block
    tokens = min(config.max_tokens, 64 * block, 2**18 // config.head_dim) // 64 * 64
    last = config.blocks_of(tokens)
    grids = ((tokens, 1, 1), (1, tokens, 1), (1, 1, tokens), (4, tokens // 64, 16))
    grids += ((tokens // 8, 2, 4), (2, 4, tokens // 8), (3, (tokens - 9) // 9, 3))
    shapes = []
    for order, grid in enumerate(grids):
        row = stage.chance.randrange(last - 3)
        shape = HeadShape(grid, order=order % 6, skips="all but one", width="2")
        shapes.append(replace(shape, rows=(row, row + 2)))
    shapes += [
        HeadShape((4, tokens // 64, 16), order=4, skips="all but one", rows=(0, min(last, 5))),
        HeadShape((1, 1, min(18 * block, tokens)), skips="some", rows=(1, 3), width="8"),
        *(
            HeadShape((1, 1, tokens), skips="none", width="2", values=values, rows=(0, 1))
            for values in ("equal", "zero keys", "extreme")
        ),
    ]
    items = [Item(shape, stage.chance.randrange(2**20)) for shape in shapes]
    items += [
        stage.item(LayerShape(3, 18 * config.head_dim, 2 * block)),
        stage.item(LayerShape(tokens // 8, 2 * config.head_dim, block)),
        stage.step((4, 5, 5), 0, 1, 3, 1, 4),
    ]
    stage.move(0)
    for number, item in enumerate(filter(None, items)):
        stage.run(f"long job {number}", stage.place(item))


def _far(stage: _Stage) -> None:
    """Rows far from one another."""
    items = [
        Item(HeadShape((1, 1, 2), order=1, skips="none", width="2"), 1),
        stage.item(LayerShape(2, 5, 2)),
        stage.step((1, 1, 2), 0, 2),
    ]
    for number, padding in enumerate((100_004, 50_000, 77_776)):
        stage.move(number)
        for item in filter(None, items):
            placed = stage.place(item, row_padding=padding)
            stage.run(f"rows {padding} bytes apart", placed)


def _many(stage: _Stage) -> None:
    """More jobs than a byte counts, each as short as there are; a layer of many tiles."""
    items = [
        stage.step((1, 1, 1), 0, 1) if number % 9 == 4 else stage.item(LayerShape(1, 1, 1))
        for number in range(300)
    ]
    stage.run("a long queue", stage.place(*items))
    outputs = min(20 * stage.config.block, stage.config.max_tokens)
    layer = LayerShape(1, 18 * stage.config.head_dim, outputs, codes=1)
    stage.run("many tiles", stage.place(Item(layer, 0)))


def _anywhere(stage: _Stage) -> None:
    """Two or three rows of each kind of job, anywhere in memory, any distance apart."""
    chance = stage.chance
    for number in range(40):
        stage.move()
        rows = 2 + number % 2
        items = [
            Item(HeadShape((1, 1, rows), order=1, skips="none", width="2"), number),
            stage.item(LayerShape(rows, 5, 2)),
            *(stage.step((1, 1, rows), chance.randrange(2), 2) for _ in range(2)),
        ]
        items = [item for item in items if item is not None]
        padding = 4 * chance.randrange(2 ** chance.randrange(6, 17))
        layout = Layout(base=stage.base + 0x10000, row_padding=padding)
        placed = stage.fitted(chance.sample(items, chance.randint(1, len(items))), layout)
        if placed is not None:
            stage.run(f"rows {padding} bytes apart, anywhere", placed)


def _any(stage: _Stage) -> None:
    """Work of random cases, anywhere in memory."""
    first = stage.chance.randrange(1000) * GROUP
    cases = (make_case(seed, stage.config) for seed in range(first, first + 4 * GROUP))
    cases = (case for case in cases if case.target == ACCELERATOR)
    for case in islice(cases, _ANY):
        stage.move()
        layout = replace(case.layout, base=stage.base + case.layout.base)
        placed = stage.fitted(case.items, layout)
        if placed is not None:
            around = stage.chance.choice((_IDEAL, _SLOW, _STALLS, _READS_STALL, _WRITES_STALL))
            stage.run(f"case {case.seed}", placed, around)


def _counters(stage: _Stage) -> None:
    """Counters that were near to each of their carries when the work had begun."""
    placed = _small(stage)
    for number in range(6, 32, 3):
        for value in ((1 << number) - 9, (0x5555_5555 << number) % 2**32):
            stage.script.mark(f"counters from {value:#x}")
            stage.around(_SLOW)
            stage.load(placed.image)
            stage.begin(placed.image)
            stage.script.clocks(30)
            stage.script.counted(value)
            stage.ended(placed.image)


def _late(stage: _Stage) -> None:
    """More that waits for an answer than the masters count, and at last each of their ends."""
    items = [stage.item(LayerShape(stage.config.layer_tokens, 5, 2), seed) for seed in range(2)]
    items += [stage.item(LayerShape(3, 40, 1)), stage.step((2, 3, 4), 0, 2)]
    for latency in ((1800, 1900), (500, 700)):
        placed = stage.place(*items, row_padding=36)
        stage.run(f"answers after {latency[0]}", placed, _Around(latency))


def _strides(stage: _Stage) -> None:
    """Long axes, each as the inner, the middle and the outer one."""
    tokens = stage.config.max_tokens
    grids = ((2, 1, 37), (3, 45, 1), (1, 6, 33), (41, 2, 2), (5, 23, 3))
    for number, grid in enumerate(grids):
        stage.move()
        # From a row in the midst on, so that the walk begins there.
        last = grid[0] * grid[1] * grid[2] // stage.config.block
        heads = [
            HeadShape(grid, 5 * number, 7, order, "2", rows=(min(order, last - 1), last))
            for order in range(6)
        ]
        steps = [stage.step(grid, 0, 1, number, 40 * (number % 2), order) for order in range(6)]
        items = [stage.item(head) for head in heads if head.tokens <= tokens]
        items = [item for item in [*items, *steps[number % 2 :: 2]] if item is not None]
        if items:
            stage.run(f"strides of {grid}", stage.place(*items))


def _more_programs(stage: _Stage) -> None:
    """Vector steps of many programs, and rows of every length."""
    if not stage.config.vector_channels:
        return
    for number in range(40):
        stage.move()
        most = 4 if number < 10 else 1
        steps = [
            stage.step((1, 2, 1 + place % most), place % 5 - 1, 1 + (number + place) % 7, place % 3)
            for place in range(8)
        ]
        stage.run(f"more programs {number}", stage.place(*steps), (_IDEAL, _STALLS)[number % 2])


def _lanes(stage: _Stage) -> None:
    """Orders, and what waits for them, only by the lanes that they lie in."""
    script, placed = stage.script, _small(stage)
    script.mark("orders by lanes")
    stage.around(_IDEAL)
    stage.load(placed.image)
    script.write("CONTROL", _ENABLE)
    script.write("CONTROL", 0, lanes=14)
    script.read("CONTROL", _ENABLE)
    script.write("CONTROL", 0)
    script.write("CONTROL", 0xFFFF_FFFF, lanes=14)
    script.read("CONTROL", 0)
    script.read("STATUS", 0, mask=_BUSY | _DONE | _ERROR)
    stage.begin(placed.image)
    script.interrupt()
    script.write("STATUS", 0xFFFF_FFFF, lanes=14)
    script.read("STATUS", _DONE, mask=_BUSY | _DONE | _ERROR)
    script.pin(1)
    script.write("STATUS", _DONE)
    stage.look(placed.image, placed.wanted())


# -- what is refused ----------------------------------------------------------------------------


def _small(stage: _Stage, **layout: object) -> _Placed:
    """Three jobs that are soon done, one of each kind."""
    return stage.place(
        stage.item(HeadShape((1, 1, 7), 4, 5, 3, "2")),
        stage.item(LayerShape(3, 40, 5)),
        stage.step((1, 1, 3), 0, 3),
        **layout,
    )


def _refused_starts(stage: _Stage) -> None:
    script, placed = stage.script, _small(stage)
    image = placed.image
    script.mark("starts that are refused")
    stage.around(_IDEAL)
    stage.load(image)
    stage.start(replace(image, outputs=[]))
    stage.error(Cause.EMPTY_QUEUE)
    for offset in (1, 2):
        stage.start(replace(image, queue_base=image.queue_base + offset))
        stage.error(Cause.BAD_QUEUE_BASE)
    script.mark("no interrupt")
    stage.begin(image, control=_START)
    script.rest("STATUS", _DONE, _DONE)
    script.pin(0)
    script.write("CONTROL", _ENABLE)
    script.pin(1)
    script.write("CONTROL", 0)
    script.pin(0)
    script.write("STATUS", _DONE)
    script.read("STATUS", 0, mask=_BUSY | _DONE | _ERROR)
    script.mark("starts while busy")
    for after in (1, 60, 300):
        stage.load(image)
        stage.begin(image)
        script.clocks(after)
        stage.start(image)
        stage.error(Cause.BUSY, weight=Weight.TIED)
        stage.done(placed)


def _refused_descriptors(stage: _Stage) -> None:
    """Every field of a descriptor with values that are not legal, in a job of each kind."""
    config, script = stage.config, stage.script
    stage.move(2)
    placed = _small(stage)
    good = placed.image
    stage.around(_IDEAL)
    stage.load(good)
    stage.begin(good)
    stage.done(placed)
    for index in range(len(good.outputs)):
        fields = head_fields(good, index)
        for name, value, cause in _bad_values(config, fields):
            script.mark(f"job {index} with {name} = {value:#x}")
            _load_descriptors(stage, changed(good, index, **{name: value}))
            stage.start(good)
            stage.error(cause, index)
        stage.load(good)
    stage.begin(good)
    stage.done(placed)


def _bad_values(config: Config, fields: Mapping[str, int]) -> Iterator[tuple[str, int, Cause]]:
    """Values of fields for which a descriptor must be refused."""
    for each in DESCRIPTOR:
        mask, old = (1 << each.width) - 1, fields[each.name]
        limits = {"key_tokens": config.max_tokens, "query_tokens": config.max_tokens}
        limits |= {"chunks": config.chunks_max}
        values = [0, mask, old ^ 1, old ^ 1 << each.width - 1, limits.get(each.name, old) + 1]
        values += [old ^ 1 << bit for bit in range(2, each.width - 1, 2)]
        for value in dict.fromkeys(value & mask for value in values):
            cause = refusal(config, {**fields, each.name: value})
            if cause is not None:
                yield each.name, value, cause


def _load_descriptors(stage: _Stage, image: Image) -> None:
    """Write the descriptors of an image alone."""
    start, count = descriptor_at(image, 0), len(image.outputs) * DESCRIPTOR_BYTES
    stage.script.load(image.base + start - stage.base, image.data[start : start + count])


def _outside(stage: _Stage) -> None:
    """Addresses, of each kind of job, that lead out of the windows."""
    for number in (1, None, None):
        stage.move(number)
        _outside_of(stage, _small(stage))


def _outside_of(stage: _Stage, placed: _Placed) -> None:
    """Addresses that lead out of the windows of some jobs."""
    script, good = stage.script, placed.image
    end = -(-good.bytes().stop // PAGE_BYTES) * PAGE_BYTES
    top = (1 << MEMORY_ADDRESS_BITS) - 4
    stage.load(good)
    for index in range(len(good.outputs)):
        fields = head_fields(good, index)
        names = [name for name in fields if name.endswith("_address") and fields[name]]
        for number, name in enumerate(names):
            for value in (end, good.base - PAGE_BYTES, top, end - 4)[number % 2 :: 2]:
                script.mark(f"job {index} with {name} = {value:#x}")
                _load_descriptors(stage, changed(good, index, **{name: value}))
                stage.begin(good, reads=("inputs", "weights")[number % 2])
                stage.ended(good)
    stage.load(good)
    stage.begin(good)
    stage.done(placed)


def _bad_programs(stage: _Stage) -> None:
    """Vector steps that are refused."""
    script, config = stage.script, stage.config
    if not config.vector_channels:
        return
    stage.move(0)
    placed = _small(stage)
    good = placed.image
    index = len(good.outputs) - 1
    at = head_fields(good, index)["codes_address"]
    header = good.data[at - good.base : at - good.base + 4]
    wrong = [
        changed_bytes(good, at, bytes([header[0] ^ 1])),
        changed_bytes(good, at + 1, bytes([header[1] ^ 0x80])),
        changed_bytes(good, at + 2, bytes([header[2] & ~7])),
        changed(good, index, chunks=config.vector_channels // config.head_dim + 1),
        changed(good, index, chunks=config.chunks_max),
    ]
    for number, image in enumerate(wrong):
        script.mark(f"program {number}")
        stage.load(image)
        stage.begin(image)
        stage.error(Cause.BAD_PROGRAM, index)
    stage.load(good)
    stage.begin(good)
    stage.done(placed)


def _bus_errors(stage: _Stage) -> None:
    """Errors of the memory at some beats and responses."""
    script = stage.script
    stage.move(3)
    placed = _small(stage)
    image = placed.image
    for number in range(14):
        way = ("read", "write")[number % 2]
        place = stage.chance.randrange(1, 250 if way == "read" else 14)
        script.mark(f"{way} error at {place}")
        script.reset()
        stage.around((_IDEAL, _STALLS, _SLOW)[number % 3])
        stage.settings(
            **{f"{way}_error_at": place},
            error_response=int((Response.SLVERR, Response.DECERR)[number // 2 % 2]),
        )
        stage.load(image)
        stage.begin(image)
        stage.ended(image)
        stage.settings(read_error_at=0, write_error_at=0)
        stage.load(image)
        stage.begin(image)
        stage.done(placed)


def _given_up(stage: _Stage) -> None:
    """Resets at any time, and at once the whole queue again."""
    script = stage.script
    stage.move(0)
    placed = _small(stage, misalign=(4, 60), alignment=4)
    image = placed.image
    for number in range(16):
        after = stage.chance.randrange(1, 1500)
        kind = ("by register", "by wire")[number % 2]
        script.mark(f"reset {kind} after {after}")
        stage.around((_IDEAL, _STALLS, _SLOW, _WRITES_STALL)[number // 2 % 4])
        stage.load(image)
        stage.begin(image)
        script.clocks(after)
        if number % 2:
            script.reset(1 + number % 4)
        else:
            script.write("CONTROL", _RESET | _ENABLE | (_START if number % 4 else 0))
            script.rest("STATUS", _BUSY, 0)
            script.write("STATUS", _DONE | _ERROR)
            script.read("STATUS", 0, mask=_BUSY | _DONE | _ERROR)
        stage.look(image, None, weight=Weight.TIED)
        stage.begin(image)
        stage.done(placed)
