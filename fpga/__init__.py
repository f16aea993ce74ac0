"""Boards: from a configuration to a bitstream with a self test, and a report of area and speed."""
