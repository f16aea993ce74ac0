"""Options that several commands share, and the configuration that they make."""

import functools
import inspect
import math
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from paro.config import PRESETS, Config, ParoError, files, load_config
from paro.config.clock import check_clock


class Top(Enum):
    """Hardware that can be generated and simulated."""

    CORE = "core"
    ACCELERATOR = "accelerator"


def writable(folder: Path | None) -> Path | None:
    """Refuse a folder for results before the long work."""
    if folder is not None:
        files.check_folder(folder)
    return folder


def writable_file(path: Path) -> Path:
    """Refuse a file for results before the long work."""
    files.check_folder(path.parent)
    return path


def check_captures(paths: Iterable[Path]) -> None:
    """Refuse captures that are not there, before the long work; a folder is opened later."""
    for path in paths:
        if not path.is_dir():
            files.check_file(path, "capture")


def check_plan(path: Path) -> None:
    """Refuse a plan, or a folder of them, that is not there, before the long work."""
    if not path.is_dir():
        files.check_file(path, "plan")


def legal_heads(text: str | None) -> str | None:
    """Refuse a list of heads that is none, before it is known how many there are."""
    if text is not None:
        _head_ranges(text)
    return text


#: Devices of a model that need no board: the integer model, and the Verilog in a simulator.
ON_MODEL, ON_RTL = "model", "rtl"

