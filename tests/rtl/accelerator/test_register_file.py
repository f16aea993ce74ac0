"""The register file at its AXI4-Lite port, against a model of the table in plain Python."""

import random
from collections import Counter

import pytest

from paro.config import Config
from paro.config.registers import REGISTER_ADDRESS_BITS, REGISTERS, Cause, find_register
from rtl.accelerator.register_file import RegisterFile, member_name
from rtl.bus.axi_lite import Response
from tests.rtl.bus.axi_lite_master import AxiLiteMaster
from tests.rtl.simulate import simulate

CONFIG = Config(rows=4, cols=4, block=16, head_dim=32)
OKAY, SLVERR = Response.OKAY, Response.SLVERR
MAPPED = {register.offset: register for register in REGISTERS}
#: Bits that read as they were written.
WRITABLE = {
    "CONTROL": 4,
    "QUEUE_BASE_LO": 2**32 - 1,
    "QUEUE_BASE_HI": 255,
    "QUEUE_COUNT": 65535,
}
#: Stalls of a master: never, often.
STALLS = (0.0, 0.6)


async def responses_hold(ctx, registers) -> None:
    """A response once offered stays as it is until it is taken."""
    bus = registers.s_axil
    before = None
    while True:
        _, _, *now = await ctx.tick().sample(
            bus.bvalid, bus.bready, bus.bresp, bus.rvalid, bus.rready, bus.rdata, bus.rresp
        )
        if before is not None:
            bvalid, bready, bresp, rvalid, rready, rdata, rresp = before
            assert not (bvalid and not bready) or (now[0], now[2]) == (1, bresp)
            assert not (rvalid and not rready) or (now[3], *now[5:]) == (1, rdata, rresp)
        before = now


def bits_of(lanes: int) -> int:
    """Bits of a word in these byte lanes."""
    return sum(0xFF << 8 * lane for lane in range(4) if lanes >> lane & 1)


def check(registers, testbench, *background) -> None:
    async def hold(ctx) -> None:
        await responses_hold(ctx, registers)

    simulate(registers, testbench, hold, *background)


def test_fixed_offsets() -> None:
    """Offsets that drivers in the field rely on."""
    offsets = {
        "IDENT": 0x000,
        "VERSION": 0x004,
        "CONTROL": 0x008,
        "STATUS": 0x00C,
        "ERROR_HEAD": 0x010,
        "ERROR_ADDRESS_LO": 0x014,
        "QUEUE_BASE_LO": 0x020,
        "QUEUE_BASE_HI": 0x024,
        "QUEUE_COUNT": 0x028,
        "HEADS_DONE": 0x02C,
        "DIGEST_LO": 0x030,
        "ROWS": 0x040,
        "AXI_BITS": 0x058,
        "QUERY_ROWS": 0x05C,
        "KEY_SLOTS": 0x060,
        "CORES": 0x064,
        "VECTOR_CHANNELS": 0x068,
        "CYCLES_LO": 0x080,
        "WRITE_BEATS": 0x094,
        "COUNTED_CORE": 0x098,
        "SCHEDULER_BUSY": 0x100,
        "LOAD_Q_STARVED": 0x110,
        "OUTPUT_BLOCKED": 0x15C,
    }
    assert {name: find_register(name).offset for name in offsets} == offsets


def test_table() -> None:
    """Offsets and bits overlap nowhere; every word fits the space."""
    offsets = [register.offset for register in REGISTERS]
    assert offsets == sorted(set(offsets))
    assert all(offset % 4 == 0 and offset < 2**REGISTER_ADDRESS_BITS for offset in offsets)
    assert len({register.name for register in REGISTERS}) == len(REGISTERS)
    for register in REGISTERS:
        end = 0
        for field in register.fields:
            assert field.low >= end
            end = field.low + field.width
        assert end <= 32
        assert register.initial(CONFIG) < 2**32


