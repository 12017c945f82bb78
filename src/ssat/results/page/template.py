"""The page's templates: every value that they show is escaped, unless it is `Markup` that a template has made."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
CHANCE = "chance"  # in place of a mode: the line of guesses
COLOURED_MODES = ("scratch", "ssl_ft", "ssat", "finetune", CHANCE)


def mode_class(mode: str) -> str:
    """The CSS class that gives an element the mode's colour."""
    return f"m-{mode}" if mode in COLOURED_MODES else "m-other"


def breakable(text: str) -> Markup:
    """A name that a narrow column breaks after its dashes, slashes and commas, and not in the middle of a word."""
    return Markup("<wbr>").join(part for part in re.split(r"(?<=[-/,])(?=[^\s-])", text))


@cache
def environment() -> Environment:
    """The templates with autoescape; a name that a template does not get is an error."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["mode_class"] = mode_class
    made.filters["breakable"] = breakable
    return made


def render_template(name: str, **values: Any) -> Markup:
    """The template templates/`name` filled with `values`."""
    return Markup(environment().get_template(name).render(values))
