from __future__ import annotations

import errno
import gzip
import hashlib
import io
import random
import shutil
import tarfile
import tracemalloc
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ssat.core.errors import UserError
from ssat.data.sets.download import check_space, download, unpack
from tests.data.server import FileServer

CONTENT = np.random.default_rng(0).bytes(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()
get = partial(download, md5=MD5, wait=0)


@pytest.fixture
def server() -> Iterator[FileServer]:
    server = FileServer()
    server.files["file.bin"] = CONTENT
    yield server
    server.shutdown()
    server.server_close()


class FullDisk(io.BytesIO):
    def write(self, data) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def refused(function, *args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- download


def test_a_file_arrives_whole_and_its_progress_is_told(server: FileServer, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    get(f"{server.url}/file.bin?download=1", tmp_path / "a" / "f", report=lambda *now: seen.append(now))
    assert (tmp_path / "a" / "f").read_bytes() == CONTENT and seen[-1] == (300_000, 300_000)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["f"]


def test_a_cut_connection_is_continued_where_it_was_cut(server: FileServer, tmp_path: Path) -> None:
    server.cuts = 2
    get(f"{server.url}/file.bin", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=150000-", "bytes=225000-"]


def test_an_earlier_call_is_continued(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(CONTENT[:1000])
    get(f"{server.url}/file.bin", tmp_path / "f")
    assert server.ranges == ["bytes=1000-"] and (tmp_path / "f").read_bytes() == CONTENT


def test_a_part_that_is_complete_is_not_fetched_again(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(CONTENT)
    get(f"{server.url}/file.bin", tmp_path / "f")
    assert server.ranges == ["bytes=300000-"] and (tmp_path / "f").is_file()


def test_a_part_longer_than_the_file_is_thrown_away(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(CONTENT + b"more")
    get(f"{server.url}/file.bin", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_everything_again(server: FileServer, tmp_path: Path) -> None:
    server.knows_range = False
    (tmp_path / "f.part").write_bytes(b"x" * 1000)
    get(f"{server.url}/file.bin", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_the_rest_of_another_file_is_fetched_afresh(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(b"x" * 1000)
    get(f"{server.url}/file.bin", tmp_path / "f")
    assert server.ranges == ["bytes=1000-", None] and (tmp_path / "f").read_bytes() == CONTENT


def test_a_wrong_hash_removes_the_file_and_says_both(server: FileServer, tmp_path: Path) -> None:
    message = refused(download, f"{server.url}/file.bin", tmp_path / "f", md5="0" * 32, wait=0)
    assert f"has the MD5 {MD5}, expected {'0' * 32}" in message and not list(tmp_path.iterdir())


def test_a_missing_file_is_not_tried_again_and_names_the_manual_way(server: FileServer, tmp_path: Path) -> None:
    message = refused(get, f"{server.url}/gone.bin", tmp_path / "f", by_hand=Path("data/gone.bin"))
    assert "gone.bin (the server answers 404 Not Found): download it elsewhere, put it at data/gone.bin" in message
    assert f"(MD5 {MD5})" in message and len(server.ranges) == 1


def test_a_server_in_trouble_is_asked_again(server: FileServer, tmp_path: Path) -> None:
    server.status = 503
    assert "(503 Service Unavailable): download it elsewhere" in refused(get, f"{server.url}/file.bin", tmp_path / "f")
    assert len(server.ranges) == 3


def test_without_a_server_the_sentence_names_file_place_and_hash(tmp_path: Path) -> None:
    message = refused(get, "http://127.0.0.1:9/file.bin", tmp_path / "f")
    assert "cannot download http://127.0.0.1:9/file.bin ([Errno 111] Connection refused): download it" in message
    assert f"put it at {tmp_path}/f and repeat the command (MD5 {MD5})" in message


def test_a_file_address_is_a_mirror_on_the_disk(tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(CONTENT)
    get((tmp_path / "file.bin").as_uri(), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_full_disk_keeps_what_is_there_and_says_so(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(CONTENT[:1000])
    message = refused(get, f"{server.url}/file.bin", tmp_path / "f", open_file=lambda *args: FullDisk())
    assert f"no space left on the disk writing {tmp_path}/f.part" in message
    assert f"it goes on from the 1,000 bytes in {tmp_path}/f.part" in message and (tmp_path / "f.part").exists()


def test_a_folder_that_cannot_be_written_is_named(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    message = refused(get, f"{server.url}/file.bin", tmp_path / "a" / "f")
    assert f"cannot write {tmp_path}/a" in message and "data.root=<folder>" in message


def test_too_little_space_is_found_before_anything_is_fetched(tmp_path: Path) -> None:
    message = refused(check_space, tmp_path / "not" / "yet", 500, free=120_000_000)
    assert f"the disk of {tmp_path} has 120 MB free and 500 MB are needed" in message
    check_space(tmp_path, 100, free=120_000_000)


# --- unpack


def tar(path: Path, members: dict[str, bytes | str]) -> Path:
    """Text is the target of a link."""
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                file.addfile(info)
            else:
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return path


def test_a_tar_file_is_unpacked_to_its_folder(tmp_path: Path) -> None:
    archive = tar(tmp_path / "a.tgz", {"jpg/1.jpg": b"1", "jpg/deep/2.jpg": b"2"})
    unpack(archive, tmp_path / "out", "jpg")
    assert (tmp_path / "out/jpg/deep/2.jpg").read_bytes() == b"2"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["jpg"]


def test_a_zip_file_is_unpacked_to_its_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("clipart/", "")
        file.writestr("clipart/cat/1.jpg", "1")
        file.writestr("__MACOSX/clipart/._1.jpg", "junk")
    unpack(tmp_path / "a.zip", tmp_path / "out", "clipart")
    assert (tmp_path / "out/clipart/cat/1.jpg").read_text() == "1"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["clipart"]


@pytest.mark.parametrize("name", ["../evil", "jpg/../../evil", "/etc/evil", "..\\evil", "C:/evil"])
def test_a_member_that_points_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    archive = tar(tmp_path / "a.tgz", {"jpg/1.jpg": b"1", name: b"x"})
    assert "which is a link or lies outside the folder" in refused(unpack, archive, tmp_path / "out", "jpg")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(name, "x")
    assert f"has the member {name!r}" in refused(unpack, tmp_path / "a.zip", tmp_path / "out", "jpg")
    assert not (tmp_path / "out/jpg").exists() and not list(tmp_path.rglob("evil"))


def test_links_are_refused(tmp_path: Path) -> None:
    archive = tar(tmp_path / "a.tgz", {"jpg/1.jpg": "/etc/passwd"})
    assert "has the member 'jpg/1.jpg', which is a link" in refused(unpack, archive, tmp_path / "out", "jpg")
    info = zipfile.ZipInfo("jpg/1.jpg")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(info, "/etc/passwd")
    assert "has the member 'jpg/1.jpg', which is a link" in refused(unpack, tmp_path / "a.zip", tmp_path / "out", "jpg")


@pytest.mark.parametrize("kind", ["tgz", "zip"])
def test_a_truncated_archive_leaves_nothing(tmp_path: Path, kind: str) -> None:
    archive = tmp_path / f"a.{kind}"
    if kind == "tgz":
        tar(archive, {"jpg/1.jpg": CONTENT})
    else:
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("jpg/1.jpg", CONTENT)
    archive.write_bytes(archive.read_bytes()[:100_000])
    assert f"{archive} is damaged or truncated (" in refused(unpack, archive, tmp_path / "out", "jpg")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_damaged_zip_member_is_found_by_its_checksum(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("jpg/1.jpg", CONTENT)
    damaged = bytearray((tmp_path / "a.zip").read_bytes())
    damaged[1000] ^= 1
    (tmp_path / "a.zip").write_bytes(damaged)
    assert "Bad CRC-32" in refused(unpack, tmp_path / "a.zip", tmp_path / "out", "jpg")


def test_an_archive_without_the_folder_shows_what_it_has(tmp_path: Path) -> None:
    archive = tar(tmp_path / "a.tgz", {"png/1.png": b"1"})
    assert "has no folder 'jpg', only ['png']" in refused(unpack, archive, tmp_path / "out", "jpg")


def test_a_full_disk_while_unpacking_leaves_nothing(tmp_path: Path) -> None:
    archive = tar(tmp_path / "a.tgz", {"jpg/1.jpg": b"1"})
    message = refused(unpack, archive, tmp_path / "out", "jpg", open_file=lambda *args: FullDisk())
    assert message.startswith("no space left on the disk writing") and not list((tmp_path / "out").iterdir())


def zipped(path: Path, members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression) as file:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, content in members:
            file.writestr(name or zipfile.ZipInfo(name), content, compression)
    return path


def flagged(path: Path) -> Path:
    """The same archive, whose members say that they are encrypted."""
    data = bytearray(path.read_bytes())
    for signature, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.find(signature) + place] |= 1
    path.write_bytes(data)
    return path


def nothing_is_left(folder: Path) -> bool:
    return not folder.exists() or not list(folder.iterdir())


def packed_tar(path: Path, kind: bytes, content: bytes) -> Path:
    """A small .tar.gz whose first member is a header of `kind` with `content`, followed by a plain file."""
    with gzip.open(path, "wb") as file:
        for name, type_, data in ((b"x", kind, content), (b"jpg/1.jpg", tarfile.REGTYPE, bytes(1_000_000))):
            info = tarfile.TarInfo(name.decode())
            info.type, info.size = type_, len(data)
            file.write(info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512))
    return path


def pax(**records: str) -> bytes:
    """Records of a pax header, each with its length in front."""
    lines = [f" {key.replace('_', '.')}={value}\n".encode() for key, value in records.items()]
    return b"".join(str(len(line) + 2).encode() + line for line in lines)


FILLER = b"a" * 30_000_000
TAR_BOMBS = {
    "pax": (tarfile.XHDTYPE, b"30000000 path=" + FILLER),
    "global pax": (tarfile.XGLTYPE, b"30000000 comment=" + FILLER),
    "long name": (tarfile.GNUTYPE_LONGNAME, FILLER),
    "long link": (tarfile.GNUTYPE_LONGLINK, FILLER),
    "holes": (tarfile.GNUTYPE_SPARSE, b""),
    "holes in pax": (tarfile.XHDTYPE, pax(GNU_sparse_major="1", GNU_sparse_minor="0")),
}


@pytest.mark.parametrize("name", TAR_BOMBS)
def test_a_tar_header_that_unpacks_to_much_is_refused_unread(tmp_path: Path, name: str) -> None:
    archive = packed_tar(tmp_path / "archive", *TAR_BOMBS[name])
    assert archive.stat().st_size < 1_000_000
    tracemalloc.start()
    message = refused(unpack, archive, tmp_path / "out", "jpg", most=10e6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "is damaged or truncated" in message and "\n" not in message
    assert peak < len(FILLER) / 2
    assert nothing_is_left(tmp_path / "out")


ODD_ARCHIVES = {
    "no name": (lambda path: zipped(path, [("jpg/1.jpg", b"1"), ("", b"2")]), "has the member '', which is a link"),
    "encrypted": (lambda path: flagged(zipped(path, [("jpg/1.jpg", b"1")])), "is encrypted ('jpg/1.jpg')"),
    "twice": (lambda path: zipped(path, [("jpg/1.jpg", b"1"), ("jpg//1.jpg", b"2")]), "'jpg//1.jpg' twice"),
    "twice in a tar": (lambda path: tar(path, {"jpg/1.jpg": b"1", "./jpg/1.jpg": b"2"}), "'./jpg/1.jpg' twice"),
    "large": (
        lambda path: zipped(path, [("jpg/1.jpg", bytes(30_000_000))], zipfile.ZIP_DEFLATED),
        "unpacks to more than the 10 MB that the official archive needs",
    ),
    "large tar": (lambda path: tar(path, {"jpg/1.jpg": bytes(30_000_000)}), "unpacks to more than the 10 MB"),
    "many": (lambda path: zipped(path, [(f"jpg/{n}", b"") for n in range(20_000)]), "unpacks to more than the 10 MB"),
}


@pytest.mark.parametrize("name", ODD_ARCHIVES)
def test_an_odd_archive_is_refused_with_the_reason_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    make, reason = ODD_ARCHIVES[name]
    message = refused(unpack, make(tmp_path / "archive"), tmp_path / "out", "jpg", most=10e6)
    assert reason in message and "\n" not in message
    assert nothing_is_left(tmp_path / "out")


@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_flipped_bytes_of_an_archive_are_damage(tmp_path: Path, kind: str) -> None:
    archive = tmp_path / "archive"
    if kind == "zip":
        zipped(archive, [(f"jpg/{n}.jpg", CONTENT[:300]) for n in range(3)], zipfile.ZIP_DEFLATED)
    else:
        tar(archive, {f"jpg/{n}.jpg": CONTENT[:300] for n in range(3)})
    sound, draw = archive.read_bytes(), random.Random(0)
    for _ in range(150):
        data = bytearray(sound)
        for place in draw.choices(range(len(data)), k=draw.choice([1, 3, 30])):
            data[place] = draw.randrange(256)
        archive.write_bytes(data)
        with suppress(UserError):
            unpack(archive, tmp_path / "out", "jpg", most=10e6)
        left = [path.name for path in (tmp_path / "out").iterdir()] if (tmp_path / "out").exists() else []
        assert left in ([], ["jpg"])
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
