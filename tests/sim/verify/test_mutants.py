"""Mutants of a small module: chosen, put into one text, and at work one at a time."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from sim.verify.equivalence import same_in_every_state
from sim.verify.mutants import MUTANT, Mutant, choose_mutants, mutated_verilog
from sim.verify.mutation import LEAST_SCORE, load_judgements

PUBLISHED = Path(__file__).parents[3] / "docs" / "runs" / "mutants.json"
TOP = "sample"
#: An adder with a register, a part whose output nobody reads, and a choice that changes nothing.
VERILOG = """\
module sample__part(clk, rst, x, kept, dead);
  input clk; input rst; input [3:0] x; output [3:0] kept; output [3:0] dead;
  reg [3:0] state;
  assign kept = state;
  assign dead = x ^ state;
  always @(posedge clk) state <= rst ? 4'h0 : x + state;
endmodule

module sample(clk, rst, x, y);
  input clk; input rst; input [3:0] x; output [3:0] y;
  wire [3:0] kept, dead;
  wire same;
  assign same = kept[0] | (kept[0] & x[3]);
  assign y = same ? { kept[3:1], 1'b1 } : kept;
  sample__part part(.clk(clk), .rst(rst), .x(x), .kept(kept), .dead(dead));
endmodule
"""
BENCH = """\
module bench;
  reg clk = 0; reg [3:0] x = 0; wire [3:0] y; integer i;
  sample sample(.clk(clk), .rst(i == 0), .x(x), .y(y));
  initial for (i = 0; i < 40; i = i + 1) begin
    x = i * 7; #1 clk = 1; #1 clk = 0; #1 $display("%h", y);
  end
endmodule
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutants")


@pytest.fixture(scope="module")
def mutants(folder: Path) -> list[Mutant]:
    return choose_mutants(VERILOG, TOP, 400, 1, folder)


@pytest.fixture(scope="module")
def outputs(folder: Path, mutants: list[Mutant]) -> dict[int, str]:
    """What the design puts out with each mutant, and with none (0)."""
    (folder / "mutated.v").write_text(mutated_verilog(TOP, mutants, folder))
    (folder / "bench.v").write_text(BENCH)
    command = ["iverilog", "-g2005", "-s", "bench", "-o", "bench", "mutated.v", "bench.v"]
    subprocess.run(command, cwd=folder, check=True)

    def run(number: int) -> str:
        command = ["vvp", "bench", f"+{MUTANT}={number}"]
        return subprocess.run(
            command, cwd=folder, check=True, capture_output=True, text=True
        ).stdout

    return {number: run(number) for number in (0, *(mutant.number for mutant in mutants))}


def test_without_a_mutant_the_design_is_as_it_was(folder: Path, outputs: dict[int, str]) -> None:
    (folder / "original.v").write_text(VERILOG)
    command = ["iverilog", "-g2005", "-s", "bench", "-o", "original", "original.v", "bench.v"]
    subprocess.run(command, cwd=folder, check=True)
    run = subprocess.run(
        ["vvp", "original"], cwd=folder, check=True, capture_output=True, text=True
    )
    assert outputs[0] == run.stdout
    assert len(set(outputs[0].split())) > 3


def test_mutants_are_changes_that_reach_an_output(mutants: list[Mutant]) -> None:
    assert [mutant.number for mutant in mutants] == list(range(1, len(mutants) + 1))
    assert len(mutants) > 50
    assert {mutant.place for mutant in mutants} == {"top", "part"}
    assert {mutant.mode for mutant in mutants} == {"inv", "const0", "const1", "cnot0", "cnot1"}
    for mutant in mutants:
        assert mutant.port not in ("CLK", "clk", "dead"), mutant.text
        assert "x ^ state" not in mutant.line, mutant.text
        assert not re.search(r"\b_\d+_\b", mutant.line), mutant.text


def test_one_mutant_is_at_work_at_a_time(mutants: list[Mutant], outputs: dict[int, str]) -> None:
    killed = [mutant for mutant in mutants if outputs[mutant.number] != outputs[0]]
    assert len(killed) > 0.7 * len(mutants)
    # Each of its own: few mutants are the same change.
    assert len({outputs[mutant.number] for mutant in killed}) > 10


def test_proofs(folder: Path, mutants: list[Mutant], outputs: dict[int, str]) -> None:
    """What is proven to be the same is; the choice of a bit that is there is proven."""
    same = [m for m in mutants if m.mode == "inv" and "kept[0] & x[3]" in m.line and m.port == "B"]
    other = [m for m in mutants if outputs[m.number] != outputs[0]]
    assert same
    assert other
    assert same_in_every_state(TOP, same[0], folder)
    assert not same_in_every_state(TOP, other[0], folder)


def test_the_published_list() -> None:
    """Its score reaches the goal; every judgement speaks of mutants of it, and of no other's."""
    published = json.loads(PUBLISHED.read_text())
    assert len(published["results"]) >= 1000
    assert published["score"] >= LEAST_SCORE
    judged = [
        (result["subject"], Mutant(**result["mutant"]), result["reason"])
        for result in published["results"]
        if result["verdict"] == "equivalent" and not result["reason"].startswith("Proved")
    ]
    judgements = load_judgements()
    for subject, mutant, reason in judged:
        assert reason in {each.reason for each in judgements if each.is_of(subject, mutant)}
    for each in judgements:
        assert any(each.is_of(subject, mutant) for subject, mutant, _ in judged), each
        assert not any(each.is_of("another", mutant) for _, mutant, _ in judged)
