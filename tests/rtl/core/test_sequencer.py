"""The array sequencer among buffers that load, weigh and send as slowly as they may."""

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import pytest

from paro.config import PRESETS, Config
from paro.config.formats import CODE_DIGITS, LANES, Operand, Operation
from rtl.core.blocks import SLOTS
from rtl.core.sequencer import ArraySequencer
from rtl.lib.arithmetic import log2
from tests.rtl.simulate import simulate

TINY = PRESETS["tiny"]
#: Its drain takes longer than the shortest tiles.
SLOW_DRAIN = Config(rows=16, cols=16, block=16, head_dim=32)
#: Four block rows share K and V.
FOUR_ROWS = Config(rows=4, cols=4, block=16, head_dim=32, query_rows=4)
#: Cycles from a slot's release until it is asked for again, at least.
ASK_DELAY = 3


@dataclass
class Buffer:
    """Slots of an operand; ``groups`` of tokens make a load."""

    groups: int
    slots: int
    rng: random.Random | None = None  # takes any free slot, or they are taken in turn
    taken: list[int] = field(default_factory=list)  # slot of each load that was asked for
    done: int = 0
    loaded: int = 0
    released: dict[int, int] = field(default_factory=dict)  # when, by load

    @property
    def asked(self) -> int:
        """Number of loads that were asked for."""
        return len(self.taken)

    def free(self, cycle: int) -> list[int]:
        """Slots that are free, and since long enough."""
        held = {
            slot
            for load, slot in enumerate(self.taken)
            if cycle < self.released.get(load, cycle) + ASK_DELAY
        }
        slots = range(self.slots) if self.rng else [self.asked % self.slots]
        return [slot for slot in slots if slot not in held]

    def ask(self, cycle: int) -> None:
        """Ask for the next load, if there is a slot."""
        free = self.free(cycle)
        if free:
            self.taken.append(self.rng.choice(free) if self.rng else free[0])

    def load(self) -> None:
        """A group arrives."""
        if self.done < self.asked:
            self.loaded += 1
            if self.loaded == self.groups:
                self.done, self.loaded = self.done + 1, 0

    def holds(self, index: int, group: int) -> bool:
        """Whether a group of a load lies in its slot."""
        return index not in self.released and (
            index < self.done or (index == self.done and group < self.loaded)
        )

    def show(self, ctx: Any, port: Any) -> None:
        """Give the state to the sequencer."""
        loads = [load for load in range(self.done) if load not in self.released]
        ctx.set(port.full, sum(1 << self.taken[load] for load in loads))
        ctx.set(port.loaded, self.loaded)


@dataclass(frozen=True)
class Rates:
    """Chances that something goes on in a cycle."""

    load: float = 1.0
    ask: float = 1.0
    weigh: float = 1.0
    free: float = 1.0


@dataclass
class Live:
    """A live block: its payload, its row and its column of all superblocks."""

    payload: dict[str, int]
    row: int
    column: int


def random_blocks(rng: random.Random, config: Config, rows: int, longest: int) -> list[Live]:
    """Live blocks of some rows, superblock by superblock, column by column."""
    blocks: list[Live] = []
    column = 0
    for begin in range(0, rows, config.query_rows):
        places = range(min(config.query_rows, rows - begin))
        live = [rng.sample(range(longest), rng.randint(1, longest)) for _ in places]
        for index in range(longest):
            here = [place for place in places if index in live[place]]
            for place in here:
                payload = {
                    "code": rng.choice([1, 2, 3]) if longest > 1 else 1,
                    "first": index == min(live[place]),
                    "last": index == max(live[place]),
                    "keys": rng.randint(1, 16),
                    "queries": rng.randint(1, 16),
                    "row": place,
                    "keeps": place != here[-1],
                }
                blocks.append(Live(payload, begin + place, column))
            column += bool(here)
    return blocks