@pytest.mark.parametrize("stall", STALLS)
def test_constants_and_inputs_read_at_their_addresses(stall: float, seed: int) -> None:
    rng = random.Random(seed)
    registers = RegisterFile(CONFIG)
    master = AxiLiteMaster(registers.s_axil, rng, stall)
    constants = {
        "IDENT": 0x4F524150,
        "VERSION": 0x00030003,
        "ROWS": 4,
        "COLS": 4,
        "BLOCK": 16,
        "HEAD_DIM": 32,
        "MAX_TOKENS": CONFIG.max_tokens,
        "EXP_SEGMENTS": 8,
        "AXI_BITS": 128,
        "QUERY_ROWS": 1,
        "KEY_SLOTS": 2,
        "CORES": 1,
        "VECTOR_CHANNELS": 0,
        "DIGEST_LO": int(CONFIG.digest()[4:], 16),
        "DIGEST_HI": int(CONFIG.digest()[:4], 16),
    }

    async def testbench(ctx) -> None:
        expected = {find_register(name).offset: value for name, value in constants.items()}
        for register in REGISTERS:
            # Windows are open after reset; all else that a host writes is 0.
            word = 0xFFFFFFF if register.name.endswith("_LAST_PAGE") else 0
            for field in register.fields:
                if field.access == "ro" and field.constant is None:
                    value = rng.getrandbits(field.width)
                    ctx.set(getattr(registers, member_name(register, field)), value)
                    word |= value << field.low
            expected.setdefault(register.offset, word)
        assert expected.keys() == MAPPED.keys()
        addresses = [*range(0, 0x200, 4), 0x400, 0x800, 0xFFC]
        rng.shuffle(addresses)
        for address in addresses:
            want = (expected[address], OKAY) if address in expected else (0, SLVERR)
            assert await master.read(ctx, address + rng.randrange(4)) == want, hex(address)

    check(registers, testbench)


@pytest.mark.parametrize("stall", STALLS)
def test_random_writes(stall: float, seed: int) -> None:
    """Any mix of addresses, byte lanes and orders of address and data, with reads beside them."""
    rng = random.Random(seed)
    registers = RegisterFile(CONFIG)
    writer, reader = (AxiLiteMaster(registers.s_axil, rng, stall) for _ in range(2))
    model = dict.fromkeys(WRITABLE, 0)
    pulses, expected_pulses = Counter(), Counter()
    working = {"writer", "reader"}

    async def count_pulses(ctx) -> None:
        while True:
            _, _, start, reset = await ctx.tick().sample(
                registers.control_start, registers.control_reset
            )
            pulses.update(start=start, reset=reset)

    async def read_beside(ctx) -> None:
        ctx.set(registers.heads_done, 1234)
        while "writer" in working:
            assert await reader.read(ctx, find_register("HEADS_DONE").offset) == (1234, OKAY)
            assert await reader.read(ctx, 0x3FC) == (0, SLVERR)
        working.remove("reader")

    async def testbench(ctx) -> None:
        names = [
            *WRITABLE,
            "CONTROL",
            "CONTROL",
            "STATUS",
            "IDENT",
            "CYCLES_HI",
            "OUTPUT_BLOCKED",
            None,
        ]
        for _ in range(300):
            name = rng.choice(names)
            address = 4 * rng.randrange(88, 1024) if name is None else find_register(name).offset
            data, lanes = rng.getrandbits(32), rng.getrandbits(4)
            response = await writer.write(ctx, address + rng.randrange(4), data, lanes)
            assert response == (OKAY if name in (*WRITABLE, "STATUS") else SLVERR), name
            bits = bits_of(lanes)
            if name in WRITABLE:
                model[name] = (model[name] & ~bits | data & bits) & WRITABLE[name]
            if name == "CONTROL":
                expected_pulses.update(start=data & bits & 1, reset=data >> 1 & bits >> 1 & 1)
            assert ctx.get(registers.control_interrupt_enable) == model["CONTROL"] >> 2
            assert ctx.get(registers.queue_base_lo) == model["QUEUE_BASE_LO"]
            assert ctx.get(registers.queue_base_hi) == model["QUEUE_BASE_HI"]
            assert ctx.get(registers.queue_count) == model["QUEUE_COUNT"]
            assert ctx.get(registers.irq) == 0
        working.remove("writer")
        while working:
            await ctx.tick()

    check(registers, testbench, count_pulses, read_beside)
    assert pulses == expected_pulses
    assert min(pulses.values()) > 5


