"""Stimuli for benches that know nothing of this project: a memory before and after a queue."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from firmware_model.host.image import Image, place_jobs
from firmware_model.host.jobs import Job
from gen.driver import driver_header, driver_source, example
from gen.generate import generate
from gen.names import ACCELERATOR
from gen.testbench import testbench
from paro.config import Config, files
from paro.config.clock import CLOCK_MHZ
from paro.config.descriptor import DESCRIPTOR_BYTES
from sim.cosim.work import ideal_cycles

__all__ = ["ExpectedWords", "Work", "export"]

#: Where the jobs are placed.
BASE = 0x10000
#: Cycles for each ideal one, and beside them, after which the accelerator counts as hung.
_SLOWEST, _LEAST_LIMIT = 50, 1_000_000
_WORD_BYTES = 4
#: Files that the testbench is made of.
_BENCH = ("testbench.v", "memory.hex", "expected.hex")


@dataclass(frozen=True, eq=False)
class Work:
    """Jobs of a queue, and what the integer model says of them.

    Parameters
    ----------
    config : Config
        The accelerator.
    jobs : list of Job
        The queue.
    model : callable
        Returns int16 words of each job: of a head [queries, head_dim], in its order; of a layer
        [tokens, outputs].
    """

    config: Config
    jobs: list[Job]
    model: Callable[[], list[np.ndarray]]


@dataclass(frozen=True, eq=False)
class ExpectedWords:
    """Words of memory that a queue writes, by ascending address.

    Parameters
    ----------
    addresses : np.ndarray
        int64 [words], in bytes.
    masks : np.ndarray
        uint8 [words]: bit i tells whether byte i counts; the others are undefined.
    words : np.ndarray
        uint32 [words]; bytes that do not count are 0.
    """

    addresses: np.ndarray
    masks: np.ndarray
    words: np.ndarray

    @classmethod
    def of(cls, image: Image, outputs: Sequence[np.ndarray]) -> "ExpectedWords":
        """Words that the outputs of an image's jobs are."""
        size = len(image.data) + -len(image.data) % _WORD_BYTES
        data, counts = np.zeros(size, np.uint8), np.zeros(size, bool)
        for placed, words in zip(image.outputs, outputs, strict=True):
            rows = np.ascontiguousarray(words).astype(f"<i{placed.word_bytes}")
            row_bytes = rows.view(np.uint8).reshape(len(rows), -1)
            first = placed.o_address - image.base + placed.tokens * placed.o_row_stride
            places = first[:, None] + np.arange(row_bytes.shape[1])
            data[places], counts[places] = row_bytes, True
        masks = np.packbits(counts.reshape(-1, _WORD_BYTES), axis=1, bitorder="little")[:, 0]
        written = np.flatnonzero(masks)
        return cls(image.base + written * _WORD_BYTES, masks[written], data.view("<u4")[written])

    def to_hex(self) -> str:
        """Lines for ``$readmemh``: 40 bits of address, 8 of mask, 32 of data."""
        rows = zip(self.addresses.tolist(), self.masks.tolist(), self.words.tolist(), strict=True)
        return "".join(f"{address:010x}{mask:02x}{word:08x}\n" for address, mask, word in rows)

    def written_to(self, memory: np.ndarray, base: int) -> np.ndarray:
        """Return a memory, uint32 [words] from byte address ``base`` on, with these words in it."""
        counts = np.unpackbits(self.masks[:, None], axis=1, count=_WORD_BYTES, bitorder="little")
        bytes_written = (255 * counts).view("<u4")[:, 0]
        after, places = memory.copy(), (self.addresses - base) // _WORD_BYTES
        after[places] = memory[places] & ~bytes_written | self.words
        return after


def export(
    work: Work,
    out_dir: Path,
    name: str | None = None,
    *,
    aresetn: bool = False,
    clock_mhz: float = CLOCK_MHZ,
) -> dict[str, Any]:
    """Write an accelerator, a memory image, what a run must leave in it, and a testbench.

    Parameters
    ----------
    work : Work
        What to compute.
    out_dir : Path
        Folder, made when missing. It receives what `gen.generate.generate` writes; ``memory.hex``
        and ``.bin``, the memory before the run; ``expected.hex``, the words that it leaves (see
        `ExpectedWords.to_hex`), and ``.bin``, the memory after it but for bytes that are undefined;
        ``testbench.v``; a C driver, ``paro_driver.c`` and ``.h``, and ``example.c`` that uses it;
        and ``export.json``, where all that lies.
    name : str, optional
        Of the module.
    aresetn, clock_mhz
        As for `gen.generate.generate`.

    Returns
    -------
    dict
        Content of ``export.json``.

    Raises
    ------
    ParoError
        If jobs and configuration do not fit each other or the folder cannot be written.
    """
    image = place_jobs(work.config, work.jobs, BASE)
    outputs = work.model()
    generated = generate(
        work.config,
        out_dir,
        ACCELERATOR,
        name,
        aresetn=aresetn,
        clock_mhz=clock_mhz,
        bench=_BENCH,
    )
    module = generated["module"]
    words = ExpectedWords.of(image, outputs)
    memory = np.frombuffer(image.data + bytes(-len(image.data) % _WORD_BYTES), "<u4")
    cycles = sum(ideal_cycles(work.config, job) for job in work.jobs)
    place = {"base": image.base, "queue_base": image.queue_base, "jobs": len(work.jobs)}
    bench = testbench(
        work.config,
        module,
        aresetn=aresetn,
        **place,
        words=len(memory),
        expected=len(words.words),
        cycles=_LEAST_LIMIT + _SLOWEST * cycles,
    )
    sources = {
        "testbench.v": bench,
        "paro_driver.h": driver_header(work.config, module),
        "paro_driver.c": driver_source(),
        "example.c": example(work.config, module, **place, last=image.base + memory.nbytes - 1),
    }
    for file, text in sources.items():
        files.write_text(out_dir / file, text)
    files.write_text(out_dir / "memory.hex", "".join(f"{word:08x}\n" for word in memory.tolist()))
    files.write_atomically(out_dir / "memory.bin", memory.tofile)
    files.write_text(out_dir / "expected.hex", words.to_hex())
    files.write_atomically(out_dir / "expected.bin", words.written_to(memory, image.base).tofile)
    facts = {
        "module": module,
        "digest": generated["digest"],
        "base": image.base,
        "bytes": memory.nbytes,
        "queue_base": image.queue_base,
        "jobs": [
            {
                "descriptor": image.queue_base + number * DESCRIPTOR_BYTES,
                "o_address": placed.o_address,
                "o_row_stride": placed.o_row_stride,
                "rows": len(placed.tokens),
                "words": placed.words,
                "word_bytes": placed.word_bytes,
            }
            for number, placed in enumerate(image.outputs)
        ],
        "words_written": len(words.words),
        "files": sorted(
            [
                *generated["files"],
                *("memory.hex", "memory.bin", "expected.hex", "expected.bin"),
                *sources,
                "export.json",
            ]
        ),
    }
    files.write_json(out_dir / "export.json", facts)
    return facts
