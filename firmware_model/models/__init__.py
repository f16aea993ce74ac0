"""Models: running, watching and replacing the attention of whole networks."""