@dataclass
class Bench:
    """Everything around the sequencer; checks what it starts, when, and its tiles."""

    config: Config
    live: list[Live]
    rates: Rates
    rng: random.Random
    cycle: int = 0
    issued: int = 0  # blocks that the scheduler has issued
    qk: int = 0  # blocks whose QK, whose PV has started
    pv: int = 0
    weighted: int = 0  # blocks whose weights are complete
    scored: int = 0  # blocks whose QK's last tile is through
    outputs: dict[int, int] = field(default_factory=dict)  # rows with an output slot, and which
    ending: list[int] = field(default_factory=list)  # rows whose last PV has begun
    unsent: int = 0  # of these, those whose PV is through
    steps: int = 0
    last_steps: list[int] = field(default_factory=list)
    tiles: list[tuple[Operation, int, int, int]] = field(default_factory=list)
    blocked: int = 0

    def __post_init__(self) -> None:
        config = self.config
        self.sequencer = ArraySequencer(config)
        self.buffers = {
            Operand.Q: Buffer(config.block // config.cols, config.row_slots, self.rng),
            Operand.K: Buffer(config.block // config.rows, SLOTS),
            Operand.V: Buffer(1, SLOTS),
        }
        self.blocks = [live.payload for live in self.live]
        firsts = [live.row for live in self.live if live.payload["first"]]
        self.query_loads = [firsts.index(live.row) for live in self.live]
        self.releases: deque[tuple[int, Operand, int]] = deque()

    @property
    def count(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    def happens(self, rate: float) -> bool:
        return self.rng.random() < rate

    def expected_tiles(self) -> dict[Operation, list[tuple[int, int, int]]]:
        """Row group, column group and last of each operation's tiles, block after block."""
        config = self.config
        rows = config.block // config.rows
        queries, channels = config.block // config.cols, config.head_dim // config.cols
        scores = [(row, col) for col in range(queries) for row in range(rows)]
        partials = [(row, col) for row in range(rows) for col in range(channels)]
        return {
            operation: [(row, col, int((row, col) == tiles[-1])) for row, col in tiles] * self.count
            for operation, tiles in ((Operation.QK, scores), (Operation.PV, partials))
        }

    def ask(self) -> None:
        """Ask for the next load, as the scheduler does, and issue the blocks that have theirs."""
        keys, queries, values = (self.buffers[each] for each in (Operand.K, Operand.Q, Operand.V))
        if not self.happens(self.rates.ask):
            return
        if values.asked < keys.asked:
            values.ask(self.cycle)
            return
        if self.issued == self.count:
            return
        live, load = self.live[self.issued], self.query_loads[self.issued]
        if queries.asked <= load:
            queries.ask(self.cycle)
        elif keys.asked <= live.column:
            keys.ask(self.cycle)
        if keys.asked > live.column and queries.asked > load:
            live.payload["query_slot"] = queries.taken[load]
            self.issued += 1

    def advance(self, ctx: Any) -> None:
        """Let the others work for a cycle, and show the sequencer where they are."""
        rates, buffers, sequencer = self.rates, self.buffers, self.sequencer
        while self.releases and self.releases[0][0] <= self.cycle:
            _, operand, load = self.releases.popleft()
            buffers[operand].released[load] = self.cycle
        self.ask()
        for buffer in buffers.values():
            if self.happens(rates.load):
                buffer.load()
        if self.weighted < self.scored and self.happens(rates.weigh):
            self.weighted += 1
        free = self.unsent > 0 and self.happens(rates.free)
        self.unsent -= free
        if free:
            ctx.set(sequencer.output_free_slot, self.outputs.pop(self.ending.pop(0)))
        for operand, port in (
            (Operand.Q, sequencer.query_load),
            (Operand.K, sequencer.key_load),
            (Operand.V, sequencer.value_load),
        ):
            buffers[operand].show(ctx, port)
        ctx.set(sequencer.output_free, free)
        ctx.set(sequencer.scheduled.valid, self.qk < self.issued)
        if self.qk < self.issued:
            ctx.set(sequencer.scheduled.payload, self.blocks[self.qk])
        ctx.set(sequencer.weighted.valid, self.pv < self.weighted)
        if self.pv < self.count:
            ctx.set(sequencer.weighted.payload, self.blocks[self.pv])

    def check_starts(self, qk: int, pv: int, ending: int, slot: int) -> None:
        assert not (qk and pv), "two operations start at once"
        assert pv or not ending
        if qk:
            assert self.qk < self.issued, "no block is there"
            assert self.qk - self.pv < SLOTS, "more blocks in flight than the logit ring takes"
            assert self.buffers[Operand.K].holds(self.live[self.qk].column, 0)
            assert self.buffers[Operand.Q].holds(self.query_loads[self.qk], 0)
            self.qk += 1
        if pv:
            assert self.pv < self.weighted, "the weights are not there"
            live = self.live[self.pv]
            assert self.buffers[Operand.V].holds(live.column, 0), "the values are not there"
            assert ending == live.payload["last"]
            if live.payload["first"]:
                assert len(self.outputs) < self.config.row_slots, "a row has no output slot"
                self.outputs[live.row] = -1
            if ending:
                self.ending.append(live.row)
                self.check_output(live.row, slot)
            self.pv += 1

    def check_output(self, row: int, slot: int) -> None:
        """A row's outputs go to a slot of their own, all to the same one."""
        if self.outputs[row] < 0:
            assert slot not in self.outputs.values(), "two rows share an output slot"
            self.outputs[row] = slot
        assert slot == self.outputs[row]

    def check_tile(self, tile: Any) -> None:
        """A tile's last step."""
        operation = Operation(tile.operation)
        done = sum(each == operation and last for each, _, _, last in self.tiles)
        assert done < (self.pv if operation == Operation.PV else self.qk)
        block = self.blocks[done]
        assert {name: tile.block[name] for name in block} == block
        live = self.live[done]
        assert tile.slot == (done if operation == Operation.PV else live.column) % SLOTS
        if operation == Operation.PV:
            self.check_output(live.row, tile.output_slot)
        self.tiles.append((operation, tile.row_group, tile.col_group, tile.last))
        if tile.last and operation == Operation.QK:
            self.scored += 1
            at = self.cycle + self.rng.randrange(1, 20)
            at = max(at, *(t for t, _, _ in self.releases), 0)
            if not tile.block.keeps:
                self.releases.append((at, Operand.K, live.column))
            if tile.block.last:
                self.releases.append((at, Operand.Q, self.query_loads[done]))
        elif tile.last and tile.block.last:
            self.unsent += 1

    async def run(self, ctx: Any) -> None:
        config, sequencer = self.config, self.sequencer
        chunk_bits = log2(config.head_dim // LANES)
        query_groups: deque[Any] = deque([None] * sequencer.LATENCY)
        before = None
        expected = self.expected_tiles()
        steps = sum(
            CODE_DIGITS[block["code"]]
            * config.block
            * config.head_dim
            * config.block
            // (config.rows * config.cols * LANES)
            * 2
            for block in self.blocks
        )
        ctx.set(sequencer.scheduled.valid, 0)
        limit = 400 * self.count + 30 * steps
        while len(self.tiles) < sum(map(len, expected.values())):
            assert self.cycle < limit, "nothing moves"
            self.advance(ctx)
            _, _, *sampled = await ctx.tick().sample(
                sequencer.started.valid,
                sequencer.scheduled.ready,
                sequencer.weighted.valid,
                sequencer.weighted.ready,
                sequencer.ending_rows.valid,
                sequencer.ending_rows.payload.slot,
                sequencer.value_release,
                sequencer.value_release_slot,
                sequencer.step,
                sequencer.tile,
                sequencer.qk_activity.busy,
                sequencer.key_address,
                sequencer.query_address,
                sequencer.pv_activity.blocked,
            )
            started, taken, valid, ready, ending, slot, release, release_slot = sampled[:8]
            step, tile, busy, key_address, query_address, blocked = sampled[8:]
            assert started == taken
            if busy:
                group = key_address >> chunk_bits & (config.block // config.rows - 1)
                assert self.buffers[Operand.K].holds(self.live[self.qk - 1].column, group), (
                    "keys are not there"
                )
            queries = self.buffers[Operand.Q]
            groups = range(config.block // config.cols)
            query_groups.append(
                [queries.holds(self.query_loads[self.qk - 1], group) for group in groups]
                if busy
                else None
            )
            held = query_groups.popleft()
            if held is not None:
                group = query_address >> chunk_bits & (config.block // config.cols - 1)
                assert held[group], "queries are not there"
            self.check_starts(started, valid and ready, ending, slot)
            self.blocked += blocked and len(self.outputs) == config.row_slots
            if release:
                values = self.buffers[Operand.V]
                load = len(values.released)
                assert release_slot == values.taken[load]
                values.released[load] = self.cycle
            self.steps += step.valid
            if step.valid and step.last:
                self.check_tile(before)
                self.last_steps.append(self.cycle)
            before = tile
            self.cycle += 1
        assert self.steps == steps
        for operation, tiles in expected.items():
            assert [tile[1:] for tile in self.tiles if tile[0] == operation] == tiles
        gaps = [b - a for a, b in zip(self.last_steps, self.last_steps[1:], strict=False)]
        assert min(gaps) >= config.drain_cycles, "a tile ends while the one before drains"


RATES = {
    "at once": Rates(),
    "loads": Rates(load=0.04, ask=0.3),
    "weights": Rates(weigh=0.01),
    "outputs": Rates(free=0.004),
    "all": Rates(load=0.1, ask=0.1, weigh=0.05, free=0.05),
}


@pytest.mark.parametrize(
    "config", [TINY, SLOW_DRAIN, FOUR_ROWS], ids=["tiny", "slow drain", "four rows"]
)
@pytest.mark.parametrize("longest", [1, 3])
@pytest.mark.parametrize("slow", RATES)
def test_blocks(config: Config, longest: int, slow: str, seed: int) -> None:
    """Rows of one 2-bit block each, then any rows; nothing starts before what it needs is there."""
    rng = random.Random(seed)
    rows = (24 if config is SLOW_DRAIN else 6 * config.query_rows) // longest
    bench = Bench(config, random_blocks(rng, config, rows, longest), RATES[slow], rng)
    simulate(bench.sequencer, bench.run)
    if slow == "outputs" and longest == 1:
        assert bench.blocked, "the output slots never were full"
