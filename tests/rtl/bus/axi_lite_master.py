"""A master for the AXI4-Lite slaves of the tests."""

import random
from typing import Any

from paro.config.registers import REGISTER_ADDRESS_BITS


class AxiLiteMaster:
    """AXI4-Lite master that stalls at random before each of its handshakes."""

    def __init__(self, bus: Any, rng: random.Random, stall: float):
        self.bus, self.rng, self.stall = bus, rng, stall

    async def _stall(self, ctx) -> None:
        while self.rng.random() < self.stall:
            await ctx.tick()

    async def write(self, ctx, address: int, data: int, lanes: int = 0b1111) -> int:
        bus = self.bus
        channels = {"aw": {"awaddr": address}, "w": {"wdata": data, "wstrb": lanes}}
        waits = {name: 0 for name in channels}
        while self.rng.random() < self.stall:
            waits[self.rng.choice(list(waits))] += 1
        while channels:
            for name, payload in channels.items():
                if waits[name] == 0:
                    ctx.set(getattr(bus, f"{name}valid"), 1)
                    for member, value in payload.items():
                        ctx.set(getattr(bus, member), value)
            _, _, awvalid, awready, wvalid, wready = await ctx.tick().sample(
                bus.awvalid, bus.awready, bus.wvalid, bus.wready
            )
            for name, taken in (("aw", awvalid and awready), ("w", wvalid and wready)):
                if taken:
                    ctx.set(getattr(bus, f"{name}valid"), 0)
                    del channels[name]
            waits = {name: max(0, wait - 1) for name, wait in waits.items()}
        await self._stall(ctx)
        ctx.set(bus.bready, 1)
        (response,) = await ctx.tick().sample(bus.bresp).until(bus.bvalid)
        ctx.set(bus.bready, 0)
        return response

    async def read(self, ctx, address: int) -> tuple[int, int]:
        bus = self.bus
        await self._stall(ctx)
        ctx.set(bus.araddr, address)
        ctx.set(bus.arvalid, 1)
        await ctx.tick().until(bus.arready)
        ctx.set(bus.arvalid, 0)
        ctx.set(bus.araddr, self.rng.getrandbits(REGISTER_ADDRESS_BITS))
        await self._stall(ctx)
        ctx.set(bus.rready, 1)
        data, response = await ctx.tick().sample(bus.rdata, bus.rresp).until(bus.rvalid)
        ctx.set(bus.rready, 0)
        return data, response
