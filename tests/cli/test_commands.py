"""The commands on the capture that ships: what they write, what they print, how they exit."""

import dataclasses
import json
import re
import subprocess
import sys
from typing import Any

import pytest
from safetensors.numpy import load_file
from typer.main import get_command

from firmware_model import DEMO_CAPTURE
from paro.cli.main import COMMANDS, app


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """A plan of head 3 with blocks of 64, written by the command itself."""
    path = tmp_path_factory.mktemp("plan") / "plan.safetensors"
    arguments = ["calibrate", DEMO_CAPTURE, "--heads", "3", "--avg-bits", "4", "-o", path]
    code = "from paro.cli.main import run; run()"
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_examples(paro, command):
    outcome = paro(command, "--help")
    assert outcome.status == 0
    assert re.search(rf"^\s+paro {command}", outcome.out, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_all_brackets(paro, command, monkeypatch):
    """Shapes of arrays are no markup."""
    monkeypatch.setenv("COLUMNS", "300")
    own: Any = get_command(app)
    own = own.commands[command]
    written = " ".join([own.help, *(parameter.help or "" for parameter in own.params)])
    shapes = re.findall(r"\[[^\]]*\]", written.replace("[bold]", "").replace("[/bold]", ""))
    shown = " ".join(paro(command, "--help").out.split())
    assert [shape for shape in shapes if " ".join(shape.split()) not in shown] == []


def test_help_lists_every_command_and_the_exit_statuses(paro):
    outcome = paro("--help")
    assert outcome.status == 0
    assert all(command in outcome.out for command in COMMANDS)
    assert "Exit status: 0 it holds" in outcome.out


def test_help_does_not_load_torch():
    code = (
        "import paro.cli.main, sys; assert not {'torch', 'amaranth', 'cocotb'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_version(paro):
    assert paro("--version").out == "paro 0.1.0\n"


def test_generate_writes_the_core(paro, tmp_path):
    outcome = paro("generate", "--preset", "tiny", "-o", tmp_path / "core")
    assert outcome.status == 0
    assert "4 x 4" in outcome.out
    (verilog,) = (tmp_path / "core").glob("*.v")
    assert verilog.stem in outcome.out
    assert f"module {verilog.stem}(" in verilog.read_text()
    config = json.loads(verilog.with_suffix(".config.json").read_text())["configuration"]
    assert (config["rows"], config["block"], config["head_dim"]) == (4, 16, 32)


def test_generate_for_axi_at_a_clock(paro, tmp_path):
    outcome = paro(
        *("generate", "--preset", "tiny", "--top", "accelerator", "--aresetn"),
        *("--clock-mhz", 250, "-o", tmp_path / "device"),
    )
    assert outcome.status == 0
    (constraints,) = (tmp_path / "device").glob("*.sdc")
    assert constraints.stem.startswith("paro_accelerator_aresetn_4x4_b16_d32_")
    assert "create_clock -name aclk -period 4.000" in constraints.read_text()
    assert "  input wire aresetn" in constraints.with_suffix(".v").read_text()


def test_generate_takes_a_file_and_options_on_top(paro, tmp_path):
    (tmp_path / "core.toml").write_text("rows = 4\ncols = 4\nblock = 16\nhead_dim = 32\n")
    outcome = paro(
        *("generate", "--config", tmp_path / "core.toml", "--cols", 8),
        *("--name", "my_core", "-o", tmp_path / "core"),
    )
    assert outcome.status == 0
    config = json.loads((tmp_path / "core/my_core.config.json").read_text())["configuration"]
    assert (config["rows"], config["cols"], config["block"]) == (4, 8, 16)


def test_evaluate_writes_report_and_outputs(paro, plan, tmp_path):
    outcome = paro("evaluate", DEMO_CAPTURE, "--plan", plan, "-o", tmp_path)
    assert outcome.status == 0
    report = json.loads((tmp_path / "report.json").read_text())
    (head,) = report["heads"]
    assert head["head"] == 3
    assert head["snr_db"] > 30
    assert load_file(tmp_path / "outputs.safetensors")["o"].shape == (1, 512, 32)


def test_picture_draws_the_heads_of_the_plan(paro, plan, tmp_path):
    outcome = paro("picture", DEMO_CAPTURE, "--plan", plan, "-o", tmp_path)
    assert outcome.status == 0
    assert [path.name for path in tmp_path.iterdir()] == ["head_3.png"]
    assert (tmp_path / "head_3.png").read_bytes().startswith(b"\x89PNG")


CAPTURE = str(DEMO_CAPTURE)


@pytest.mark.parametrize(
    ("sentence", "arguments"),
    [
        ("no preset 'nope'; legal: tiny", ["generate", "--preset", "nope"]),
        ("rows = 5 is not legal; legal: 4, 8", ["generate", "--rows", "5"]),
        ("name = 'wire' is a keyword of Verilog", ["generate", "--name", "wire"]),
        ("name = 'a b' is not legal; legal: at most", ["generate", "--name", "a b"]),
        ("block = 24 is not legal", ["generate", "--block", "24"]),
        ("head_dim = 48 is not legal", ["generate", "--head-dim", "48"]),
        ("clock_mhz = 0 is not legal; legal: 1 to 5000", ["generate", "--clock-mhz", "0"]),
        ("clock_mhz = nan is not legal", ["export", CAPTURE, "--clock-mhz", "nan"]),
        ("aresetn is a port of AXI, which a core does not have", ["generate", "--aresetn"]),
        ("cannot read configuration missing.toml", ["generate", "--config", "missing.toml"]),
        ("either a preset or", ["generate", "--config", "x.toml", "--preset", "tiny"]),
        ("missing.safetensors does not exist", ["calibrate", "missing.safetensors"]),
        ("block = 8 is not legal", ["calibrate", CAPTURE, "--block", "8"]),
        ("avg_bits = 9.0 is not legal", ["calibrate", CAPTURE, "--avg-bits", "9"]),
        ("there is no head 16; legal: 0 .. 15", ["calibrate", CAPTURE, "--heads", "16"]),
        ("heads = 'a' is not a list", ["calibrate", CAPTURE, "--heads", "a"]),
        ("heads = '1,1' names a head twice", ["calibrate", CAPTURE, "--heads", "1,1"]),
        ("no simulator 'vcs'; legal: verilator, icarus", ["cosim", CAPTURE, "--sim", "vcs"]),
        ("plan missing does not exist", ["cosim", CAPTURE, "--plan", "missing"]),
        ("--latency '1:2' is not legal", ["cosim", CAPTURE, "--latency", "1:2"]),
        ("--latency '-1' is not legal", ["cosim", CAPTURE, "--latency=-1"]),
        (f"--latency '{'9' * 5000}' is not legal", ["cosim", CAPTURE, "--latency", "9" * 5000]),
        (
            "--latency '9:2' is not legal; legal: 0 <= A <= B",
            ["cosim", CAPTURE, "--top", "accelerator", "--latency", "9:2"],
        ),
        ("--interleaved", ["cosim", CAPTURE, "--interleaved"]),
        ("plan missing does not exist", ["evaluate", CAPTURE, "--plan", "missing"]),
        ("plan missing does not exist", ["picture", CAPTURE, "--plan", "missing"]),
        ("no board 'de10'; legal: ulx3s-12f", ["synth", "--board", "de10"]),
        ("clock = 3 MHz cannot be made", ["synth", "--min-mhz", "3"]),
        ("clock = 3 MHz cannot be made", ["synth", "--self-test", "--min-mhz", "3"]),
        ("no board 'de10'; legal: ulx3s-12f", ["synth", "--self-test", "--board", "de10"]),
        ("device = 'usb' is not legal; legal: serial:PATH", ["run", CAPTURE, "--device", "usb"]),
        ("of a litex_server, or sim", ["run", CAPTURE, "--device", "rtl"]),
        ("plan missing does not exist", ["run", CAPTURE, "--device", "sim", "--plan", "missing"]),
        (
            "options of the configuration are for --device sim",
            ["run", CAPTURE, "--device", "tcp:127.0.0.1:1", "--rows", "4"],
        ),
        ("--silence 0 is not", ["run", CAPTURE, "--device", "tcp:127.0.0.1:1", "--silence", "0"]),
        ("--sample is for a model, but", ["run", CAPTURE, "--device", "sim", "--sample", "1"]),
        ("--on-device is for a model", ["run", CAPTURE, "--device", "sim", "--on-device", ":1"]),
        (
            "--heads, --query-blocks and --silence are for captures",
            ["run", "moving-digits", "--device", "rtl", "--heads", "0"],
        ),
        ("too small for a model; legal: rtl, model", ["run", "moving-digits", "--device", "sim"]),
        ("of a litex_server, rtl or model", ["run", "moving-digits", "--device", "usb"]),
        ("is a folder without model_index.json", ["run", ".", "--device", "model"]),
        ("no simulator 'vcs'", ["run", "moving-digits", "--device", "rtl", "--sim", "vcs"]),
        (
            "--on-device 0:3 is not legal; legal: up to 0:2",
            ["run", "moving-digits", "--device", "model", "--steps", "2", "--on-device", ":3"],
        ),
    ],
)
def test_bad_input_is_one_sentence(refused, tmp_path, sentence, arguments):
    refused(sentence, *arguments, "-o", tmp_path / "out")


#: Commands that compute before they write, with what they need.
WRITERS = {
    "calibrate": [CAPTURE],
    "capture": ["moving-digits"],
    "convert": ["x.npz", "--grid", "1,2,2"],
    "cosim": [CAPTURE],
    "estimate": ["--model", "flux.1-dev"],
    "evaluate": [CAPTURE, "--plan", "p"],
    "export": [CAPTURE],
    "generate": [],
    "picture": [CAPTURE, "--plan", "p"],
    "plan": ["x.npz", "--for", CAPTURE],
    "run": [CAPTURE, "--device", "sim"],
    "study": ["ablation", CAPTURE],
    "sweep": ["--model", "flux.1-dev"],
    "synth": [],
    "verify": [],
}


def test_every_command_that_writes_is_among_them(paro):
    found = {name for name in COMMANDS if "--output" in paro(name, "--help").out}
    assert found == WRITERS.keys()


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize(
    ("sentence", "folder"),
    [
        ("file is not a folder", "file/in/it"),
        ("File name too long", f"{'x' * 256}/it"),
        ("File name too long", "x/" * 2100),
        ("its name is not text", "\udcff/it"),
    ],
)
def test_a_folder_that_cannot_be_is_refused_at_once(refused, tmp_path, command, sentence, folder):
    (tmp_path / "file").touch()
    refused(sentence, command, *WRITERS[command], "-o", f"{tmp_path}/{folder}")


def test_cosim_refuses_an_unfit_cache_at_once(refused, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PARO_CACHE_DIR", str(tmp_path / "file"))
    sentence = "file is not a folder; PARO_CACHE_DIR names another folder for what is compiled"
    monkeypatch.setattr("paro.cli.inputs.choose_plan", None)
    refused(sentence, "cosim", CAPTURE, "-o", tmp_path / "out")


def test_what_is_announced_is_shown(paro, monkeypatch):
    from firmware_model.progress import announce
    from paro.cli import doctor

    monkeypatch.setattr(doctor, "examine", lambda: announce("compiling [once]") or [])
    assert paro("doctor").err == "paro: compiling [once]\n"


@pytest.mark.parametrize(
    ("sentence", "options"),
    [
        ("query blocks 8:9 are not legal", ["--query-blocks", "8:9"]),
        ("query-blocks = '4' is not a range", ["--query-blocks", "4"]),
        ("query-blocks = '4:2' is not a range", ["--query-blocks", "4:2"]),
        ("block = 32 does not fit the plan", ["--block", "32"]),
        ("head_dim = 64 does not fit capture", ["--head-dim", "64"]),
        ("the plan has no head 0; legal: 3", ["--heads", "0"]),
    ],
)
def test_what_does_not_fit_the_plan_is_one_sentence(refused, plan, tmp_path, sentence, options):
    refused(sentence, "cosim", CAPTURE, "--plan", plan, *options, "-o", tmp_path / "out")


@pytest.mark.parametrize(
    ("sentence", "text"),
    [
        ("cannot read configuration ", "rows = ["),
        ("cannot read configuration ", f"rows = {'9' * 5000}"),
        ("no field 'depth'; legal fields: rows, cols", "depth = 3"),
        ("rows = '8' is not legal", 'rows = "8"'),
        ("nests too deep", f"rows = {'[' * 3000}"),
        ("a value of type int that is too large to show", f"rows = 0x{'f' * 6000}"),
        ("xxx... is not legal; legal: 4, 8", f'rows = "{"x" * 9000}"'),
    ],
)
def test_a_bad_configuration_file_is_one_sentence(refused, tmp_path, sentence, text):
    (tmp_path / "core.toml").write_text(text)
    refused(sentence, "generate", "--config", tmp_path / "core.toml", "-o", tmp_path / "out")


@pytest.mark.parametrize("arguments", [["generate"], ["nope"], ["cosim", CAPTURE, "--nope"]])
def test_bad_usage_is_status_2(paro, arguments):
    outcome = paro(*arguments)
    assert outcome.status == 2
    assert "Usage:" in outcome.err


def cosim_report(**changes):
    """Report of a co-simulation of one head, in which nothing is wrong."""
    from sim.cosim.report import HeadsReport

    report = HeadsReport(
        bit_exact=True,
        outputs_compared=512,
        mismatches=0,
        first_mismatch=None,
        failure=None,
        cycles=7,
        predicted_cycles=7,
        cycles_as_predicted=True,
        ideal_cycles=6,
        utilisation=0.8571,
        stages={},
        cores=None,
        imbalance=None,
        top="core",
        memory=None,
        simulator="verilator (1)",
        stall_seed=None,
        query_blocks=[0, 1],
        simulation_seconds=0.5,
        cycles_per_second=14,
        capture="capture",
        capture_sha256="0" * 64,
        layer=0,
        progress=0.0,
        config={},
        avg_bits=4.8,
        tokens=16,
        rows=16,
        mean_bits=4.8,
        density=1.0,
        worst_head=3,
        worst_snr_db=40.0,
        heads=[{"head": 3, "cycles": 7}],
    )
    return dataclasses.replace(report, **changes)


@pytest.mark.parametrize(("as_predicted", "status"), [(True, 0), (None, 0), (False, 1)])
def test_cosim_fails_if_cycles_are_not_as_predicted(
    paro, plan, tmp_path, monkeypatch, as_predicted, status
):
    report = cosim_report(predicted_cycles=8, cycles_as_predicted=as_predicted)
    monkeypatch.setattr("paro.cli.work.cosim", lambda *_: report)
    outcome = paro("cosim", CAPTURE, "--plan", plan, "-o", tmp_path / "out")
    assert outcome.status == status
    assert ("cycles_as_predicted" in outcome.out) == (as_predicted is not None)


def test_cosim_of_the_accelerator_takes_its_memory(paro, plan, tmp_path, monkeypatch):
    from sim.cosim.report import MemoryReport, Traffic

    traffic = Traffic(640, 3, 12, 4.0, 0.5)
    report = cosim_report(memory=MemoryReport([3, 40], 1.5, True, traffic, traffic))
    targets = []
    monkeypatch.setattr(
        "paro.cli.work.cosim", lambda _, target, __: targets.append(target) or report
    )
    arguments = ("--top", "accelerator", "--latency", "3:40", "--stalls", 7, "--interleaved")
    arguments += ("--bandwidth", 1.5)
    outcome = paro("cosim", CAPTURE, "--plan", plan, *arguments, "-o", tmp_path / "out")
    assert outcome.status == 0, outcome.err
    (target,) = targets
    memory = target.memory
    assert (memory.latency, memory.stall_seed, memory.interleaved) == ((3, 40), 7, True)
    assert memory.bandwidth == 1.5
    for row in ("read_bytes_wanted", "read_beats", "write_beats"):
        assert row in outcome.out


def test_cosim_traces_when_asked(paro, plan, tmp_path, monkeypatch):
    setups = []

    def simulate(_, __, setup):
        setups.append(setup)
        files = {"trace": "trace.json", "replay": "replay.html"}
        return cosim_report(**files) if setup.trace else cosim_report()

    monkeypatch.setattr("paro.cli.work.cosim", simulate)
    for options, traced in (((), False), (("--trace",), True)):
        outcome = paro("cosim", CAPTURE, "--plan", plan, *options, "-o", tmp_path / "out")
        assert outcome.status == 0, outcome.err
        assert ("replay.html" in outcome.out) == setups[-1].trace == traced


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--cores", 2), "cores = 2 is of the accelerator; legal: --top accelerator"),
        (("--bandwidth", 2), "--bandwidth is about the accelerator's memory"),
        (
            ("--top", "accelerator", "--bandwidth", 200),
            "bandwidth = 200 bytes a cycle is not legal; legal: 0.0625 to 16",
        ),
    ],
)
def test_cosim_refuses_what_is_not_there(paro, plan, tmp_path, arguments, sentence):
    outcome = paro("cosim", CAPTURE, "--plan", plan, *arguments, "-o", tmp_path / "out")
    assert outcome.status == 2
    assert sentence in outcome.err
