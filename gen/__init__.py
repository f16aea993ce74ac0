"""From a configuration to files: Verilog and the sidecars that describe it."""

from gen.generate import generate
from gen.verilog import TOP, convert, generate_verilog

__all__ = ["TOP", "convert", "generate", "generate_verilog"]
