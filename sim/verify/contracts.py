"""The contracts that a device is simulated with, see `rtl.lib.contract`."""

import re
from dataclasses import dataclass

from gen.names import CORE
from gen.verilog import BROKEN_CONTRACT, generate_verilog
from paro.config import Config

__all__ = ["Contract", "list_contracts"]

_SENTENCE = re.compile(rf'"{BROKEN_CONTRACT} %m: (\w+): ((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, order=True)
class Contract:
    """What a component promises or asks for.

    Parameters
    ----------
    component : str
        Its class.
    sentence : str
        What a simulation says when it is broken.
    """

    component: str
    sentence: str


def list_contracts(config: Config, top: str = CORE) -> list[Contract]:
    """All contracts of a device, each once, however many instances keep it.

    Parameters
    ----------
    config : Config
    top : str
        See `gen.verilog.TOPS`.
    """
    verilog = generate_verilog(config, top, contracts=True)
    return sorted({Contract(*found) for found in _SENTENCE.findall(verilog)})
