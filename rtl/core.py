"""The accelerator core: one attention head, streams in and out."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from paro_config import Config
from rtl import interfaces


class Core(wiring.Component):
    """Attention of one head under one plan."""

    def __init__(self, config: Config):
        self.config = config
        super().__init__(
            {
                "command": In(interfaces.command_signature(config)),
                "codes": In(interfaces.codes_signature(config)),
                "fetch": Out(interfaces.fetch_signature(config)),
                "q": In(interfaces.q_signature(config)),
                "k": In(interfaces.k_signature(config)),
                "v": In(interfaces.v_signature(config)),
                "o": Out(interfaces.o_signature(config)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        return Module()
