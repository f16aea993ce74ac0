"""Every command that README and pages show is one, and is run or says here why not."""

import inspect
import re
import shlex
import subprocess
from contextlib import ExitStack
from functools import cache

import pytest
import typer
from typer.core import TyperGroup

from firmware_model import DEMO_CAPTURE
from fpga.soc.simulation import simulated_board
from paro.cli.main import COMMANDS, app
from paro.config import PRESETS
from sim.cache import cache_folder
from tests.docs import pages
from tests.docs.pages import Command
from tests.docs.shell import run_lines
from tests.fpga.cells import LIBERTY
from tests.places import ROOT

#: Pages whose blocks are run from top to bottom, in one folder, on the shipped capture.
SESSIONS = (
    "docs/howto/plan.md",
    pytest.param("docs/board.md", marks=pytest.mark.slow),
    pytest.param("docs/howto/board.md", marks=pytest.mark.slow),
    pytest.param("docs/howto/check.md", marks=pytest.mark.slow),
    pytest.param("docs/howto/estimate.md", marks=pytest.mark.slow),
    pytest.param("docs/howto/model.md", marks=pytest.mark.slow),
    pytest.param("docs/howto/verilog.md", marks=pytest.mark.slow),
)

#: Commands of any page that are run by themselves.
ALONE = (
    "make help",
    "paro boards",
    "paro doctor",
    pytest.param("make demo", marks=pytest.mark.slow),
    pytest.param("paro estimate --checkpoints", marks=pytest.mark.slow),
    pytest.param("paro generate --rows 8 --cols 8 -o D", marks=pytest.mark.slow),
    pytest.param("paro verify --preset tiny -o verify", marks=pytest.mark.slow),
)

