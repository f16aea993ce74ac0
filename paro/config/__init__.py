"""Ground floor of PARO: what every other package imports and what imports none of them.

It holds the configuration (`Config`), the number formats that the golden reference and the RTL
share (`formats`), the one error that users are meant to see (`ParoError`) and whole-file writes.
"""

from paro.config.config import PRESETS, Config, load_config
from paro.config.errors import ParoError

__all__ = ["PRESETS", "Config", "ParoError", "load_config"]
