"""Files from the net to the disk, whole or not at all: resumed downloads, checked hashes, safe unpacking."""

from __future__ import annotations

import errno
import gzip
import hashlib
import http.client
import lzma
import math
import os
import shutil
import stat
import struct
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ssat.core.errors import UserError
from ssat.data.sets.checks import first_line

Report = Callable[[int, "int | None"], None]  # bytes done, bytes in all where known
CHUNK = 1 << 20
TIMEOUT = 30  # seconds without a byte
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, NotImplementedError)
# What readers of archives answer flipped bytes with besides.
GARBLED = (lzma.LZMAError, struct.error, LookupError, ValueError, RuntimeError, OverflowError, MemoryError)
LONGEST_HEADER = 1 << 20  # bytes of a long name in a tar file, which are read at once
EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
BLOCK = 512  # bytes that a file takes on a disk at least: many empty ones fill it, too
# Servers with a bot filter (Zenodo) refuse programs that pretend to be a browser.
AGENT = {"User-Agent": "ssat-prepare/0.1"}


def silent(done: int, total: int | None) -> None:
    """Reports nothing."""


def download(
    url: str,
    target: Path,
    *,
    md5: str | None = None,
    by_hand: Path | None = None,
    report: Report = silent,
    tries: int = 3,
    wait: float = 2.0,
    open_file: Callable[..., IO[bytes]] = open,
) -> None:
    """Download `url` to `target`, by way of `<target>.part`, which a later call continues.

    Args:
        url: http, https or file.
        target: the file; it appears when it is complete and its hash is right.
        md5: expected hash; None = not checked.
        by_hand: where the user may put the file instead.
        report: called with the bytes done and in all.
        tries: attempts without a new byte before it gives up.
        wait: seconds before the second attempt, doubled each time.
        open_file: opens the file to write.

    Raises:
        UserError: no server or no such file there, the content is wrong, or the disk is full or cannot be written.
    """
    part = target.with_name(target.name + ".part")
    hint = f"download it elsewhere, put it at {by_hand or target} and repeat the command" + (
        f" (MD5 {md5})" if md5 else ""
    )
    with writing(part):
        target.parent.mkdir(parents=True, exist_ok=True)
    for fresh in (False, True):
        begun = part.exists()
        _fetch(url, part, hint, report, tries, wait, open_file)
        found = file_md5(part) if md5 else None
        if found == md5:
            with writing(target):
                os.replace(part, target)
            return
        part.unlink()
        if fresh or not begun:
            break
    raise UserError(
        f"{url} has the MD5 {found}, expected {md5}: it was damaged on the way, or the server has another file now;"
        f" it was removed, repeat the command, or {hint}"
    )


def _fetch(
    url: str, part: Path, hint: str, report: Report, tries: int, wait: float, open_file: Callable[..., Any]
) -> None:
    failures = 0
    while True:
        before = _size(part)
        try:
            return _append(url, part, report, open_file)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and before:  # asked for what follows the end
                if error.headers.get("Content-Range") == f"bytes */{before}":
                    return None
                part.unlink()
            elif error.code < 500 and error.code not in (408, 429):
                raise UserError(
                    f"cannot download {url} (the server answers {error.code} {error.reason}): {hint}"
                ) from None
            reason: Any = f"{error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        failures = 0 if _size(part) > before else failures + 1
        if failures >= tries:
            raise UserError(f"cannot download {url} ({reason}): {hint}")
        time.sleep(wait * 2 ** max(failures - 1, 0))


def _append(url: str, part: Path, report: Report, open_file: Callable[..., Any]) -> None:
    start = _size(part)
    request = urllib.request.Request(url, headers=AGENT | ({"Range": f"bytes={start}-"} if start else {}))
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        if response.status != 206 or not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            start = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        done = start
        with writing(part, kept=True), open_file(part, "ab" if start else "wb") as file:
            for chunk in iter(lambda: _receive(response), b""):
                file.write(chunk)
                done += len(chunk)
                report(done, total)
    if total is not None and done < total:
        raise ConnectionError(f"the connection was cut after {done:,} of {total:,} bytes")


class _Cut(http.client.HTTPException):
    """The connection failed; no OSError, which would look like the disk's."""


def _receive(response: Any) -> bytes:
    try:
        return response.read(CHUNK)
    except OSError as error:
        raise _Cut(str(error) or type(error).__name__) from None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


class writing:  # noqa: N801 - reads as a statement: `with writing(path):`
    """Around what writes `path`: a full or closed disk becomes a sentence; `kept` says that a repetition goes on.

    Raises:
        UserError: for an OSError inside.
    """

    def __init__(self, path: Path, *, kept: bool = False) -> None:
        self.path, self.kept = path, kept

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        # One without a number is no word of the system's: a decompressor has found wrong bytes.
        if not isinstance(error, OSError) or isinstance(error, DAMAGED) or error.errno is None:
            return
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            goes_on = f", it goes on from the {_size(self.path):,} bytes in {self.path}" if self.kept else ""
            raise UserError(
                f"no space left on the disk writing {self.path}: free some and repeat the command{goes_on}"
            ) from None
        raise UserError(
            f"cannot write {error.filename or self.path} ({error.strerror}): name another with data.root=<folder>"
        ) from None


