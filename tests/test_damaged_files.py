"""Damaged files: every reader takes them, or refuses them with one sentence (`tests.fuzz`)."""

from dataclasses import replace

import pytest

from paro.config import ParoError
from tests.fuzz import READERS, Fuzz, limits

#: Damaged files of each kind in the quick suite; the slow one has 10,000 in all.
QUICK, SLOW = 40, 10_000 // len(READERS) + 1
#: Kinds of which nearly all are taken: what they hold is looked at elsewhere.
INDULGENT = {"kind of model"}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize(
    "files", [QUICK, pytest.param(SLOW, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_damaged_files(kind, files, tmp_path, seed):
    fuzz = Fuzz(kind, tmp_path / "fuzz", seed)
    with limits():
        wrong = {}
        for number in range(files):
            objection = fuzz.objection(number)
            if objection is not None:
                wrong[number] = objection, str(fuzz.keep(number))
    assert not wrong
    assert fuzz.refused > (-1 if kind in INDULGENT else files // 5)


def test_a_reader_that_fails_is_told(tmp_path, seed, monkeypatch):
    """Other errors, no words, no name of the file: none of them passes."""
    fuzz = Fuzz("capture", tmp_path / "fuzz", seed)

    def failing(error: BaseException):
        def read(_path):
            raise error

        return read

    def objection(error: BaseException) -> str | None:
        monkeypatch.setattr(fuzz, "reader", replace(fuzz.reader, read=failing(error)))
        return fuzz.objection(1)

    assert objection(KeyError("q")) == "KeyError: 'q'"
    assert "no sentence" in str(objection(ParoError(" ")))
    assert "does not name" in str(objection(ParoError("something is wrong")))
    assert "letters" in str(objection(ParoError(f"{fuzz.path} {'x' * 3000}")))
    assert objection(ParoError(f"{fuzz.path} is damaged")) is None


def test_a_sentence_is_one_line_that_can_be_printed():
    """Whatever names a file has in it, such as those that command a terminal."""
    assert str(ParoError("it has \x1b[2J\nö")) == "it has \\x1b[2J\\nö"
