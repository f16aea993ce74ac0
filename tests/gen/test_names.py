"""Any number of cores and accelerators in one folder, in one design, in one program."""

import json
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from gen.generate import generate
from gen.names import ACCELERATOR, CORE, module_name
from gen.verilog import TOPS
from paro.config import PRESETS, Config, ParoError
from tests.gen.designs import DESIGNS, TINY
from tests.gen.linters import lint, verilator


@pytest.mark.parametrize("top", TOPS)
def test_lint_of_the_folder(generated, top):
    lint(generated[0], module_name(TINY, top))


@pytest.mark.slow
@pytest.mark.parametrize("top", TOPS)
@pytest.mark.parametrize("preset", PRESETS)
def test_lint_of_every_preset(preset, top, tmp_path):
    lint(tmp_path, generate(PRESETS[preset], tmp_path, top)["module"])


def test_files_of_several_designs(generated):
    folder, summaries = generated
    names = [name for summary in summaries for name in summary["files"]]
    assert sorted(names) == sorted(path.name for path in folder.iterdir())
    assert len(names) == len(set(names)) == 3 * 11 + 19
    for (config, top), summary in zip(DESIGNS, summaries, strict=True):
        module = summary["module"]
        described = json.loads((folder / f"{module}.config.json").read_text())
        assert described["configuration"] == config.model_dump()
        assert json.loads((folder / f"{module}.ports.json").read_text())["module"] == module
        assert f"# Ports of `{module}`" in (folder / f"{module}.ports.md").read_text()
        assert (folder / f"{module}.f").read_text() == f"{module}.v\n"
        core = (folder / f"{module}.core").read_text()
        assert f"name: paro:accelerator:{module}:" in core
        assert f"toplevel: {module}\n" in core
        assert all(name in summary["files"] for name in re.findall(r"- (\S+)", core))
        assert ((folder / f"{module}.h").exists()) == (top == ACCELERATOR)


def design(folder: Path, modules: list[str]) -> str:
    """All modules side by side, every port connected by its described width."""
    body = []
    for module in modules:
        connections = []
        for port in json.loads((folder / f"{module}.ports.json").read_text())["ports"]:
            kind = "wire" if port["direction"] == "out" else "reg"
            width = port["width"]
            value = "" if kind == "wire" else f" = {width}'h0"
            body.append(f"  {kind} [{width - 1}:0] {module}_{port['name']}{value};")
            connections.append(f".{port['name']}({module}_{port['name']})")
        body.append(f"  {module} {module}_u ({', '.join(connections)});")
    return "\n".join(["module everything;", *body, "endmodule", ""])


def test_several_in_one_design(generated, tmp_path):
    folder, summaries = generated
    modules = [summary["module"] for summary in summaries]
    sources = [str(folder / f"{module}.v") for module in modules]
    (tmp_path / "design.v").write_text(design(folder, modules))
    assert verilator(tmp_path, "--top-module", "everything", "design.v", *sources) == ""
    command = ["iverilog", "-g2005", "-Wall", "-s", "everything", "-o", "design.vvp", "design.v"]
    run = subprocess.run([*command, *sources], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0
    assert run.stderr == ""
    # Each has its own clusters of 4 x 2 PEs.
    scopes = re.findall(r'\.scope module, "\S+" "(\S+)"', (tmp_path / "design.vvp").read_text())
    count = Counter(scopes)
    for (config, _), module in zip(DESIGNS, modules, strict=True):
        assert count[f"{module}__pe_cluster"] == config.rows * config.cols // 8
        assert count[f"{module}__key_encoder"] == config.rows
        assert count[module] == 1


def test_default_names_differ():
    """Every parameter counts, and so does the top."""
    others = {
        "rows": 4,
        "cols": 4,
        "block": 32,
        "head_dim": 32,
        "max_tokens": 1024,
        "exp_segments": 16,
        "axi_bits": 64,
        "query_rows": 2,
        "key_slots": 4,
        "cores": 2,
        "vector_channels": 128,
    }
    assert set(others) == set(Config.model_fields)
    configs = [Config(), *(Config(**{name: value}) for name, value in others.items())]
    names = {module_name(config, top) for config in configs for top in TOPS}
    assert len(names) == len(configs) * len(TOPS)
    assert module_name(Config(), CORE) == f"paro_core_8x8_b64_d64_{Config().digest()[:8]}"
    assert all(module_name(Config(), CORE, name) == name for name in names)


@pytest.mark.parametrize(
    "name", ["", "1st", "a b", "a-b", "a.b", "a$b", "a__b", "größe", "x" * 101]
)
def test_illegal_name(name, tmp_path):
    with pytest.raises(
        ParoError, match="legal: at most 100 letters, digits and single underscores"
    ):
        generate(TINY, tmp_path / "folder", CORE, name)
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("name", ["module", "reg", "logic", "large", "unique0"])
def test_keyword_as_name(name, tmp_path):
    with pytest.raises(ParoError, match=f"name = '{name}' is a keyword of Verilog"):
        generate(TINY, tmp_path / "folder", CORE, name)
    assert not (tmp_path / "folder").exists()


def test_name_at_its_limits():
    for name in ("a", "_top", "Top_2", "x" * 100):
        assert module_name(TINY, CORE, name) == name
