"""PARO: generator, golden reference and verification of an accelerator for attention."""
