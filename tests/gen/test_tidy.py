"""Plain Verilog of the same function: both texts side by side in Icarus, the plain one linted."""

import itertools
import subprocess

import pytest

from gen.tidy import tidy
from sim.cosim.simulators import SIMULATORS

INPUTS = {"w": 3, "\\x.y ": 8, "one": 1, "selects": 4}
TERMS = ("w", "\\x.y ", "\\x.y [6:3]", "one", "{ w[2], w[2], w[2], w }", "5'h13")
TARGETS = (1, 4, 11)
CHOICE = """\
  function [1:0] _9_;
    input [1:0] a;
    input [7:0] b;
    input [3:0] s;
    casez (s) // synopsys parallel_case
      4'b???1:
        _9_ = b[1:0];
      4'b??1?:
        _9_ = b[3:2];
      4'b?1??:
        _9_ = b[5:4];
      4'b1???:
        _9_ = b[7:6];
      default:
        _9_ = a;
    endcase
  endfunction
"""


def expressions():
    """Assignments as Yosys writes them: an operator, two terms of one sign; the target's width."""
    for one, other in itertools.product(TERMS, TERMS):
        for operator in ("+", "-", "|"):
            for width in TARGETS:
                yield f"{one} {operator} {other}", width
                yield f"$signed({one}) {operator} $signed({other})", width
        for operator in ("==", "!=", "<", ">="):
            yield f"{one} {operator} {other}", 1
            yield f"$signed({one}) {operator} $signed({other})", 1
        for width in TARGETS:
            yield f"{one} << {other}", width
            yield f"{one} >> {other}", width
            yield f"$signed({one}) >>> {other}", width
    for term in TERMS:
        yield f"! {term}", 1
        for width in TARGETS:
            for operator in "~-":
                yield f"{operator} {term}", width
                yield f"{operator} $signed({term})", width


@pytest.fixture
def raw(seed):
    found = list(expressions())
    assert len(found) > 700
    lines = [f"module raw({', '.join([*INPUTS, 'results'])});"]
    for name, width in INPUTS.items():
        lines += [f"  input [{width - 1}:0] {name};", f"  wire [{width - 1}:0] {name};"]
    total = sum(width for _, width in found) + 2
    lines += [f"  output [{total - 1}:0] results;", f"  wire [{total - 1}:0] results;"]
    low = 0
    for expression, width in found:
        lines.append(f"  assign results[{low + width - 1}:{low}] = {expression};")
        low += width
    lines += [CHOICE, f"  assign results[{low + 1}:{low}] = _9_(w[1:0], \\x.y , selects);"]
    bench = f"""
module bench;
  reg [15:0] bits;
  wire [{total - 1}:0] before, after;
  integer seed, i;
  raw raw (bits[2:0], bits[10:3], bits[11], bits[15:12], before);
  plain plain (bits[2:0], bits[10:3], bits[11], bits[15:12], after);
  initial begin
    seed = {seed};
    for (i = 0; i < 40; i = i + 1) begin
      bits = $random(seed);
      #1 if (before !== after) begin $display("differ at %h", before ^ after); $finish; end
      if (^before === 1'bx) begin $display("unknown"); $finish; end
    end
    $display("equal");
  end
endmodule
"""
    return "\n".join(lines) + "\nendmodule\n", bench


def test_function_stays(raw, tmp_path):
    text, bench = raw
    plain = tidy(text).replace("module raw(", "module plain(")
    assert "casez" in text
    assert "casez" not in plain
    (tmp_path / "bench.v").write_text(text + plain + bench)
    command = ["iverilog", "-g2005", "-o", "bench.vvp", "-s", "bench", "bench.v"]
    subprocess.run(command, cwd=tmp_path, check=True)
    run = subprocess.run(
        ["vvp", "-n", "bench.vvp"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert run.stdout.splitlines() == ["equal"]


def test_linters_are_content(raw, tmp_path):
    (tmp_path / "raw.v").write_text(tidy(raw[0]))
    for simulator in SIMULATORS.values():
        simulator().lint(tmp_path / "raw.v", "raw")


def test_long_lines_and_repetitions():
    bits = ", ".join(f"word[{bit}]" for bit in range(30))
    expression = f"{{ word[7], word[7], word[7], {bits} }}"
    ports = "  input [29:0] word;\n  output [32:0] y;\n"
    text = f"module m(word, y);\n{ports}  assign y = {expression};\nendmodule\n"
    plain = tidy(text)
    assert "{ {3{word[7]}}, word[0], word[1]," in plain
    assert max(map(len, plain.splitlines())) <= 100
    assert plain.split() == text.replace("word[7], word[7], word[7]", "{3{word[7]}}", 1).split()
