"""Memory and monitor of the accelerator's bench: every rule of AXI4, and the memory's end."""

import subprocess

import pytest

from sim.cosim.axi_memory import AXI_MEMORY, VIOLATIONS, capacity

_BENCH = """
module bench;
  reg clk = 0, rst = 1;
  reg [15:0] araddr = 0, awaddr = 0;
  reg [7:0] arlen = 0, awlen = 0;
  reg [2:0] arsize = 2, awsize = 2;
  reg [1:0] arburst = 1, awburst = 1;
  reg arvalid = 0, awvalid = 0, wvalid = 0, wlast = 0;
  reg open = 1;
  reg [31:0] wdata = 0;
  reg [3:0] wstrb = 15;
  wire arready, awready, wready, rvalid, bvalid, rlast;
  wire [31:0] rdata;
  wire [1:0] rresp, bresp;
  wire [2:0] of_monitor, of_memory;
  always #5 clk = ~clk;
  paro_axi_monitor #(.BYTES(4), .ADDRESS(16)) monitor (
    .clk(clk), .rst(rst), .araddr(araddr), .arlen(arlen), .arsize(arsize), .arburst(arburst),
    .arvalid(arvalid), .arready(arready & open), .awaddr(awaddr), .awlen(awlen), .awsize(awsize),
    .awburst(awburst), .awvalid(awvalid), .awready(awready & open), .wdata(wdata), .wstrb(wstrb),
    .wlast(wlast), .wvalid(wvalid), .wready(wready & open), .violation(of_monitor)
  );
  paro_axi_memory #(
    .BYTES(4), .WORDS(64), .ADDRESS(16), .CONTENTS("contents.hex"), .BURSTS("bursts.txt")
  ) memory (
    .clk(clk), .rst(rst), .load(1'b0), .save(1'b0), .first(0), .last(0), .words(32),
    .arid(1'b0), .araddr(araddr), .arlen(arlen), .arvalid(arvalid & open), .arready(arready),
    .rdata(rdata), .rresp(rresp), .rlast(rlast), .rvalid(rvalid), .rready(1'b1),
    .awid(1'b0), .awaddr(awaddr), .awlen(awlen), .awvalid(awvalid & open), .awready(awready),
    .wdata(wdata), .wstrb(wstrb), .wlast(wlast), .wvalid(wvalid & open), .wready(wready),
    .bresp(bresp), .bvalid(bvalid), .bready(1'b1), .violation(of_memory)
  );
  always @(negedge clk) begin
    if (rvalid) $display("r %h %0d %0d", rdata, rresp, rlast);
    if (bvalid) $display("b %0d", bresp);
  end
  task cycles(input integer count);
    repeat (count) @(negedge clk);
  endtask
  initial begin
    cycles(3);
    rst = 0;
    cycles(2);
    STIMULUS
    cycles(12);
    $display("monitor %0d memory %0d", of_monitor, of_memory);
    $finish;
  end
endmodule
"""

#: Writes two beats from ``awaddr`` on, then reads them.
_WRITE = """
    awvalid = 1; awlen = 1; wvalid = 1; wdata = 32'h11223344; {0} cycles(1);
    awvalid = 0; wdata = 32'h55667788; wstrb = 4'b0011; wlast = 1; cycles(1);
    wvalid = 0; cycles(6);
    araddr = awaddr; arlen = 1; arvalid = 1; cycles(1); arvalid = 0;
"""


def _simulate(stimulus: str, folder) -> list[str]:
    (folder / "bench.v").write_text(AXI_MEMORY + _BENCH.replace("STIMULUS", stimulus))
    subprocess.run(["iverilog", "-g2012", "-o", "bench", "bench.v"], cwd=folder, check=True)
    run = subprocess.run(["vvp", "-n", "bench"], cwd=folder, check=True, capture_output=True)
    return run.stdout.decode().splitlines()


@pytest.mark.parametrize(
    ("stimulus", "monitor", "memory"),
    [
        (f"open = 0; {name} = 1; cycles(2); {name} = 0;", 1, 0)
        for name in ("arvalid", "awvalid", "wvalid")
    ]
    + [
        ("open = 0; arvalid = 1; cycles(2); araddr = 4;", 1, 0),
        ("open = 0; awvalid = 1; cycles(2); awlen = 4;", 1, 0),
        ("open = 0; wvalid = 1; cycles(2); wdata = 4;", 1, 0),
        ("open = 0; wvalid = 1; cycles(2); wstrb = 4;", 1, 0),
        ("arvalid = 1; arburst = 2; cycles(1); arvalid = 0;", 2, 0),
        ("awvalid = 1; awsize = 1; cycles(1); awvalid = 0;", 2, 0),
        ("arvalid = 1; araddr = 4092; arlen = 1; cycles(1); arvalid = 0;", 3, 0),
        ("awvalid = 1; awaddr = 3073; awlen = 255; cycles(1); awvalid = 0;", 0, 0),
        ("awvalid = 1; awaddr = 3076; awlen = 255; cycles(1); awvalid = 0;", 3, 0),
        (_WRITE.format("wlast = 1;"), 0, 4),
        (_WRITE.format(""), 0, 0),
        ("wlast = 0; awvalid = 1; wvalid = 1; cycles(1); awvalid = 0; wvalid = 0;", 0, 4),
    ],
)
def test_every_rule(stimulus, monitor, memory, tmp_path):
    lines = _simulate(stimulus, tmp_path)
    assert lines[-1] == f"monitor {monitor} memory {memory}"
    assert max(monitor, memory) < len(VIOLATIONS)


def test_words_are_there_up_to_the_end(tmp_path):
    assert _simulate(_WRITE.format(""), tmp_path)[:-1] == [
        "b 0",
        "r 11223344 0 0",
        "r 00007788 0 1",
    ]
    assert (tmp_path / "bursts.txt").read_text().splitlines() == ["w 0 2", "r 0 2"]


def test_beyond_the_end_are_errors(tmp_path):
    lines = _simulate("awaddr = 124;" + _WRITE.format(""), tmp_path)
    assert lines[:-1] == ["b 2", "r 11223344 0 0", "r 00000000 2 1"]


def test_few_capacities_hold_all_sizes():
    assert [capacity(size) >> 20 for size in (1, 1 << 20, (1 << 20) + 1, 1 << 25)] == [
        1,
        1,
        16,
        256,
    ]
