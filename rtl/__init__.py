"""Amaranth RTL: core, accelerator, buses, library; of the project it imports only `paro.config`."""
