"""Bitwuzla as yosys-smtbmc talks to a solver: commands in on a pipe, answers out, one by one."""

import sys

from bitwuzla import Option, Options, Parser, TermManager

__all__: list[str] = []


def main() -> None:
    """Give each command of the input to the solver as soon as it is whole."""
    options = Options()
    options.set(Option.PRODUCE_MODELS, True)
    parser = Parser(TermManager(), options)
    command, depth = "", 0
    for line in sys.stdin:
        bare = line.split(";")[0]
        command += bare
        depth += bare.count("(") - bare.count(")")
        if depth or not command.strip():
            continue
        if command.strip() == "(exit)":
            return
        parser.parse(command, parse_only=False, parse_file=False)
        sys.stdout.flush()
        command = ""


if __name__ == "__main__":
    main()
