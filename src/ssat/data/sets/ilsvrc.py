"""The tar files of ILSVRC 2012 to class folders, in steps that a later call continues."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path
from typing import IO

from ssat.core.errors import UserError
from ssat.data.sets.checks import first_line
from ssat.data.sets.download import DAMAGED, Report, check_space, file_md5, safe_name, silent, writing
from ssat.data.sets.readers import read_mat

TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
MD5 = {
    TRAIN: "1d675b47d978889d74fa0da5fadfb00e",
    VAL: "29b22e2961454d5413ddabcf34fc5622",
    DEVKIT: "fa75699e90414af021442c21a62c3abf",
}


def unpack(root: Path, report: Report = silent, md5: dict[str, str] = MD5) -> None:
    """Unpack what there is of the three files in `root` or `root/imagenet` to `root/imagenet/train` and `val`.

    Without the files, or where both folders exist, it does nothing.

    Args:
        root: the data folder.
        report: called with the bytes done.
        md5: of the files; one that is not named is not checked.

    Raises:
        UserError: a file is damaged, or the disk is full.
    """
    folder = root / "imagenet"
    found = {name: path for name in (TRAIN, VAL, DEVKIT) for path in (root / name, folder / name) if path.is_file()}
    if TRAIN in found and not (folder / "train").exists():
        _unpack_train(found[TRAIN], folder, report, md5)
    if VAL in found and not (folder / "val").exists():
        if DEVKIT not in found:
            raise UserError(f"{found[VAL]} has no labels: put {DEVKIT} beside it, which has them")
        _check(found[DEVKIT], report, md5)
        _unpack_val(found[VAL], _validation_classes(found[DEVKIT], folder), folder, report, md5)


def _check(path: Path, report: Report, md5: dict[str, str]) -> None:
    expected = md5.get(path.name)
    if expected and (found := file_md5(path, report)) != expected:
        raise UserError(
            f"{path} has the MD5 {found}, expected {expected}: it is damaged or incomplete, download it again"
        )


def _unpack_train(archive: Path, folder: Path, report: Report, md5: dict[str, str]) -> None:
    """The archive holds one tar file per class; a class is renamed when it is whole."""
    parts = folder / ".train.part"
    if not parts.exists():
        _check(archive, report, md5)
        check_space(folder, archive.stat().st_size / 1e6)
    done = 0
    with writing(parts):
        parts.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive) as outer:
            for member in outer:
                target = parts / Path(safe_name(archive, member.name)).stem
                stream = outer.extractfile(member)
                if stream is not None and not target.exists():
                    _unpack_class(archive, stream, target)
                done += member.size
                report(done, archive.stat().st_size)
    except DAMAGED as error:
        raise UserError(f"{archive} is damaged or truncated ({first_line(error)}): download it again") from None
    with writing(folder / "train"):
        os.replace(parts, folder / "train")


def _unpack_class(archive: Path, stream: IO[bytes], target: Path) -> None:
    begun = target.with_name(f".{target.name}")
    shutil.rmtree(begun, ignore_errors=True)
    with tarfile.open(fileobj=stream) as inner, writing(begun):
        begun.mkdir()
        for member in inner:
            image = inner.extractfile(member) if member.isreg() else None
            if image is not None:
                _write(image, begun / safe_name(archive, member.name))
    os.replace(begun, target)


def _unpack_val(archive: Path, classes: dict[str, str], folder: Path, report: Report, md5: dict[str, str]) -> None:
    parts = folder / ".val.part"
    if not parts.exists():
        _check(archive, report, md5)
        check_space(folder, archive.stat().st_size / 1e6)
    done = 0
    try:
        with tarfile.open(archive) as tar, writing(parts):
            for member in tar:
                stream = tar.extractfile(member) if member.isreg() else None
                if stream is None:
                    continue
                name = safe_name(archive, member.name)
                if name not in classes:
                    raise UserError(f"{archive} has {name!r}, for which {DEVKIT} has no label: download both again")
                target = parts / classes[name] / name
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.exists() or target.stat().st_size != member.size:
                    _write(stream, target)
                done += member.size
                report(done, archive.stat().st_size)
    except DAMAGED as error:
        raise UserError(f"{archive} is damaged or truncated ({first_line(error)}): download it again") from None
    with writing(folder / "val"):
        os.replace(parts, folder / "val")


def _validation_classes(devkit: Path, folder: Path) -> dict[str, str]:
    """{'ILSVRC2012_val_00000001.JPEG': 'n01751748', ...}"""
    wanted = {"meta.mat": b"", "ILSVRC2012_validation_ground_truth.txt": b""}
    try:
        with tarfile.open(devkit) as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.isreg() else None
                if stream is not None and Path(member.name).name in wanted:
                    wanted[Path(member.name).name] = stream.read()
    except DAMAGED as error:
        raise UserError(f"{devkit} is damaged or truncated ({first_line(error)}): download it again") from None
    meta = folder / ".meta.mat"
    with writing(meta):
        folder.mkdir(parents=True, exist_ok=True)
        meta.write_bytes(wanted["meta.mat"])
    try:
        synsets = read_mat(meta, ("synsets",))["synsets"].ravel()
    finally:
        meta.unlink()
    wnids = {int(row["ILSVRC2012_ID"].item()): str(row["WNID"].item()) for row in synsets}
    numbers = wanted["ILSVRC2012_validation_ground_truth.txt"].split()
    return {f"ILSVRC2012_val_{index:08d}.JPEG": wnids[int(number)] for index, number in enumerate(numbers, 1)}


def _write(stream: IO[bytes], target: Path) -> None:
    begun = target.with_name(f".{target.name}")
    with stream, begun.open("wb") as file:
        shutil.copyfileobj(stream, file, 1 << 20)
    os.replace(begun, target)
