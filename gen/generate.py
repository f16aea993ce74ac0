"""`paro generate`: everything that a user of one core needs, in one folder."""

import time
from importlib import metadata
from pathlib import Path
from typing import Any

from gen.ports import describe_ports, ports_markdown
from gen.registers import describe_registers, registers_header, registers_markdown
from gen.verilog import ACCELERATOR, TOP, TOPS, generate_verilog, generator_name
from paro_config import Config, files

__all__ = ["generate"]


def generate(config: Config, out_dir: Path, top: str = TOP) -> dict[str, Any]:
    """Write the Verilog of the core or of the whole accelerator, and its sidecars.

    Parameters
    ----------
    config : Config
        What to generate. Same configuration, same bytes.
    out_dir : Path
        Folder, made when missing. It receives ``<top>.v``, ``config.json``, ``ports.md``,
        ``ports.json``, the filelist ``<top>.f`` and FuseSoC's ``<top>.core``; of the accelerator
        also its registers: ``registers.md``, ``registers.json``, ``paro_registers.h``.
    top : str
        Name in `gen.verilog.TOPS`.

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
    verilog = generate_verilog(config, top)
    texts = {
        f"{top}.v": verilog,
        "ports.md": ports_markdown(config, top),
        f"{top}.f": f"{top}.v\n",
        f"{top}.core": _fusesoc(config, top),
    }
    documents = {"config.json": _describe_config(config), "ports.json": describe_ports(config, top)}
    if top == ACCELERATOR:
        texts |= {
            "registers.md": registers_markdown(config),
            "paro_registers.h": registers_header(config),
        }
        documents["registers.json"] = describe_registers(config)
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


def _fusesoc(config: Config, top: str) -> str:
    version = metadata.version("paro-accelerator")
    return f"""CAPI=2:
name: paro:accelerator:{top}:{version}
description: PARO {TOPS[top][1]}, configuration {config.digest()}

filesets:
  rtl:
    files:
      - {top}.v
    file_type: verilogSource-2005

targets:
  default:
    filesets: [rtl]
    toplevel: {top}
"""