@pytest.mark.parametrize("stall", STALLS)
def test_strobes_and_unused_bits_read_as_0(stall: float, seed: int) -> None:
    registers = RegisterFile(CONFIG)
    master = AxiLiteMaster(registers.s_axil, random.Random(seed), stall)

    async def testbench(ctx) -> None:
        for name, bits in WRITABLE.items():
            assert await master.write(ctx, find_register(name).offset, 2**32 - 1) == OKAY
            assert await master.read(ctx, find_register(name).offset) == (bits, OKAY), name

    check(registers, testbench)


@pytest.mark.parametrize("first", ["aw", "w", "both"])
def test_latency_and_orders(first: str) -> None:
    """Address or data first: nothing happens before both are there, and it happens once."""
    registers = RegisterFile(CONFIG)
    bus = registers.s_axil

    async def testbench(ctx) -> None:
        parts = {"aw": ("awvalid",), "w": ("wvalid",), "both": ("awvalid", "wvalid")}
        ctx.set(bus.awaddr, find_register("QUEUE_COUNT").offset)
        ctx.set(bus.wdata, 77)
        ctx.set(bus.wstrb, 0b1111)
        for name in parts[first]:
            ctx.set(getattr(bus, name), 1)
        await ctx.tick()
        for name in parts[first]:
            ctx.set(getattr(bus, name), 0)
        if first != "both":
            for _ in range(5):
                await ctx.tick()
                assert not ctx.get(bus.bvalid)
                assert ctx.get(registers.queue_count) == 0
            other = "wvalid" if first == "aw" else "awvalid"
            ctx.set(getattr(bus, other), 1)
            await ctx.tick()
            ctx.set(getattr(bus, other), 0)
        assert not ctx.get(bus.bvalid)
        await ctx.tick()
        assert ctx.get(bus.bvalid)
        assert ctx.get(registers.queue_count) == 77
        # The next write is taken while the response waits, but not done.
        ctx.set(bus.wdata, 78)
        ctx.set(bus.awvalid, 1)
        ctx.set(bus.wvalid, 1)
        await ctx.tick()
        ctx.set(bus.awvalid, 0)
        ctx.set(bus.wvalid, 0)
        await ctx.tick().repeat(5)
        assert ctx.get(registers.queue_count) == 77
        ctx.set(bus.bready, 1)
        await ctx.tick()
        ctx.set(bus.bready, 0)
        assert not ctx.get(bus.bvalid)
        await ctx.tick()
        assert ctx.get(bus.bvalid)
        assert ctx.get(registers.queue_count) == 78

    check(registers, testbench)


@pytest.mark.parametrize("first", ["aw", "w"])
def test_a_second_address_or_word_waits(first: str) -> None:
    """Until the first has what it lacks; then each pair is written."""
    registers = RegisterFile(CONFIG)
    bus = registers.s_axil
    pairs = [("QUEUE_COUNT", 77), ("QUEUE_BASE_LO", 78)]
    payloads = {
        "aw": (bus.awaddr, [find_register(name).offset for name, _ in pairs]),
        "w": (bus.wdata, [value for _, value in pairs]),
    }

    async def send(ctx, channel: str, index: int) -> None:
        signal, values = payloads[channel]
        ctx.set(signal, values[index])
        ctx.set(getattr(bus, f"{channel}valid"), 1)
        await ctx.tick().until(getattr(bus, f"{channel}ready"))
        ctx.set(getattr(bus, f"{channel}valid"), 0)

    async def testbench(ctx) -> None:
        ctx.set(bus.wstrb, 0b1111)
        ctx.set(bus.bready, 1)
        await send(ctx, first, 0)
        signal, values = payloads[first]
        ctx.set(signal, values[1])
        ctx.set(getattr(bus, f"{first}valid"), 1)
        for _ in range(5):
            await ctx.tick()
            assert not ctx.get(getattr(bus, f"{first}ready"))
        other = "w" if first == "aw" else "aw"
        await send(ctx, other, 0)
        await ctx.tick().until(getattr(bus, f"{first}ready"))
        ctx.set(getattr(bus, f"{first}valid"), 0)
        assert (ctx.get(registers.queue_count), ctx.get(registers.queue_base_lo)) == (77, 0)
        await send(ctx, other, 1)
        await ctx.tick().repeat(2)
        assert (ctx.get(registers.queue_count), ctx.get(registers.queue_base_lo)) == (77, 78)

    check(registers, testbench)


