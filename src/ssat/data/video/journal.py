"""What has been prepared so far: one line for each video, kept when the command is killed, by any number of shards."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ssat.core.errors import UserError
from ssat.core.files import write_text
from ssat.core.read import json_lines, read_json
from ssat.data.video.manifest import MANIFEST, Entry

FOLDER, ABOUT = "journal", "prepare.json"  # in the prepared folder
Stamp = tuple[int, int]  # bytes and modification time (ns) of an original file


class Line(NamedTuple):
    """What is kept of a video.

    Attributes:
        entry: its row.
        raw: stamp of its file when it was prepared; None where an older version wrote the line.
        lent: stamp of its original's file, if that may have lent it the boxes.
    """

    entry: Entry
    raw: Stamp | None = None
    lent: Stamp | None = None


def stamp(path: Path) -> Stamp | None:
    """Of a file; None where it cannot be looked at."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def digest(passport: dict[str, Any]) -> str:
    """A short name of the options of a store."""
    return hashlib.sha256(json.dumps(passport, sort_keys=True).encode()).hexdigest()[:16]


class Journal:
    """The lines of one shard.

    Args:
        out: prepared folder.
        dataset: name of the set; lines of another set count no more.
        shard: number from 1 on, and how many there are.
        passport: options of the store; lines of other options count no more.

    Raises:
        UserError: another command writes the same shard.
    """

    def __init__(self, out: Path, dataset: str, shard: tuple[int, int], passport: dict[str, Any]) -> None:
        self.out, self._dataset, self._name = out, dataset, digest(passport)
        path = out / FOLDER / f"{shard[0]}-of-{shard[1]}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "a+b", buffering=0)  # noqa: SIM115
        if not _locked(self._file, wait=False):
            self._file.close()
            raise _busy(out, shard, "wait until it ends")
        self._cut()

    def _cut(self) -> None:
        """Drop what a killed command has left of a line."""
        self._file.seek(0)
        content = self._file.read()
        self._file.truncate(content.rfind(b"\n") + 1)

    def add(self, line: Line) -> None:
        """Write one line, at once."""
        entry, raw, lent = line
        content = {"options": self._name, "at": time.time(), "entry": asdict(entry), "raw": raw, "lent": lent}
        self._file.write(json.dumps(content).encode() + b"\n")

    def note(self, missing: Sequence[Entry]) -> None:
        """Write a line for each row that has none: a later command may not ask for it, and it keeps its row."""
        known = self.lines() if missing else {}
        for entry in missing:
            if entry.video_id not in known:
                self.add(Line(entry))

    def close(self) -> None:
        """Others may write the shard."""
        self._file.close()

    def lines(self) -> dict[str, Line]:
        """The last line of every video, of all shards: what it says is what lies in the store."""
        found: dict[str, tuple[float, Line]] = {}
        for path in _files(self.out):
            for at, line in _lines(path, self._name):
                video = line.entry.video_id
                if line.entry.dataset == self._dataset and (video not in found or at >= found[video][0]):
                    found[video] = at, line
        return {video: line for video, (_, line) in found.items()}


def _files(out: Path) -> list[Path]:
    return sorted((out / FOLDER).glob("*-of-*.jsonl"))


def _lines(path: Path, name: str) -> Iterator[tuple[float, Line]]:
    """Lines and when they were written, in seconds; 0 of those that do not say."""
    for content in json_lines(path):
        try:
            if content["options"] == name:
                line = Line(Entry(**content["entry"]), _stamp(content.get("raw")), _stamp(content.get("lent")))
                yield float(content.get("at", 0)), line
        except (KeyError, TypeError, ValueError, OverflowError):
            continue  # another shard is writing it, or was killed: its video is prepared again


def _stamp(content: Any) -> Stamp | None:
    if content is None:
        return None
    size, time = content
    return int(size), int(time)


def _locked(file: BinaryIO | Any, *, wait: bool, shared: bool = False) -> bool:
    """Whether this process may write; the lock ends with the process, however it ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return True  # a network file system without locks
    return True


@contextmanager
def one_at_a_time(out: Path) -> Iterator[None]:
    """Commands that begin or end together do so one after the other: each sees what the others have written."""
    (out / FOLDER).mkdir(parents=True, exist_ok=True)
    with open(out / FOLDER / "lock", "a", encoding="utf-8") as file:
        _locked(file, wait=True)
        yield


def opened(
    out: Path,
    dataset: str,
    shard: tuple[int, int],
    passport: dict[str, Any],
    about: dict[str, Any],
    *,
    force: bool = False,
) -> Journal:
    """The journal of a shard, after `claim`, and while no other command prepares the same videos.

    Args:
        out, dataset, passport, about, force: see `claim`.
        shard: see `Journal`.

    Raises:
        UserError: another command prepares videos of this shard, or see `claim`.
    """
    with one_at_a_time(out):
        running = _running(out)
        for other in running:
            if other == shard:
                raise _busy(out, other, "wait until it ends")
            if other[1] != shard[1]:  # the same videos are in both
                raise _busy(out, other, f"wait until it ends, or give each command one of {other[1]} shards")
        claim(out, dataset, passport, about, force=force, running=running)
        return Journal(out, dataset, shard, passport)


def _running(out: Path) -> list[tuple[int, int]]:
    """Shards that a command is writing."""
    found = []
    for path in _files(out):
        with open(path, "rb") as file:  # which may be another user's
            if not _locked(file, wait=False, shared=True):
                number, _, count = path.stem.partition("-of-")
                found.append((int(number), int(count)))
    return found


def _busy(out: Path, shard: tuple[int, int], cure: str) -> UserError:
    text = f"{out} is being written by another command (shard {shard[0]} of {shard[1]}): {cure}"
    return UserError(text, key="data.root", value=str(out))


def claim(
    out: Path,
    dataset: str,
    passport: dict[str, Any],
    about: dict[str, Any],
    *,
    force: bool = False,
    running: Sequence[tuple[int, int]] = (),
) -> None:
    """Write how the store is made, or refuse to mix it with one that was made otherwise.

    Args:
        out: prepared folder.
        dataset: name of the set.
        passport: options of the store.
        about: what else is worth knowing (classes, versions).
        force: replace what is there; where it was made otherwise, manifest and journal go, as they describe what goes.
        running: shards that other commands are preparing.

    Raises:
        UserError: `out` holds another set or was made with other options, and `force` is not given or a shard of it
            is being prepared.
    """
    path = out / ABOUT
    now = {"data": dataset, **passport}
    there = _claimed(path, force=force) if path.exists() else now
    changed = [key for key in now if there.get(key) != now[key]]
    if changed and not force:
        was = ", ".join(f"{key}={there.get(key)}" for key in changed)
        wanted = ", ".join(f"{key}={now[key]}" for key in changed)
        raise UserError(
            f"{out} was prepared with {was}, not {wanted}: name another data.root, or force=true to prepare all"
            " videos again",
            key=changed[0],
            value=now[changed[0]],
        )
    if changed and running:
        raise _busy(out, running[0], "force=true would mix two sets in it, so wait until it ends")
    if changed:
        for stale in (out / MANIFEST, *_files(out)):
            stale.unlink(missing_ok=True)
    content = {"dataset": dataset, "options": passport, **about}
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def _claimed(path: Path, *, force: bool) -> dict[str, Any]:
    """Set and options of a store; {} where they cannot be read and are replaced."""
    try:
        there = read_json(path)
        return {"data": there["dataset"], **there["options"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        if force:
            return {}
        raise UserError(f"{path} is damaged: force=true prepares the videos again", key="data.root") from error
