"""`ssat prepare data=flowers` of a small set in the official form.

python -m tests.faults.prepare_small <mirror> <folder>

Everything is the command's own but the catalog, which describes the small set, and the disk that it comes from.
"""

# ruff: noqa: E402
from __future__ import annotations

from ssat.core import interrupts

interrupts.end_at_once(stopped=130)  # as the command's own first lines do

import hashlib
import sys
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

from ssat.commands.__main__ import main
from ssat.data.sets import manifest
from ssat.data.sets.catalog import CATALOG
from ssat.data.sets.obtain import READERS
from tests.data.official import WRITERS

NAME = "flowers"


def publish(mirror: Path) -> None:
    """Write the set as its makers pack it, once."""
    if mirror.exists():
        return
    mirror.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=mirror.parent))
    WRITERS[NAME](part / "made")
    for file in CATALOG[NAME].downloads:
        whole = part / "made" / file.folder / (file.unpacks or file.name)
        if file.unpacks:
            with tarfile.open(part / file.name, "w:gz") as tar:
                tar.add(whole, file.unpacks)
        else:
            (part / file.name).write_bytes(whole.read_bytes())
    part.rename(mirror)


def describe(mirror: Path) -> None:
    """Let the catalog describe the small set."""
    made, card = mirror / "made", CATALOG[NAME]
    source = READERS[NAME](made, verify=False)
    downloads = tuple(replace(file, md5=_md5(mirror / file.name), megabytes=0.1) for file in card.downloads)
    contents = {name: _md5(made / card.folder / name) for name in card.contents}
    counts = {"train": len(source.train), "test": len(source.test or ()), "classes": len(source.classes)}
    val = None if source.val is None else len(source.val)
    CATALOG[NAME] = replace(card, **counts, val=val, downloads=downloads, contents=contents, disk=1)
    manifest.FROZEN[NAME] = manifest.describe(source)


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    place = Path(sys.argv[1])
    publish(place)
    describe(place)
    sys.argv[1:] = [f"data={NAME}", f"data.root={sys.argv[2]}", f"mirror={place.as_uri()}"]
    main("prepare")
