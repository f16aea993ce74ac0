"""What is computed in RTL: heads of a capture under a plan, or a layer; what is missing follows."""

from pathlib import Path

from firmware_model.calibration.layers import BY_LAYER, plan_layer
from firmware_model.capture import load_capture
from firmware_model.layer import load_layer
from paro.cli.inputs import Plans, as_range, capture_config, choose_plan
from paro.cli.options import ConfigChoice
from sim.cosim.cosim import Heads, LinearLayer

__all__ = ["choose_heads", "choose_layer"]


def choose_heads(
    capture: Path,
    plan: Path | None,
    config: ConfigChoice,
    heads: str | None,
    bounds: tuple[int, int | None] | None,
) -> Heads:
    """Read heads and plan, or make one.

    Parameters
    ----------
    capture : Path
    plan : Path or None
        Value of ``--plan``; without one, heads are calibrated.
    config : ConfigChoice
    heads : str or None
        Value of ``--heads``.
    bounds : (int, int or None), optional
        Of ``--query-blocks``.
    """
    source = load_capture(capture)
    chosen_plan, chosen = choose_plan(plan, source, heads, config)
    core = capture_config(config, source, chosen_plan)
    return Heads(source, chosen_plan, chosen, core, as_range(bounds, chosen_plan.blocks))


def choose_layer(path: Path, plan: Path | None, config: ConfigChoice) -> LinearLayer:
    """As `choose_heads`, of a linear layer."""
    layer = load_layer(path)
    if plan is None:
        core = config.build()
        return LinearLayer(layer, plan_layer(layer, BY_LAYER, core), core)
    chosen = Plans(plan).layer(layer)
    return LinearLayer(layer, chosen, config.build(block=chosen.block, head_dim=chosen.head_dim))
