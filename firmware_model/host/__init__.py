"""The host: what a program does that drives the accelerator over any transport."""
