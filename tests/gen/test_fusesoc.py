"""FuseSoC's core file: names and targets. `tests/sim/cosim/test_fusesoc.py` runs it."""

from importlib import metadata
from typing import Any

import pytest
import yaml

from gen.fusesoc import core_file
from gen.names import ACCELERATOR, CORE
from paro.config import PRESETS

TINY = PRESETS["tiny"]


def described(*arguments: Any, **options: Any) -> dict[str, Any]:
    text = core_file(*arguments, **options)
    assert text.startswith("CAPI=2:\n")
    return yaml.safe_load(text)


def test_vlnvs_differ() -> None:
    """Between configurations, tops and resets, also under one name; and between names."""
    cores = [
        described(config, top, name, aresetn=aresetn)
        for config in PRESETS.values()
        for name in (None, "one", "other")
        for top, aresetn in ((CORE, False), (ACCELERATOR, False), (ACCELERATOR, True))
    ]
    names = {core["name"] for core in cores}
    assert len(names) == len(cores)
    for core in cores:
        vendor, library, name, version = core["name"].split(":")
        assert (vendor, library) == ("paro", "accelerator")
        assert version == metadata.version("paro-accelerator")
        module = core["targets"]["default"]["toplevel"]
        assert name.startswith(module)
        assert core.get("virtual", [core["name"]]) == [f"paro:accelerator:{module}:{version}"]


@pytest.mark.parametrize("bench", [(), ("testbench.v", "memory.hex")])
def test_a_bench_brings_targets(bench) -> None:
    core = described(TINY, ACCELERATOR, "mine", bench=bench)
    assert set(core["targets"]) - {"default", "lint"} == (
        {"sim", "sim_verilator"} if bench else set()
    )
    listed = [entry for part in core["filesets"].values() for entry in part["files"]]
    files = {name for entry in listed for name in (entry if isinstance(entry, dict) else [entry])}
    assert files == {"mine.v", "mine.vlt", *bench}
