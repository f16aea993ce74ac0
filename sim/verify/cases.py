"""Random cases: a configuration, its work, its memory and what disturbs it, all from one seed.

Seeds that follow one another share what is dear. `GROUP` of them have one configuration and one
target, `BATCH` of these one simulator and one memory: so many run in one process. A few batches run
under Icarus, and so with the smallest array. What a seed is depends on nothing else. What has many
combinations (`sim.verify.bins`) is not drawn but dealt: each place of a batch takes the next ones
of its class.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Literal

from paro.config import Config
from paro.config.formats import CODE_DIGITS, LANES
from rtl.bus.axi_lite import Response
from sim.cycles.memory import Memory
from sim.verify.configs import deal, random_config
from sim.verify.faults import REFUSED, Fault, FaultKind
from sim.verify.heads import SKIPS, VALUES, WIDTHS, HeadShape, Skips, Values, Width
from sim.verify.layers import LAYER_VALUES, LayerShape
from sim.verify.queues import ChainShape, Item, Layout
from sim.verify.steps import StepShape, legal_channels

__all__ = ["BATCH", "GROUP", "Case", "batch_seeds", "make_case"]

TargetName = Literal["core", "accelerator"]

#: Seeds of one configuration and target, and those of them that run in one process.
GROUP, BATCH = 40, 8
#: Of so many groups one is of the core alone, the last.
_TARGETS = 5
#: Cycles of the array that a head or layer may take, with each simulator.
_BUDGETS = {"verilator": 5000, "icarus": 400}
#: Icarus, which is slow, has the last batch of so many groups, and so a small array.
_ICARUS_GROUPS = 3
_ICARUS_ARRAY = {"rows": 4, "cols": 4, "block": 16, "head_dim": 32}

_BOTH = (False, True)
#: Points that heads are dealt: order, width, a partial block, a prefix, skips.
_HEADS: list[tuple[int, Width, bool, bool, Skips]] = list(
    product(range(6), WIDTHS, _BOTH, _BOTH, SKIPS)
)
#: Points that layers are dealt: code, partial tokens, outputs and inputs, a bias.
_LAYERS: list[tuple[int | None, bool, bool, bool, bool]] = list(
    product((None, 0, 1, 2, 3), _BOTH, _BOTH, _BOTH, _BOTH)
)
#: A step that leads through all of either, and mixes what neighbours have.
_STRIDES = {len(_HEADS): 127, len(_LAYERS): 37}
#: Heads of a case of a core, of an accelerator undisturbed and disturbed.
_CORE_HEADS, _PLAIN_HEADS, _DISTURBED_HEADS = 7, 6, 3

#: Faults by the place in a batch; where there are several, batch by batch. Place 0 has none, and
#: place 1 has none but other queues, and plays them a second time without a reset.
_FREE_PLACE = 1
_FAULTS: dict[int, tuple[FaultKind, ...]] = {
    2: ("read error",),
    3: ("write error",),
    4: ("control reset",),
    5: ("hard reset",),
    6: ("second start", "empty row", "second start", "empty row", "queue"),
    7: ("descriptor", "outside", "descriptor", "outside", "program"),
}
_LATENCIES = ((0, 0), (1, 60), (30, 30), (0, 90), (1, 1), (200, 200), (150, 250))
_CORE_LATENCIES = (0, 3, 30, 200, 1)


@dataclass(frozen=True)
class Case:
    """One case.

    Parameters
    ----------
    seed : int
        What it was made from.
    config : Config
        The core or accelerator.
    target : TargetName
        Which of them.
    simulator : str
        Name in `sim.cosim.simulators.SIMULATORS`.
    memory : Memory
        Behaviour of the memory; of a core's streams its least latency and its stalls.
    items : tuple of Item
        Jobs, in their sequence.
    layout : Layout
        How they lie in memory.
    fault : Fault, optional
        What disturbs them, before they are played whole.
    again : bool
        Whether they are played a second time, without a reset.
    """

    seed: int
    config: Config
    target: TargetName
    simulator: str
    memory: Memory
    items: tuple[Item, ...]
    layout: Layout = field(default_factory=Layout)
    fault: Fault | None = None
    again: bool = False

    @property
    def name(self) -> str:
        """Configuration in a few words: the array, and what is not as by default."""
        values, plain = self.config.model_dump(), Config().model_dump()
        array = ("rows", "cols", "block", "head_dim")
        words = "{}x{}-b{}-d{}".format(*(values[name] for name in array))
        more = [f"{k}={v}" for k, v in values.items() if k not in array and v != plain[k]]
        return " ".join([self.target, words, *more])

    @property
    def line(self) -> str:
        """All of it in one line."""
        memory = self.memory
        around = [f"latency {memory.latency[0]}:{memory.latency[1]}"]
        around += [f"stalls {memory.stall_seed}"] * (memory.stall_seed is not None)
        around += [f"{memory.bandwidth} bytes a cycle"] * (memory.bandwidth is not None)
        parts = [self.name, self.simulator, ", ".join(around)]
        if self.target == "accelerator":
            parts.append(self.layout.line)
        parts.append("; ".join(item.line for item in self.items))
        parts += [self.fault.line] if self.fault else []
        parts += ["twice"] if self.again else []
        return f"seed {self.seed}: " + " | ".join(parts)


def batch_seeds(seeds: range) -> Iterator[range]:
    """Seeds by what runs in one process."""
    first = seeds.start
    while first < seeds.stop:
        end = min((first // BATCH + 1) * BATCH, seeds.stop)
        yield range(first, end)
        first = end


def make_case(seed: int, config: Config | None = None) -> Case:
    """Case of a seed.

    Parameters
    ----------
    seed : int
        0 or more.
    config : Config, optional
        Configuration of all cases; by default each group has its own.
    """
    return _Maker(seed, config).make()


@dataclass(frozen=True)
class _Place:
    """Where a seed stands: its group, its batch and its place in it, counted by target."""

    target: TargetName
    group: int
    batch: int
    place: int


def _place(seed: int, *, has_core: bool) -> _Place:
    group, own = divmod(seed, GROUP)
    turn, part = divmod(group, _TARGETS)
    target: TargetName = "core" if part == _TARGETS - 1 and has_core else "accelerator"
    number = group
    if has_core:
        number = turn if target == "core" else turn * (_TARGETS - 1) + part
    return _Place(target, number, number * (GROUP // BATCH) + own // BATCH, seed % BATCH)


class _Maker:
    """Makes one case."""

    def __init__(self, seed: int, config: Config | None) -> None:
        self.seed = seed
        has_core = config is None or config.cores == 1
        self.at = _place(seed, has_core=has_core)
        self.is_core = self.at.target == "core"
        self.simulator = "icarus" if self._is_icarus(config) else "verilator"
        self.config = config or self._config()
        #: Of this case, and of its batch.
        self.chance = random.Random(f"case {seed}")
        self.shared = random.Random(f"batch {self.at.target} {self.at.batch}")
        self.budget = _BUDGETS[self.simulator] * self.config.cores

    def make(self) -> Case:
        fault, again, layout = None, False, Layout()
        if self.is_core:
            items = self._usual(_CORE_HEADS)
            items += [self._wide()] if self.at.place == _FREE_PLACE else []
            if self.at.batch // 2 % 2:
                share = self.shared.random()
                fault = Fault("hard reset", share)
        else:
            place = self.at.place
            kinds = _FAULTS.get(place)
            again = place == _FREE_PLACE
            if again:
                items = self._free()
            else:
                items = self._usual(_DISTURBED_HEADS if kinds else _PLAIN_HEADS)
            layout = self._layout(items)
            if kinds is not None:
                fault = self._fault(kinds)
        return Case(
            self.seed,
            self.config,
            self.at.target,
            self.simulator,
            self._memory(),
            tuple(items),
            layout,
            fault,
            again,
        )

    # -- what a batch shares --------------------------------------------------------------------

    def _is_icarus(self, config: Config | None) -> bool:
        """Whether Icarus runs it; a larger configuration that is given is too slow for that."""
        small = config is None or config == config.changed(
            **_ICARUS_ARRAY, cores=1, vector_channels=0
        )
        batches = GROUP // BATCH
        return small and self.at.batch % (batches * _ICARUS_GROUPS) == batches - 1

    def _config(self) -> Config:
        config = random_config(self.at.group, is_core=self.is_core)
        if self.simulator == "icarus":
            return config.changed(**_ICARUS_ARRAY, cores=1, vector_channels=0)
        return config

    def _memory(self) -> Memory:
        chance, stalls = self.shared, bool(self.at.batch % 2)
        stall_seed = chance.randrange(2**16) if stalls else None
        if self.is_core:
            latency = deal("latency of a core", self.at.batch // 2, _CORE_LATENCIES)
            return Memory((latency, latency), stall_seed)
        latency = deal("latency", self.at.batch // 2, _LATENCIES)
        bandwidth = None
        if stalls and chance.random() < 0.3:
            bandwidth = self.config.axi_bits // 8 * chance.choice((0.25, 0.5, 0.9))
        return Memory(latency, stall_seed, bandwidth=bandwidth)

    # -- what each case has of its own ----------------------------------------------------------

    def _fault(self, kinds: tuple[FaultKind, ...]) -> Fault:
        chance, turn = self.chance, self.at.batch // 2
        kind = kinds[turn % len(kinds)]
        if kind == "program" and not self.config.vector_channels:
            kind = "descriptor"
        cause = None
        if kind == "descriptor":
            before = kinds.count(kind) * (turn // len(kinds))
            cause = REFUSED[(before + turn % len(kinds) // 2) % len(REFUSED)]
        response = (Response.SLVERR, Response.DECERR)[turn % 2]
        return Fault(kind, chance.random(), response, chance.randrange(2**20), cause)

    def _layout(self, items: list[Item]) -> Layout:
        chance = self.chance
        heads = [item.shape for item in items if isinstance(item.shape, HeadShape)]
        same = len(heads) == len(items) > 1 and len({head.tokens for head in heads}) == 1
        layout = Layout(64 * chance.randrange(0x100, 0x400), interleaved=same)
        if chance.random() < 0.5:
            places = tuple(4 * chance.randrange(16) for _ in range(chance.randrange(1, 7)))
            layout = replace(layout, alignment=4, misalign=places)
        if chance.random() < 0.4:
            layout = replace(layout, row_padding=4 * chance.randrange(1, 20))
        return replace(layout, shared=chance.random() < 0.2)

    def _usual(self, heads: int) -> list[Item]:
        """Heads and a layer as they are dealt, and with a vector unit a step, in any sequence."""
        at = self.at
        if self.is_core:
            # Four kinds of batches: with and without stalls and a reset.
            rank, layer = at.batch // 4 * BATCH + at.place, at.batch // 2 * BATCH + at.place
        else:
            # Two places for each class of faults, one without; a layer in all but the free one.
            pair = at.batch // 2
            rank = 2 * pair + at.place % 2 if at.place in _FAULTS else pair
            layer = (BATCH - 1) * pair + at.place - (at.place > _FREE_PLACE)
        items = [self._head(_dealt(_HEADS, rank * heads + number)) for number in range(heads)]
        items.append(self._layer(_dealt(_LAYERS, layer)))
        if self.config.vector_channels and not self.is_core:
            items += [self._step() for _ in range(self.chance.randrange(1, 3))]
        self.chance.shuffle(items)
        return items

    def _free(self) -> list[Item]:
        """Queues of other kinds."""
        chance, kind = self.chance, deal("free", self.at.batch, ("chain", "one", "short", "wide"))
        # Q, K and V of all heads are outputs of one layer.
        heads = min(3, self.config.max_tokens // (3 * self.config.head_dim))
        if kind == "chain" and self.config.cuts_outputs and heads:
            tokens = chance.randrange(8, min(2 * self.config.block + 12, self.config.max_tokens))
            chain = ChainShape(tokens, chance.randrange(1, heads + 1))
            return [self._layer(chance.choice(_LAYERS)), self._item(chain)]
        first = self._head(chance.choice(_HEADS))
        shape = first.shape
        assert isinstance(shape, HeadShape)
        if kind == "one":
            orders = chance.sample(range(6), chance.randrange(2, 5))
            return [self._item(replace(shape, order=order)) for order in orders]
        if kind == "short":
            lengths = (1, self.config.block, chance.randrange(1, self.config.block))
            shapes = [
                HeadShape((1, 1, chance.choice(lengths)), width="8", skips="none") for _ in range(6)
            ]
            return [self._item(shape) for shape in shapes]
        wide = LayerShape(self.chance.randrange(1, 9), 17 * self.config.head_dim, 5, values="any")
        steps = [self._step() for _ in range(2 if self.config.vector_channels else 0)]
        return [self._wide(), first, self._item(wide), self._layer(chance.choice(_LAYERS)), *steps]

    def _item(self, shape: HeadShape | LayerShape | StepShape | ChainShape) -> Item:
        chance, cut = self.chance, 0
        cuts = self.config.cuts_outputs and not self.is_core
        if cuts and isinstance(shape, HeadShape | LayerShape) and chance.random() < 0.3:
            cut = chance.randrange(1, 9)
        return Item(shape, chance.randrange(2**20), cut)

    # -- heads ----------------------------------------------------------------------------------

    def _head(self, point: tuple[int, Width, bool, bool, Skips]) -> Item:
        """A head of what it was dealt; sizes as the budget has them."""
        chance, config = self.chance, self.config
        order, width, partial, prefix, skips = point
        fewest = 1 if skips == "none" and width != "mixed" else 2
        most = min(config.max_tokens // config.block, 6)
        blocks = max(chance.choice((1, 2, 2, 2, 3, 3, 4, most)), fewest)
        cost = _block_cycles(config, width)
        while blocks > fewest and cost * blocks > self.budget:
            blocks -= 1
        rows = self._rows(width, skips, blocks, cost)
        return self._item(self._shape(blocks, order, width, partial, prefix, skips, rows))

    def _rows(self, width: Width, skips: Skips, blocks: int, cost: float) -> tuple[int, int] | None:
        """Block rows that are computed: as many as codes and budget ask for."""
        live = {"none": blocks, "some": (blocks + 1) / 2, "all but one": 1}[skips]
        fewest = 1
        if (width == "mixed" and live == 1) or (skips == "some" and blocks == 2):
            fewest = 2
        count = max(fewest, min(blocks, int(self.budget / (cost * live))))
        if count > fewest and self.chance.random() < 0.3:
            count = self.chance.randrange(fewest, count)
        if count == blocks:
            return None
        first = self.chance.randrange(blocks - count + 1)
        return first, first + count

    def _shape(
        self,
        blocks: int,
        order: int,
        width: Width,
        partial: bool,
        prefix: bool,
        skips: Skips,
        rows: tuple[int, int] | None,
    ) -> HeadShape:
        chance, block = self.chance, self.config.block
        tokens = (blocks - 1) * block + (chance.randrange(1, block) if partial else block)
        suffix = chance.random() < 0.5
        if tokens < 1 + prefix + suffix:
            suffix, tokens = False, max(tokens, 1 + prefix)
        grid, text = self._grid(tokens, prefix + suffix)
        first = text if not suffix else 0
        if prefix and suffix:
            first = chance.randrange(1, text)
        values: Values = "normal" if chance.random() < 0.4 else chance.choice(VALUES)
        left_out = 0
        if chance.random() < 0.25:
            last = (rows[1] if rows else self.config.blocks_of(tokens)) - 1
            left_out = chance.randrange(min(block, tokens - last * block))
        return HeadShape(grid, first, text - first, order, width, skips, values, rows, left_out)

    def _grid(self, tokens: int, texts: int) -> tuple[tuple[int, int, int], int]:
        """Grid and tokens of text, none or as many as texts at least, that make so many tokens."""
        chance = self.chance
        sides = [chance.choice([n for n in (1, 2, 3, 4, 5) if n <= tokens - texts]) for _ in "FH"]
        if not texts:
            sides = []
            for _ in "FH":
                rest = tokens
                for side in sides:
                    rest //= side
                sides.append(chance.choice([n for n in (1, 2, 3, 4, 5, 8) if rest % n == 0]))
            return (sides[0], sides[1], tokens // (sides[0] * sides[1])), 0
        if sides[0] * sides[1] > tokens - texts:
            sides[1] = 1
        width = (tokens - texts) // (sides[0] * sides[1])
        if chance.random() < 0.3:
            width = chance.randrange(1, width + 1)
        return (sides[0], sides[1], width), tokens - sides[0] * sides[1] * width

    def _wide(self) -> Item:
        """A head of more than sixteen block columns, or of more block rows than are in progress."""
        chance, config = self.chance, self.config
        most = config.max_tokens // config.block
        blocks = min(most, chance.choice((17, 18, 33, config.wave_rows + 2)))
        skips: Skips = chance.choice(("some", "all but one"))
        width: Width = "2" if skips == "some" else "mixed"
        rows = self._rows(width, skips, blocks, _block_cycles(config, width) / 2)
        return self._item(self._shape(blocks, chance.randrange(6), width, True, True, skips, rows))

    # -- layers and steps -----------------------------------------------------------------------

    def _layer(self, point: tuple[int | None, bool, bool, bool, bool]) -> Item:
        """A layer of what it was dealt."""
        chance, config = self.chance, self.config
        codes, *partial, biased = point
        digits = 2 if codes is None else CODE_DIGITS[codes]
        step = config.layer_tokens
        tile = config.block * step * config.head_dim * digits / (LANES * config.rows * config.cols)
        # Codes differ among tiles, of which there are several then.
        counts, most = [1, 1 + (codes is None), 1], [3, 3, 3]
        for _ in range(6):
            longer = chance.randrange(3)
            product_ = counts[0] * counts[1] * counts[2] // counts[longer] * (counts[longer] + 1)
            if counts[longer] < most[longer] and tile * product_ <= self.budget:
                counts[longer] += 1
        units = (step, config.block, config.head_dim)
        sizes = [
            (count - 1) * unit + (chance.randrange(1, unit) if part else unit)
            for count, unit, part in zip(counts, units, partial, strict=True)
        ]
        return self._item(
            LayerShape(
                sizes[0],
                sizes[2],
                sizes[1],
                codes,
                outliers=chance.random() < 0.3,
                biased=biased,
                values=chance.choice(LAYER_VALUES),
            )
        )

    def _step(self) -> Item:
        """A vector step over a few tokens."""
        chance, channels = self.chance, legal_channels(self.config)
        longest = channels[-1] if chance.random() < 0.1 else channels[min(len(channels), 8) - 1]
        chosen = chance.choice([count for count in channels if count <= longest])
        chosen = longest if chance.random() < 0.2 else chosen
        tokens = chance.randrange(1, 12 if chosen < 1000 else 4)
        prefix, suffix = chance.random() < 0.5, chance.random() < 0.5
        if tokens < 1 + prefix + suffix:
            prefix = suffix = False
        grid, text = self._grid(tokens, prefix + suffix)
        first = text if not suffix else (chance.randrange(1, text) if prefix else 0)
        return self._item(
            StepShape(
                grid, chosen, chance.randrange(1, 8), first, text - first, chance.randrange(6)
            )
        )


def _dealt(points: list, number: int):
    """Point of a number; of as many numbers that follow one another each gets another."""
    return points[number * _STRIDES[len(points)] % len(points)]


def _block_cycles(config: Config, width: Width) -> float:
    """Cycles of the array for a block of attention, in the mean of its widths."""
    digits = {"2": 1, "4": 2, "8": 4, "mixed": 7 / 3}[width]
    return config.block**2 * config.head_dim * digits / (2 * config.rows * config.cols)