CaptureArgument = Annotated[
    Path,
    typer.Argument(
        metavar="CAPTURE",
        help="safetensors file with q, k, v (heads x tokens x head_dim) and the token grid",
        show_default=False,
    ),
]
CapturesArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="CAPTURE...",
        help="captures (safetensors), or folders of them",
        show_default=False,
    ),
]
OutputDirectory = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="DIR", help="folder for the results", callback=writable),
]
HeadsOption = Annotated[
    str | None,
    typer.Option(
        "--heads",
        metavar="LIST",
        help="heads, such as 0,3 or 0-2,5; all by default",
        callback=legal_heads,
    ),
]
ModelArgument = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="moving-digits, a checkpoint of it, or a folder of a diffusers pipeline",
        show_default=False,
    ),
]
_MODEL_PANEL = "Running a model"
StepsOption = Annotated[
    int | None,
    typer.Option(
        "--steps", metavar="N", help="denoising steps, default 25", rich_help_panel=_MODEL_PANEL
    ),
]
PromptOption = Annotated[
    str | None,
    typer.Option("--prompt", metavar="TEXT", help="its text", rich_help_panel=_MODEL_PANEL),
]
HeightOption = Annotated[
    int | None,
    typer.Option("--height", metavar="N", help="in pixels", rich_help_panel=_MODEL_PANEL),
]
WidthOption = Annotated[
    int | None,
    typer.Option("--width", metavar="N", help="in pixels", rich_help_panel=_MODEL_PANEL),
]
FramesOption = Annotated[
    int | None,
    typer.Option("--frames", metavar="N", help="of a video", rich_help_panel=_MODEL_PANEL),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="where it computes, as torch names it: cpu (default), cuda, cuda:1, mps",
        rich_help_panel=_MODEL_PANEL,
    ),
]
DtypeOption = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="NAME",
        help="what it computes in: float32 (default), bfloat16, float16",
        rich_help_panel=_MODEL_PANEL,
    ),
]
VariantOption = Annotated[
    str | None,
    typer.Option(
        "--variant",
        metavar="NAME",
        help="which of its weights, such as fp16; the plain or only ones by default",
        rich_help_panel=_MODEL_PANEL,
    ),
]
PlanOption = Annotated[
    Path | None,
    typer.Option(
        "--plan",
        metavar="PLAN",
        help="plan; without one, heads are calibrated at 4.8 bit, a layer at 4",
    ),
]
QueryBlocksOption = Annotated[
    str | None,
    typer.Option("--query-blocks", metavar="A:B", help="block rows A up to B - 1; all by default"),
]
AresetnOption = Annotated[
    bool,
    typer.Option(
        "--aresetn",
        help="of the accelerator: aclk, aresetn (active low, synchronised within) and every signal "
        "of AXI, with attributes by which Vivado finds its interfaces",
    ),
]
ClockOption = Annotated[
    float,
    typer.Option(
        "--clock-mhz",
        metavar="MHZ",
        help="clock of the constraints NAME.sdc",
        callback=check_clock,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON in place of tables")]

_CONFIG_PANEL = "Configuration of the core"


@dataclass(frozen=True)
class ConfigChoice:
    """The configuration as the user gave it.

    Parameters
    ----------
    preset : str or None
        Value of ``--preset``.
    file : Path or None
        Value of ``--config``.
    fields : dict
        Single fields given as options; they win over both.
    """

    preset: str | None
    file: Path | None
    fields: dict[str, Any]

    def build(self, **implied: Any) -> Config:
        """Build the configuration.

        ``implied`` holds the fields that the command's input determines (the head size of a
        capture, the block of a plan). They win over the defaults and over a preset, not over a
        field that the user gave as an option or in a file.
        """
        given = {name: value for name, value in self.fields.items() if value is not None}
        if self.file is not None:
            load_config(preset=self.preset, file=self.file, overrides=given)  # refuse it as it is
            implied = {}
        return load_config(preset=self.preset, file=self.file, overrides=implied | given)


def with_config(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command every option of a configuration.

    The command's parameter ``config: ConfigChoice`` is replaced by ``--preset``, ``--config`` and
    one option for each field of `Config`, with the field's own description as its help. A field
    whose name the command has for a parameter of its own keeps its default.
    """
    signature = inspect.signature(command)
    preset_names = ", ".join(
        f"{name} ({preset.rows} x {preset.cols})" for name, preset in PRESETS.items()
    )
    options = {
        "preset": _option(str, "--preset", "NAME", f"start from: {preset_names}"),
        "file": _option(Path, "--config", "FILE.toml", "start from the fields in a TOML file"),
    }
    for name, field in Config.model_fields.items():
        if name in signature.parameters:
            continue
        legal = typing.get_args(field.annotation)
        values = f" ({', '.join(map(str, legal))})" if legal else ""
        help_text = f"{field.description}{values}, default {field.default}"
        options[name] = _option(int, f"--{name.replace('_', '-')}", "N", help_text)

    parameters = [value for name, value in signature.parameters.items() if name != "config"]
    for name, annotation in options.items():
        parameters.append(
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
            )
        )

    def with_choice(**values: Any) -> None:
        given = {name: values.pop(name) for name in options}
        preset, file = given.pop("preset"), given.pop("file")
        command(**values, config=ConfigChoice(preset, file, given))

    wrapper: Any = functools.wraps(command)(with_choice)
    # typer reads the signature, and annotations that must agree with it.
    wrapper.__signature__ = signature.replace(parameters=parameters)
    wrapper.__annotations__ = {value.name: value.annotation for value in parameters}
    return wrapper


def _option(kind: type, flag: str, metavar: str, help_text: str) -> Any:
    info = typer.Option(flag, metavar=metavar, help=help_text, rich_help_panel=_CONFIG_PANEL)
    return Annotated[kind | None, info]


def parse_heads(text: str | None, heads: int) -> list[int]:
    """Read a list of heads such as ``0,3`` or ``0-2,5``.

    Parameters
    ----------
    text : str or None
        Value of ``--heads``; ``None`` means all.
    heads : int
        Number of heads that there are.

    Raises
    ------
    ParoError
        If the text is no such list, or names a head twice or one that does not exist.
    """
    if text is None:
        return list(range(heads))
    chosen = [head for part in _head_ranges(text) for head in part]
    if not chosen or len(set(chosen)) != len(chosen):
        raise ParoError(f"heads = {text!r} names a head twice or none")
    beyond = [head for head in chosen if head >= heads]
    if beyond:
        raise ParoError(f"heads = {text!r}: there is no head {beyond[0]}; legal: 0 .. {heads - 1}")
    return chosen


def _head_ranges(text: str) -> list[range]:
    """Ranges that a list of heads names; ParoError if it is no such list."""
    ranges = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not is_number(first) or (dash and not is_number(last)):
            raise ParoError(f"heads = {text!r} is not a list of heads; legal: such as 0,3 or 0-2,5")
        ranges.append(range(int(first), int(last if dash else first) + 1))
    return ranges


def parse_numbers(name: str, text: str) -> tuple[float, ...]:
    """Read comma-separated numbers such as ``2,3,4.8``."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(math.isfinite(number) for number in numbers):
        raise ParoError(f"{name} = {text!r} is not a list of numbers; legal: such as 2,3,4.8")
    return numbers


def parse_shapes(name: str, text: str) -> tuple[tuple[int, int], ...]:
    """Read comma-separated shapes such as ``8x8,16x32``."""
    shapes = []
    for part in text.split(","):
        rows, cross, cols = part.strip().partition("x")
        if not (cross and is_number(rows) and is_number(cols)):
            raise ParoError(f"{name} = {text!r} is not a list of shapes; legal: such as 8x8,16x32")
        shapes.append((int(rows), int(cols)))
    return tuple(shapes)


def parse_range(name: str, text: str | None) -> tuple[int, int | None] | None:
    """Read a half-open range such as ``0:4``, ``2:`` or ``:4``; ``None`` stays ``None``."""
    if text is None:
        return None
    first, colon, last = text.partition(":")
    legal = all(not part or is_number(part) for part in (first, last))
    if not colon or not legal or (last and int(last) <= int(first or 0)):
        raise ParoError(f"{name} = {text!r} is not a range; legal: such as 0:4, 2: or :4")
    return int(first or 0), int(last) if last else None


def is_number(text: str) -> bool:
    """Whether a text is a number of at most nine digits."""
    return text.isascii() and text.isdigit() and len(text) <= 9
