"""What is known of image files once they have been read, kept in the user's cache folder until one of them changes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from ssat.core.errors import UserError
from ssat.core.files import file_sha256, write_text
from ssat.core.launch import say
from ssat.core.read import read_json

T = TypeVar("T")
CHUNK = 256  # files that a thread takes at a time
SAID_FROM = 100_000  # files: reading them takes from seconds to minutes


def remembered(
    kind: str, root: Path, names: Sequence[str], compute: Callable[[], list[Any]], *, home: Path | None = None
) -> list[Any]:
    """What `compute` finds in the files `names` under `root`, or what it found while they were the same.

    It is kept in the folder `home`; None = ssat's in the user's cache.

    Files are the same as long as no name, size, modification or change time differs.
    """
    table = hashlib.sha256(os.fsencode(root.resolve()))
    for name in names:
        try:
            stat = os.stat(root / name)
            state = f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\n"
        except OSError:
            state = f"{name}\0gone\n"
        table.update(state.encode(errors="surrogateescape"))
    home = home or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ssat"
    memory = home / kind / f"{table.hexdigest()}.json"
    with suppress(OSError, ValueError):
        return read_json(memory)
    found = compute()
    with suppress(OSError):  # without a cache the next start reads the files again
        write_text(memory, json.dumps(found))
    return found


def in_threads(task: Callable[[str], T], names: Sequence[str]) -> list[T]:
    """`task` of every name, in order."""
    rest = iter(names)
    chunks = iter(lambda: list(islice(rest, CHUNK)), [])
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        done = pool.map(lambda chunk: [task(name) for name in chunk], chunks)
        return [result for results in done for result in results]


def content_sha256(root: Path, names: Sequence[str]) -> str:
    """SHA-256 of the names and the bytes of the files `names` under `root`, in order.

    Raises:
        UserError: a file cannot be read.
    """

    def one(name: str) -> str:
        try:
            return file_sha256(root / name)
        except OSError as error:
            raise UserError(f"cannot read the image {root / name} ({error.strerror})", key="data.root") from error

    def compute() -> list[str]:
        if len(names) > SAID_FROM:
            say(f"reading {len(names):,} image files once, to tell later whether they have changed")
        contents = zip(names, in_threads(one, names), strict=True)
        lines = "".join(f"{name}\0{digest}\n" for name, digest in contents)
        return [hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()]

    return remembered("content", root, names, compute)[0]
