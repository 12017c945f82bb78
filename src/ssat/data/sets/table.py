"""Tables of the user's own: a header and rows, as spreadsheets save them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from ssat.core.read import MOST_TABLE, read_bytes, table_lines

Rows = list[tuple[int, list[str]]]


def read_table(path: Path) -> tuple[list[str], Rows]:
    """The header of a table, and its rows with their line numbers; commas, semicolons or tabs separate the cells.

    A byte order mark, any line endings and blank lines are no part of it.

    Raises:
        ValueError: why it cannot be read, as the end of a sentence that begins with the key and its value.
    """
    try:
        text = read_bytes(path, MOST_TABLE).decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"cannot be read, {str(path)!r}: {error.strerror} (a path counts from here)") from None
    except UnicodeDecodeError:
        raise ValueError(f"cannot be read: {str(path)!r} is not UTF-8 text, save it as such") from None
    except ValueError as error:
        raise ValueError(f"cannot be read, {str(path)!r}: {error}") from None
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    reader = csv.reader(table_lines(io.StringIO(text, newline=""), separator), delimiter=separator)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except (csv.Error, ValueError) as error:
        raise ValueError(f"is no table, line {reader.line_num} of {str(path)!r}: {error}") from None
    if not rows:
        raise ValueError(f"is an empty table: {str(path)!r} needs a header and a row for each image")
    return [cell.strip() for cell in rows[0][1]], rows[1:]
