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
#: Cycles from a slot's release until it is asked for again, at least.
ASK_DELAY = 3


@dataclass
class Buffer:
    """Slots of an operand, filled and released in turn; ``groups`` of tokens make a load."""

    groups: int
    asked: int = 0
    done: int = 0
    loaded: int = 0
    released: list[int] = field(default_factory=list)  # when

    def may_ask(self, cycle: int) -> bool:
        """Whether a slot is free, and since long enough."""
        index = self.asked - SLOTS
        return index < 0 or (
            index < len(self.released) and cycle >= self.released[index] + ASK_DELAY
        )

    def load(self) -> None:
        """A group arrives."""
        if self.done < self.asked:
            self.loaded += 1
            if self.loaded == self.groups:
                self.done, self.loaded = self.done + 1, 0

    def holds(self, index: int, group: int) -> bool:
        """Whether a group of a load lies in its slot."""
        return len(self.released) <= index and (
            index < self.done or (index == self.done and group < self.loaded)
        )

    def show(self, ctx: Any, port: Any) -> None:
        """Give the state to the sequencer."""
        full = sum(1 << index % SLOTS for index in range(len(self.released), self.done))
        ctx.set(port.full, full)
        ctx.set(port.loaded, self.loaded)


@dataclass(frozen=True)
class Rates:
    """Chances that something goes on in a cycle."""

    load: float = 1.0
    ask: float = 1.0
    weigh: float = 1.0
    free: float = 1.0


def random_blocks(rng: random.Random, rows: int, longest: int) -> list[dict[str, int]]:
    """Live blocks of some rows."""
    blocks = []
    for _ in range(rows):
        live = rng.randint(1, longest)
        for index in range(live):
            code = rng.choice([1, 2, 3]) if longest > 1 else 1
            shape = {"keys": rng.randint(1, 16), "queries": rng.randint(1, 16)}
            blocks.append({"code": code, "first": index == 0, "last": index == live - 1, **shape})
    return blocks


