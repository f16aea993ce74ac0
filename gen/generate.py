"""`paro generate`: everything that a user of one core needs, in one folder."""

import time
from importlib import metadata
from pathlib import Path
from typing import Any

from gen.ports import describe_ports, ports_markdown
from gen.verilog import TOP, generate_verilog, generator_name
from paro_config import Config, files

__all__ = ["generate"]


def generate(config: Config, out_dir: Path) -> dict[str, Any]:
    """Write the core's Verilog and its sidecars.

    Parameters
    ----------
    config : Config
        What to generate. Same configuration, same bytes.
    out_dir : Path
        Folder, made when missing. It receives ``paro_core.v``, ``config.json``, ``ports.md``,
        ``ports.json``, the filelist ``paro_core.f`` and FuseSoC's ``paro_core.core``.

    Returns
    -------
    dict
        ``digest`` of the configuration, ``files`` written, ``lines`` of Verilog, ``seconds`` taken.

    Raises
    ------
    ParoError
        If the folder cannot be written.
    """
    started = time.perf_counter()
    verilog = generate_verilog(config)
    texts = {
        f"{TOP}.v": verilog,
        "ports.md": ports_markdown(config),
        f"{TOP}.f": f"{TOP}.v\n",
        f"{TOP}.core": _fusesoc(config),
    }
    documents = {"config.json": _describe_config(config), "ports.json": describe_ports(config)}
    for name, text in texts.items():
        files.write_text(out_dir / name, text)
    for name, document in documents.items():
        files.write_json(out_dir / name, document)
    return {
        "digest": config.digest(),
        "files": sorted([*texts, *documents]),
        "lines": verilog.count("\n"),
        "seconds": round(time.perf_counter() - started, 2),
    }


def _describe_config(config: Config) -> dict[str, Any]:
    derived = [name for name, value in vars(Config).items() if isinstance(value, property)]
    return {
        "generator": generator_name(),
        "digest": config.digest(),
        "configuration": config.model_dump(),
        "derived": {name: getattr(config, name) for name in derived},
    }


def _fusesoc(config: Config) -> str:
    version = metadata.version("paro-accelerator")
    return f"""CAPI=2:
name: paro:accelerator:{TOP}:{version}
description: PARO attention core, configuration {config.digest()}

filesets:
  rtl:
    files:
      - {TOP}.v
    file_type: verilogSource-2005

targets:
  default:
    filesets: [rtl]
    toplevel: {TOP}
"""
