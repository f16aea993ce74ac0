"""A memory with an AXI4 port: random latency and stalls, and the rules of the protocol."""

import itertools
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from amaranth.hdl import Value

from paro.config import Config
from paro.config.registers import MEMORY_ADDRESS_BITS
from rtl.bus.axi import Burst
from rtl.bus.axi_lite import Response

PAGE = 4096


def config_with(*, axi_bits: int, **derived: int) -> Config:
    """First configuration whose derived properties have these values."""
    for head_dim, block, rows, cols in itertools.product(
        (64, 32, 128), (64, 32, 16), *2 * [(4, 8, 16, 32, 64)]
    ):
        if rows <= block and cols <= min(block, head_dim):
            config = Config(rows=rows, cols=cols, block=block, head_dim=head_dim, axi_bits=axi_bits)
            if all(getattr(config, name) == value for name, value in derived.items()):
                return config
    raise AssertionError(f"no configuration has {derived}")


@dataclass(kw_only=True)
class AxiMemory:
    """`size` random bytes at `base`; answers in order.

    Parameters
    ----------
    rng : Random
        Contents, latencies, stalls.
    size : int
        Bytes, a multiple of 4096.
    latency : (int, int)
        Least and most cycles from a burst's address (its last data in writes) to its answer.
    stall : float
        Chance that a channel does not move in a cycle.
    bad : set of int
        Beats at these addresses are answered with ``error``.
    error : Response
    most_beats : int
        Longest burst that the master promises.
    most_outstanding : int
        Most bursts that it promises to wait for.
    """

    rng: random.Random
    size: int = 8 * PAGE
    latency: tuple[int, int] = (1, 200)
    stall: float = 0.3
    bad: set[int] = field(default_factory=set)
    error: Response = Response.SLVERR
    most_beats: int = 64
    most_outstanding: int = 32

    def __post_init__(self) -> None:
        self.base = self.rng.randrange(2 ** (MEMORY_ADDRESS_BITS - 12) - self.size // PAGE) * PAGE
        self.bytes = bytearray(self.rng.randbytes(self.size))
        self.outstanding = 0  # bursts whose address was taken and whose answer has not ended
        self.bursts: list[tuple[int, int]] = []  # address and beats
        self.beats = 0
        self.failed: list[int] = []  # bursts of failed beats (in writes: failed bursts)
        self.cycle = 0

    def read(self, address: int, length: int) -> bytes:
        offset = address - self.base
        assert 0 <= offset <= self.size - length
        return bytes(self.bytes[offset : offset + length])

    def _stalls(self) -> bool:
        return self.rng.random() < self.stall

    def _take_address(self, beat_bytes: int, channel: dict[str, int]) -> tuple[int, int]:
        """Check a burst's address channel; returns address and beats."""
        address, beats = channel["addr"], channel["len"] + 1
        assert channel["burst"] == Burst.INCR
        assert 1 << channel["size"] == beat_bytes
        assert address % beat_bytes == 0
        assert beats <= self.most_beats
        assert address // PAGE == (address + beats * beat_bytes - 1) // PAGE, "crosses 4 KiB"
        assert channel["id"] == 0
        self.outstanding += 1
        assert self.outstanding <= self.most_outstanding
        self.bursts.append((address, beats))
        return address, beats

    def _answer_at(self) -> int:
        return self.cycle + self.rng.randint(*self.latency)

    async def serve_reads(self, ctx: Any, axi: Any) -> None:
        beat_bytes = len(axi.rdata) // 8
        names = ("addr", "len", "size", "burst", "id", "cache", "prot")
        channel = _Channel("ar", [getattr(axi, f"ar{name}") for name in names], axi.arvalid)
        waiting: deque[list[int]] = deque()  # next address, beats left, burst, time of answer
        offered = False
        while True:
            ctx.set(axi.arready, not self._stalls())
            if not offered and waiting and waiting[0][3] <= self.cycle and not self._stalls():
                offered = True
                address, left, *_ = waiting[0]
                ctx.set(axi.rdata, int.from_bytes(self.read(address, beat_bytes), "little"))
                ctx.set(axi.rlast, left == 1)
                ctx.set(axi.rresp, self.error if address in self.bad else Response.OKAY)
            ctx.set(axi.rvalid, offered)
            if not offered:  # nobody may look at it
                ctx.set(axi.rdata, self.rng.getrandbits(8 * beat_bytes))
                ctx.set(axi.rlast, self.rng.getrandbits(1))
                ctx.set(axi.rresp, self.rng.getrandbits(2))
            _, _, arready, rready, *sampled = await ctx.tick().sample(
                axi.arready, axi.rready, *channel.signals
            )
            self.cycle += 1
            if channel.moves(sampled, arready):
                address, beats = self._take_address(
                    beat_bytes, dict(zip(names, channel.payload, strict=True))
                )
                waiting.append([address, beats, address, self._answer_at()])
            if offered and rready:
                offered = False
                self.beats += 1
                head = waiting[0]
                if head[0] in self.bad:
                    self.failed.append(head[2])
                head[0] += beat_bytes
                head[1] -= 1
                if not head[1]:
                    waiting.popleft()
                    self.outstanding -= 1

    async def serve_writes(self, ctx: Any, axi: Any) -> None:
        beat_bytes = len(axi.wdata) // 8
        names = ("addr", "len", "size", "burst", "id", "cache", "prot")
        addresses = _Channel("aw", [getattr(axi, f"aw{name}") for name in names], axi.awvalid)
        beats_channel = _Channel("w", [axi.wdata, axi.wstrb, axi.wlast], axi.wvalid)
        begun: deque[list[int]] = deque()  # next address, beats left, burst, bad
        beats: deque[tuple[int, int, int]] = deque()
        answers: deque[tuple[int, int, bool]] = deque()  # time, burst, bad
        offered = False
        while True:
            ctx.set(axi.awready, not self._stalls())
            ctx.set(axi.wready, not self._stalls())
            if not offered and answers and answers[0][0] <= self.cycle and not self._stalls():
                offered = True
                ctx.set(axi.bresp, self.error if answers[0][2] else Response.OKAY)
            ctx.set(axi.bvalid, offered)
            if not offered:
                ctx.set(axi.bresp, self.rng.getrandbits(2))
            count = len(addresses.signals)
            _, _, awready, wready, bready, *sampled = await ctx.tick().sample(
                axi.awready, axi.wready, axi.bready, *addresses.signals, *beats_channel.signals
            )
            self.cycle += 1
            if addresses.moves(sampled[:count], awready):
                address, number = self._take_address(
                    beat_bytes, dict(zip(names, addresses.payload, strict=True))
                )
                begun.append([address, number, address, 0])
            if beats_channel.moves(sampled[count:], wready):
                self.beats += 1
                word, strobes, last = beats_channel.payload
                beats.append((word, strobes, last))
            while begun and beats:
                if self._store(begun[0], *beats.popleft(), beat_bytes):
                    _, _, burst, bad = begun.popleft()
                    answers.append((self._answer_at(), burst, bool(bad)))
            if offered and bready:
                offered = False
                self.outstanding -= 1
                _, burst, bad = answers.popleft()
                if bad:
                    self.failed.append(burst)

    def _store(self, head: list[int], word: int, strobes: int, last: int, beat_bytes: int) -> bool:
        """Store a beat of the burst ``head``; returns whether it is its last one."""
        for index in range(beat_bytes):
            if strobes >> index & 1:
                self.bytes[head[0] - self.base + index] = word >> 8 * index & 0xFF
        head[3] |= head[0] in self.bad
        head[0] += beat_bytes
        head[1] -= 1
        assert last == (not head[1]), "wlast"
        return not head[1]


class _Channel:
    """A channel from the master: an offered payload stays until it is taken."""

    def __init__(self, name: str, payload: list[Any], valid: Value):
        self._name = name
        self.signals = [*payload, valid]
        self.payload: list[int] = []
        self._held: list[int] | None = None

    def moves(self, sampled: list[int], ready: int) -> bool:
        *payload, valid = sampled
        if self._held is not None:
            assert valid, f"{self._name} withdrawn"
            assert payload == self._held, f"{self._name} changed"
        self.payload = payload
        self._held = payload if valid and not ready else None
        return bool(valid and ready)
