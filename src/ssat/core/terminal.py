"""Text for a terminal: what files say, such as the names of runs and classes, cannot steer it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TextIO

from rich import console
from rich.segment import Segment

from ssat.core.words import printable


class Console(console.Console):
    """Rich's console, which writes control characters and marks of writing direction as Python does: `\\x1b`.

    Its own colours and movements are no text, and stay.
    """

    def render(self, renderable: Any, options: console.ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of anything that Rich can print."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def tell(*lines: object, file: TextIO | None = None) -> None:
    """Print lines at once, by default to standard output; see `Console` for what becomes of control characters."""
    for line in lines:
        print(printable(str(line)), file=file, flush=True)
