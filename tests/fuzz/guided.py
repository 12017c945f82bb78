"""Coverage-guided fuzzing of one reader with atheris (`pip install atheris`), which looks for inputs of new branches.

    python -m tests.fuzz.guided reader=image seconds=600 [corpus=<folder>] [seed=0]

`corpus` holds files to begin with, and gets those that reached something new. Any exception that the reader's docstring
does not name ends it, with the input in ./crash-<hash>; so does an input that takes 10 seconds or 2 GB.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(words: Sequence[str]) -> None:
    """The command."""
    given = {"reader": "", "seconds": "600", "corpus": "", "seed": "0"} | dict(word.split("=", 1) for word in words)
    import atheris

    with atheris.instrument_imports(include=["ssat", "yaml", "json", "PIL", "safetensors", "zipfile", "tarfile"]):
        from tests.fuzz.readers import READERS, refused
    if given["reader"] not in READERS:
        raise SystemExit(f"reader={given['reader']} is not one of {', '.join(READERS)}")
    flags = [f"-max_total_time={given['seconds']}", "-timeout=10", "-rss_limit_mb=4096", f"-seed={given['seed']}"]
    atheris.Setup([sys.argv[0], *flags, *filter(None, [given["corpus"]])], lambda data: refused(given["reader"], data))
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
