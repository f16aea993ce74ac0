"""Both ends of a stream under test: a sender and a receiver that stall at random."""

import random
from typing import Any

from amaranth.sim import SimulatorContext


class Sender:
    """Offers ``items``, each after a random pause; ``send`` is a background testbench."""

    def __init__(self, stream: Any, items: list[Any], rng: random.Random, stall: float):
        self._stream, self._items, self._rng, self._stall = stream, items, rng, stall

    async def send(self, ctx: SimulatorContext) -> None:
        for item in self._items:
            while self._rng.random() < self._stall:
                await ctx.tick()
            ctx.set(self._stream.payload, item)
            ctx.set(self._stream.valid, 1)
            await ctx.tick().until(self._stream.ready)
            ctx.set(self._stream.valid, 0)


class Receiver:
    """Takes payloads, checks that what is offered stays; ``times`` are in clock cycles."""

    def __init__(self, stream: Any, rng: random.Random, stall: float):
        self._stream, self._rng, self._stall = stream, rng, stall
        self.items: list[Any] = []
        self.times: list[int] = []

    async def receive(self, ctx: SimulatorContext, number: int, *, limit: int = 100_000) -> None:
        """Wait for ``number`` payloads in all."""
        stream, refused = self._stream, None
        for cycle in range(limit):
            if len(self.items) >= number:
                ctx.set(stream.ready, 0)
                return
            ctx.set(stream.ready, self._rng.random() >= self._stall)
            _, _, valid, ready, payload = await ctx.tick().sample(
                stream.valid, stream.ready, stream.payload
            )
            if refused is not None:
                assert valid, "an offer was withdrawn"
                assert _plain(payload) == refused, "an offered payload changed"
            refused = _plain(payload) if valid and not ready else None
            if valid and ready:
                self.items.append(payload)
                self.times.append(cycle)
        raise AssertionError(f"{len(self.items)} of {number} payloads after {limit} cycles")


def _plain(payload: Any) -> Any:
    return payload.as_bits() if hasattr(payload, "as_bits") else payload
