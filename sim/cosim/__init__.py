"""Co-simulation: the generated Verilog under cocotb against the golden reference."""
