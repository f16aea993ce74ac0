"""Random gaps in the streams of a co-simulation, from one seed: for the bench and for the model."""

import random

__all__ = ["STREAMS", "gap_rates", "gap_seed", "salt"]

#: Streams of the core, in the order in which their rates are drawn.
STREAMS = ("command", "codes", "fetch", "q", "k", "v", "o")
#: Chances, of 256, that a stream may have of beginning or going on with a gap.
_RATES = (0, 16, 64, 128, 192)


def _draw(seed: int) -> tuple[int, dict[str, int]]:
    generator = random.Random(seed)
    word = generator.getrandbits(32)
    return word, {stream: generator.choice(_RATES) for stream in STREAMS}


def gap_seed(seed: int | None) -> int:
    """Word that the harness's generators begin with."""
    return _draw(seed or 0)[0]


def gap_rates(seed: int | None) -> dict[str, int]:
    """Chance of each stream, of 256, to begin or go on with a gap; 0 without a seed."""
    return dict.fromkeys(STREAMS, 0) if seed is None else _draw(seed)[1]


def salt(stream: str) -> int:
    """Word that makes a stream's generator one of its own."""
    return 0x9E3779B9 * (STREAMS.index(stream) + 1) & 0xFFFFFFFF
