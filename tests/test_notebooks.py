"""The notebooks of docs/notebooks: executed and without an error as they lie there, and again when they are run."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.helpers import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def code_cells(file: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]


def said(cells: list[nbformat.NotebookNode]) -> str:
    return "".join(output.get("text", "") for cell in cells for output in cell.outputs)


def check(cells: list[nbformat.NotebookNode]) -> None:
    """No exception, and no command that ended with an error: a `!` does not stop a notebook."""
    errors = [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert not errors, errors[0].evalue
    assert not re.search(r"^error: |Traceback", said(cells), re.MULTILINE)


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_shows_what_it_prints(file: Path) -> None:
    cells = code_cells(file)
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    check(cells)
    text = said(cells)
    assert "test/" in text and "\x1b[2K" not in text  # a training has ended, and no bar was drawn
    assert not re.search(r"/(root|home|work|tmp)/", file.read_text())
    assert file.stat().st_size < 600_000


@pytest.mark.slow
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    notebook = nbformat.read(file, as_version=4)
    NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    check([cell for cell in notebook.cells if cell.cell_type == "code"])
