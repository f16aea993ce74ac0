// What stands for a memory in fpga/data/memories.v.
module paro_memory (read_address, read_enable, read, write_address, write_enable, write);
  parameter READ_ADDRESS = 1, READ = 1, PORTS = 1, WRITE_ADDRESS = 1, WRITE = 1;
  input [READ_ADDRESS-1:0] read_address;
  input [PORTS-1:0] read_enable;
  output [READ-1:0] read;
  input [WRITE_ADDRESS-1:0] write_address;
  input [WRITE-1:0] write_enable;
  input [WRITE-1:0] write;
endmodule
