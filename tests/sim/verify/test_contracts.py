"""The list of contracts: those of the sources, all of them."""

import ast

import pytest

from gen.names import ACCELERATOR, CORE
from gen.verilog import BROKEN_CONTRACT
from paro.config import PRESETS
from sim.verify.contracts import Contract, list_contracts
from tests.places import ROOT

TINY = PRESETS["tiny"]
SUPERBLOCKS = TINY.changed(query_rows=2, key_slots=4)
CLUSTER = SUPERBLOCKS.changed(cores=2, vector_channels=128, axi_bits=64)


def test_contracts_of_a_core():
    found = list_contracts(TINY)
    assert Contract("ArraySequencer", "at most two blocks lie between QK and PV") in found
    assert Contract("BlockScheduler", "what is offered as fetch stays until it is taken") in found
    assert len(found) == len(set(found)) > 30
    assert not any(BROKEN_CONTRACT in contract.sentence for contract in found)


#: What each method makes of the sentence, or of the name, that it is given.
METHODS = {
    "asks": "{}",
    "holds": "{}",
    "keeps": "what is offered as {} stays until it is taken",
    "asks_to_keep": "what is offered as {} stays until it is taken",
    "has_room": "there is room for {}",
    "asks_constant": "{} stays while it is used",
}


def written() -> set[str]:
    """Sentences of all contracts in the sources whose text is a constant."""
    found = set()
    for path in sorted((ROOT / "rtl").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                text = METHODS.get(node.func.attr)
                given = node.args[1] if text and len(node.args) > 1 else None
                if isinstance(given, ast.Constant) and isinstance(given.value, str) and text:
                    found.add(text.format(given.value))
    return found


@pytest.mark.slow
def test_every_contract_of_the_sources_is_in_a_device():
    sentences = {
        contract.sentence
        for config, top in ((TINY, ACCELERATOR), (SUPERBLOCKS, CORE), (CLUSTER, ACCELERATOR))
        for contract in list_contracts(config, top)
    }
    assert len(written()) > 60
    assert written() - sentences == set()
