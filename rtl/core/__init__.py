"""The core: attention of one head on streams, from blocks and codes to normalised outputs."""
