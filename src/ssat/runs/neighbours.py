"""Which trainings run on this machine at the same time: each of them measures the energy of all of them."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

FRESH = 60  # seconds for which a file without a lock is left alone: its owner may be about to take it


class Presence:
    """One training among those of this machine, from its construction to `leave`.

    Its file in the machine's temporary folder is locked as long as its process lives. Who comes later writes a byte
    into the files that are locked, so that both sides know, whoever ends first.
    """

    def __init__(self) -> None:
        self._file = -1
        try:
            self._enter()
        except OSError:  # no such folder, no room, no locks: then nobody knows
            self.leave()

    def _enter(self) -> None:
        folder = Path(tempfile.gettempdir()) / "ssat-trainings"
        folder.mkdir(exist_ok=True)
        with suppress(OSError):  # another user's, who has done it
            folder.chmod(0o1777)
        self._file, name = tempfile.mkstemp(dir=folder)
        self._path = Path(name)
        self._path.chmod(0o666)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        for path in folder.iterdir():
            if path != self._path:
                self._meet(path)

    def _meet(self, path: Path) -> None:
        with suppress(OSError):
            other = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK)  # no link, no pipe
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - os.fstat(other).st_mtime > FRESH:
                    path.unlink()
            except BlockingIOError:
                os.write(other, b"x")
                os.write(self._file, b"x")
            finally:
                os.close(other)

    @property
    def shared(self) -> bool | None:
        """Whether another training has run at the same time; None where that cannot be known."""
        return None if self._file < 0 else os.fstat(self._file).st_size > 0

    def leave(self) -> None:
        """End; only the first call counts."""
        if self._file < 0:
            return
        with suppress(OSError):
            self._path.unlink()
        os.close(self._file)
        self._file = -1
