"""FuseSoC's description of a generated folder."""

from collections.abc import Sequence
from importlib import metadata

from gen.names import module_name
from gen.texts import render
from gen.verilog import TOPS
from paro.config import Config

__all__ = ["core_file"]


def core_file(
    config: Config,
    top: str,
    name: str | None,
    *,
    aresetn: bool = False,
    bench: Sequence[str] = (),
) -> str:
    """Text of ``<name>.core``, with targets ``default``, ``lint`` and, for a bench, ``sim``.

    No two configurations share a VLNV: behind a chosen name the core has the default one, and it
    stands for the chosen name alone as a virtual core.

    Parameters
    ----------
    config, top, name, aresetn
        As for `gen.generate.generate`.
    bench : sequence of str
        Files of a module ``testbench`` beside the core, Verilog and what it reads.
    """
    module, default = (module_name(config, top, chosen, aresetn=aresetn) for chosen in (name, None))
    return render(
        "fusesoc.core.j2",
        module=module,
        identity=module if module == default else f"{module}_{default.removeprefix('paro_')}",
        version=metadata.version("paro-accelerator"),
        meaning=TOPS[top][1],
        digest=config.digest(),
        bench=bench,
    )
