"""A C driver of an accelerator, and an example that uses it."""

from gen.names import ACCELERATOR, module_name
from gen.texts import render
from gen.verilog import generator_name
from paro.config import Config
from paro.config.registers import (
    CAUSES,
    MAP_VERSION,
    PAGE_BYTES,
    STAGES,
    STATES,
    WINDOWS,
    counter_name,
    find_register,
    window_name,
)

__all__ = ["driver_header", "driver_source", "example"]


def driver_header(config: Config, name: str | None) -> str:
    """C99 header ``paro_driver.h``; it includes the accelerator's registers."""
    return render(
        "paro_driver.h.j2",
        generator=generator_name(),
        module=module_name(config, ACCELERATOR, name),
        windows=list(WINDOWS),
        page=PAGE_BYTES,
    )


def driver_source() -> str:
    """C99 source ``paro_driver.c``, the same for all accelerators of this version."""
    first = counter_name(next(iter(STAGES)), next(iter(STATES)))
    return render(
        "paro_driver.c.j2",
        generator=generator_name(),
        major=MAP_VERSION[0],
        first_counter=find_register(first).offset,
        states=len(STATES),
        first_window=find_register(window_name(next(iter(WINDOWS)), "first")).offset,
        page=PAGE_BYTES,
        causes=[(cause.name, text) for cause, text in CAUSES.items()],
    )


def example(
    config: Config, name: str | None, *, base: int, last: int, queue_base: int, jobs: int
) -> str:
    """C99 source that runs a queue with the driver; addresses are those of `gen.testbench`.

    ``last`` is that of the image's last byte.
    """
    return render(
        "example.c.j2",
        module=module_name(config, ACCELERATOR, name),
        digest=config.digest(),
        base=base,
        last=last,
        page=PAGE_BYTES,
        queue_base=queue_base,
        jobs=jobs,
    )
