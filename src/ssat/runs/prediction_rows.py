"""CSV files of predictions: written whole or not at all, and read back."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ssat.core.errors import UserError
from ssat.core.files import write_text
from ssat.core.read import MOST_TABLE, read_bytes, table_lines
from ssat.core.words import utf_8


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """Write a heading and the rows."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return write_text(path, utf_8(text.getvalue()))


def read_rows(path: Path) -> list[list[str]]:
    """The heading and the rows of a file of `write_rows`.

    Raises:
        UserError: there is no such file, or it is no CSV.
    """
    try:
        text = io.StringIO(read_bytes(path, MOST_TABLE).decode(), newline="")
        return list(csv.reader(table_lines(text), strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"the predictions {path} cannot be read ({error}): evaluate the run again") from error
