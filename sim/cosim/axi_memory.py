"""Memory behind the accelerator's AXI4 port, and what watches that port: Verilog of the bench.

Both live in the simulator, so that no beat costs a call of Python; the bench fills the memory and
reads it back through files.
"""

__all__ = ["AXI_MEMORY", "BURSTS_FILE", "CONTENTS_FILE", "VIOLATIONS", "capacity"]

#: Files in the folder of the simulation: words that are loaded and saved, and a line for every
#: burst that the memory takes: ``r`` or ``w``, address and beats.
CONTENTS_FILE = "memory.hex"
BURSTS_FILE = "bursts.txt"
#: Bytes of the smallest memory.
_LEAST_CAPACITY = 1 << 20

#: Rules of AXI4 that a master may break, by their number in ``violation``.
VIOLATIONS = (
    "",
    "an address or a beat was withdrawn or changed before it was taken",
    "a burst is not of type INCR and full beats",
    "a burst crosses a boundary of 4 KiB",
    "WLAST is not at a burst's last beat",
)


def capacity(size: int) -> int:
    """Bytes of a module that holds a memory of a size; few differ, so that few are compiled."""
    capacity = _LEAST_CAPACITY
    while capacity < size:
        capacity *= 16
    return capacity


AXI_MEMORY = """\

/* verilator lint_off WIDTH */

// The rules that `VIOLATIONS` numbers, but the last, for the channels that a master drives.
module paro_axi_monitor #(
  parameter BYTES = 16,
  parameter ADDRESS = 64
) (
  input clk,
  input rst,
  input [ADDRESS-1:0] araddr,
  input [7:0] arlen,
  input [2:0] arsize,
  input [1:0] arburst,
  input arvalid,
  input arready,
  input [ADDRESS-1:0] awaddr,
  input [7:0] awlen,
  input [2:0] awsize,
  input [1:0] awburst,
  input awvalid,
  input awready,
  input [8*BYTES-1:0] wdata,
  input [BYTES-1:0] wstrb,
  input wlast,
  input wvalid,
  input wready,
  output reg [2:0] violation
);
  localparam [2:0] SIZE = $clog2(BYTES);
  wire [ADDRESS+12:0] ar = {araddr, arlen, arsize, arburst};
  wire [ADDRESS+12:0] aw = {awaddr, awlen, awsize, awburst};
  wire [9*BYTES:0] w = {wdata, wstrb, wlast};
  reg [ADDRESS+12:0] last_ar, last_aw;
  reg [9*BYTES:0] last_w;
  reg ar_waits = 0, aw_waits = 0, w_waits = 0;
  wire withdrawn = (ar_waits & (~arvalid | (ar != last_ar)))
    | (aw_waits & (~awvalid | (aw != last_aw)))
    | (w_waits & (~wvalid | (w != last_w)));
  wire strange = (arvalid & ((arburst != 2'd1) | (arsize != SIZE)))
    | (awvalid & ((awburst != 2'd1) | (awsize != SIZE)));
  wire [20:0] ar_end = {9'd0, araddr[11:0]} / BYTES * BYTES + ({13'd0, arlen} + 21'd1) * BYTES;
  wire [20:0] aw_end = {9'd0, awaddr[11:0]} / BYTES * BYTES + ({13'd0, awlen} + 21'd1) * BYTES;
  wire crosses = (arvalid & (ar_end > 21'd4096)) | (awvalid & (aw_end > 21'd4096));
  initial violation = 0;
  always @(posedge clk) begin
    last_ar <= ar;
    last_aw <= aw;
    last_w <= w;
    ar_waits <= ~rst & arvalid & ~arready;
    aw_waits <= ~rst & awvalid & ~awready;
    w_waits <= ~rst & wvalid & ~wready;
    if (~rst & (violation == 0))
      violation <= withdrawn ? 3'd1 : strange ? 3'd2 : crosses ? 3'd3 : 3'd0;
  end
endmodule

// A memory of ``words`` beats, of at most WORDS. Bursts are answered in order, reads and writes
// apart; what lies beyond its end is answered SLVERR. Bursts of writes are open until their last
// beat; beats come early that come before their address. ``load`` and ``save`` exchange words
// ``first`` to ``last`` with the file CONTENTS.
module paro_axi_memory #(
  parameter BYTES = 16,
  parameter WORDS = 65536,
  parameter ADDRESS = 64,
  parameter OPEN_BURSTS = 3,
  parameter EARLY_BEATS = 2,
  parameter CONTENTS = "",
  parameter BURSTS = ""
) (
  input clk,
  input rst,
  input load,
  input save,
  input [31:0] first,
  input [31:0] last,
  input [31:0] words,
  input arid,
  input [ADDRESS-1:0] araddr,
  input [7:0] arlen,
  input arvalid,
  output reg arready,
  output reg rid,
  output reg [8*BYTES-1:0] rdata,
  output reg [1:0] rresp,
  output reg rlast,
  output reg rvalid,
  input rready,
  input awid,
  input [ADDRESS-1:0] awaddr,
  input [7:0] awlen,
  input awvalid,
  output reg awready,
  input [8*BYTES-1:0] wdata,
  input [BYTES-1:0] wstrb,
  input wlast,
  input wvalid,
  output reg wready,
  output reg bid,
  output reg [1:0] bresp,
  output reg bvalid,
  input bready,
  output reg [2:0] violation
);
  localparam OKAY = 2'd0, SLVERR = 2'd2;
  reg [8*BYTES-1:0] contents [0:WORDS-1];

  // Reads: addresses that wait, and the burst that is being read.
  reg [ADDRESS-1:0] read_word [0:15];
  reg [7:0] read_left [0:15];
  reg read_id [0:15];
  reg [4:0] reads_in, reads_out;
  wire [3:0] reading = reads_out[3:0];

  // Writes: addresses and beats that wait for each other, and answers.
  reg [ADDRESS-1:0] write_word [0:3];
  reg [7:0] write_left [0:3];
  reg write_id [0:3];
  reg write_failed;
  reg [2:0] writes_in, writes_out;
  reg [9*BYTES:0] beat [0:3];
  reg [9*BYTES:0] now;
  reg [2:0] beats_in, beats_out;
  reg [2:0] answer [0:255];
  reg [7:0] answers_in, answers_out;
  reg [2:0] open, early;
  integer index, log;

  initial begin
    for (index = 0; index < WORDS; index = index + 1) contents[index] = 0;
    log = $fopen(BURSTS, "w");
    violation = 0;
    arready = 0; rvalid = 0; awready = 0; wready = 0; bvalid = 0;
    reads_in = 0; reads_out = 0; writes_in = 0; writes_out = 0; beats_in = 0; beats_out = 0;
    answers_in = 0; answers_out = 0; write_failed = 0;
  end

  always @(posedge clk) begin
    if (load) $readmemh(CONTENTS, contents, first, last);
    if (save) $writememh(CONTENTS, contents, first, last);
    if (rst) begin
      reads_in = 0; reads_out = 0; writes_in = 0; writes_out = 0; beats_in = 0; beats_out = 0;
      answers_in = 0; answers_out = 0; write_failed = 0;
      arready <= 0; rvalid <= 0; awready <= 0; wready <= 0; bvalid <= 0;
    end else begin
      // The next beat of the oldest burst; an address that comes in this cycle is not yet there.
      if (~rvalid | rready) begin
        rvalid <= reads_in != reads_out;
        if (reads_in != reads_out) begin
          rid <= read_id[reading];
          rdata <= read_word[reading] < words ? contents[read_word[reading]] : 0;
          rresp <= read_word[reading] < words ? OKAY : SLVERR;
          rlast <= read_left[reading] == 0;
          read_word[reading] = read_word[reading] + 1;
          read_left[reading] = read_left[reading] - 8'd1;
          if (read_left[reading] == 8'hff) reads_out = reads_out + 5'd1;
        end
      end
      if (arvalid & arready) begin
        read_word[reads_in[3:0]] = araddr / BYTES;
        read_left[reads_in[3:0]] = arlen;
        read_id[reads_in[3:0]] = arid;
        reads_in = reads_in + 5'd1;
        $fdisplay(log, "r %0d %0d", araddr, {1'b0, arlen} + 9'd1);
        $fflush(log);
      end
      arready <= reads_in - reads_out < 5'd16;

      if (~bvalid | bready) begin
        bvalid <= answers_in != answers_out;
        {bid, bresp} <= answer[answers_out];
        if (answers_in != answers_out) answers_out = answers_out + 8'd1;
      end
      if (awvalid & awready) begin
        write_word[writes_in[1:0]] = awaddr / BYTES;
        write_left[writes_in[1:0]] = awlen;
        write_id[writes_in[1:0]] = awid;
        writes_in = writes_in + 3'd1;
        $fdisplay(log, "w %0d %0d", awaddr, {1'b0, awlen} + 9'd1);
        $fflush(log);
      end
      if (wvalid & wready) begin
        beat[beats_in[1:0]] = {wlast, wstrb, wdata};
        beats_in = beats_in + 3'd1;
      end
      // What is full before the bursts that are complete in this cycle is so in the next, too.
      open = writes_in - writes_out;
      early = beats_in - beats_out;
      awready <= open < OPEN_BURSTS;
      wready <= early < EARLY_BEATS;
      while (writes_in != writes_out && beats_in != beats_out) begin
        now = beat[beats_out[1:0]];
        beats_out = beats_out + 3'd1;
        if (write_word[writes_out[1:0]] < words) begin
          for (index = 0; index < BYTES; index = index + 1)
            if (now[8*BYTES+index])
              contents[write_word[writes_out[1:0]]][8*index +: 8] = now[8*index +: 8];
        end else write_failed = 1;
        if (now[9*BYTES] != (write_left[writes_out[1:0]] == 0) && violation == 0)
          violation = 3'd4;
        write_word[writes_out[1:0]] = write_word[writes_out[1:0]] + 1;
        if (write_left[writes_out[1:0]] == 0) begin
          answer[answers_in] = {write_id[writes_out[1:0]], write_failed ? SLVERR : OKAY};
          answers_in = answers_in + 8'd1;
          write_failed = 0;
          writes_out = writes_out + 3'd1;
        end else write_left[writes_out[1:0]] = write_left[writes_out[1:0]] - 8'd1;
      end
    end
  end
endmodule

/* verilator lint_on WIDTH */
"""
