"""From a configuration to files: Verilog and the sidecars that describe it."""

from gen.generate import generate
from gen.names import ACCELERATOR, CORE, module_name
from gen.verilog import convert, generate_verilog

__all__ = ["ACCELERATOR", "CORE", "convert", "generate", "generate_verilog", "module_name"]
