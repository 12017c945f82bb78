"""Runs docs/notebooks/*.ipynb, or the named ones, and keeps what they print: make notebooks [ARGS=<files>]"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


def main() -> None:
    """Write each notebook again once it has run to its end; the first exception ends the command."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # their `!ssat ...`
    for file in [Path(word) for word in sys.argv[1:]] or sorted(NOTEBOOKS.glob("*.ipynb")):
        print(file.name, flush=True)
        notebook = nbformat.read(file, as_version=4)
        NotebookClient(notebook, timeout=1800, kernel_name="python3", coalesce_streams=True).execute()
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # times of this machine
        nbformat.write(notebook, file)


if __name__ == "__main__":
    main()