#: Why a command is not run, and the commands.
NOT_RUN = {
    "the tests are run by it, or run what it runs": (
        "make setup",
        "make test",
        "make test PYTEST_WORKERS=1",
        'make test PYTEST_ARGS="--junitxml tests.xml"',
        "paro verify --preset tiny --tests tests.xml -o verify",
        "make test-all",
        "make nightly",
        "paro verify --stage V3 --only coverage -o verify",
        "make docs",
        "make tutorials",
        "make lint types",
        "make format",
    ),
    "it works on captures that do not come with the project": (
        "paro calibrate CAPTURE --avg-bits 8 -o P",
        "paro calibrate CAPTURE --avg-bits 3 --heads 0-5 -o P",
        "paro calibrate CAPTURE --avg-bits 2.64 --heads 0-5 -o P",
        "paro calibrate CAPTURE --heads 0 -o P",
        "paro evaluate CAPTURE --heads 0 --plan P -o D",
        "paro benchmark CAPTURE",
        "paro cosim CAPTURE --plan P --heads 5 --query-blocks 0:2 --preset ulx3s --latency 30 -o D",
        "paro cosim CAPTURE --plan P --heads 0-5 --top accelerator --rows 8 --cols 8 "
        "--query-rows 4 --bandwidth 1.6 --latency 20 -o D",
        "paro cosim CAPTURE --plan P --heads 0-5 --top accelerator --rows 8 --cols 8 "
        "--query-rows S --bandwidth 1.6 --latency 20 -o D",
        "paro cosim CAPTURE --plan P --heads 0-5 --top accelerator --rows 8 --cols 8 --cores 4 "
        "--query-rows 4 --key-slots 4 -o D",
        "paro cosim CAPTURE --plan P --heads 0-5 --top accelerator --rows 16 --cols 16 --cores 4 "
        "--query-rows 4 --key-slots 4 --axi-bits 512 -o D",
        "paro estimate --model cogvideox-5b CAPTURES -o D",
        "paro estimate --model cogvideox-5b CAPTURES -o estimate",
        "paro estimate --model NAME CAPTURES -o estimate",
        "paro study ablation dinov2_video_l3.safetensors -o study",
        "paro study formats CAPTURES --bits 2,2.5,3,4,4.8 -o D",
        "paro study formats CAPTURES --bits 2,2.5,3,4,4.8 -o study",
        "paro study pruning CAPTURES -o study",
        "paro study sparsity dinov2_video_l3.safetensors --density 0.3,0.2 -o study",
    ),
    "it works on a plan, capture or model of the reader's own": (
        "paro capture MODEL --what linear -o captures",
        'paro run CogVideoX-2b/ --prompt "a panda" --frames 9 --device model --steps 4 -o integers',
        "paro cosim captures/NAME --plan plan.safetensors --heads 0 --query-blocks 0:1 -o run",
        "paro cosim layer.safetensors --plan plan.safetensors -o run",
        "paro convert qkv.npz -o capture.safetensors --grid 8,16,16",
        "paro estimate --model my.toml --plan my_plan.safetensors -o mine",
        "paro plan mask.npz --for capture.safetensors -o plan.safetensors",
        "paro plan sparse_plan.pth --map sparse --order permute --order-file permute_plan.pth "
        "--for captures/ -o plan.safetensors",
    ),
    "it works on cells that do not come with the project": (
        "paro study pe --liberty sg13g2_stdcell_typ_1p20V_25C.lib -o study",
    ),
    "it needs a board": (
        "paro load board",
        "paro run capture.safetensors --plan plan.safetensors --device udp:192.168.1.50 -o run",
    ),
    "docs/board.md has the same, whole": (
        "paro calibrate CAPTURE --heads 9 --block 16 -o P",
        "paro run CAPTURE --plan P --heads 9 --device sim --rows 4 --cols 4 -o D",
    ),
    "it takes many minutes; tests/ has smaller ones of its kind": (
        "paro calibrate CAPTURE --block 16 -o P",
        "paro calibrate C --weight-bits 3.5 -o P",
        "paro calibrate captures -o plan.safetensors --avg-bits 4.8 --relative-to signal",
        "paro calibrate captures -o plan.safetensors --avg-bits 4.8 --weight-bits 4 "
        "--relative-to signal",
        "paro calibrate firmware_model/data/tiny_video_dit_t03.safetensors --avg-bits 3 --block 64 "
        "-o P",
        "paro capture moving-digits --what linear --at 0.5 --samples 1 -o C",
        "paro capture moving-digits -o captures --at 0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9 "
        "--samples 2",
        "paro capture moving-digits -o captures --at 0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9 "
        "--samples 2 --what both",
        "paro cosim C/sample_00_blocks.0.network.0_step_013.safetensors --plan P --preset ulx3s "
        "-o D",
        "paro cosim CAPTURE --plan P --rows 8 --cols 8 --top accelerator --latency 30 "
        "--interleaved -o D",
        "paro cosim CAPTURE --plan build/demo/plan.safetensors --rows 8 --cols 8 "
        "--top accelerator --latency 1:200 --stalls 7 -o D",
        "paro cosim firmware_model/data/tiny_video_dit_t03.safetensors --plan P --heads 0-3 "
        "--preset ulx3s --query-rows S -o D",
        "paro evaluate moving-digits --plan plan.safetensors --samples 20 -o videos",
        "paro run moving-digits --plan network.safetensors --device rtl --rows 16 --cols 16 "
        "--steps 4 --on-device :1 -o step",
        "paro run moving-digits --device rtl --rows 16 --cols 16 --axi-bits 256 --query-rows 4 "
        "--key-slots 4 --on-device :13 -o first",
        "paro run moving-digits --plan first/plan.safetensors --device rtl --rows 16 --cols 16 "
        "--axi-bits 256 --query-rows 4 --key-slots 4 --on-device 13: -o second",
        "paro study blocks firmware_model/data/tiny_video_dit_t03.safetensors --bits 3 -o study",
        "paro study carry-over captures -o study --at 0.7 --avg-bits 4.8",
        "paro study layers captures -o study",
        "paro study network -o study",
        "paro study pe -o study",
        "paro study processors -o study --density 0.3,0.2",
        "paro sweep --model cogvideox-5b -o sweep",
        "paro study fit --board ulx3s-85f -o study",
        "paro synth --board litex:digilent_arty,variant=a7-100 --preset tiny -o arty",
        "paro synth --board ulx3s-45f --preset tiny -o board",
        "paro synth --board ulx3s-85f --preset tiny -o board",
        "paro synth --self-test --board ulx3s-85f --preset ulx3s --min-mhz 80 -o D",
        "paro synth --self-test --board ulx3s-85f --preset ulx3s --min-mhz 80 -o board",
        "paro synth --self-test --board ulx3s-85f --preset ulx3s --query-rows 4 --min-mhz 80 -o D",
        "paro synth --self-test --board ulx3s-85f --preset video --estimate -o board",
    ),
}

#: Where a reader's board is; here a simulated one stands in for it.
SERIAL = "serial:/dev/ttyUSB0"
#: Tells what was, not what is.
HISTORY = "CHANGELOG.md"
#: ``make`` as it is here, without setting up.
MAKE = ["make", "--assume-old=.venv/.installed"]


