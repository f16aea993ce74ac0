// Memories of a core as black boxes: on silicon they are macros, which a cell library does not have.
(* techmap_celltype = "$mem_v2" *)
module memory_as_black_box (
    RD_CLK, RD_EN, RD_ARST, RD_SRST, RD_ADDR, RD_DATA, WR_CLK, WR_EN, WR_ADDR, WR_DATA
);
  parameter MEMID = "";
  parameter INIT = 1'bx;
  parameter signed SIZE = 4, OFFSET = 0, ABITS = 2, WIDTH = 8, RD_PORTS = 1, WR_PORTS = 1;
  parameter RD_CLK_ENABLE = 1'b1, RD_CLK_POLARITY = 1'b1, RD_TRANSPARENCY_MASK = 1'b0;
  parameter RD_COLLISION_X_MASK = 1'b0, RD_WIDE_CONTINUATION = 1'b0, RD_CE_OVER_SRST = 1'b0;
  parameter RD_ARST_VALUE = 1'b0, RD_SRST_VALUE = 1'b0, RD_INIT_VALUE = 1'b0;
  parameter WR_CLK_ENABLE = 1'b1, WR_CLK_POLARITY = 1'b1;
  parameter WR_PRIORITY_MASK = 1'b0, WR_WIDE_CONTINUATION = 1'b0;
  input [RD_PORTS-1:0] RD_CLK, RD_EN, RD_ARST, RD_SRST;
  input [RD_PORTS*ABITS-1:0] RD_ADDR;
  output [RD_PORTS*WIDTH-1:0] RD_DATA;
  input [WR_PORTS-1:0] WR_CLK;
  input [WR_PORTS*WIDTH-1:0] WR_EN;
  input [WR_PORTS*ABITS-1:0] WR_ADDR;
  input [WR_PORTS*WIDTH-1:0] WR_DATA;

  paro_memory #(
      .READ_ADDRESS(RD_PORTS * ABITS), .READ(RD_PORTS * WIDTH), .PORTS(RD_PORTS),
      .WRITE_ADDRESS(WR_PORTS * ABITS), .WRITE(WR_PORTS * WIDTH)
  ) _TECHMAP_REPLACE_ (
      .read_address(RD_ADDR), .read_enable(RD_EN), .read(RD_DATA),
      .write_address(WR_ADDR), .write_enable(WR_EN), .write(WR_DATA)
  );
endmodule
