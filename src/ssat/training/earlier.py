"""The checkpoints before the last one, which a damaged last one falls back to: `checkpoint_keep`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from itertools import chain, count
from pathlib import Path
from typing import Any

from ssat.config.schema import Run
from ssat.core.checkpoints import load_checkpoint
from ssat.core.errors import UserError, cause_of
from ssat.runs.folder import AFRESH


def checkpoints_kept(config: Run) -> int:
    """So many of each name while a phase trains."""
    return config.checkpoint_keep or 2


def earlier(path: Path, number: int) -> Path:
    """Where the checkpoint lies that was `path` so many checkpoints ago: last.ckpt, last-1.ckpt, last-2.ckpt ..."""
    return path.with_stem(f"{path.stem}-{number}") if number else path


def keep_earlier(path: Path, keep: int) -> None:
    """Make room for a new `path`, of which `keep` are kept: each becomes the one before, and the oldest goes.

    `path` itself stays where it is until it is replaced, so that a kill at any moment leaves one.
    """
    for number in range(keep - 1, 1, -1):
        if earlier(path, number - 1).exists():
            os.replace(earlier(path, number - 1), earlier(path, number))
    if keep > 1 and path.exists():
        _same_file(path, earlier(path, 1))


def _same_file(path: Path, other: Path) -> None:
    """`other` is `path`, too: without a copy, where the file system can."""
    partial = other.with_name(f".{other.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(path, partial)
    except OSError:  # as FAT and some network drives
        shutil.copyfile(path, partial)
    os.replace(partial, other)
    partial.unlink(missing_ok=True)  # replacing a file by itself leaves both names


def newest_sound(
    last: Path, check: Callable[[dict[str, Any], Path], None]
) -> tuple[int, dict[str, Any], UserError | None] | None:
    """The newest checkpoint of which nothing is wrong: how many before `last` it is, its content, what is wrong there.

    None where there is no checkpoint.

    Args:
        last: the newest, which may be missing.
        check: raises UserError where a training cannot go on from a content, read from a path.

    Raises:
        UserError: there are some, and none is sound; says what is wrong with the newest.
    """
    wrong: list[UserError] = []
    for number in count():
        path = earlier(last, number)
        if not os.path.lexists(path):
            if number:
                break
            continue  # the user may have moved a damaged one away
        try:
            content = load_checkpoint(path)
            check(content, path)
        except UserError as error:
            wrong.append(error)
        else:
            return number, content, wrong[0] if wrong else None
    if len(wrong) > 1:
        others = f"and so are the {len(wrong) - 1} before it" if len(wrong) > 2 else "and so is the one before it"
        raise UserError(
            f"{cause_of(wrong[0], AFRESH)}, {others}: move all of them away, and the phase begins anew"
        ) from wrong[0]
    if wrong:
        raise wrong[0]
    return None


def put_back(last: Path, number: int) -> None:
    """Make the checkpoint of `number` before `last` the last one; a damaged last one becomes last.damaged."""
    if os.path.lexists(last):
        _put_aside(last)
    for skipped in range(1, number):
        earlier(last, skipped).unlink(missing_ok=True)
    for source in range(number, number + len(list(_there(last, number)))):
        os.replace(earlier(last, source), earlier(last, source - number))


def _put_aside(path: Path) -> None:
    names = chain([".damaged"], (f".damaged-{number}" for number in count(2)))
    os.replace(path, next(other for other in map(path.with_suffix, names) if not other.is_dir()))


def put_aside_damaged(best: Path) -> str:
    """Make a `best` that cannot be read best.damaged; says what is wrong with it, nothing where nothing is."""
    if not os.path.lexists(best):
        return ""
    try:
        load_checkpoint(best)
    except UserError as error:
        _put_aside(best)
        return cause_of(error)
    return ""


def forget_earlier(path: Path) -> None:
    """Remove what was `path` before: nothing goes on from it any more."""
    for other in [*_there(path, 1)]:
        other.unlink(missing_ok=True)


def _there(path: Path, start: int) -> Iterator[Path]:
    for number in count(start):
        if not earlier(path, number).exists():
            return
        yield earlier(path, number)


def put_back_best(best: Path, step: int | None) -> bool:
    """Make that of the kept best checkpoints `best` which is of `step`; None = there is none yet.

    Returns:
        Whether it was found; where not, no `best` is left, for it would be of another training.
    """
    for path in _there(best, 0):
        try:
            found = step is not None and load_checkpoint(path).get("global_step") == step
        except UserError:
            found = False
        if found:
            os.replace(path, best)
            return True
    best.unlink(missing_ok=True)
    return step is None