@cache
def shown() -> tuple[Command, ...]:
    found = [
        command
        for page in (*pages.markdown_pages(), *pages.notebooks())
        if pages.name(page) != HISTORY
        for command in pages.commands(pages.name(page), pages.text_of(page))
    ]
    assert len(found) > 80
    return tuple(found)


@cache
def command_line() -> TyperGroup:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return group


def values(parameters: tuple) -> list[str]:
    """Plain values of parameters that may have marks."""
    return [getattr(parameter, "values", [parameter])[0] for parameter in parameters]


def check(command: Command) -> bool:
    """Put a command to its own parser; tells whether it is whole, and not a part or a pattern."""
    program, *arguments = shlex.split(command.text.partition(">")[0])
    if program == "make":
        dry = subprocess.run([*MAKE, "--dry-run", *arguments], cwd=ROOT, capture_output=True)
        assert dry.returncode == 0, f"{command}: {dry.stderr.decode()}"
        return True
    if arguments[0] == "COMMAND":
        assert not command.block
        return False
    assert arguments[0] in COMMANDS, command
    if len(arguments) == 1 and not command.block:
        return False  # its name
    # S stands for any number of block rows.
    arguments = ["4" if argument == "S" else argument for argument in arguments]
    try:
        command_line().commands[arguments[0]].make_context(arguments[0], arguments[1:])
    except typer.Exit:  # --list and --help
        return True
    except Exception as error:
        if command.block or not is_pattern(error):
            raise AssertionError(f"{command}: {error}") from error
        return False
    return True


def is_pattern(error: Exception) -> bool:
    """Whether what the parser misses is what a sentence leaves open."""
    kind, sentence = type(error).__name__, str(error)
    return (
        kind == "MissingParameter"
        or (kind == "BadOptionUsage" and "requires an argument" in sentence)
        or (kind == "BadParameter" and bool(re.search(r"'[A-Z]+'", sentence)))
    )


def test_commands_are_legal_and_run_or_marked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    marked = [text for texts in NOT_RUN.values() for text in texts]
    assert len(set(marked)) == len(marked)
    sessions = values(SESSIONS)
    run = set(values(ALONE))
    for page in pages.notebooks():
        run |= {c.text for c in pages.commands("", pages.text_of(page)) if c.block}
    run |= {c.text for c in shown() if c.page in sessions and c.block} - set(marked)
    unknown = {c for c in shown() if check(c) and c.text not in run and c.text not in marked}
    assert not unknown
    texts = {command.text for command in shown()}
    assert not {text for text in (*marked, *values(ALONE)) if text not in texts}


def test_the_parser_refuses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in (
        "paro generate --row 8 -o D",
        "paro generate --rows eight -o D",
        "paro cosim",
        "paro simulate x",
        "make everything",
    ):
        with pytest.raises(AssertionError):
            check(Command("page", text, block=True))
    assert check(Command("page", "paro generate --rows 8 -o D", block=True))
    assert not check(Command("page", "paro cosim CAPTURE", block=False))


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_of_the_help_are_legal(command, tmp_path, monkeypatch):
    """They are not run: what they name stands for the reader's own files."""
    monkeypatch.chdir(tmp_path)
    text = inspect.cleandoc(command_line().commands[command].help or "")
    examples = [" ".join(part.split()) for part in text.split("\n\n")]
    examples = [example for example in examples if example.startswith("paro ")]
    assert examples
    for example in examples:
        assert check(Command("--help", example, block=True))


@pytest.mark.parametrize("page", SESSIONS)
def test_session(page, tmp_path):
    marked = {text for texts in NOT_RUN.values() for text in texts}
    lines = pages.shell_lines((ROOT / page).read_text())
    lines = [line for line in lines if line not in marked]
    assert lines
    (tmp_path / "capture.safetensors").symlink_to(DEMO_CAPTURE)
    (tmp_path / "firmware_model").symlink_to(ROOT / "firmware_model")
    (tmp_path / "cells.lib").write_text(LIBERTY)
    with ExitStack() as stack:
        if any(SERIAL in line for line in lines):
            board = simulated_board(PRESETS["tiny"], cache_folder(), line="pty")
            device = stack.enter_context(board).device
            lines = [line.replace(SERIAL, device) for line in lines]
        run_lines(lines, tmp_path)


@pytest.mark.parametrize("text", ALONE)
def test_alone(text, tmp_path):
    if text.startswith("make "):
        make = shlex.join([*MAKE, f"DEMO={tmp_path}"])
        run_lines([f"{make} {text.removeprefix('make ')}"], ROOT)
    else:
        run_lines([text], tmp_path)
