"""Verilog as Yosys writes it, made plain: operands of one width, choices that cannot overlap.

Yosys leaves operands of different widths to Verilog's rules of extension. These are right, but
every linter warns of them, and a person has to know them. Here each operand is extended or cut in
the text, by its own signedness, to the width at which Verilog would compute anyway.
"""

import re

__all__ = ["tidy"]

#: Longest line, where a line has commas to be broken at.
_COLUMNS = 100
#: The same term in a concatenation is written as a repetition from this many on.
_REPEATED = 3

_NAME = r"(?:\\\S+ |[A-Za-z_$][\w$]*)"
_PIECE = re.compile(rf"(\d+)'([hdb])(\w+)|({_NAME})(?:\[(\d+)(?::(\d+))?\])?")
#: Something that Verilog computes with: a constant, a name with or without a range, several in {}.
_TERM = rf"(?:\{{[^}}]*\}}|\d+'\w+|{_NAME}(?:\[[\d:]+\])?)"
_OPERAND = rf"(?:(\$signed)\(({_TERM})\)|({_TERM}))"
_UNARY = re.compile(rf"([-~!]) {_OPERAND}")
_BINARY = re.compile(rf"{_OPERAND} (<<|>>>|>>|[-+&|^]|[=!]=|[<>]=?) {_OPERAND}")
_DECLARATION = re.compile(rf"  (?:input|output|wire|reg) (?:\[(\d+):(\d+)\] )?({_NAME})")
_ASSIGNMENT = re.compile(r"  assign (.+?) = (.+);")
_CONCATENATION = re.compile(r"\{ [^{}]* \}")
_ZERO = re.compile(r"'h0{9,}\b")
_PATTERN = re.compile(r"(\s+)\d+'b\?*1(\?*):")
_FILL = re.compile(r"^  initial begin\n((?:    .*\n)+)  end\n", re.M)
_BASES = {"h": 16, "d": 10, "b": 2}


def tidy(verilog: str) -> str:
    """Rewrite the output of Yosys' ``write_verilog -noattr``; the function stays.

    Linters find no width and no choice to warn of, memories are filled by loops, and a line with
    commas fits into `_COLUMNS`.
    """
    lines: list[str] = []
    module = _Module()
    # Yosys breaks a list of ports after some of them.
    for line in _fold_memory_fills(verilog.replace("\n, ", ", ")).splitlines():
        if line.startswith("module "):
            module = _Module()
        elif declared := _DECLARATION.match(line):
            high, low, name = declared.groups(default="0")
            module.widths[name.strip()] = int(high) - int(low) + 1
        elif assignment := _ASSIGNMENT.fullmatch(line):
            lines += module.assign(*assignment.groups())
            continue
        elif "casez (s)" in line:
            # The bits of s one by one: unlike patterns of all of them, they do not overlap.
            line = line.replace("casez (s)", "case (1'h1)")
        elif pattern := _PATTERN.fullmatch(line):
            line = f"{pattern[1]}s[{len(pattern[2])}]:"
        lines.append(line)
    short = (_ZERO.sub("'h0", _CONCATENATION.sub(_repetitions, line)) for line in lines)
    return "".join(f"{_wrapped(line)}\n" for line in short)


class _Module:
    """Declarations of one module so far."""

    def __init__(self) -> None:
        self.widths: dict[str, int] = {}
        self.shifts = 0

    def assign(self, target: str, expression: str) -> list[str]:
        """Lines of an assignment whose operands have the width at which Verilog computes."""
        width = _width(self._pieces(target))
        if unary := _UNARY.fullmatch(expression):
            operator, operand = unary[1], unary.groups()[1:]
            if operator == "!":
                term = operand[1] or operand[2]
                zeros = _width(self._pieces(term))
                return [f"  assign {target} = {term} == {zeros}'h0;"]
            return [f"  assign {target} = {operator} {self._resized(operand, width)};"]
        binary = _BINARY.fullmatch(expression)
        if binary is None:
            return [f"  assign {target} = {expression};"]
        left, operator, right = binary.groups()[:3], binary[4], binary.groups()[4:]
        widths = [_width(self._pieces(operand[1] or operand[2])) for operand in (left, right)]
        if operator in ("<<", ">>", ">>>"):
            inner = width if operator == "<<" else max(width, widths[0])
            amount = expression[binary.start(4) :]
            shifted = f"{self._resized(left, inner)} {amount};"
            if inner == width:
                return [f"  assign {target} = {shifted}"]
            self.shifts += 1
            whole = f"_shift_{self.shifts}_"
            return [
                f"  wire [{inner - 1}:0] {whole};",
                f"  assign {whole} = {shifted}",
                f"  assign {target} = {_bits(whole, inner, width - 1, 0)};",
            ]
        if operator[0] in "=!<>":
            width = max(widths)
        first, second = (self._resized(operand, width) for operand in (left, right))
        return [f"  assign {target} = {first} {operator} {second};"]

    def _pieces(self, term: str) -> list[tuple[str, int]]:
        """Constants and names of a term with their widths, the highest first."""
        pieces = []
        for match in _PIECE.finditer(term):
            if match[1]:
                width = int(match[1])
            elif match[5]:
                width = int(match[5]) - int(match[6] or match[5]) + 1
            else:
                width = self.widths[match[4].strip()]
            pieces.append((match[0], width))
        return pieces

    def _resized(self, operand: tuple[str | None, ...], width: int) -> str:
        """Text of an operand, extended or cut to ``width`` bits."""
        signed, signed_term, term = operand
        pieces = self._pieces(signed_term or term or "")
        missing = width - _width(pieces)
        while missing < 0:
            text, bits = pieces.pop(0)
            missing += bits
            if missing > 0:
                pieces.insert(0, (_bits(text, bits, missing - 1, 0), missing))
                missing = 0
        if missing:
            text, bits = pieces[0]
            top = _bits(text, bits, bits - 1, bits - 1) if signed else "1'h0"
            repeated = [(f"{missing}'h0", missing)] if top == "1'h0" else [(top, 1)] * missing
            pieces = repeated + pieces
        text = _joined(pieces)
        return f"$signed({text})" if signed else text


