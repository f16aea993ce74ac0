"""Boards with memory and link: the table, targets by name, what is refused and what is written."""

import json

import pytest

from fpga.devices import find_device
from fpga.soc import sizes
from fpga.soc.boards import SOC_BOARDS, find_soc_board
from fpga.soc.build import build_board
from fpga.soc.sizes import check_size, largest_preset
from paro.config import PRESETS, ParoError

TINY = PRESETS["tiny"]
SHARE = {"lut4": 100, "carry": 0, "ff": 1, "dsp": 0, "bram": 1, "lutram": 0}
COUNTS = {"lut4": 10_000, "carry": 10, "ff": 1, "dsp": 4, "bram": 1, "lutram": 0}


def test_boards_are_what_litex_has() -> None:
    """Targets, their options, FPGAs and memory chips exist by these names, and have these sizes."""
    from litedram import modules

    for board in SOC_BOARDS.values():
        assert board.base_soc().__name__ == "BaseSoC"
        assert board.tried
        assert not board.device.startswith("LFE5") or find_device(board.device)
        memory = board.memory
        assert memory is not None
        assert board.clock_mhz is not None
        chip = getattr(modules, memory.module)(board.clock_mhz * 1e6, memory.rate)
        geometry = chip.geom_settings
        words = 1 << geometry.bankbits + geometry.rowbits + geometry.colbits
        assert words * memory.data_bits // 8 == memory.size
        assert chip.memtype == memory.kind
        options = ",".join(f"{name}={value!r}" for name, value in board.options.items())
        by_name = find_soc_board(f"litex:{board.target},{options}".rstrip(","))
        assert by_name.options == board.options


def test_targets_by_name() -> None:
    board = find_soc_board("litex:digilent_arty,variant=a7-100,with_led_chaser=False,baud=500000")
    assert board.options == {"variant": "a7-100", "with_led_chaser": False}
    assert (board.baud, board.clock_mhz, board.has_ethernet) == (500_000, None, False)
    assert find_soc_board("litex:lattice_versa_ecp5,with_etherbone=True").has_ethernet


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("de10", "no board 'de10'; legal: ulx3s-12f, .*, and any target of LiteX as litex:TARGET"),
        ("litex:arty", "no target of LiteX 'arty'; legal: .*digilent_arty, "),
        ("litex:digilent_arty,a7", "option 'a7' of board .* is not legal; legal: NAME=VALUE"),
        ("litex:digilent_arty,size=3", "has no option 'size'; legal: .*variant, .*, baud"),
        ("litex:digilent_arty,baud=3", "baud = 3 is not legal; legal: 9600 to 12000000"),
        ("litex:nothing.py", "nothing.py cannot be read; legal: a Python file with a LiteX target"),
    ],
)
def test_names_that_are_refused(name: str, sentence: str) -> None:
    with pytest.raises(ParoError, match=sentence):
        find_soc_board(name)


def test_own_boards(tmp_path, monkeypatch) -> None:
    """A file with a target in LiteX's terms is a board; one without is refused."""
    own = tmp_path / "own.py"
    own.write_text("from litex_boards.targets.radiona_ulx3s import BaseSoC\n")
    monkeypatch.chdir(tmp_path)
    board = find_soc_board("litex:own.py,device=LFE5U-12F")
    assert board.base_soc().__name__ == "BaseSoC"
    # LiteX is started elsewhere.
    assert board.name == f"litex:{own},device=LFE5U-12F"
    own.write_text("x = 1\n")
    with pytest.raises(ParoError, match="has no class BaseSoC; legal: targets as those of litex"):
        find_soc_board(f"litex:{own}")
    own.write_text("import nothing_of_this_name\n")
    with pytest.raises(ParoError, match="needs the package nothing_of_this_name, which is not"):
        find_soc_board(f"litex:{own}")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = 1\ny = 1 / 0\n", r"does not run, line 2: ZeroDivisionError: division by zero; "),
        ("import json\njson.loads('{')\n", r"does not run, line 2: JSONDecodeError: "),
        ("def f(:\n", r"does not run, line 1: SyntaxError: "),
        ("raise SystemExit(3)\n", r"does not run, line 1: SystemExit: 3; "),
    ],
)
def test_own_boards_that_do_not_run(text: str, sentence: str, tmp_path) -> None:
    own = tmp_path / "own.py"
    own.write_text(text)
    with pytest.raises(ParoError, match=sentence + ".*a Python file with a LiteX target"):
        find_soc_board(f"litex:{own}")


