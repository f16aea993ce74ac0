"""The deal of block rows to the cores of a cluster: host and hardware agree."""

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from firmware_model.host.superblocks import deal
from paro.config import Config
from rtl.accelerator.deal import dealt_row, share_of
from rtl.lib.arithmetic import log2
from tests.rtl.simulate import simulate

SHAPES = [(2, 1), (2, 8), (4, 1), (4, 2), (4, 16), (8, 4)]


class Deal(wiring.Component):
    """Shares of all cores, and the row of the head that is row ``row`` of each."""

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "last_token": In(14),
                "row": In(10),
                "any": Out(config.cores),
                "last_tokens": Out(14).array(config.cores),
                "rows": Out(14).array(config.cores),
            }
        )

    def elaborate(self, platform):
        m = Module()
        last_token = Signal(14)
        m.d.comb += last_token.eq(self.last_token)
        for core in range(self._config.cores):
            share = share_of(m, self._config, core, last_token, log2(self._config.block))
            m.d.comb += [
                self.any[core].eq(share.any),
                self.last_tokens[core].eq(share.last_token),
                self.rows[core].eq(dealt_row(self._config, core, self.row)),
            ]
        return m


@pytest.mark.parametrize(("cores", "query_rows"), SHAPES)
def test_host_and_hardware_agree(cores, query_rows) -> None:
    config = Config(rows=4, cols=4, block=16, head_dim=32, cores=cores, query_rows=query_rows)
    component = Deal(config)

    async def check(ctx) -> None:
        for count in (*range(1, 2 * config.wave_rows + 3), 200):
            shares = deal(count, config)
            assert sorted(np.concatenate(shares).tolist()) == list(range(count))
            for tokens in (16 * count - 15, 16 * count - 3, 16 * count):
                ctx.set(component.last_token, tokens - 1)
                await ctx.delay(1e-9)
                for core, share in enumerate(shares):
                    assert ctx.get(component.any) >> core & 1 == (len(share) > 0)
                    if len(share):
                        own = sum(min(16, tokens - 16 * row) for row in share.tolist())
                        assert ctx.get(component.last_tokens[core]) == own - 1
            for row in range(max(map(len, shares))):
                ctx.set(component.row, row)
                await ctx.delay(1e-9)
                for core, share in enumerate(shares):
                    if row < len(share):
                        assert ctx.get(component.rows[core]) == share[row]

    async def testbench(ctx) -> None:
        await ctx.tick()
        await check(ctx)

    simulate(_clocked(component), testbench)


def _clocked(component: Deal) -> wiring.Component:
    """Give a component without registers a clock."""

    class Clocked(wiring.Component):
        beat: Out(1)

        def elaborate(self, platform):
            m = Module()
            m.submodules.inner = component
            m.d.sync += self.beat.eq(~self.beat)
            return m

    return Clocked()


@pytest.mark.parametrize(("cores", "query_rows"), SHAPES)
def test_no_core_has_more_than_its_rows_of_a_wave(cores, query_rows) -> None:
    config = Config(cores=cores, query_rows=query_rows)
    for count in range(1, 3 * config.wave_rows):
        for share in deal(count, config):
            waves = np.bincount(share // config.wave_rows, minlength=1)
            assert (np.diff(share) > 0).all()
            assert waves.max() <= query_rows
            assert (waves[: count // config.wave_rows] == query_rows).all()


def test_a_pattern_that_repeats_does_not_load_one_core() -> None:
    """Every fourth row has all the work: four cores share it."""
    config = Config(cores=4, query_rows=4)
    work = [sum(row % 4 == 0 for row in share) for share in deal(64, config)]
    assert work == [4, 4, 4, 4]
