"""Packages that the project's own metadata asks for, and how to get those that are not there."""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement

__all__ = ["DISTRIBUTION", "Dependency", "dependencies", "install_command", "provider"]

DISTRIBUTION = "paro-accelerator"
#: Modules that are not named after the distribution that brings them.
_PROVIDERS = {
    "PIL": "pillow",
    "cocotb_tools": "cocotb",
    "cocotbext": "cocotbext-axi",
    "serial": "pyserial",
}


@dataclass(frozen=True)
class Dependency:
    """A package that the project needs.

    Parameters
    ----------
    requirement : Requirement
        Its name and legal versions.
    extra : str
        Extra of the project that asks for it; empty for what everything needs.
    """

    requirement: Requirement
    extra: str

    def found(self) -> str | None:
        """Installed version; ``None`` if there is none, or one that is not legal."""
        try:
            version = metadata.version(self.requirement.name)
        except metadata.PackageNotFoundError:
            return None
        return version if self.requirement.specifier.contains(version, prereleases=True) else None


def dependencies() -> Iterator[Dependency]:
    """All packages that the metadata names, those of the extras included."""
    extras = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    for text in metadata.requires(DISTRIBUTION) or []:
        requirement = Requirement(text)
        if requirement.name == DISTRIBUTION:  # an extra that holds others
            continue
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}):
            yield Dependency(requirement, "")
        else:
            fitting = (name for name in extras if marker.evaluate({"extra": name}))
            yield Dependency(requirement, next(fitting, ""))


def install_command(extra: str = "") -> str:
    """Command that installs the project again with an extra."""
    if importlib.util.find_spec("paro.rtl") is None:  # a checkout, see setup.py
        return "make setup"
    return f"pip install '{DISTRIBUTION}[{extra}]'" if extra else f"pip install {DISTRIBUTION}"


def provider(module: str) -> Dependency | None:
    """Dependency that brings a module; ``None`` if no dependency does."""
    top = module.partition(".")[0]
    name = _PROVIDERS.get(top, top).replace("_", "-").lower()
    return next((one for one in dependencies() if one.requirement.name.lower() == name), None)
