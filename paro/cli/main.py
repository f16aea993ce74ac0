"""Entry of the command line: registers the commands, turns errors into exit codes."""

import importlib
import re
import sys
from importlib import metadata
from typing import Annotated, Any, NoReturn

import typer
from rich.markup import escape

from paro.cli.console import announcements, stderr
from paro.cli.dependencies import DISTRIBUTION, install_command, provider
from paro.cli.interrupt import interruptible
from paro.config import ParoError

#: Commands in the order of the help; each is a function of its own name in its own module.
COMMANDS = (
    "capture",
    "convert",
    "calibrate",
    "plan",
    "generate",
    "cosim",
    "run",
    "verify",
    "export",
    "evaluate",
    "picture",
    "study",
    "estimate",
    "sweep",
    "synth",
    "boards",
    "load",
    "benchmark",
    "doctor",
)

app = typer.Typer(
    name="paro",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Generator, golden reference and verification of the PARO attention accelerator.",
    epilog="Exit status: 0 it holds; 1 a check failed (a mismatch, timing not met); "
    "2 bad usage or input; 130 interrupted by Ctrl-C.",
)

for _name in COMMANDS:
    app.command(_name)(getattr(importlib.import_module(f"paro.cli.{_name}"), _name))


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False,
) -> None:
    if version:
        print(f"paro {metadata.version(DISTRIBUTION)}")
        raise typer.Exit


def _command() -> Any:
    """Make the command line, whose help shows all brackets but those of headings."""
    group: Any = typer.main.get_command(app)
    for command in group.commands.values():
        for shown in (command, *command.params):
            text = escape(shown.help or "")
            shown.help = re.sub(r"\\(\[/?bold\])", r"\1", text) or None
    return group


def run() -> None:
    """Run the command line.

    A `ParoError` becomes one line on stderr and exit status 2, and so does a package that is not
    installed because its extra was not asked for.
    """
    try:
        with interruptible(), announcements():
            _command()()
    except ParoError as error:
        _refuse(str(error))
    except ModuleNotFoundError as error:
        missing = provider(error.name or "")
        if missing is None:
            raise
        _refuse(
            f"this needs {missing.requirement.name}, which is not installed; "
            f"get it by: {install_command(missing.extra)}"
        )


def _refuse(sentence: str) -> NoReturn:
    stderr.print(f"paro: error: {sentence}", highlight=False, soft_wrap=True)
    sys.exit(2)
