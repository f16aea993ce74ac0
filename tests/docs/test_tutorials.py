"""The tutorials run, and are shown as they ran."""

import json

import pytest

from tests.docs import pages
from tests.docs.shell import run_lines
from tests.places import ROOT

#: The others compile a simulator or calibrate a model: minutes on a busy machine.
QUICK = {"capture"}


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[] if path.stem in QUICK else pytest.mark.slow, id=path.stem)
        for path in pages.notebooks()
    ],
)
def test_tutorial_runs(path, tmp_path):
    run_lines([f"python {ROOT}/docs/run_tutorials.py --check {path}"], tmp_path)


@pytest.mark.parametrize("path", pages.notebooks(), ids=lambda path: path.stem)
def test_tutorial_is_shown_as_it_ran(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    counts = [cell["execution_count"] for cell in cells]
    assert counts == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs
    assert all(output["output_type"] != "error" for output in outputs)
    assert path.stat().st_size < 500_000
