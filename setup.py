"""How the checkout becomes one package, `paro`; all else is in pyproject.toml.

In a checkout the folders are packages of their own (`rtl`, `sim`, ...). An installed copy must not
claim such names in everybody's Python: there they are `paro.rtl`, `paro.sim`, ..., and the imports
between them say so. An editable installation is the checkout.
"""

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.egg_info import egg_info

FOLDERS = ("firmware_model", "fpga", "gen", "rtl", "sim")
_IMPORT = re.compile(rf"^(\s*)from ({'|'.join(FOLDERS)})(?=[.\s])", re.MULTILINE)
#: What would need more than a prefix: the name that it binds would be another.
_PLAIN_IMPORT = re.compile(rf"^\s*import ({'|'.join(FOLDERS)})\b", re.MULTILINE)


class OnePackage(build_py):
    """Builds the folders as parts of `paro`."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.editable_mode:
            return
        for folder in FOLDERS:
            self.package_dir[f"paro.{folder}"] = folder
        self.packages = [
            f"paro.{name}" if name.partition(".")[0] in FOLDERS else name for name in self.packages
        ]

    def run(self) -> None:
        if not self.editable_mode:
            # Modules of an earlier build, since moved or deleted, would be packed again.
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()

    def build_module(self, module, module_file, package):
        outfile, copied = super().build_module(module, module_file, package)
        if not self.editable_mode:
            path = Path(outfile)
            text = path.read_text(encoding="utf-8")
            if found := _PLAIN_IMPORT.search(text):
                raise SystemExit(
                    f"{module_file}: {found[0].strip()!r} cannot become part of paro; "
                    "legal: from ... import ..."
                )
            path.write_text(_IMPORT.sub(r"\1from paro.\2", text), encoding="utf-8")
        return outfile, copied


class OneName(egg_info):
    """Names `paro` alone as what importing this project adds."""

    def run(self) -> None:
        super().run()
        Path(self.egg_info, "top_level.txt").write_text("paro\n")


setup(cmdclass={"build_py": OnePackage, "egg_info": OneName})
