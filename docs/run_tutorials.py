"""Run tutorials; keep what they print, or with --check only see that they run."""

import argparse
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def run(path: Path, *, keep: bool) -> None:
    """Run a notebook from top to bottom; a cell that fails raises its error."""
    book = nbformat.read(path, as_version=4)
    options = {"coalesce_streams": True, "record_timing": False, "timeout": 3600}
    NotebookClient(book, kernel_name="python3", **options).execute()
    if keep:
        nbformat.write(book, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("notebooks", nargs="+", type=Path)
    arguments = parser.parse_args()
    for notebook in arguments.notebooks:
        print(notebook, flush=True)
        run(notebook, keep=not arguments.check)
