"""A simulated run, cycle by cycle: its recorder, a trace for Perfetto, a page that replays it."""
