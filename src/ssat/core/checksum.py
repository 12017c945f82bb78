"""The checksum of a checkpoint: torch.save writes a CRC-32 of every record, and torch.load compares none of them."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from zipfile import ZIP_STORED, BadZipFile, ZipFile, is_zipfile

import torch

MARK = b"ssat sha256 "  # begins the comment of the archive, which torch.load passes over
CHUNK = 1 << 20  # bytes that are read at a time
ODD = (struct.error, zlib.error, OverflowError, MemoryError)


@contextmanager
def with_crc32() -> Iterator[None]:
    """torch.save computes the CRC-32 of each record inside the block, also where the program has switched that off."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


def seal(file: BinaryIO) -> None:
    """Add to a file of torch.save, open for reading and writing, a SHA-256 of its records' names, sizes and CRC-32.

    A CRC-32 alone does not see a record that was exchanged for another one. The bytes themselves are not read again.
    """
    with ZipFile(file) as archive:
        comment = MARK + _digest(archive)
    file.seek(-2, os.SEEK_END)  # the length of the comment, which is 0, ends an archive
    file.write(struct.pack("<H", len(comment)) + comment)


def damage(path: Path) -> str | None:
    """What the checksums of a file of torch.save find wrong, in words.

    None where they are right, and where the file has none: PyTorch's format before the archives, files written with
    `set_crc32_options(False)`, and what cannot be opened.
    """
    try:
        with open(path, "rb") as file:
            begins = file.read(4)
        if begins != b"PK\3\4":
            return "its first bytes are not those of an archive" if is_zipfile(path) else None
    except OSError:
        return None
    except BadZipFile:  # it ends as an archive in several files does
        return "its first bytes are not those of an archive"
    try:
        with ZipFile(path) as archive:
            return _too_large(archive, path.stat().st_size) or _damage(archive)
    # The module reads what a damaged directory says: it seeks, decodes and inflates wrongly in many ways.
    except (BadZipFile, OSError, RuntimeError, ValueError, LookupError, EOFError, *ODD):
        return "it was cut short, or its table of contents is wrong"


def _too_large(archive: ZipFile, size: int) -> str | None:
    """Records that would make more bytes than their file of `size` bytes has: torch.save stores them as they are."""
    records = archive.infolist()
    if packed := next((record for record in records if record.compress_type != ZIP_STORED), None):
        return f"its record {packed.filename.partition('/')[2]!r:.40} is compressed, and torch.save compresses none"
    if sum(record.file_size for record in records) > size:
        return "its records are larger together than the file"
    return None


def _damage(archive: ZipFile) -> str | None:
    records = archive.infolist()
    if len({record.filename for record in records}) < len(records):
        return "it has two records of one name"
    if archive.comment.startswith(MARK) and archive.comment.removeprefix(MARK) != _digest(archive):
        return "its records are not those that were written"
    if not any(record.CRC for record in records):
        return None
    for record in records:
        try:
            with archive.open(record) as content:
                while content.read(CHUNK):
                    pass
        except BadZipFile:
            return f"the checksum of its record {record.filename.partition('/')[2]!r:.40} is wrong"
    return None


def _digest(archive: ZipFile) -> bytes:
    lines = [f"{record.filename}\0{record.file_size}\0{record.CRC}\n" for record in archive.infolist()]
    return hashlib.sha256("".join(lines).encode()).hexdigest().encode()
