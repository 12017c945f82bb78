"""A checkpoint with wrong bytes is refused in one sentence, wherever they are."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from copy import copy
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import torch
from torch import Tensor

from ssat.core.checkpoints import load_checkpoint, write_checkpoint
from ssat.core.checksum import damage
from ssat.core.errors import UserError

Whole = dict[str, Any]


def content() -> Whole:
    noise = torch.Generator().manual_seed(0)
    tensors = {f"block.{i}": torch.randn(16, 16, generator=noise) for i in range(6)}
    optimizer = {"state": {0: {"exp_avg": torch.randn(300, generator=noise), "step": torch.tensor(7.0)}}}
    rows = [{"epoch": epoch, "val/acc1": 1 / (epoch + 1)} for epoch in range(5)]
    return {"state_dict": tensors, "optimizer_states": [optimizer], "epoch": 3, "name": "digits", "rows": rows}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One content as this program writes it, and as torch.save does."""
    folder = tmp_path_factory.mktemp("whole")
    write_checkpoint(content(), folder / "ours.ckpt")
    torch.save(content(), folder / "theirs.pth")
    return {path.stem: path.read_bytes() for path in folder.iterdir()}


def flip(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        changed[draw.randrange(len(data))] ^= draw.randint(1, 255)
    return bytes(changed)


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))]


def zero(data: bytes, draw: random.Random) -> bytes:
    at, length = draw.randrange(len(data)), draw.choice([16, 64, 512, 4096])
    return data[:at] + bytes(min(length, len(data) - at)) + data[at + length :]


def swap(data: bytes, draw: random.Random) -> bytes:
    """The bytes of two tensors of one size, exchanged in place."""
    blocks = [value.numpy().tobytes() for value in content()["state_dict"].values()]
    first, second = draw.sample(blocks, 2)
    a, b = data.index(first), data.index(second)
    changed = bytearray(data)
    changed[a : a + len(first)], changed[b : b + len(second)] = second, first
    return bytes(changed)


def rewrite(data: bytes, draw: random.Random) -> bytes:
    """An archive with right CRC-32 and the comment of the old one, in which two records are exchanged."""
    out = BytesIO()
    with ZipFile(BytesIO(data)) as old, ZipFile(out, "w") as new:
        records = {name: old.read(name) for name in old.namelist()}
        first, second = draw.sample([name for name, value in records.items() if len(value) == 1024], 2)
        records[first], records[second] = records[second], records[first]
        for name, value in records.items():
            new.writestr(name, value)
        new.comment = old.comment
    return out.getvalue()


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def outcome(path: Path) -> tuple[str, Whole | None]:
    """What is said of the file, or what it holds."""
    try:
        return "", load_checkpoint(path)
    except UserError as error:
        return str(error), None


MUTATIONS: list[tuple[str, Callable[[bytes, random.Random], bytes], int]] = [
    *((of, flip, 70) for of in ("ours", "theirs")),
    *((of, cut, 30) for of in ("ours", "theirs")),
    *((of, zero, 30) for of in ("ours", "theirs")),
    *((of, swap, 20) for of in ("ours", "theirs")),
    ("ours", rewrite, 20),
]


@pytest.mark.parametrize(("of", "mutate", "count"), MUTATIONS, ids=[f"{of}-{m.__name__}" for of, m, _ in MUTATIONS])
def test_no_mutated_file_is_taken_for_the_whole_one(
    whole: dict[str, bytes], tmp_path: Path, of: str, mutate: Callable[[bytes, random.Random], bytes], count: int
) -> None:
    """320 files in all: each is refused by a UserError, or holds every tensor and value unchanged."""
    path, refused = tmp_path / "x.ckpt", 0
    for seed in range(count):
        path.write_bytes(mutate(whole[of], random.Random(seed)))
        said, read = outcome(path)
        refused += read is None
        assert (str(path) in said and "\n" not in said) if read is None else same(read, content()), f"seed {seed}"
    assert refused >= count / 4  # the rest lies between the records, where PyTorch aligns them


def test_the_mutations_are_320() -> None:
    assert sum(count for _, _, count in MUTATIONS) == 320


def test_a_whole_file_is_read_and_its_checksum_does_not_trouble_pytorch(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    write_checkpoint(content(), path)
    assert damage(path) is None and same(load_checkpoint(path), content())
    assert same(torch.load(path, weights_only=True), content())
    assert same(torch.load(path, weights_only=True, mmap=True), content())


def test_a_flipped_byte_is_named_with_its_record(whole: dict[str, bytes], tmp_path: Path) -> None:
    changed = bytearray(whole["theirs"])
    changed[changed.index(content()["state_dict"]["block.2"].numpy().tobytes()) + 5] ^= 1
    (tmp_path / "x.pth").write_bytes(changed)
    with pytest.raises(UserError, match=r"x\.pth is not a readable checkpoint, it is damaged \(the checksum of"):
        load_checkpoint(tmp_path / "x.pth")


def test_a_wrong_first_byte_is_damage_and_not_code(whole: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(b"Q" + whole["theirs"][1:])
    with pytest.raises(UserError, match=r"damaged \(its first bytes are not those of an archive\)"):
        load_checkpoint(tmp_path / "x.pth")


def test_files_without_checksums_are_read_as_before(tmp_path: Path) -> None:
    torch.save(content(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(load_checkpoint(tmp_path / "old.pth"), content())
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(content(), tmp_path / "bare.pth")
        write_checkpoint(content(), tmp_path / "ours.ckpt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert same(load_checkpoint(tmp_path / "bare.pth"), content())
    with ZipFile(tmp_path / "ours.ckpt") as archive:  # ours has them whatever the program has set
        assert archive.testzip() is None and all(record.CRC for record in archive.infolist())


def test_the_end_of_an_archive_in_several_files_is_damage(tmp_path: Path) -> None:
    locator, end = struct.pack("<4sLQL", b"PK\6\7", 0, 0, 2), b"PK\5\6" + bytes(18)
    (tmp_path / "a.ckpt").write_bytes(b"no archive" + locator + end)
    with pytest.raises(UserError, match="its first bytes are not those of an archive"):
        load_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize("name", ["ours", "theirs"])
def test_a_compressed_record_is_refused_before_it_is_read(whole: dict[str, bytes], tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.ckpt"
    with ZipFile(BytesIO(whole[name])) as packed, ZipFile(path, "w", ZIP_DEFLATED) as bomb:
        for record in packed.infolist():
            is_first = record.filename.endswith("data/0")
            bomb.writestr(record.filename, bytes(64_000_000) if is_first else packed.read(record))
        bomb.comment = packed.comment
    with pytest.raises(UserError, match="is compressed, and torch.save compresses none"):
        load_checkpoint(path)


def test_records_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """A table of contents may name the same bytes many times."""
    path = tmp_path / "a.ckpt"
    with ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", bytes(100_000))
        first = archive.infolist()[0]
        for number in range(20):
            again = copy(first)
            again.filename = f"a/data/{number}"
            archive.filelist.append(again)
        archive._didModify = True
    with pytest.raises(UserError, match="larger together than the file"):
        load_checkpoint(path)
