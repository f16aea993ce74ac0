"""The vector unit: what lies between attention and linear layers, a pass over a row at a time."""
