"""Configurations and tops that the tests generate into one folder."""

from gen.names import ACCELERATOR, CORE
from paro.config import PRESETS, Config

TINY = PRESETS["tiny"]
#: Another shape, and the same shape with another parameter.
WIDE = Config(rows=4, cols=8, block=16, head_dim=32)
FINE = Config(rows=4, cols=4, block=16, head_dim=32, exp_segments=16)
DESIGNS = ((TINY, CORE), (WIDE, CORE), (FINE, CORE), (TINY, ACCELERATOR))
