"""PARO: generator, golden reference and verification of an accelerator for attention.

What Python programs use is in `paro.api`, and here by the same names; it needs torch (the extra
``model``), which is imported when one of them is first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paro.api import (
        Tokens,
        attention,
        calibrate,
        capture,
        evaluate,
        load_capture,
        load_plan,
        plan_of_maps,
        planned,
        save_capture,
        save_plan,
        sparse,
        watch,
    )

__all__ = [
    "Tokens",
    "attention",
    "calibrate",
    "capture",
    "evaluate",
    "load_capture",
    "load_plan",
    "plan_of_maps",
    "planned",
    "save_capture",
    "save_plan",
    "sparse",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from paro import api

    return getattr(api, name)
