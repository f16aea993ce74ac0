"""The accelerator: the core with a memory port, registers and a queue of descriptors."""