@dataclass
class Bench:
    """Everything around the sequencer; checks what it starts, when, and its tiles."""

    config: Config
    blocks: list[dict[str, int]]
    rates: Rates
    rng: random.Random
    cycle: int = 0
    qk: int = 0  # blocks whose QK, whose PV has started
    pv: int = 0
    weighted: int = 0  # blocks whose weights are complete
    scored: int = 0  # blocks whose QK's last tile is through
    outputs: int = 0  # output slots in use
    unsent: int = 0  # rows whose PV is through, and that are not sent
    steps: int = 0
    last_steps: list[int] = field(default_factory=list)
    tiles: list[tuple[Operation, int, int, int]] = field(default_factory=list)
    blocked: int = 0

    def __post_init__(self) -> None:
        config = self.config
        self.sequencer = ArraySequencer(config)
        self.buffers = {
            Operand.Q: Buffer(config.block // config.cols),
            Operand.K: Buffer(config.block // config.rows),
            Operand.V: Buffer(1),
        }
        self.rows = [sum(b["first"] for b in self.blocks[: i + 1]) - 1 for i in range(self.count)]
        self.releases: deque[tuple[int, Operand]] = deque()

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
        """Ask for the next loads: Q of a row, then K and V of a block."""
        buffers, rate = self.buffers, self.rates.ask
        keys, queries, values = (buffers[operand] for operand in (Operand.K, Operand.Q, Operand.V))
        if keys.asked < self.count and self.happens(rate):
            if queries.asked <= self.rows[keys.asked]:
                queries.asked += queries.may_ask(self.cycle)
            elif keys.may_ask(self.cycle) and values.asked == keys.asked:
                keys.asked += 1
        if values.asked < keys.asked and self.happens(rate):
            values.asked += values.may_ask(self.cycle)

    def advance(self, ctx: Any) -> None:
        """Let the others work for a cycle, and show the sequencer where they are."""
        rates, buffers, sequencer = self.rates, self.buffers, self.sequencer
        while self.releases and self.releases[0][0] <= self.cycle:
            buffers[self.releases.popleft()[1]].released.append(self.cycle)
        self.ask()
        for buffer in buffers.values():
            if self.happens(rates.load):
                buffer.load()
        if self.weighted < self.scored and self.happens(rates.weigh):
            self.weighted += 1
        free = self.unsent > 0 and self.happens(rates.free)
        self.unsent -= free
        self.outputs -= free
        for operand, port in (
            (Operand.Q, sequencer.query_load),
            (Operand.K, sequencer.key_load),
            (Operand.V, sequencer.value_load),
        ):
            buffers[operand].show(ctx, port)
        ctx.set(sequencer.output_free, free)
        ctx.set(sequencer.scheduled.valid, self.qk < buffers[Operand.K].asked)
        if self.qk < self.count:
            ctx.set(sequencer.scheduled.payload, self.blocks[self.qk])
        ctx.set(sequencer.weighted.valid, self.pv < self.weighted)
        if self.pv < self.count:
            ctx.set(sequencer.weighted.payload, self.blocks[self.pv])

    def check_starts(self, qk: int, pv: int, output_started: int) -> None:
        assert not (qk and pv), "two operations start at once"
        assert pv or not output_started
        if qk:
            assert self.qk < self.buffers[Operand.K].asked, "no block is there"
            assert self.qk - self.pv < SLOTS, "more blocks in flight than the logit ring takes"
            assert self.buffers[Operand.K].holds(self.qk, 0)
            assert self.buffers[Operand.Q].holds(self.rows[self.qk], 0)
            self.qk += 1
        if pv:
            assert self.pv < self.weighted, "the weights are not there"
            assert self.buffers[Operand.V].holds(self.pv, 0), "the values are not there"
            assert output_started == self.blocks[self.pv]["first"]
            self.outputs += output_started
            assert self.outputs <= SLOTS, "a row begins without an output slot"
            self.pv += 1

    def check_tile(self, tile: Any) -> None:
        """A tile's last step."""
        operation = Operation(tile.operation)
        done = sum(each == operation and last for each, _, _, last in self.tiles)
        assert done < (self.pv if operation == Operation.PV else self.qk)
        block = self.blocks[done]
        assert {name: tile.block[name] for name in block} == block
        assert tile.slot == done % SLOTS
        row_slot = tile.output_slot if operation == Operation.PV else tile.query_slot
        assert row_slot == self.rows[done] % SLOTS
        self.tiles.append((operation, tile.row_group, tile.col_group, tile.last))
        if tile.last and operation == Operation.QK:
            self.scored += 1
            at = self.cycle + self.rng.randrange(1, 20)
            self.releases.append((max(at, *(t for t, _ in self.releases), 0), Operand.K))
            if tile.block.last:
                self.releases.append((self.releases[-1][0], Operand.Q))
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
                sequencer.output_started,
                sequencer.value_release,
                sequencer.step,
                sequencer.tile,
                sequencer.qk_activity.busy,
                sequencer.key_address,
                sequencer.query_address,
                sequencer.pv_activity.blocked,
            )
            started, taken, valid, ready, output_started, release = sampled[:6]
            step, tile, busy, key_address, query_address, blocked = sampled[6:]
            assert started == taken
            if busy:
                group = key_address >> chunk_bits & (config.block // config.rows - 1)
                assert self.buffers[Operand.K].holds(self.qk - 1, group), "keys are not there"
            queries = self.buffers[Operand.Q]
            groups = range(config.block // config.cols)
            query_groups.append(
                [queries.holds(self.rows[self.qk - 1], group) for group in groups] if busy else None
            )
            held = query_groups.popleft()
            if held is not None:
                group = query_address >> chunk_bits & (config.block // config.cols - 1)
                assert held[group], "queries are not there"
            self.check_starts(started, valid and ready, output_started)
            self.blocked += blocked and self.outputs == SLOTS
            if release:
                self.buffers[Operand.V].released.append(self.cycle)
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


@pytest.mark.parametrize("config", [TINY, SLOW_DRAIN], ids=["tiny", "slow drain"])
@pytest.mark.parametrize("longest", [1, 3])
@pytest.mark.parametrize("slow", RATES)
def test_blocks(config: Config, longest: int, slow: str, seed: int) -> None:
    """Rows of one 2-bit block each, then any rows; nothing starts before what it needs is there."""
    rng = random.Random(seed)
    rows = (6 if config is TINY else 24) // longest
    bench = Bench(config, random_blocks(rng, rows, longest), RATES[slow], rng)
    simulate(bench.sequencer, bench.run)
    if slow == "outputs" and longest == 1:
        assert bench.blocked, "the output slots never were full"
