"""`paro generate`: all that a user of a core or an accelerator needs, in files of its name."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from gen.constraints import constraints
from gen.fusesoc import core_file
from gen.instance import instance
from gen.names import ACCELERATOR, CORE, module_name
from gen.ports import describe_ports, ports_markdown
from gen.registers import describe_registers, registers_header, registers_markdown
from gen.summary import summarise
from gen.systemrdl import registers_rdl
from gen.timing import draw, waves
from gen.verilog import generate_verilog, generator_name
from gen.waivers import waiver_file
from paro.config import Config, files
from paro.config.clock import CLOCK_MHZ
from paro.config.formats import LANES

__all__ = ["advice", "generate"]


def generate(
    config: Config,
    out_dir: Path,
    top: str = CORE,
    name: str | None = None,
    *,
    aresetn: bool = False,
    clock_mhz: float = CLOCK_MHZ,
    bench: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the Verilog of the core or of the whole accelerator, and its sidecars.

    Parameters
    ----------
    config : Config
        Configuration of the top. Same configuration, same bytes.
    out_dir : Path
        Folder, made when missing; it can hold any number of cores and accelerators: all files of
        one begin with its name. It receives ``<name>.v``, ``.config.json``, ``.ports.md``,
        ``.ports.json``, the filelist ``.f``, FuseSoC's ``.core``, Verilator's waivers ``.vlt``, an
        instance to paste, ``.instance.vh``, constraints, ``.sdc``, and timing diagrams, ``.svg``
        and ``.json`` of each in `gen.timing.DIAGRAMS`; of the accelerator also its registers:
        ``.registers.md``, ``.registers.json``, ``.h`` and SystemRDL, ``.rdl``.
    top : str
        Name in `gen.verilog.TOPS`.
    name : str, optional
        Of the top module, by default as `module_name` makes it of the configuration.
    aresetn : bool
        Put the accelerator in a shell with AXI's own clock, reset and signals, see `gen.shell`.
    clock_mhz : float
        Clock of the constraints.
    bench : sequence of str
        Files of a testbench that the caller writes beside, for FuseSoC's target ``sim``.

    Returns
    -------
    dict
        ``module`` (its name), ``digest`` of the configuration, ``files`` written, ``lines`` of
        Verilog, ``seconds`` taken, ``summary`` (`gen.summary.Summary`), ``advice`` (a sentence, or
        None).

    Raises
    ------
    ParoError
        If the name or the clock is not legal, if a core has ``aresetn``, or if the folder cannot
        be written.
    """
    started = time.perf_counter()
    module = module_name(config, top, name, aresetn=aresetn)
    ports = describe_ports(config, top, name, aresetn=aresetn)
    texts = {
        "sdc": constraints(ports, clock_mhz),
        "v": generate_verilog(config, top, name, aresetn=aresetn),
        "ports.md": ports_markdown(config, top, name, aresetn=aresetn),
        "f": f"{module}.v\n",
        "vlt": waiver_file(module),
        "core": core_file(config, top, name, aresetn=aresetn, bench=bench),
        "instance.vh": instance(ports),
    }
    verilog = texts["v"]
    documents = {"config.json": _describe_config(config), "ports.json": ports}
    for diagram, described in waves(ports, top).items():
        documents[f"{diagram}.json"] = described
        texts[f"{diagram}.svg"] = draw(described)
    if top == ACCELERATOR:
        texts |= {
            "registers.md": registers_markdown(config),
            "h": registers_header(config, module),
            "rdl": registers_rdl(config, module),
        }
        documents["registers.json"] = describe_registers(config)
    for suffix, text in texts.items():
        files.write_text(out_dir / f"{module}.{suffix}", text)
    for suffix, document in documents.items():
        files.write_json(out_dir / f"{module}.{suffix}", document)
    return {
        "module": module,
        "digest": config.digest(),
        "files": sorted(f"{module}.{suffix}" for suffix in [*texts, *documents]),
        "lines": verilog.count("\n"),
        "seconds": round(time.perf_counter() - started, 2),
        "summary": summarise(config, verilog, module, config.cores if top == ACCELERATOR else 1),
        "advice": advice(config),
    }


def advice(config: Config) -> str | None:
    """Return what to choose in place of an array that drains slower than it computes, if any is.

    A tile of 2-bit operands takes as many cycles as a quarter of its reduction has elements; where
    the array's rows are more than that, it waits for its drain.
    """
    shortest = config.shortest_reduction // LANES
    if config.drain_cycles <= shortest:
        return None
    parts = config.drain_cycles // shortest
    rows, cores = config.rows // parts, config.cores * parts
    text = (
        f"a tile of {config.rows} x {config.cols} drains in {config.drain_cycles} cycles and takes "
        f"{shortest} at 2 bits: the array keeps {shortest / config.drain_cycles:.0%} of its lanes "
        "there"
    )
    legal = {name: get_args(Config.model_fields[name].annotation) for name in ("rows", "cores")}
    if rows not in legal["rows"] or cores not in legal["cores"]:
        return f"{text}; fewer rows do not"
    return (
        f"{text}; as many lanes at full rate: the accelerator with --rows {rows} --cols "
        f"{config.cols} --cores {cores} --query-rows 4 --key-slots 4"
    )


def _describe_config(config: Config) -> dict[str, Any]:
    derived = [name for name, value in vars(Config).items() if isinstance(value, property)]
    return {
        "generator": generator_name(),
        "digest": config.digest(),
        "configuration": config.model_dump(),
        "derived": {name: getattr(config, name) for name in derived},
    }
