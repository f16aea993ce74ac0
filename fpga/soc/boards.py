"""Boards that an accelerator with memory and link can be built for; LiteX knows their pins."""

import ast
import importlib
import importlib.util
import inspect
import pkgutil
import traceback
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from paro.config import ParoError
from paro.config.named import find_named

__all__ = ["SIMULATED_BIT", "SOC_BOARDS", "Memory", "SocBoard", "find_soc_board", "require_litex"]

#: Clocks of a bit of a simulated board's line: a real one has several times as many.
SIMULATED_BIT = 4

#: What begins the name of a target of LiteX that is not in the table, and its line's bits a second
#: unless the user says otherwise: what any USB adapter can do.
_ANY, _ANY_BAUD = "litex:", 115_200


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Memory of a board.

    Parameters
    ----------
    kind : str
        As LiteDRAM names it: SDR, DDR3.
    module : str
        Memory chip, as `litedram.modules` names it.
    rate : str
        Clock of the controller to that of the memory, as LiteDRAM writes it.
    data_bits, size : int
        Width of the data; bytes.
    """

    kind: str
    module: str
    rate: str
    data_bits: int
    size: int


@dataclass(frozen=True, kw_only=True)
class SocBoard:
    """One board.

    Parameters
    ----------
    name : str
        Value of ``--board``.
    target : str
        Module of `litex_boards.targets`, or a file in the same terms.
    options : dict
        Arguments of the target's ``BaseSoC``.
    device : str
        Its FPGA; empty if only LiteX knows.
    memory : Memory or None
        None if only LiteX knows.
    clock_mhz : float or None
        Clock of memory, bus and accelerator; None: the target's own.
    baud : int
        Bits a second of the serial line.
    link : str
        What carries the serial line.
    extension : str
        Pins of the target's platform that have the line, if it has none otherwise.
    loader : str
        Board, as openFPGALoader names it; empty if it is not known.
    preset : str
        Largest preset of `paro.config.PRESETS` that is known to fit; empty if none was tried.
    tried : str
        What was tried of it, without the board.
    """

    name: str
    target: str
    options: dict[str, Any] = field(default_factory=dict)
    device: str = ""
    memory: Memory | None = None
    clock_mhz: float | None = None
    baud: int = _ANY_BAUD
    link: str = ""
    extension: str = ""
    loader: str = ""
    preset: str = ""
    tried: str = "nothing"

    @property
    def has_ethernet(self) -> bool:
        """Whether it is built with LiteEth's Etherbone."""
        return bool(self.options.get("with_etherbone"))

    def base_soc(self) -> Any:
        """Class of LiteX's SoC for it.

        Raises
        ------
        ParoError
            If a package of LiteX is missing, there is no such target, or it is not in LiteX's
            terms.
        """
        require_litex()
        try:
            if self.target.endswith(".py"):
                found = _load(Path(self.target))
            else:
                found = importlib.import_module(f"litex_boards.targets.{self.target}")
        except ModuleNotFoundError as error:
            raise ParoError(
                f"board {self.name} needs the package {error.name}, which is not installed; get "
                f"LiteX's with: make setup (or pip install 'paro-accelerator[board]')"
            ) from None
        if not hasattr(found, "BaseSoC"):
            raise ParoError(
                f"board {self.name} has no class BaseSoC; legal: targets as those of litex_boards"
            )
        return found.BaseSoC


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ParoError(f"board {path} cannot be read; legal: a Python file with a LiteX target")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError:
        raise
    # The file is the reader's own: it may raise anything.
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        where = lines[-1] if lines else getattr(error, "lineno", 1)
        raise ParoError(
            f"board {path} does not run, line {where}: {type(error).__name__}: {error}; legal: a "
            "Python file with a LiteX target"
        ) from None
    return module


_M12L64322A = Memory(kind="SDR", module="M12L64322A", rate="1:1", data_bits=32, size=8 << 20)


def _ulx3s(size: str, tried: str = "nothing") -> SocBoard:
    return SocBoard(
        name=f"ulx3s-{size}f",
        target="radiona_ulx3s",
        options={"device": f"LFE5U-{size}F", "with_led_chaser": True},
        device=f"LFE5U-{size}F",
        memory=Memory(kind="SDR", module="MT48LC16M16", rate="1:1", data_bits=16, size=32 << 20),
        clock_mhz=50.0,
        baud=3_000_000,
        link="USB (FT231X)",
        loader="ulx3s",
        tried=tried,
    )


def _orangecrab(size: str, tried: str = "nothing") -> SocBoard:
    return SocBoard(
        name=f"orangecrab-{size}f",
        target="gsd_orangecrab",
        options={"device": f"{size}F", "with_led_chaser": True},
        device=f"LFE5U-{size}F",
        memory=Memory(kind="DDR3", module="MT41K64M16", rate="1:2", data_bits=16, size=128 << 20),
        clock_mhz=48.0,
        baud=1_000_000,
        link="pins 0 and 1, with an adapter",
        extension="feather_serial",
        loader="orangecrab",
        tried=tried,
    )


