"""Registers and memory of an accelerator in Python, which computes with the integer model."""

import numpy as np

from firmware_model.host.jobs import HeadJob, HeadOperands
from firmware_model.reference.outputs import model_outputs
from paro.config import Config
from paro.config.registers import START_CAUSES, WINDOWS, Cause, find_register, window_name


class StandIn:
    """Registers and memory of an accelerator in Python."""

    def __init__(self, config: Config, base: int, size: int):
        self.config, self.base = config, base
        self.memory = np.zeros(size, np.uint8)
        self.registers = {
            name: find_register(name).initial(config)
            for name in ("IDENT", "VERSION", "DIGEST_LO", "DIGEST_HI")
        }
        self.registers |= {name.upper(): value for name, value in config.model_dump().items()}
        self.error: tuple[int, int, int] | None = None  # cause, head, address
        self.interrupt_enabled = False
        self.looks_to_rest = 4
        self.looks_to_done = 3
        #: While a queue is worked on.
        self.looks_until_done = 0
        #: While the queue is given up.
        self.looks_until_rest: int | None = None

    def _name(self, address: int) -> str:
        for name in ("CONTROL", "STATUS", "ERROR_HEAD", "HEADS_DONE"):
            if find_register(name).offset == address:
                return name
        for prefix in ("QUEUE_BASE", "ERROR_ADDRESS", "DIGEST", "CYCLES"):
            for suffix in ("LO", "HI"):
                if find_register(f"{prefix}_{suffix}").offset == address:
                    return f"{prefix}_{suffix}"
        windows = [window_name(window, end) for window in WINDOWS for end in ("first", "last")]
        names = [*self.registers, "QUEUE_COUNT", "COUNTED_CORE", *windows]
        found = [name for name in names if find_register(name).offset == address]
        return found[0] if found else f"{address:#x}"

    async def read32(self, address: int) -> int:
        name = self._name(address)
        if name == "STATUS" and self.looks_until_rest is not None:
            self.looks_until_rest -= 1
            if self.looks_until_rest == 0:
                self.registers["STATUS"] &= ~1
        elif name == "STATUS" and self.registers.get("STATUS", 0) & 1:
            self.looks_until_done -= 1
            if self.looks_until_done == 0:
                self.finish()
        return self.registers.get(name, address)

    async def write32(self, address: int, value: int) -> None:
        name = self._name(address)
        if name == "STATUS":
            self.registers["STATUS"] = self.registers.get("STATUS", 0) & ~(value & 0b110)
        elif name == "CONTROL":
            self.interrupt_enabled = bool(value & 4)
            busy = self.registers.get("STATUS", 0) & 1
            if value & 2:
                self.looks_until_rest = self.looks_to_rest if busy else None
            elif value & 1 and busy:
                self.registers["STATUS"] |= 0b100 | Cause.BUSY << 4
            elif value & 1 and not self.registers.get("QUEUE_COUNT"):
                self.registers["STATUS"] = 0b100 | Cause.EMPTY_QUEUE << 4
            elif value & 1:
                self.registers["STATUS"] = 1
                self.looks_until_rest = None
                self.looks_until_done = self.looks_to_done
        else:
            legal = ("QUEUE_BASE_LO", "QUEUE_BASE_HI", "QUEUE_COUNT", "COUNTED_CORE")
            assert name in legal or name.endswith("_PAGE")
            self.registers[name] = value

    async def read(self, address: int, count: int) -> bytes:
        return self._bytes(address, count).tobytes()

    async def write(self, address: int, data: bytes) -> None:
        self._bytes(address, len(data))[:] = np.frombuffer(data, np.uint8)

    def _bytes(self, address: int, count: int) -> np.ndarray:
        start = address - self.base
        assert 0 <= start <= start + count <= len(self.memory), "outside of the memory"
        return self.memory[start : start + count]

    def finish(self) -> None:
        if self.error is not None:
            cause, head, address = self.error
            self.registers["STATUS"] = 0b100 | cause << 4
            if cause not in START_CAUSES:
                self.registers["STATUS"] |= 1
                self.looks_until_rest = self.looks_to_rest
            self.registers["ERROR_HEAD"] = head
            self.registers["ERROR_ADDRESS_LO"] = address % 2**32
            self.registers["ERROR_ADDRESS_HI"] = address >> 32
            return
        queue = self.registers["QUEUE_BASE_LO"] | self.registers["QUEUE_BASE_HI"] << 32
        for index in range(self.registers["QUEUE_COUNT"]):
            self.compute(self._bytes(queue + 128 * index, 128).view("<u4").tolist())
        self.registers["HEADS_DONE"] = self.registers["QUEUE_COUNT"]
        self.registers["STATUS"] = 0b010

    def natural(self, words: list[int]) -> list[int]:
        """Natural token at each position."""
        tokens, prefix, suffix, (_, e1, e2) = words[2], words[5], words[6], words[7:10]
        grid = tokens - prefix - suffix
        result = []
        for p in range(tokens):
            if p >= grid + prefix:
                result.append(p)
            elif p >= grid:
                result.append(p - grid)
            else:
                outer, middle, inner = p // (e2 * e1), p // e2 % e1, p % e2
                result.append(prefix + outer * words[10] + middle * words[11] + inner * words[12])
        return result

    def compute(self, words: list[int]) -> None:
        config = self.config
        assert words[0] == 0x4F524150
        assert words[1] == config.block | 3 << 8 | config.head_dim << 16
        tokens, first_row, queries = words[2:5]
        address = dict(zip(["q", "k", "v", "o", "mq", "mk", "codes"], words[17:31:2], strict=True))
        high = dict(zip(address, words[18:31:2], strict=True))
        address = {name: low | high[name] << 32 for name, low in address.items()}
        stride = dict(zip("qkvo", words[13:17], strict=True))
        assert not any(value % 4 for value in [*address.values(), *stride.values()])
        natural = self.natural(words)

        def gather(name: str) -> np.ndarray:
            rows = [
                self._bytes(address[name] + t * stride[name], config.head_dim).view(np.int8)
                for t in natural
            ]
            return np.stack(rows)

        def scales(name: str) -> np.ndarray:
            padded = -(-tokens // config.load_tokens) * config.load_tokens
            return self._bytes(address[name], 4 * padded).view("<i4")[:tokens]

        blocks = -(-tokens // config.block)
        rows, row_words = -(-queries // config.block), -(-blocks // 16)
        count = -(-4 * rows * row_words // config.load_bytes) * config.load_bytes
        memory = self._bytes(address["codes"], count).view("<u4")[: rows * row_words]
        codes = np.ones((blocks, blocks), np.uint8)
        for i, row in enumerate(memory.reshape(rows, row_words).tolist()):
            for j in range(16 * row_words):
                code = row[j // 16] >> 2 * (j % 16) & 3
                if j < blocks:
                    codes[first_row + i, j] = code
                else:
                    assert code == 0, "codes past the last key block"
        head = HeadOperands(
            *(gather(name) for name in "qkv"),
            *(scales(name) for name in ("mq", "mk")),
            permutation=np.array(natural),
            order=0,
        )
        # The model takes no notice of the grid.
        grid, computed = (1, 1, tokens), range(first_row, first_row + rows)
        outputs = model_outputs(config, HeadJob(head, codes, grid, 0, query_blocks=computed))
        for p, row in enumerate(outputs.astype("<i2"), start=first_row * config.block):
            place = address["o"] + natural[p] * stride["o"]
            self._bytes(place, 2 * config.head_dim)[:] = row.view(np.uint8)
