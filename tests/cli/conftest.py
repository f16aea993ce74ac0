"""Running the command line in this process."""

import sys
from typing import NamedTuple

import pytest

from paro.cli import console, main


class Outcome(NamedTuple):
    status: str | int
    out: str
    err: str


@pytest.fixture
def paro(monkeypatch, capsys):
    """Run ``paro`` with some arguments; gives exit status and what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["paro", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main.run()
        printed = capsys.readouterr()
        return Outcome(leaving.value.code or 0, printed.out, printed.err)

    # COLUMNS would come too late: it is read when a console is made, at import.
    for output in (console.stdout, console.stderr):
        monkeypatch.setattr(output, "width", 200)
    monkeypatch.setenv("NO_COLOR", "1")
    return run


@pytest.fixture
def refused(paro, tmp_path):
    """Run ``paro`` with bad input: status 2, one sentence, no traceback, nothing written."""

    def run(sentence, *arguments):
        before = sorted(tmp_path.rglob("*"))
        outcome = paro(*arguments)
        assert outcome.status == 2, outcome
        (line,) = [line for line in outcome.err.splitlines() if line.strip()]
        assert line.startswith("paro: error: ")
        assert sentence in line
        assert sorted(tmp_path.rglob("*")) == before

    return run