def test_what_is_refused_before_anything_is_made(tmp_path) -> None:
    for clock in (0.0, 3.0, 400.0):
        with pytest.raises(ParoError, match=r"MHz cannot be made for ulx3s-85f; legal: 25 to 100"):
            build_board(TINY, "ulx3s-85f", tmp_path / "out", clock_mhz=clock)
    for address in ("", "192.168.1", "board", "::1"):
        with pytest.raises(ParoError, match=r"is not legal; legal: such as 192.168.1.50"):
            build_board(TINY, "versa-ecp5", tmp_path / "out", ip_address=address)
    assert not list(tmp_path.iterdir())


def test_without_litex(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("fpga.soc.boards.find_spec", lambda name: None)
    with pytest.raises(ParoError, match="boards need litex, which is not installed; get it with"):
        build_board(TINY, "ulx3s-85f", tmp_path / "out")


@pytest.fixture
def counted(monkeypatch) -> None:
    """Sizes of two presets, of which the larger is too large for a 25F."""
    larger = COUNTS | {"dsp": 40, "lut4": 30_000}
    found = {
        "accelerators": {"ulx3s": larger, "tiny": COUNTS},
        "boards": {"radiona_ulx3s": dict(SHARE)},
    }
    monkeypatch.setattr(sizes, "_sizes", lambda: found)


def test_a_design_that_does_not_fit_is_not_placed(tmp_path, monkeypatch, counted) -> None:
    """After Yosys and before nextpnr, with what is missing and what would fit."""
    counts = COUNTS | {"lut4": 30_000, "dsp": 40}
    steps = []

    def generate(config, board, ip_address, folder) -> dict:
        (folder / "csr.json").write_text("{}")
        return {"toolchain": "trellis", "device": "LFE5U-25F-6BG381C", "clock_mhz": 50.0}

    def run(program, arguments, folder) -> None:
        (folder / "paro_board.stat.json").write_text(json.dumps({}))

    monkeypatch.setattr("fpga.soc.build.generate", generate)
    monkeypatch.setattr("fpga.soc.build.change_script", lambda *arguments: None)
    monkeypatch.setattr("fpga.soc.build._run", run)
    monkeypatch.setattr("fpga.soc.build.cell_counts", lambda statistics: counts)
    sentence = (
        "the design does not fit LFE5U-25F: 30,020 logic cells of 23,073, 40 multipliers of 28; "
        "it was not placed; legal: such as --preset tiny"
    )
    with pytest.raises(ParoError, match=sentence):
        build_board(TINY, "ulx3s-25f", tmp_path / "out", progress=steps.append)
    assert steps == ["generate", "yosys"]
    assert not list((tmp_path / "out").glob("*.json"))


def test_what_is_known_not_to_fit_is_not_made(tmp_path, counted) -> None:
    """As large as a preset that was counted, or larger; what fits has room for the board too."""
    for config in (PRESETS["ulx3s"], PRESETS["video"]):
        sentence = "does not fit LFE5U-25F: preset ulx3s, which is no larger, alone takes 30,020"
        with pytest.raises(ParoError, match=sentence):
            build_board(config, "ulx3s-25f", tmp_path / "out")
    sizes._sizes()["boards"]["radiona_ulx3s"]["lut4"] = 13_100
    assert largest_preset("LFE5U-25F", SOC_BOARDS["ulx3s-25f"]) == "none"
    sizes._sizes()["boards"]["radiona_ulx3s"]["lut4"] = 12_000
    check_size(PRESETS["ulx3s"].changed(rows=4), SOC_BOARDS["ulx3s-25f"])
    assert not list(tmp_path.iterdir())
    assert largest_preset("LFE5U-25F", SOC_BOARDS["ulx3s-25f"]) == "tiny"
    assert largest_preset("LFE5U-85F", SOC_BOARDS["ulx3s-85f"]) == "ulx3s"
    assert largest_preset("LFE5U-12F", SOC_BOARDS["ulx3s-12f"]) == "tiny"
    assert largest_preset("xc7a35t") == "not known"


def test_other_fpgas_get_a_project(tmp_path, monkeypatch) -> None:
    """Written, not run: the report says where it is, and has no bitstream."""

    def generate(config, board, ip_address, folder) -> dict:
        (folder / "csr.json").write_text("{}")
        facts = {"toolchain": "vivado", "device": "xc7a35t", "clock_mhz": 100.0}
        return facts | {"script": "build_paro_board.sh"}

    monkeypatch.setattr("fpga.soc.build.generate", generate)
    report = build_board(TINY, "litex:digilent_arty", tmp_path / "out")
    assert report == json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["project"], report["toolchain"]) == ("build/gateware", "vivado")
    assert "bitstream" not in report
    assert (tmp_path / "out" / "csr.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "toolchain", "device"),
    [
        ("orangecrab-25f", "trellis", "LFE5U-25F-8MG285C"),
        ("ecpix5-45f", "trellis", "LFE5UM5G-45F-8BG554I"),
        ("colorlight-i5", "trellis", "LFE5U-25F-6BG381C"),
        ("tang-nano-20k", "gowin", "GW2AR-LV18QN88C8/I7"),
        ("litex:digilent_arty", "vivado", "xc7a35ticsg324-1L"),
    ],
)
def test_litex_makes_the_soc(name: str, toolchain: str, device: str, tmp_path) -> None:
    """Of each kind of board: memory, link and accelerator find their places."""
    from fpga.soc.elaborate import Request, elaborate

    (tmp_path / "gateware").mkdir()
    board = find_soc_board(name)
    request = Request(
        kind="real",
        config=TINY.model_dump(),
        board=name,
        verilog=str(tmp_path / "gateware" / "accelerator.v"),
        folder=str(tmp_path),
        clock_mhz=board.clock_mhz,
        ip_address="10.1.2.3",
    )
    facts = elaborate(request)
    assert (facts["toolchain"], facts["device"]) == (toolchain, device)
    assert (tmp_path / "gateware" / facts["script"]).exists()
    verilog = (tmp_path / "gateware" / "paro_board.v").read_text()
    assert ("etherbone" in verilog) == board.has_ethernet
    registers = json.loads((tmp_path / "csr.json").read_text())
    assert "ddrphy" not in registers["csr_bases"]  # the state machine has its registers


@pytest.mark.slow
def test_a_memory_that_needs_more_is_refused(tmp_path) -> None:
    """Kintex: LiteDRAM's PHY wants write leveling, which is not built here."""
    with pytest.raises(ParoError, match=r"LiteX does not make the SoC: .* needs write leveling"):
        build_board(TINY, "litex:digilent_genesys2", tmp_path / "out")


def test_no_preset_fits_the_small_ones() -> None:
    """By what was counted: the sentence does not send the user to another preset."""
    for name in ("ulx3s-12f", "ulx3s-25f", "orangecrab-25f", "colorlight-i5"):
        with pytest.raises(ParoError, match="nothing was made; no preset fits it; legal: --self-t"):
            check_size(TINY, SOC_BOARDS[name])
    check_size(TINY, SOC_BOARDS["ulx3s-45f"])
