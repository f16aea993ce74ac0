"""What is computed in RTL: heads of a capture under a plan, or a layer; what is missing follows."""

from pathlib import Path

from firmware_model.calibration.layers import BY_LAYER, plan_layer
from firmware_model.capture import is_layer, load_capture
from firmware_model.layer import load_layer
from paro.cli.inputs import Plans, as_range, capture_config, choose_plan
from paro.cli.options import ConfigChoice
from paro.config import ParoError
from sim.cosim.cosim import Heads, LinearLayer, cosim, cosim_layer
from sim.cosim.report import Report
from sim.cosim.run import Setup
from sim.cosim.target import Target

__all__ = ["choose_work", "cosim_work", "holds_layer"]


def choose_work(
    capture: Path,
    plan: Path | None,
    config: ConfigChoice,
    heads: str | None,
    bounds: tuple[int, int | None] | None,
) -> Heads | LinearLayer:
    """Read heads, or a linear layer, and their plan, or make one.

    Parameters
    ----------
    capture : Path
        Holds the one or the other.
    plan : Path or None
        Value of ``--plan``; without one, they are calibrated.
    config : ConfigChoice
    heads : str or None
        Value of ``--heads``.
    bounds : (int, int or None), optional
        Of ``--query-blocks``.

    Raises
    ------
    ParoError
        If files or options do not fit each other.
    """
    if holds_layer(capture, heads, bounds):
        return _choose_layer(capture, plan, config)
    return _choose_heads(capture, plan, config, heads, bounds)


def _choose_heads(
    capture: Path,
    plan: Path | None,
    config: ConfigChoice,
    heads: str | None,
    bounds: tuple[int, int | None] | None,
) -> Heads:
    source = load_capture(capture)
    chosen_plan, chosen = choose_plan(plan, source, heads, config)
    core = capture_config(config, source, chosen_plan)
    return Heads(source, chosen_plan, chosen, core, as_range(bounds, chosen_plan.blocks))


def _choose_layer(path: Path, plan: Path | None, config: ConfigChoice) -> LinearLayer:
    layer = load_layer(path)
    if plan is None:
        core = config.build()
        return LinearLayer(layer, plan_layer(layer, BY_LAYER, core), core)
    chosen = Plans(plan).layer(layer)
    return LinearLayer(layer, chosen, config.build(block=chosen.block, head_dim=chosen.head_dim))


def holds_layer(capture: Path, heads: str | None, bounds: tuple[int, int | None] | None) -> bool:
    """Whether a file holds a linear layer; `ParoError` if it has options of heads."""
    layer = is_layer(capture)
    if layer and (heads is not None or bounds is not None):
        raise ParoError("--heads and --query-blocks are for attention")
    return layer


def cosim_work(work: Heads | LinearLayer, target: Target, setup: Setup) -> Report:
    """Compute heads or a layer on a target, and compare and write as `sim.cosim.cosim.cosim`."""
    if isinstance(work, LinearLayer):
        return cosim_layer(work, target, setup)
    return cosim(work, target, setup)
