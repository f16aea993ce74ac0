"""The cycle model's machine code, kept for later runs: to compile it takes most of a minute.

Constants that a compiled function takes from other modules are frozen in it, and numba looks at the
function's own file alone. So numba's folder is named after all modules that this file imports.
"""

import os
import sys
import threading
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import binding
from numba.core import config

from firmware_model.progress import announce
from paro.config import ParoError
from sim.cache import cache_folder, entry_name, kept
from sim.sources import module_digest

__all__ = ["ensure_compiled", "model_entry"]

_NUMBA_FOLDER = "CACHE_DIR"
#: For numba's setting, which is one for all threads.
_lock = threading.Lock()


def ensure_compiled(function: Any, arguments: tuple[Any, ...]) -> None:
    """Load the machine code of a numba function for such arguments, or compile it.

    One process compiles, others that need the same wait for it.

    Raises
    ------
    ParoError
        If the folder that keeps it cannot be written.
    """
    # Without numba's compiler (NUMBA_DISABLE_JIT) it is a function like any other.
    if not hasattr(function, "signatures") or function.signatures:
        return

    def make(folder: Path) -> None:
        announce("compiling the cycle model, once for all runs of this version; up to a minute")
        _compile(function, arguments, folder)

    with _lock, kept(cache_folder(), model_entry(function), make) as folder:
        _compile(function, arguments, folder)


def model_entry(function: Any) -> str:
    """Name of the machine code of a function: of all that it depends on."""
    return entry_name(
        "cycle-model",
        function.py_func.__code__.co_filename,  # numba looks for this file's code alone
        module_digest(function.py_func.__module__),
        [numba.__version__, np.__version__, sys.version],
        [binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()],
        sorted(item for item in os.environ.items() if item[0].startswith("NUMBA_")),
    )


def _compile(function: Any, arguments: tuple[Any, ...], folder: Path) -> None:
    """Load or compile, in numba's own way with its files in a folder."""
    before = getattr(config, _NUMBA_FOLDER)
    setattr(config, _NUMBA_FOLDER, str(folder))
    try:
        function.enable_caching()
    finally:
        setattr(config, _NUMBA_FOLDER, before)
    if not Path(function.stats.cache_path).is_relative_to(folder):
        # Numba would keep it beside the source, where it does not follow other modules.
        raise ParoError(f"cannot write {folder}")
    function.compile(tuple(map(numba.typeof, arguments)))
