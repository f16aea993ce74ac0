"""The cycle model: cycles and bursts of core and accelerator, as in the RTL."""
