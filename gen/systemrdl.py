"""The register map in SystemRDL 2.0, for PeakRDL and other tools of register maps."""

from gen.texts import render
from gen.verilog import generator_name
from paro.config import Config
from paro.config.registers import CAUSES, REGISTER_ADDRESS_BITS, REGISTER_BITS, REGISTERS, Field

__all__ = ["registers_rdl"]

#: Properties of a field for each kind of access.
_ACCESS = {
    "ro": ("sw = r", "hw = w"),
    "rw": ("sw = rw", "hw = r"),
    "w1c": ("sw = rw", "onwrite = woclr", "hw = r", "hwset"),
    "strobe": ("sw = w", "hw = r", "singlepulse"),
}
#: Those of a field that is known when a configuration is generated.
_CONSTANT = ("sw = r", "hw = na")
#: Field that holds one of `CAUSES`.
_CAUSE = ("STATUS", "cause")


def registers_rdl(config: Config, module: str) -> str:
    """Text of ``<module>.rdl``: an address map of the module's name, from `REGISTERS`."""
    return render(
        "registers.rdl.j2",
        module=module,
        generator=generator_name(),
        digest=config.digest(),
        bits=REGISTER_BITS,
        size=2**REGISTER_ADDRESS_BITS,
        cause_bits=max(CAUSES).bit_length(),
        causes=[(cause.name, cause.value, _quoted(text)) for cause, text in CAUSES.items()],
        registers=[
            {
                "name": register.name,
                "offset": register.offset,
                "description": _quoted(register.description),
                "fields": [
                    {
                        "name": field.name,
                        "high": field.low + field.width - 1,
                        "low": field.low,
                        "width": field.width,
                        "reset": field.initial(config),
                        "description": _quoted(field.description),
                        "properties": _properties(register.name, field),
                    }
                    for field in register.fields
                ],
            }
            for register in REGISTERS
        ],
    )


def _properties(register: str, field: Field) -> tuple[str, ...]:
    access = _ACCESS[field.access] if field.constant is None else _CONSTANT
    return (*access, "encode = paro_cause") if (register, field.name) == _CAUSE else access


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'