def _width(pieces: list[tuple[str, int]]) -> int:
    return sum(width for _, width in pieces)


def _value(text: str) -> int | None:
    """Value of a constant; ``None`` of anything else."""
    match = _PIECE.fullmatch(text)
    return int(match[3], _BASES[match[2]]) if match and match[1] else None


def _constant(value: int, width: int) -> str:
    return f"{width}'h{value:0{(width + 3) // 4}x}"


def _bits(text: str, width: int, high: int, low: int) -> str:
    """Bits ``high`` to ``low`` of a constant or a name of ``width`` bits."""
    value = _value(text)
    if value is not None:
        return _constant(value >> low & ((2 << (high - low)) - 1), high - low + 1)
    match = _PIECE.fullmatch(text)
    assert match is not None
    if width == 1:
        return text
    first = int(match[6] or 0)
    bits = f"{first + high}" if high == low else f"{first + high}:{first + low}"
    return f"{match[4]}[{bits}]"


def _joined(pieces: list[tuple[str, int]]) -> str:
    """Text of a term; constants side by side become one."""
    texts: list[tuple[str, int]] = []
    for text, width in pieces:
        high, low = _value(texts[-1][0]) if texts else None, _value(text)
        if high is not None and low is not None:
            width_both = texts.pop()[1] + width
            texts.append((_constant(high << width | low, width_both), width_both))
        else:
            texts.append((text, width))
    return texts[0][0] if len(texts) == 1 else f"{{ {', '.join(text for text, _ in texts)} }}"


def _repetitions(match: re.Match[str]) -> str:
    runs: list[list[str]] = []
    for piece in _PIECE.finditer(match[0]):
        if runs and runs[-1][0] == piece[0]:
            runs[-1].append(piece[0])
        else:
            runs.append([piece[0]])
    if all(len(run) < _REPEATED for run in runs):
        return match[0]
    parts: list[str] = []
    for run in runs:
        parts += run if len(run) < _REPEATED else [f"{{{len(run)}{{{run[0]}}}}}"]
    return parts[0] if len(parts) == 1 else f"{{ {', '.join(parts)} }}"


def _wrapped(line: str) -> str:
    """Break a line that is too long after commas."""
    if len(line) <= _COLUMNS or line.startswith("//") or '"' in line:
        return line
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    lines = [""]
    for part in re.split(r"(?<=,) ", line):
        joined = f"{lines[-1]} {part}" if lines[-1] else part
        if len(joined) > _COLUMNS and lines[-1]:
            lines.append(indent + part)
        else:
            lines[-1] = joined
    return "\n".join(lines)


def _fold_memory_fills(verilog: str) -> str:
    """Write words of a memory that begin with the same value as a loop, not one by one."""
    blocks = 0

    def fold(match: re.Match[str]) -> str:
        nonlocal blocks
        words = re.findall(r"^ +(\S+ ?)\[(\d+)\] = (\S+);$", match[1], re.M)
        if not words:
            return match[0]
        same = {(name, value) for name, _, value in words}
        first, last = int(words[0][1]), int(words[-1][1])
        if match[1].count("\n") != len(words) or last - first + 1 != len(words) or len(same) > 1:
            return match[0]
        blocks += 1
        name, value = same.pop()
        return (
            f"  initial begin : fill_{blocks}\n    integer i;\n"
            f"    for (i = {first}; i <= {last}; i = i + 1) {name}[i] = {value};\n  end\n"
        )

    return _FILL.sub(fold, verilog)
