"""The cache: an entry is made once and found again, the size is bounded, processes share it."""

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from paro.config import PRESETS, ParoError
from sim import cache
from sim.cache import CACHE_VARIABLE, cache_folder, cache_size, entry_name, kept, present
from sim.cosim import verilog
from sim.cycles.compilation import model_entry
from sim.cycles.cycle_kernel import predict_cycles
from sim.cycles.cycle_model import compile_model
from sim.sources import imported_files
from tests.places import ROOT

TINY = PRESETS["tiny"]
NAME = entry_name("thing", 1)


def write(text):
    return lambda folder: (folder / "text").write_text(text)


def refuse(folder):
    raise AssertionError("it was made again")


def test_an_entry_is_made_once(tmp_path):
    for make in (write("whole"), refuse):
        with kept(tmp_path / "new", NAME, make) as entry:
            assert (entry / "text").read_text() == "whole"
    assert cache_size(tmp_path / "new") == len("whole")


def test_what_was_left_half_made_is_made_anew(tmp_path):
    def stop(folder):
        write("half")(folder)
        (folder / "more").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), kept(tmp_path, NAME, stop):
        pass
    with present(tmp_path, NAME) as found:
        assert found is None
    with kept(tmp_path, NAME, write("whole")) as entry:
        assert not (entry / "more").exists()


def slowly(folder):
    time.sleep(0.5)
    with (folder.parent / "makers").open("a") as makers:
        makers.write(f"{os.getpid()}\n")


def ask(folder):
    with kept(folder, NAME, slowly) as entry:
        return (entry / "complete").exists()


def test_several_processes_make_one(tmp_path):
    with ProcessPoolExecutor(3) as pool:
        assert list(pool.map(ask, [tmp_path] * 3)) == [True] * 3
    assert len((tmp_path / "makers").read_text().split()) == 1


def test_the_least_recently_used_go_but_not_what_is_in_use(tmp_path, monkeypatch):
    names = [entry_name("thing", number) for number in range(5)]
    (tmp_path / "of somebody else").mkdir()
    for name in names[:4]:
        with kept(tmp_path, name, write("x" * 100)):
            pass
    for age, name in enumerate(names[:4]):
        os.utime(tmp_path / name / "complete", (1000 + age, 1000 + age))
    with kept(tmp_path, names[1], refuse):  # used again: the newest
        pass
    (tmp_path / names[2] / "complete").unlink()  # as if its making had been killed
    monkeypatch.setattr(cache, "LIMIT", 250)
    with present(tmp_path, names[0]), kept(tmp_path, names[4], write("x" * 100)):
        left = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    # The oldest is in use; then come 2, which is not whole, 3 and 1.
    assert left == {names[0], names[4], "of somebody else"}
    assert {path.name for path in tmp_path.glob("*.lock")} == {
        f"{name}.lock" for name in (names[0], names[4])
    }


def test_a_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    with pytest.raises(ParoError, match=r"file is not a folder; PARO_CACHE_DIR names another"):
        cache_folder()
    monkeypatch.setattr(cache.files.os, "access", lambda path, mode: False)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    with pytest.raises(ParoError, match=r"is read-only; PARO_CACHE_DIR names another"):
        cache_folder()

    def full(folder):
        raise OSError(28, "No space left on device")

    sentence = rf"cannot write .*{NAME}: No space left on device; PARO_CACHE_DIR names another"
    with pytest.raises(ParoError, match=sentence), kept(tmp_path, NAME, full):
        pass


def test_where_it_is(tmp_path, monkeypatch):
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert cache_folder() == tmp_path / "paro"
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "other"))
    assert cache_folder() == tmp_path / "other"
    assert not any(tmp_path.iterdir())


def test_verilog_is_generated_once_for_each_state_of_the_code(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(
        verilog, "generate_verilog", lambda *of, **also: made.append((of, also)) or f"v{len(made)}"
    )
    other = TINY.model_copy(update={"max_tokens": 2 * TINY.max_tokens})
    assert [
        verilog.kept_verilog(config, top, tmp_path)
        for config, top in ((TINY, "a"), (TINY, "a"), (TINY, "b"), (other, "a"), (TINY, "b"))
    ] == ["v1", "v1", "v2", "v3", "v2"]
    monkeypatch.setattr(verilog, "module_digest", lambda module: "another state")
    assert verilog.kept_verilog(TINY, "a", tmp_path) == "v4"


@pytest.mark.parametrize("module", ["sim.cycles.cycle_kernel", "gen.verilog"])
def test_all_imported_code_counts(module):
    """The key reads all modules of the project that Python loads, in a process of its own."""
    code = (
        f"import sys, {module}\n"
        "for name, module in sys.modules.items():\n"
        "    if getattr(module, '__file__', None): print(name, module.__file__)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    loaded = dict(line.split(maxsplit=1) for line in run.stdout.splitlines())
    ours = {name for name, file in loaded.items() if Path(file).is_relative_to(ROOT)}
    ours = {name for name in ours if name.partition(".")[0] in ("paro", "rtl", "gen", "sim")}
    assert {"rtl.core.blocks", "paro.config.formats", module} <= ours
    assert ours <= imported_files(module, ROOT).keys()


CONSTANTS = """
from sim.cycles.compilation import model_entry
from sim.cycles.cycle_kernel import predict_cycles
print(model_entry(predict_cycles))
"""


def test_a_changed_constant_changes_the_key_of_the_cycle_model(tmp_path):
    """In a copy of the project, whose operand buffers have four slots in place of two."""

    def key():
        environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
        run = subprocess.run(
            [sys.executable, "-c", CONSTANTS],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    for package in ("paro", "firmware_model", "rtl", "sim"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("data"))
    before = key()
    blocks = tmp_path / "rtl/core/blocks.py"
    changed = blocks.read_text().replace("\nSLOTS = 2\n", "\nSLOTS = 4\n")
    assert changed != blocks.read_text()
    (tmp_path / "sim/cosim/cosim.py").write_text("# not of the cycle model\n")
    assert key() == before
    blocks.write_text(changed)
    assert key() != before


def test_the_compilation_is_told_and_not_the_loading(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    code = (
        "import logging, numba, sys\n"
        "from sim.cycles import compilation\n"
        "logging.basicConfig(level='INFO', stream=sys.stdout, format='%(message)s')\n"
        "from tests.sim.cosim.frozen import add\n"
        "compilation.ensure_compiled(add, (1,))\n"
        "print(add(1), dict(add.stats.cache_hits) != {})\n"
    )
    said = [
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        for _ in range(2)
    ]
    first, second = (run.stdout.splitlines() for run in said)
    assert first[0].startswith("compiling the cycle model"), said
    assert first[1:] == ["4 False"]
    assert second == ["4 True"]


def test_nothing_of_the_cycle_model_lies_beside_its_source():
    """Numba would look at that file alone."""
    compile_model()
    assert Path(predict_cycles.stats.cache_path).parent.name == model_entry(predict_cycles)
    source = Path(predict_cycles.py_func.__code__.co_filename)
    assert not list(source.parent.glob("__pycache__/*.nbi"))
