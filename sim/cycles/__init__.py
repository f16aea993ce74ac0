"""The cycle model: clocks and bursts of core and accelerator as the RTL takes them."""
