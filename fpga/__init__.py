"""Boards: from a configuration to a bitstream and a report of what it costs and how fast it is."""