def test_status_and_interrupt(seed: int) -> None:
    """Events are kept until 1 is written; an event in the cycle of the write is not lost."""
    rng = random.Random(seed)
    registers = RegisterFile(CONFIG)
    master = AxiLiteMaster(registers.s_axil, rng, 0.3)
    control, status = find_register("CONTROL").offset, find_register("STATUS").offset

    async def pulse(ctx, name: str) -> None:
        ctx.set(getattr(registers, name), 1)
        await ctx.tick()
        ctx.set(getattr(registers, name), 0)

    async def testbench(ctx) -> None:
        await pulse(ctx, "status_done_set")
        assert not ctx.get(registers.irq)
        assert await master.read(ctx, status) == (0b010, OKAY)
        assert await master.write(ctx, control, 0b100) == OKAY
        assert ctx.get(registers.irq)
        assert await master.write(ctx, status, 0b100) == OKAY
        assert ctx.get(registers.irq), "writing 1 to another field"
        assert await master.write(ctx, status, 0b010, lanes=0b1110) == OKAY
        assert ctx.get(registers.irq), "writing other byte lanes"
        assert await master.write(ctx, status, 0b010) == OKAY
        assert not ctx.get(registers.irq)
        ctx.set(registers.status_busy, 1)
        ctx.set(registers.status_cause, Cause.READ_ERROR)
        await pulse(ctx, "status_error_set")
        assert ctx.get(registers.irq)
        assert await master.read(ctx, status) == (0x65, OKAY)
        # Before, in and after the cycle in which the write clears it.
        for cycle, left in enumerate((0x61, 0x65, 0x65)):
            bus = registers.s_axil
            ctx.set(bus.awaddr, status)
            ctx.set(bus.wdata, 0b110)
            ctx.set(bus.wstrb, 0b1111)
            ctx.set(bus.bready, 1)
            for now in range(3):
                ctx.set(bus.awvalid, now == 0)
                ctx.set(bus.wvalid, now == 0)
                ctx.set(registers.status_error_set, now == cycle)
                await ctx.tick()
            ctx.set(registers.status_error_set, 0)
            ctx.set(bus.bready, 0)
            assert await master.read(ctx, status) == (left, OKAY)
        assert await master.write(ctx, status, 0b110) == OKAY
        assert await master.read(ctx, status) == (0x61, OKAY)
        assert not ctx.get(registers.irq)
        # The accelerator clears, too, one field of the two; it sets what it clears in one cycle.
        for set_again, left in ((0, 0x65), (1, 0x67)):
            await pulse(ctx, "status_done_set")
            await pulse(ctx, "status_error_set")
            ctx.set(registers.status_done_set, set_again)
            await pulse(ctx, "status_done_clear")
            ctx.set(registers.status_done_set, 0)
            assert await master.read(ctx, status) == (left, OKAY)

    check(registers, testbench)


@pytest.mark.parametrize("stall", STALLS)
def test_addresses_offered_while_responses_wait(stall: float, seed: int) -> None:
    """Every address gets its own answer, in order, at one in two cycles without stalls."""
    rng = random.Random(seed)
    registers = RegisterFile(CONFIG)
    bus = registers.s_axil
    names = [rng.choice(["IDENT", "ROWS", "BLOCK", "HEAD_DIM", "MAX_TOKENS"]) for _ in range(100)]
    want = [find_register(name).initial(CONFIG) for name in names]
    got, cycles = [], 0

    async def send(ctx) -> None:
        for name in names:
            while rng.random() < stall / 3:
                await ctx.tick()
            ctx.set(bus.araddr, find_register(name).offset)
            ctx.set(bus.arvalid, 1)
            await ctx.tick().until(bus.arready)
            ctx.set(bus.arvalid, 0)

    async def testbench(ctx) -> None:
        nonlocal cycles
        while len(got) < len(want):
            ctx.set(bus.rready, rng.random() >= stall)
            _, _, valid, ready, data = await ctx.tick().sample(bus.rvalid, bus.rready, bus.rdata)
            cycles += 1
            if valid and ready:
                got.append(data)

    check(registers, testbench, send)
    assert got == want
    assert stall or cycles == 2 * len(want)
