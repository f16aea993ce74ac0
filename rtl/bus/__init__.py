"""Buses: AXI4 and AXI4-Lite, and the masters that read and write memory in bursts."""
