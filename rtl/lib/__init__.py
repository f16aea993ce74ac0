"""Parts for all of the hardware: arithmetic, delay lines, memories, queues, shared modules."""
