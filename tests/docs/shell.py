"""Lines of a page in a shell."""

import os
import subprocess
import sys
from pathlib import Path


def run_lines(lines: list[str], folder: Path) -> None:
    """Run lines of a page, each in a shell of its own, where its programs are found."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = "\n".join(f"( {line} )" for line in lines)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
