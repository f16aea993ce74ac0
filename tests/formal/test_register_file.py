"""The handshakes of the register file, proven."""

import pytest
from amaranth.hdl import Signal

from paro.config import PRESETS
from rtl.accelerator.register_file import RegisterFile
from tests.formal.prove import Proof, mutant

CONFIG = PRESETS["tiny"]


def properties(proof: Proof, registers: RegisterFile) -> None:
    bus = registers.s_axil
    answered = bus.bvalid & bus.bready
    addresses, words, reads = (Signal(2, name=name) for name in ("addresses", "words", "reads"))
    proof.m.d.sync += [
        addresses.eq(addresses + (bus.awvalid & bus.awready) - answered),
        words.eq(words + (bus.wvalid & bus.wready) - answered),
        reads.eq(reads + (bus.arvalid & bus.arready) - (bus.rvalid & bus.rready)),
    ]
    proof.holds(proof.kept(bus.bvalid, bus.bready, bus.bresp))
    proof.holds(proof.kept(bus.rvalid, bus.rready, bus.rdata, bus.rresp))
    proof.holds(~bus.bvalid | ((addresses != 0) & (words != 0)))
    proof.holds(bus.rvalid == (reads != 0))
    proof.holds(reads <= 1)
    # At most one write waits behind the one that is being answered.
    proof.holds(addresses == bus.bvalid + ~bus.awready)
    proof.holds(words == bus.bvalid + ~bus.wready)
    proof.holds(~proof.past((addresses != 0) & (words != 0) & ~bus.bvalid) | bus.bvalid)
    proof.reach((addresses == 2) & (words == 2) & answered)
    proof.reach(answered & bus.rvalid & bus.rready)


@pytest.mark.proof(of=RegisterFile, mode="prove", depth=2)
def test_proven(judge) -> None:
    """Every read is answered in the next cycle and every write once its address and its data are
    there, none without both; what is answered stays until it is taken.
    """
    verdict = judge(RegisterFile(CONFIG), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.proof(of=RegisterFile, mode="cover", depth=10)
def test_reached(judge) -> None:
    """A write waits behind one that is being answered; a read is answered beside a write."""
    verdict = judge(RegisterFile(CONFIG), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.slow
@pytest.mark.proof(of=RegisterFile, mode="bmc", depth=8, mutant=True)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("bus.arready.eq(~bus.rvalid)", "bus.arready.eq(1)"),
        ("with m.If(bus.rready):", "with m.If(bus.rvalid):"),
        ("bus.wready.eq(~data_held)", "bus.wready.eq(1)"),
        ("address_held & data_held & ~bus.bvalid", "address_held & data_held"),
        ("address_held & data_held & ~bus.bvalid", "address_held & ~bus.bvalid"),
        ("with m.If(bus.bready):", "with m.If(bus.bvalid):"),
    ],
)
def test_mutants_are_refuted(old: str, new: str, judge) -> None:
    """Broken files answer what was not asked, or twice."""
    verdict = judge(mutant(RegisterFile, old, new)(CONFIG), properties)
    assert verdict.status == "FAIL", verdict
