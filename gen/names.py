"""Names of generated modules and files: one for each configuration.

Verilog has one space of module names. Every module of a generated file begins with the name of its
top module, and the default name of that contains the configuration's digest, so that any number of
cores and accelerators can be in one design. A name that is chosen stays when the configuration
changes.
"""

import re

from paro.config import Config, ParoError

__all__ = ["ACCELERATOR", "CORE", "module_name"]

#: Tops that can be generated.
CORE, ACCELERATOR = "core", "accelerator"

#: Longest name; there is room for the additions of inner modules and files.
_LONGEST = 100
#: Reserved words of Verilog (IEEE 1364-2005) and SystemVerilog (IEEE 1800-2017): simulators take a
#: file for either.
_KEYWORDS = """
    accept_on alias always always_comb always_ff always_latch and assert assign assume automatic
    before begin bind bins binsof bit break buf bufif0 bufif1 byte case casex casez cell chandle
    checker class clocking cmos config const constraint context continue cover covergroup
    coverpoint cross deassign default defparam design disable dist do edge else end endcase
    endchecker endclass endclocking endconfig endfunction endgenerate endgroup endinterface
    endmodule endpackage endprimitive endprogram endproperty endsequence endspecify endtable
    endtask enum event eventually expect export extends extern final first_match for force
    foreach forever fork forkjoin function generate genvar global highz0 highz1 if iff ifnone
    ignore_bins illegal_bins implements implies import incdir include initial inout input inside
    instance int integer interconnect interface intersect join join_any join_none large let
    liblist library local localparam logic longint macromodule matches medium modport module
    nand negedge nettype new nexttime nmos nor noshowcancelled not notif0 notif1 null or output
    package packed parameter pmos posedge primitive priority program property protected pull0
    pull1 pulldown pullup pulsestyle_ondetect pulsestyle_onevent pure rand randc randcase
    randsequence rcmos real realtime ref reg reject_on release repeat restrict return rnmos
    rpmos rtran rtranif0 rtranif1 s_always s_eventually s_nexttime s_until s_until_with scalared
    sequence shortint shortreal showcancelled signed small soft solve specify specparam static
    string strong strong0 strong1 struct super supply0 supply1 sync_accept_on sync_reject_on
    table tagged task this throughout time timeprecision timeunit tran tranif0 tranif1 tri tri0
    tri1 triand trior trireg type typedef union unique unique0 unsigned until until_with untyped
    use uwire var vectored virtual void wait wait_order wand weak weak0 weak1 while wildcard
    wire with within wor xnor xor
"""


def module_name(config: Config, top: str, name: str | None = None, *, aresetn: bool = False) -> str:
    """Name of a core or an accelerator: ``name`` if modules and files can have it.

    The default has its shape, to be read, and its digest, to differ by; with ``aresetn`` (see
    `gen.shell`) it differs from that without. Two underscores in a row
    are kept for the modules within: none of them can then have the name of another top module.

    Raises
    ------
    ParoError
        If ``name`` is no Verilog identifier, or one that is reserved; if a core has ``aresetn``.
    """
    if aresetn and top != ACCELERATOR:
        raise ParoError("aresetn is a port of AXI, which a core does not have; legal: accelerator")
    if name is None:
        shape = f"{config.rows}x{config.cols}_b{config.block}_d{config.head_dim}"
        return f"paro_{top}{'_aresetn' if aresetn else ''}_{shape}_{config.digest()[:8]}"
    if name in _KEYWORDS.split():
        raise ParoError(f"name = {name!r} is a keyword of Verilog; no module can have it")
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) or "__" in name or len(name) > _LONGEST:
        raise ParoError(
            f"name = {name!r} is not legal; legal: at most {_LONGEST} letters, digits and single "
            "underscores, no digit first"
        )
    return name
