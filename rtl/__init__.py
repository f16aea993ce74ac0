"""Amaranth RTL of the accelerator core; knows the configuration and nothing else of the project."""
