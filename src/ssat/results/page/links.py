"""Links from the page to the folders of runs."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from ssat.runs.record import Record


def folder_link(record: Record, page: Path) -> str:
    """The address of the run's folder relative to the page's file."""
    folder = Path(os.path.relpath(record.folder.resolve(), page.resolve().parent)).as_posix()
    return f"./{quote(os.fsencode(folder))}"