def check_space(folder: Path, megabytes: float, free: int | None = None) -> None:
    """Refuse to begin what cannot fit; `free` is the space in bytes, None = as the disk says.

    Raises:
        UserError: there is less than `megabytes`.
    """
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free if free is None else free
    if free < megabytes * 1e6:
        raise UserError(
            f"the disk of {folder} has {free / 1e6:,.0f} MB free and {megabytes:,.0f} MB are needed:"
            " free some, or choose another folder with data.root=<folder>"
        )


def file_md5(path: Path, report: Report = silent) -> str:
    """MD5 of a file, in hexadecimal digits."""
    md5, done, total = hashlib.md5(usedforsecurity=False), 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            md5.update(chunk)
            done += len(chunk)
            report(done, total)
    return md5.hexdigest()


def unpack(
    archive: Path,
    folder: Path,
    inner: str,
    *,
    most: float = math.inf,
    report: Report = silent,
    open_file: Callable[..., IO[bytes]] = open,
) -> None:
    """Unpack `inner/` of a tar or zip file to `folder/inner`, by way of a hidden folder beside it.

    Only plain files are written, and only below `folder`.

    Args:
        archive: the file.
        folder: that `inner` is put into.
        inner: the folder in the archive.
        most: bytes that it may unpack to.
        report: called with the bytes done.
        open_file: opens a file to write.

    Raises:
        UserError: the archive is damaged, encrypted or too large, has no such folder, or has a member that points
            elsewhere or is there twice; the disk is full. Nothing of it is left.
    """
    temporary = folder / f".{inner}.unpacking"
    shutil.rmtree(temporary, ignore_errors=True)
    done = 0
    try:
        for name, stream in _members(archive, most):
            target = temporary / name
            with writing(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                with open_file(target, "wb") as file, stream:
                    shutil.copyfileobj(stream, file, CHUNK)
            done += target.stat().st_size
            report(done, None)
        if not (temporary / inner).is_dir():
            found = sorted(path.name for path in temporary.iterdir()) if temporary.is_dir() else []
            raise UserError(
                f"{archive} has no folder {inner!r}, only {found[:5]}: it is not the official archive, remove it"
            )
        with writing(folder / inner):
            os.replace(temporary / inner, folder / inner)
    except UserError:
        raise
    except (*DAMAGED, *GARBLED, OSError) as error:
        # An invalid argument is a place that the archive has not.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL) and not isinstance(error, DAMAGED):
            raise
        raise UserError(
            f"{archive} is damaged or truncated ({first_line(error)}): remove it and repeat the command"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _members(archive: Path, most: float) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of every file, each of which is as long as its header says."""
    seen, size = set[PurePosixPath](), 0
    for name, length, content in _zipped(archive) if zipfile.is_zipfile(archive) else _tarred(archive):
        size += max(length, BLOCK)
        if size > most:
            raise UserError(
                f"{archive} unpacks to more than the {most / 1e6:,.0f} MB that the official archive needs:"
                " it is another one, remove it"
            )
        path = PurePosixPath(safe_name(archive, name))
        if path in seen:
            raise UserError(f"{archive} has the member {name!r} twice: it is not the official archive, remove it")
        seen.add(path)
        yield name, content()


def _zipped(archive: Path) -> Iterator[tuple[str, int, Callable[[], IO[bytes]]]]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            if stat.S_ISLNK(info.external_attr >> 16) or not info.filename:
                raise _unsafe(archive, info.filename)
            if info.flag_bits & 1:
                raise UserError(
                    f"{archive} is encrypted ({info.filename!r}), which the official archive is not: remove it"
                )
            if not info.is_dir():
                yield info.filename, info.file_size, partial(file.open, info)


class _Header(tarfile.TarInfo):
    """A member's header, which is short and has no map of holes: packed, both fill the memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)
        if header.type == tarfile.GNUTYPE_SPARSE or (header.type in EXTENDED and header.size > LONGEST_HEADER):
            raise tarfile.ReadError("a member has a map of holes, or a name that is too long")
        return header

    def _proc_gnusparse_10(self, *_: object) -> None:
        raise tarfile.ReadError("a member has a map of holes")


def _tarred(archive: Path) -> Iterator[tuple[str, int, Callable[[], IO[bytes]]]]:
    with tarfile.open(archive, tarinfo=_Header) as tar:
        for member in tar:
            if member.isdir():
                continue
            if not member.isreg():
                raise _unsafe(archive, member.name)
            yield member.name, member.size, partial(_content, tar, member)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member)
    assert content is not None  # of a plain file
    return content


def safe_name(archive: Path, name: str) -> str:
    """The name of a member, if it lies below the folder it is unpacked to.

    Raises:
        UserError: it does not.
    """
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0] or not parts[-1]:
        raise _unsafe(archive, name)
    return name


def _unsafe(archive: Path, name: str) -> UserError:
    return UserError(
        f"{archive} has the member {name!r}, which is a link or lies outside the folder:"
        " it is not the official archive, remove it"
    )
