"""The findings as JSON for a bug report: no folders of the user's, no names, no keys."""

from __future__ import annotations

import getpass
import os
import re
import socket
import tempfile
from pathlib import Path
from typing import Any

SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
SHORTEST_SECRET = 8
HOMES = re.compile(r"/(?:home|Users)/[^/\s'\"]+")


def replacements(folders: dict[str, Path]) -> list[tuple[str, str]]:
    """What is written in place of what, longest first; `folders` by the word that stands for each."""
    words = {
        value: f"<{name}>"
        for name, value in os.environ.items()
        if SECRET.search(name) and len(value) >= SHORTEST_SECRET
    }
    for word, folder in {**folders, "<tmp>": Path(tempfile.gettempdir()), "~": Path.home()}.items():
        words |= {str(path): word for path in (folder.absolute(), folder.resolve()) if path != Path(path.anchor)}
    return sorted(words.items(), key=lambda pair: -len(pair[0]))


def names() -> list[str]:
    """The user's and the machine's name, where they are long enough to stand for something."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = ""
    return [name for name in (user, socket.gethostname()) if len(name) > 4]


def scrub(value: Any, pairs: list[tuple[str, str]]) -> Any:
    """`value` with all of that replaced in every text of it."""
    if isinstance(value, dict):
        return {str(key): scrub(item, pairs) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [scrub(item, pairs) for item in value]
    if not isinstance(value, str):
        return value
    for text, word in pairs:
        value = value.replace(text, word)
    for name in names():
        value = re.sub(rf"\b{re.escape(name)}\b", "<name>", value)
    return HOMES.sub("~", value)
