"""Timing constraints of a generated module, in SDC."""

from collections.abc import Mapping
from typing import Any

from gen.texts import render
from paro.config.clock import check_clock

__all__ = ["IO_SHARE", "constraints"]

#: Share of a period that is taken outside of the module, before inputs and after outputs.
IO_SHARE = 0.3


def constraints(ports: Mapping[str, Any], clock_mhz: float) -> str:
    """SDC text: clock, delays at inputs and outputs, and what the reset is.

    An active high reset is synchronous and so an input as others are. An active low one is
    synchronised within (`gen.shell`): no path from it has to meet the clock.

    Parameters
    ----------
    ports : mapping
        What `gen.ports.describe_ports` says of the module.
    clock_mhz : float
        Frequency of the clock.

    Raises
    ------
    ParoError
        If the frequency is not legal.
    """
    asynchronous = ports["reset_active"] == "low"
    untimed = {ports["clock"], *([ports["reset"]] if asynchronous else [])}
    period = round(1000 / check_clock(clock_mhz), 3)
    return render(
        "constraints.sdc.j2",
        module=ports["module"],
        clock=ports["clock"],
        reset=ports["reset"],
        asynchronous=asynchronous,
        mhz=f"{clock_mhz:g}",
        period=f"{period:.3f}",
        share=f"{IO_SHARE:.0%}",
        outside=f"{IO_SHARE * period:.3f}",
        **{
            f"{direction}puts": " ".join(
                port["name"] + ("[*]" if port["width"] > 1 else "")
                for port in ports["ports"]
                if port["direction"] == direction and port["name"] not in untimed
            )
            for direction in ("in", "out")
        },
    )
