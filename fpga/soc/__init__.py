"""The accelerator on a board: LiteX's SoC and memory controller around it, and a simulation."""
