"""The error a user is meant to read, and what its sentence takes from elsewhere."""

#: Most letters of a message of another library, of a value that a user gave.
_LINE, _VALUE = 200, 80


class ParoError(Exception):
    """Bad input, configuration or environment, in one sentence.

    The sentence names the fault, its place and the legal values. The command line prints it alone
    and exits with status 2. Names in files may be anything: what cannot be printed is escaped.
    """

    def __str__(self) -> str:
        letters = super().__str__()
        return "".join(own if own.isprintable() else repr(own)[1:-1] for own in letters)


def first_line(error: BaseException) -> str:
    """First line of another library's error, its beginning if it is long; else the error's type."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:_LINE]


def quoted(value: object) -> str:
    """Value that a user gave as Python writes it; of a long one its beginning."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        # Integers of thousands of digits, lists of thousands of levels.
        text = f"a value of type {type(value).__name__} that is too large to show"
    return text if len(text) <= _VALUE else f"{text[:_VALUE]}..."
