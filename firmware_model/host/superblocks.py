"""Superblocks: block rows of a map that share one load of K and V; their codes and their order."""

import numpy as np

from paro.config import Config
from paro.config.config import blocks_of
from paro.config.formats import CODE_BITS, CODES_PER_WORD

__all__ = [
    "code_words",
    "codes_of_words",
    "deal",
    "leaving_order",
    "shared_code_words",
    "superblock_count",
    "superblocks",
]

_PLACES = np.arange(CODES_PER_WORD, dtype=np.uint32) * np.uint32(len(CODE_BITS).bit_length() - 1)


def superblocks(rows: int, config: Config) -> list[slice]:
    """Rows of each superblock: ``query_rows`` that follow one another, fewer at the end."""
    step = config.query_rows
    return [slice(first, min(first + step, rows)) for first in range(0, rows, step)]


def deal(rows: int, config: Config) -> list[np.ndarray]:
    """Return the block rows that each core of a cluster computes, see `rtl.accelerator.deal`.

    Parameters
    ----------
    rows : int
        Of the head or layer.
    config : Config
        ``cores`` and ``query_rows``.

    Returns
    -------
    list of np.ndarray
        int64 [rows of the core], for each core, in its own order.
    """
    numbers = np.arange(rows)
    wave, place = np.divmod(numbers, config.wave_rows)
    owner = (place ^ place // config.cores ^ wave) % config.cores
    return [numbers[owner == core] for core in range(config.cores)]


def superblock_count(rows: int, config: Config) -> int:
    """Superblocks that the cores of a cluster make of so many block rows."""
    return sum(blocks_of(len(own), config.query_rows) for own in deal(rows, config))


def code_words(codes: np.ndarray, config: Config) -> np.ndarray:
    """Codes of a head as the device reads them, see `rtl.interfaces.codes_signature`.

    Parameters
    ----------
    codes : np.ndarray
        uint8 [rows, columns] of the rows to compute.
    config : Config
        ``query_rows``.

    Returns
    -------
    np.ndarray
        uint32 [words].
    """
    words = _pack(codes)
    if config.query_rows == 1:
        return words.ravel()
    parts = [_with_more(words[rows], words[rows]) for rows in superblocks(len(codes), config)]
    return np.concatenate(parts)


def codes_of_words(words: np.ndarray, rows: int, config: Config) -> np.ndarray:
    """Return the codes of a head's rows that `code_words` made words of.

    Parameters
    ----------
    words : np.ndarray
        uint32, of the head.
    rows : int
        Block rows.
    config : Config
        ``query_rows``.

    Returns
    -------
    np.ndarray
        uint32 [rows, columns]; columns that fill up the last words are 0.
    """
    parts = superblocks(rows, config)
    more = 1 if config.query_rows > 1 else 0  # words that tell which rows have more
    groups = len(words) // (rows + more * len(parts))
    found, begin = [], 0
    for part in parts:
        count = part.stop - part.start + more
        own = words[begin : begin + count * groups]
        # Without superblocks a row's words follow one another, which is the same for one row.
        found.append(own.reshape(groups, count)[:, more:].T)
        begin += count * groups
    codes = np.concatenate(found)[:, :, None] >> _PLACES & np.uint32(len(CODE_BITS) - 1)
    return codes.reshape(rows, -1)


def shared_code_words(codes: np.ndarray, config: Config) -> np.ndarray:
    """Codes of a layer as the device reads them: each row's are those of a whole superblock.

    Parameters and results are those of `code_words`; a row is an output block.
    """
    words = _pack(codes)
    if config.query_rows == 1:
        return words.ravel()
    rows = config.query_rows
    return np.concatenate([_with_more(row[None], row[None].repeat(rows, 0)) for row in words])


def leaving_order(codes: np.ndarray, config: Config) -> np.ndarray:
    """Order in which a head's rows leave the core: in a superblock by their last live blocks.

    Parameters
    ----------
    codes : np.ndarray
        uint8 [rows, columns] of the rows to compute.
    config : Config
        ``query_rows``.

    Returns
    -------
    np.ndarray
        int64 [rows]: numbers of rows.
    """
    columns = codes.shape[1]
    last = columns - 1 - np.argmax(codes[:, ::-1] != 0, axis=1)
    return np.lexsort((np.arange(len(codes)), last, np.arange(len(codes)) // config.query_rows))


def _pack(codes: np.ndarray) -> np.ndarray:
    """Pack each row of codes into words, uint32 [rows, words], the first code lowest."""
    padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % CODES_PER_WORD)))
    parts = padded.reshape(len(codes), -1, CODES_PER_WORD).astype(np.uint32) << _PLACES
    return parts.sum(axis=2, dtype=np.uint32)


def _with_more(words: np.ndarray, of_rows: np.ndarray) -> np.ndarray:
    """Words group by group, each after a word that tells which rows have live codes later on."""
    later = np.zeros(of_rows.shape, bool)
    later[:, :-1] = np.logical_or.accumulate(of_rows[:, :0:-1] != 0, axis=1)[:, ::-1]
    more = (later.astype(np.uint32) << np.arange(len(later), dtype=np.uint32)[:, None]).sum(
        axis=0, dtype=np.uint32
    )
    return np.concatenate([more[None], words]).T.ravel()
