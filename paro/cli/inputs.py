"""What a command computes: a capture, a plan and the configuration that suits both."""

from collections.abc import Sequence
from pathlib import Path

from firmware_model.calibration.calibrate import calibrate
from firmware_model.calibration.goal import Goal
from firmware_model.calibration.layer_plan import LayerPlan
from firmware_model.calibration.plan import ModelPlan, Plan, load_model_plan, plan_part
from firmware_model.capture import Capture, CaptureSource
from firmware_model.layer import Layer, LayerSource
from paro.cli.console import progress_bar
from paro.cli.options import ConfigChoice, parse_heads
from paro.config import Config, ParoError
from paro.config.config import padded_head_dim

__all__ = ["Plans", "as_range", "capture_config", "choose_plan", "find_plans"]


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
        (plan,) = find_plans(path, [capture])
        chosen = list(plan.heads) if heads is None else parse_heads(heads, capture.heads)
        return plan, chosen
    chosen = parse_heads(heads, capture.heads)
    goal = Goal(block=capture_config(choice, capture, None).block)
    with progress_bar("calibrate") as progress:
        found = calibrate([capture], goal, chosen, progress)
    return found[0].for_capture(capture), chosen


def find_plans(path: Path, captures: Sequence[CaptureSource]) -> list[Plan]:
    """Read the plan for each capture: a file, or those of a folder that are of their models."""
    plans = Plans(path)
    found = []
    for capture in captures:
        file, plan = plans.of(capture)
        found.append(plan_part(file, plan, capture))
    return found


class Plans:
    """A plan in a file, or the plans of several models in a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        self._plans = [(file, load_model_plan(file)) for file in files]

    def of(self, source: CaptureSource | LayerSource) -> tuple[Path, ModelPlan]:
        """File and plan for a source: the one that there is, or that of its model."""
        if not self._path.is_dir():
            return self._plans[0]
        for file, plan in self._plans:
            if plan.model == source.model:
                return file, plan
        raise ParoError(
            f"folder {self._path} holds {len(self._plans)} plans, none of the model of "
            f"{source.path}"
        )

    def layer(self, layer: Layer) -> LayerPlan:
        """Plan of a linear layer; errors also name the file."""
        file, plan = self.of(layer)
        try:
            return plan.for_layer(layer)
        except ParoError as error:
            raise ParoError(f"plan {file}: {error}") from error


def as_range(bounds: tuple[int, int | None] | None, count: int) -> range | None:
    """Block rows of a half-open range whose end may be left open."""
    if bounds is None:
        return None
    first, last = bounds
    return range(first, count if last is None else last)
