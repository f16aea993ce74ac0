"""Co-simulation of the generated Verilog with the golden reference, under cocotb."""
