"""What has been prepared so far: one line for each video, kept when the command is killed, by any number of shards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from ssat.core.errors import UserError
from ssat.core.files import write_text
from ssat.core.read import read_json
from ssat.data.video.manifest import FINISHED, Entry

FOLDER, ABOUT = "journal", "prepare.json"  # in the prepared folder


def digest(passport: dict[str, Any]) -> str:
    """A short name of the options of a store."""
    return hashlib.sha256(json.dumps(passport, sort_keys=True).encode()).hexdigest()[:16]


class Journal:
    """The lines of one shard.

    Args:
        out: prepared folder.
        shard: number from 1 on, and how many there are.
        passport: options of the store; lines of other options count no more.

    Raises:
        UserError: another command writes the same shard.
    """

    def __init__(self, out: Path, shard: tuple[int, int], passport: dict[str, Any]) -> None:
        self.out, self._name = out, digest(passport)
        path = out / FOLDER / f"{shard[0]}-of-{shard[1]}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "a+b", buffering=0)  # noqa: SIM115
        if not _locked(self._file, wait=False):
            self._file.close()
            raise UserError(
                f"{out} is being written by another command (shard {shard[0]} of {shard[1]}): wait until it ends",
                key="data.root",
                value=str(out),
            )
        self._cut()

    def _cut(self) -> None:
        """Drop what a killed command has left of a line."""
        self._file.seek(0)
        content = self._file.read()
        self._file.truncate(content.rfind(b"\n") + 1)

    def add(self, entry: Entry) -> None:
        """Write one line, at once."""
        line = json.dumps({"options": self._name, "entry": asdict(entry)}) + "\n"
        self._file.write(line.encode())

    def close(self) -> None:
        """Others may write the shard."""
        self._file.close()

    def rows(self) -> dict[str, Entry]:
        """The rows of all shards by video; a finished one stands over one that failed, then the later one."""
        found: dict[str, Entry] = {}
        for path in sorted((self.out / FOLDER).glob("*.jsonl")):
            for entry in _lines(path, self._name):
                known = found.get(entry.video_id)
                if known is None or entry.status in FINISHED or known.status not in FINISHED:
                    found[entry.video_id] = entry
        return found


def _lines(path: Path, name: str) -> Iterator[Entry]:
    with open(path, "rb") as file:
        for line in file:
            try:
                content = json.loads(line)
                if content["options"] == name:
                    yield Entry(**content["entry"])
            except (KeyError, TypeError, ValueError):
                continue  # another shard is writing it, or was killed: its video is prepared again


def _locked(file: BinaryIO | Any, *, wait: bool) -> bool:
    """Whether this process may write; the lock ends with the process, however it ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return True  # a network file system without locks
    return True


@contextmanager
def one_at_a_time(out: Path) -> Iterator[None]:
    """Shards that end together write the manifest one after the other, so that the last one has read all lines."""
    with open(out / FOLDER / "lock", "a", encoding="utf-8") as file:
        _locked(file, wait=True)
        yield


def claim(out: Path, dataset: str, passport: dict[str, Any], about: dict[str, Any], *, force: bool = False) -> None:
    """Write how the store is made, or refuse to mix it with one that was made otherwise.

    Args:
        out: prepared folder.
        dataset: name of the set.
        passport: options of the store.
        about: what else is worth knowing (classes, versions).
        force: replace what is there.

    Raises:
        UserError: `out` holds another set or was made with other options.
    """
    path = out / ABOUT
    if path.exists() and not force:
        try:
            there = read_json(path)
            options = {"data": there["dataset"], **there["options"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged: force=true prepares the videos again", key="data.root") from error
        now = {"data": dataset, **passport}
        changed = [key for key in now if options.get(key) != now[key]]
        if changed:
            was = ", ".join(f"{key}={options.get(key)}" for key in changed)
            wanted = ", ".join(f"{key}={now[key]}" for key in changed)
            raise UserError(
                f"{out} was prepared with {was}, not {wanted}: name another data.root, or force=true to prepare all"
                " videos again",
                key=changed[0],
                value=now[changed[0]],
            )
    content = {"dataset": dataset, "options": passport, **about}
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")
