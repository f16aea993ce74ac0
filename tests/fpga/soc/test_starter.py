"""Start of a memory under Icarus: LiteDRAM's sequence on the DFI, and read leveling."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from litedram.init import get_sdram_phy_init_sequence
from litedram.modules import MT41K64M16, MT48LC16M16
from litedram.phy.model import SDRAMPHYModel
from litex.gen import LiteXModule
from migen import Signal
from migen.fhdl.verilog import convert

from fpga.soc import leveling
from fpga.soc import starter as module
from fpga.soc.skewed_memory import SkewedMemory
from fpga.soc.starter import MemoryStarter
from paro.config import ParoError
from paro.config.board_map import READY, UNTRAINED

CLOCK = 48_000_000
#: Waits of the start are divided by this: a simulated memory does not need them.
HASTE = 100


class Small(MT41K64M16):
    """A chip with few banks and columns, so that its model is small."""

    nbanks, ncols = 4, 32


class SmallSdr(MT48LC16M16):
    """An SDR chip with few columns."""

    ncols = 32


def ddr3(skews: Sequence[tuple[int, int, int]]) -> SkewedMemory:
    return SkewedMemory(Small(CLOCK, "1:2"), 16, CLOCK, skews)


class Design(LiteXModule):
    """A memory and what starts it; no controller."""

    def __init__(self, phy):
        self.phy = phy
        chip = Small(CLOCK, "1:2")
        dfii = SimpleNamespace(ext_dfi=self.phy.dfi, ext_dfi_sel=Signal())
        settings = SimpleNamespace(timing=chip.timing_settings)
        sdram = SimpleNamespace(dfii=dfii, controller=SimpleNamespace(settings=settings))
        self.starter = MemoryStarter(sdram, self.phy)


BENCH = """
module bench;
  reg clk = 0, rst = 1;
  always #1 clk = ~clk;
  initial begin #8 rst = 0; #2000000 $display("late"); $finish; end
  {declarations}
  top top (.sys_clk(clk), .sys_rst(rst), {ports});
  integer cycle = 0;
  always @(posedge clk) begin
    cycle <= cycle + 1;
    if (!rst && !{cs_n})
      $display("command %0d %b%b%b %0d %0d %b%b", cycle, {ras_n}, {cas_n}, {we_n},
               {address}, {bank}, {cke}, {reset_n});
    if (state != 0) begin
      $display("end %0d %0d {formats}", state, windows{settings});
      $finish;
    end
  end
endmodule
"""


def simulate(folder: Path, phy: Any) -> tuple[list[list[str]], list[int]]:
    """Commands of phase 0, and state, windows, and of DDR3 delays and bitslips at the end."""
    design = Design(phy)
    phase = design.phy.dfi.phases[0]
    names = ("cs_n", "ras_n", "cas_n", "we_n", "address", "bank", "cke", "reset_n")
    ios = {name: getattr(phase, name) for name in names}
    ios |= {"state": design.starter.state, "windows": design.starter.windows}
    settings = [*getattr(phy, "delays", ()), *getattr(phy, "bitslips", ())]
    ios |= {f"setting{number}": signal for number, signal in enumerate(settings)}
    for name, signal in ios.items():
        signal.name_override = f"io_{name}"
    text = convert(design, set(ios.values()), name="top")
    widths = {name: f"wire [{len(signal) - 1}:0] {name};" for name, signal in ios.items()}
    bench = BENCH.format(
        declarations="\n  ".join(widths.values()),
        ports=", ".join(f".io_{name}({name})" for name in ios),
        formats=" ".join(["%0d"] * len(settings)),
        settings="".join(f", setting{number}" for number in range(len(settings))),
        **{name: name for name in names},
    )
    text.write(str(folder / "top.v"))
    (folder / "bench.v").write_text(bench)
    iverilog = shutil.which("iverilog")
    assert iverilog
    compile_ = [iverilog, "-g2012", "-o", "sim", "bench.v", "top.v"]
    subprocess.run(compile_, cwd=folder, check=True)
    run = subprocess.run(
        ["vvp", "-n", "sim"], cwd=folder, check=True, capture_output=True, text=True
    )
    lines = [line.split() for line in run.stdout.splitlines()]
    commands = [line[1:] for line in lines if line and line[0] == "command"]
    (end,) = (line[1:] for line in lines if line and line[0] == "end")
    return commands, [int(value) for value in end]


@pytest.fixture(autouse=True)
def hasty(monkeypatch) -> None:
    def sequence(*arguments):
        steps, registers = get_sdram_phy_init_sequence(*arguments)
        return [(*step, cycles // HASTE) for *step, cycles in steps], registers

    monkeypatch.setattr(module, "get_sdram_phy_init_sequence", sequence)
    waits = {
        kind: (first // HASTE, least // HASTE) for kind, (first, least) in module._WAITS.items()
    }
    monkeypatch.setattr(module, "_WAITS", waits)
    monkeypatch.setattr(leveling, "_REPEATS", 1)


def test_sequence_and_leveling(tmp_path) -> None:
    """The mode registers as LiteDRAM sets them, in reset and without clock before; then each lane
    in the middle of its own window, at its own bit."""
    commands, (state, windows, *settings) = simulate(tmp_path, ddr3(((3, 6, 2), (1, 1, 3))))
    assert state == READY
    assert windows == 4 | 1 << 8
    assert settings == [5, 1, 2, 3]
    # MR2, MR3, MR1, MR0 and ZQ calibration: RAS, CAS, WE low but for the last; CKE, RESET_N high.
    started = [(bits, bank, pins) for _, bits, _, bank, pins in commands[:5]]
    assert started == [
        *(("000", bank, "11") for bank in ("2", "3", "1", "0")),
        ("110", "0", "11"),
    ]
    # The last precharge leaves no row open to the controller.
    assert commands[-1][1:4] == ["010", str(1 << 10), "0"]


def test_sdr_memory_needs_no_leveling(tmp_path) -> None:
    """Precharge, mode register with the DLL's reset, precharge, two refreshes, mode register."""
    chip = SmallSdr(CLOCK, "1:1")
    phy = SDRAMPHYModel(module=chip, data_width=16, clk_freq=CLOCK, verbosity=0)
    commands, end = simulate(tmp_path, phy)
    assert end == [READY, 0]
    kinds = [command[1] for command in commands]
    assert kinds == ["010", "000", "010", "001", "001", "000"]
    assert {command[4] for command in commands} == {"11"}
    # CAS latency 2, bursts of one.
    assert commands[-1][2] == str(2 << 4)


def test_a_lane_that_never_reads_right(tmp_path) -> None:
    """It is told, and which one it is; the other one is leveled all the same."""
    _, (state, windows, *settings) = simulate(tmp_path, ddr3(((7, 0, 0), (0, 7, 0))))
    assert state == UNTRAINED
    assert windows == 8 << 8
    assert (settings[1], settings[3]) == (4, 0)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"memtype": "DDR4"}, "is DDR4, which is not started here; legal: boards with SDR, DDR2, "),
        ({"write_leveling": True}, "needs write leveling, which is not built here"),
        ({"nranks": 2}, "needs 2 ranks, which is not built here"),
    ],
)
def test_memories_that_are_refused(changes: dict[str, object], sentence: str) -> None:
    phy = SkewedMemory(Small(CLOCK, "1:2"), 16, CLOCK)
    for name, value in changes.items():
        setattr(phy.settings, name, value)
    with pytest.raises(ParoError, match=sentence):
        MemoryStarter(None, phy)
