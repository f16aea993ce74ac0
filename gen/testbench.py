"""A plain Verilog testbench of an accelerator on a memory image: no Python, no cocotb."""

from gen.names import ACCELERATOR
from gen.ports import describe_ports
from gen.texts import render
from gen.verilog import generator_name
from paro.config import Config
from paro.config.registers import MAGIC, REGISTER_ADDRESS_BITS, REGISTERS, find_register

__all__ = ["testbench"]

#: Inputs of the accelerator that continuous assignments drive; the others are the host's.
_DRIVEN = ("ready", "rvalid", "rlast", "rid", "rresp", "rdata", "bvalid", "bid", "bresp")


def testbench(
    config: Config,
    name: str | None,
    *,
    base: int,
    words: int,
    queue_base: int,
    jobs: int,
    expected: int,
    cycles: int,
    aresetn: bool,
) -> str:
    """Verilog-2005 of module ``testbench``, for Icarus and Verilator.

    Parameters
    ----------
    config : Config
        The accelerator.
    name : str or None
        Of its module, as for `gen.generate.generate`.
    base, words : int
        Byte address and size, in words of 4 bytes, of the memory in ``memory.hex``.
    queue_base, jobs : int
        Address and number of the descriptors.
    expected : int
        Lines of ``expected.hex``.
    cycles : int
        After which the accelerator counts as hung.
    aresetn : bool
        Whether it lies in a shell, see `gen.shell`.
    """
    described = describe_ports(config, ACCELERATOR, name, aresetn=aresetn)
    ports = [
        (port["name"], f"{port['direction']}put", port["width"])
        for port in described["ports"]
        if port["name"] not in (described["clock"], described["reset"])
    ]
    control, status = find_register("CONTROL"), find_register("STATUS")
    return render(
        "testbench.v.j2",
        module=described["module"],
        clock=described["clock"],
        reset=described["reset"],
        reset_low=aresetn,
        generator=generator_name(),
        beat_bytes=config.axi_bits // 8,
        base=base,
        words=words,
        queue_base=queue_base,
        jobs=jobs,
        expected=expected,
        cycles=cycles,
        ports=ports,
        driven=[
            port
            for port, direction, _ in ports
            if direction == "input" and port.startswith("m_axi") and port.endswith(_DRIVEN)
        ],
        register_bits=REGISTER_ADDRESS_BITS,
        offsets={register.name: register.offset for register in REGISTERS},
        magic=MAGIC,
        start=control.field("start").mask | control.field("interrupt_enable").mask,
        done=status.field("done").mask,
    )
