"""Warnings of Verilator that point to no fault in generated Verilog."""

__all__ = ["WAIVERS", "waiver_file"]

#: Rules that ``-Wall`` adds, and why the Verilog breaks them. By default Verilator has no warning.
WAIVERS = {
    "DECLFILENAME": "all modules are in one file",
    "PROCASSINIT": "registers have power-up values",
    "UNUSEDSIGNAL": "every module has clk and rst, partly used sums are sliced",
}


def waiver_file(name: str) -> str:
    """Text of the file that turns `WAIVERS` off for ``<name>.v``."""
    lines = ["`verilator_config"]
    for rule, reason in WAIVERS.items():
        lines += [f"// {reason}", f'lint_off -rule {rule} -file "*{name}.v"']
    return "\n".join(lines) + "\n"
