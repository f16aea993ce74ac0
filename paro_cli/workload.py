"""What a command computes: a capture, a plan and the configuration that suits both."""

from pathlib import Path

from firmware_model.calibrate import Goal, calibrate
from firmware_model.capture import Capture
from firmware_model.plan import Plan, load_model_plan, load_plan
from firmware_model.quantize import padded_head_dim
from paro_cli.console import progress_bar
from paro_cli.options import AVG_BITS_DEFAULT, ConfigChoice, parse_heads
from paro_config import Config, ParoError

__all__ = ["as_range", "capture_config", "choose_plan", "find_plan"]


def capture_config(choice: ConfigChoice, capture: Capture, plan: Plan | None) -> Config:
    """Configuration for a capture: head_dim follows it, block follows the plan, unless given."""
    implied = {"head_dim": padded_head_dim(capture.head_dim)}
    if plan is not None:
        implied["block"] = plan.block
    return choice.build(**implied)


def choose_plan(
    path: Path | None,
    capture: Capture,
    heads: str | None,
    choice: ConfigChoice,
) -> tuple[Plan, list[int]]:
    """Read the plan, or calibrate one at the default mean width; and the heads to compute.

    Parameters
    ----------
    path : Path or None
        Value of ``--plan``.
    capture : Capture
        What it is for.
    heads : str or None
        Value of ``--heads``; by default all heads of the plan, or of the capture.
    choice : ConfigChoice
        Its block is that of a new plan.
    """
    if path is not None:
        plan = find_plan(path, capture)
        chosen = list(plan.heads) if heads is None else parse_heads(heads, capture.heads)
        return plan, chosen
    chosen = parse_heads(heads, capture.heads)
    goal = Goal(avg_bits=AVG_BITS_DEFAULT, block=capture_config(choice, capture, None).block)
    with progress_bar("calibrate") as progress:
        found = calibrate([capture], goal, chosen, progress)
    return found[0].for_capture(capture), chosen


def find_plan(path: Path, capture: Capture) -> Plan:
    """Read the plan for a capture: a file, or the one of a folder that is of the same model."""
    if not path.is_dir():
        return load_plan(path, capture)
    files = sorted(path.glob("*.safetensors"))
    for file in files:
        plan = load_model_plan(file)
        if plan.model == capture.model:
            return load_plan(file, capture)
    raise ParoError(
        f"folder {path} holds {len(files)} plans, none of the model of capture {capture.path}"
    )


def as_range(bounds: tuple[int, int | None] | None, count: int) -> range | None:
    """Block rows of a half-open range whose end may be left open."""
    if bounds is None:
        return None
    first, last = bounds
    return range(first, count if last is None else last)
