"""The accelerator with AXI's own clock, reset and signals."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from gen.generate import generate
from gen.names import ACCELERATOR, CORE
from gen.ports import ports_markdown
from gen.summary import memory_bits
from paro.config import PRESETS, ParoError
from tests.gen.linters import lint, lint_instance

TINY = PRESETS["tiny"]
#: Signals of AXI4 (IHI 0022, A2) and AXI4-Lite but those of users and of low power.
AXI4 = re.findall(
    r"\w+",
    """
    awid awaddr awlen awsize awburst awlock awcache awprot awqos awregion awvalid awready
    wdata wstrb wlast wvalid wready bid bresp bvalid bready
    arid araddr arlen arsize arburst arlock arcache arprot arqos arregion arvalid arready
    rid rdata rresp rlast rvalid rready
    """,
)
AXI4_LITE = re.findall(
    r"\w+",
    """
    awaddr awprot awvalid awready wdata wstrb wvalid wready bresp bvalid bready
    araddr arprot arvalid arready rdata rresp rvalid rready
    """,
)

#: A host that wants to write while the reset ends, and resets in mid-access.
BENCH = """
`timescale 1ns / 1ps
module user;
`include "mine.instance.vh"
  reg clock = 0, low = 0;
  always #5 clock = ~clock;
  assign aclk = clock;
  assign aresetn = low;
  reg [11:0] address = 0;
  reg [31:0] word = 0;
  reg writes = 0, sends = 0, reads = 0, takes = 0;
  assign s_axil_awaddr = address;
  assign s_axil_awprot = 3'b010;
  assign s_axil_awvalid = writes;
  assign s_axil_wdata = word;
  assign s_axil_wstrb = 4'hf;
  assign s_axil_wvalid = sends;
  assign s_axil_bready = 1'b1;
  assign s_axil_araddr = address;
  assign s_axil_arprot = 3'b000;
  assign s_axil_arvalid = reads;
  assign s_axil_rready = takes;
  assign m_axi_awready = 1'b0;
  assign m_axi_wready = 1'b0;
  assign m_axi_bvalid = 1'b0;
  assign m_axi_bid = 1'b0;
  assign m_axi_bresp = 2'b00;
  assign m_axi_arready = 1'b0;
  assign m_axi_rvalid = 1'b0;
  assign m_axi_rid = 1'b0;
  assign m_axi_rdata = 0;
  assign m_axi_rresp = 2'b00;
  assign m_axi_rlast = 1'b0;

  wire offers = m_axi_awvalid | m_axi_wvalid | m_axi_arvalid | s_axil_bvalid | s_axil_rvalid;
  wire accepts = s_axil_awready | s_axil_wready | s_axil_arready;
  integer left = 400;
  always @(posedge clock) begin
    left <= left - 1;
    if (left == 0) fail("hangs");
    if (writes & s_axil_awready) writes <= #1 0;
    if (sends & s_axil_wready) sends <= #1 0;
    if (reads & s_axil_arready) reads <= #1 0;
  end
  task fail(input [8*20:1] what);
    begin
      $display("FAIL: %0s", what);
      $finish(0);
    end
  endtask
  task put(input [11:0] to, input [31:0] value);
    begin
      address = to;
      word = value;
      writes = 1;
      sends = 1;
      wait (s_axil_bvalid);
      if (s_axil_bresp != 0) fail("answer");
      @(posedge clock) #1;
    end
  endtask
  task get(input [11:0] from, input [31:0] value);
    begin
      address = from;
      reads = 1;
      wait (s_axil_rvalid);
      if (s_axil_rdata != value) fail("value");
      takes = 1;
      @(posedge clock) #1 takes = 0;
    end
  endtask

  initial begin
    repeat (3) begin
      @(posedge clock) #1;
      if (offers | accepts) fail("first reset");
    end
    #2 low = 1;            // between two edges, with a write already waiting
    put(12'h028, 7);       // QUEUE_COUNT
    get(12'h028, 7);
    address = 12'h028;
    reads = 1;
    wait (s_axil_rvalid);  // an answer that nobody takes
    @(posedge clock) #3 low = 0;
    #1 if (offers | accepts) fail("answer in reset");
    #1 low = 1;            // shorter than a cycle
    reads = 0;
    get(12'h028, 0);
    put(12'h028, 1);
    put(12'h008, 1);       // start: the queue's first descriptor is wanted
    wait (m_axi_arvalid);
    @(posedge clock) #3 low = 0;
    #1 if (offers | accepts) fail("burst in reset");
    repeat (3) @(posedge clock) #1 if (offers | accepts) fail("reset");
    low = 1;
    get(12'h00c, 0);       // STATUS: at rest
    get(12'h028, 0);
    $display("PASS");
    $finish(0);
  end
endmodule
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shell")
    generate(TINY, folder, ACCELERATOR, "mine", aresetn=True)
    return folder


def test_lint(folder) -> None:
    lint(folder, "mine")
    assert lint_instance(folder, "mine", (folder / "mine.instance.vh").read_text()) == ""


def test_ports_are_all_that_axi_has(folder) -> None:
    ports = json.loads((folder / "mine.ports.json").read_text())
    assert (ports["clock"], ports["reset"], ports["reset_active"]) == ("aclk", "aresetn", "low")
    wanted = ["aclk", "aresetn", "irq"]
    wanted += [f"m_axi_{name}" for name in AXI4] + [f"s_axil_{name}" for name in AXI4_LITE]
    assert sorted(port["name"] for port in ports["ports"]) == sorted(wanted)
    verilog = (folder / "mine.v").read_text()
    header = verilog[verilog.index("module mine(") :].partition(");")[0]
    seen = re.findall(r"^  (in|out)put wire (?:\[(\d+):0\] )?(\w+),?$", header, re.M)
    assert [(flow, int(high or 0) + 1, name) for flow, high, name in seen] == [
        (port["direction"], port["width"], port["name"]) for port in ports["ports"]
    ]


def test_every_port_has_its_interface(folder) -> None:
    """Attributes as Vivado's language templates have them."""
    verilog = (folder / "mine.v").read_text()
    header = verilog[verilog.index("module mine(") :].partition(");")[0]
    info = dict(
        (port, text)
        for text, port in re.findall(
            r'\(\* X_INTERFACE_INFO = "([^"]+)" \*\)\n(?:  \(\*.*\*\)\n)?  \w+ wire .*?(\w+),?$',
            header,
            re.M,
        )
    )
    assert info["aclk"] == "xilinx.com:signal:clock:1.0 aclk CLK"
    assert info["aresetn"] == "xilinx.com:signal:reset:1.0 aresetn RST"
    assert info["irq"] == "xilinx.com:signal:interrupt:1.0 irq INTERRUPT"
    for bus, names in {"m_axi": AXI4, "s_axil": AXI4_LITE}.items():
        for name in names:
            wanted = f"xilinx.com:interface:aximm:1.0 {bus} {name.upper()}"
            assert info[f"{bus}_{name}"] == wanted
    assert '"ASSOCIATED_BUSIF m_axi:s_axil, ASSOCIATED_RESET aresetn"' in header
    assert '"POLARITY ACTIVE_LOW"' in header


def test_figures_are_those_of_the_accelerator(folder) -> None:
    verilog = (folder / "mine.v").read_text()
    assert memory_bits(verilog, "mine") == memory_bits(verilog, "mine__accelerator") > 1000


def simulate(folder: Path, verilog: str) -> str:
    (folder / "user.v").write_text(BENCH)
    (folder / "design.v").write_text(verilog)
    command = ["iverilog", "-g2005", "-s", "user", "-o", "user", "user.v", "design.v"]
    subprocess.run(command, cwd=folder, check=True)
    run = subprocess.run(["vvp", "-n", "user"], cwd=folder, capture_output=True, text=True)
    return run.stdout


def test_reset(folder) -> None:
    """It falls at any time with all that AXI wants low, and nothing is lost when it ends."""
    assert simulate(folder, (folder / "mine.v").read_text()).splitlines()[-1] == "PASS"


@pytest.mark.parametrize(
    ("signal", "told"),
    [
        ("s_axil_awready", "FAIL"),
        ("s_axil_rvalid", "FAIL: answer in reset"),
        ("m_axi_arvalid", "FAIL: burst in reset"),
    ],
)
def test_reset_bench_finds_faults(signal, told, folder) -> None:
    verilog = (folder / "mine.v").read_text()
    broken = verilog.replace(f"inner_{signal} & awake", f"inner_{signal}")
    assert broken != verilog
    assert told in simulate(folder, broken)


def test_the_page_tells_what_is_there() -> None:
    page = ports_markdown(TINY, ACCELERATOR, aresetn=True)
    assert "Every signal of AXI4 is there" in page
    assert "| `m_axi_arqos` | out | 4 | Always 0. |" in page
    assert "not there, tied" not in page
    plain = ports_markdown(TINY, ACCELERATOR)
    assert "not there, tied" in plain
    assert "AxLOCK, AxQOS, AxREGION (tie 0)" in plain
    assert "arqos" not in plain


def test_a_core_has_no_axi(tmp_path) -> None:
    for name in (None, "mine"):
        with pytest.raises(ParoError, match="aresetn is a port of AXI, which a core does not"):
            generate(TINY, tmp_path / "folder", CORE, name, aresetn=True)
    assert not (tmp_path / "folder").exists()
