"""Values in the quotes that Hydra's grammar of overrides wants, and the shell around them."""

from __future__ import annotations

import os
import re
import shlex

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException


def quoted(text: str) -> str:
    """`text` in double quotes, so that Hydra and OmegaConf read these very characters.

    Source: QUOTED_VALUE in Hydra's OverrideLexer.g4; OmegaConf's escape of an interpolation.
    """
    without_keys = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)  # else ${...} would refer to another key
    return QuotedString(without_keys, Quote.double).with_quotes()


def override(key: str, text: str) -> str:
    """`key=text` as Hydra reads it as this very text: in quotes only where it would read something else."""
    try:
        is_itself = OverridesParser.create().parse_override(f"{key}={text}").value() == text and "${" not in text
    except (HydraException, ValueError):  # ValueError: thousands of digits
        is_itself = False
    return f"{key}={text if is_itself else quoted(text)}"


def typed(key: str, text: str) -> str:
    """`override` as it is typed in a shell: `'data.root="a b=c"'`. `~/` becomes the home folder, as a shell has it."""
    return shlex.quote(override(key, os.path.expanduser(text) if text.startswith("~/") else text))