def _ecpix5(size: str, tried: str = "nothing") -> SocBoard:
    return SocBoard(
        name=f"ecpix5-{size}f",
        target="lambdaconcept_ecpix5",
        options={"device": f"{size}F", "with_etherbone": True, "with_led_chaser": True},
        device=f"LFE5UM5G-{size}F",
        memory=Memory(kind="DDR3", module="MT41K256M16", rate="1:2", data_bits=16, size=512 << 20),
        clock_mhz=50.0,
        baud=3_000_000,
        link="USB (FT2232H)",
        loader="ecpix5",
        tried=tried,
    )


def _colorlight(model: str, revision: str, device: str, tried: str = "nothing") -> SocBoard:
    return SocBoard(
        name=f"colorlight-{model}",
        target="colorlight_i5",
        options={
            "board": model,
            "revision": revision,
            "with_etherbone": True,
            "with_led_chaser": True,
        },
        device=device,
        memory=_M12L64322A,
        clock_mhz=50.0,
        link="USB of the extension board",
        loader=f"colorlight-{model}",
        tried=tried,
    )


#: Boards by name.
SOC_BOARDS: dict[str, SocBoard] = {
    board.name: board
    for board in (
        _ulx3s("12"),
        _ulx3s("25"),
        _ulx3s("45", "placed and routed: tiny, 53.6 MHz"),
        _ulx3s("85", "simulated board"),
        _orangecrab("25", "simulated board; project"),
        _orangecrab("85"),
        _ecpix5("45", "project"),
        _ecpix5("85"),
        SocBoard(
            name="versa-ecp5",
            target="lattice_versa_ecp5",
            options={"with_etherbone": True, "with_led_chaser": True},
            device="LFE5UM5G-45F",
            memory=Memory(
                kind="DDR3", module="MT41K64M16", rate="1:2", data_bits=16, size=128 << 20
            ),
            clock_mhz=50.0,
            baud=3_000_000,
            link="USB (FT2232H)",
            tried="project",
        ),
        _colorlight("i5", "7.0", "LFE5U-25F", "project"),
        _colorlight("i9", "7.2", "LFE5U-45F"),
        SocBoard(
            name="tang-nano-20k",
            target="sipeed_tang_nano_20k",
            device="GW2AR-LV18",
            memory=_M12L64322A,
            clock_mhz=48.0,
            baud=1_000_000,
            link="USB (BL616)",
            loader="tangnano20k",
            tried="project, for Gowin's tools",
        ),
    )
}


def find_soc_board(name: str) -> SocBoard:
    """Board of that name.

    Parameters
    ----------
    name : str
        One of the table; ``litex:TARGET`` of any target of litex_boards, or of a Python file that
        has such a target (``litex:FILE.py``), with ``,OPTION=VALUE`` for each argument of its
        ``BaseSoC``, and ``,baud=N`` for the serial line.

    Raises
    ------
    ParoError
        If there is none, or it has no such option; the sentence lists what is legal.
    """
    if not name.startswith(_ANY):
        if name not in SOC_BOARDS:
            raise ParoError(
                f"no board {name!r}; legal: {', '.join(SOC_BOARDS)}, and any target of LiteX as "
                "litex:TARGET or litex:FILE.py"
            )
        return SOC_BOARDS[name]
    target, *given = name.removeprefix(_ANY).split(",")
    require_litex()
    if target.endswith(".py"):
        # LiteX works in another folder.
        target = str(Path(target).absolute())
        name = _ANY + ",".join([target, *given])
    else:
        find_named("target of LiteX", target, dict.fromkeys(_targets()))
    options: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise ParoError(f"option {text!r} of board {name} is not legal; legal: NAME=VALUE")
        options[key] = _value(value)
    baud = options.pop("baud", _ANY_BAUD)
    if not isinstance(baud, int) or not 9600 <= baud <= 12_000_000:
        raise ParoError(f"baud = {baud} is not legal; legal: 9600 to 12000000")
    board = SocBoard(name=name, target=target, options=options, baud=baud, link="serial port")
    arguments = inspect.signature(board.base_soc().__init__).parameters
    legal = [key for key in arguments if key not in ("self", "kwargs", "sys_clk_freq")]
    for key in options:
        if key not in legal:
            raise ParoError(
                f"board {name} has no option {key!r}; legal: {', '.join([*legal, 'baud'])}"
            )
    return board


def _targets() -> list[str]:
    package = importlib.import_module("litex_boards.targets")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def _value(text: str) -> Any:
    """Value of an option: a number, a truth value, or else a text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def require_litex() -> None:
    """Refuse to go on without LiteX.

    Raises
    ------
    ParoError
        If a package of it is missing; the sentence says how to get it.
    """
    for package in ("litex", "litedram", "litex_boards"):
        if find_spec(package) is None:
            raise ParoError(
                f"boards need {package}, which is not installed; get it with: make setup "
                "(or pip install 'paro-accelerator[board]')"
            )
