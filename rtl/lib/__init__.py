"""What any part of the hardware may be built from: arithmetic, memories, queues, shared modules."""
