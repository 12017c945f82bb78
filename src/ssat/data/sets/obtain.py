"""One official data set: fetched, put together beside its place, checked and only then moved there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from ssat.core.errors import UserError
from ssat.data.sets import ilsvrc, lists, manifest, readers
from ssat.data.sets.card import Card, Download
from ssat.data.sets.checks import Missing, locate
from ssat.data.sets.download import Report, check_space, download, file_md5, silent, unpack, writing
from ssat.data.sets.sources import Source, digits

READERS: dict[str, Callable[..., Source]] = {
    "digits": lambda root: digits(),
    "cifar10": readers.cifar10,
    "cifar100": readers.cifar100,
    "flowers": lists.flowers,
    "svhn": readers.svhn,
    "imagenet": lists.imagenet,
    **{domain: partial(lists.domainnet, domain) for domain in ("clipart", "infograph", "sketch")},
    "chaoyang": lists.chaoyang,
    "pmnist": readers.pmnist,
}
UNPACKED = 2.0  # times the size on the disk that the catalog states, which is rounded
Meter = Callable[[str], "AbstractContextManager[Report]"]


@contextmanager
def no_meter(title: str) -> Iterator[Report]:
    """Shows nothing."""
    yield silent


def obtain(
    card: Card, root: Path, *, mirror: str | None = None, meter: Meter = no_meter, fetch: Callable[..., Any] = download
) -> Source:
    """The data set below `root`; what is missing is downloaded where that is allowed.

    Args:
        card: which.
        root: the data folder.
        mirror: address of a folder that has the files under their names, instead of their makers' servers.
        meter: shows the progress of one file.
        fetch: downloads one file.

    Raises:
        Missing: it must be asked for.
        UserError: it is there and wrong, or cannot be downloaded, unpacked or written.
    """
    read = READERS[card.name]
    if card.name == "imagenet":
        with meter("unpacking ImageNet") as report:
            ilsvrc.unpack(root, report)
    try:
        source = read(root)
    except Missing:
        if not card.downloads:
            raise
    else:
        _remember(card, root, source)
        return source
    with _alone(root, card):
        stage = root / ".ssat" / "parts" / card.name
        _stage(card, root, stage, mirror, meter, fetch)
        try:
            read(stage)
        except UserError as error:
            shutil.rmtree(stage)
            raise UserError(f"what was downloaded is not the official {card.title} and was removed ({error})") from None
        _move(stage / card.folder, root / card.folder)
        shutil.rmtree(stage)
        manifest.path_of(root, card.name).unlink(missing_ok=True)
    source = read(root)
    _remember(card, root, source)
    return source


def verify(card: Card, root: Path) -> tuple[Source, str]:
    """Compare what is below `root` with everything known: counts, hashes, the manifest of its preparation.

    Returns:
        the data set and what was compared.

    Raises:
        Missing: it is not there.
        UserError: something differs.
    """
    source, folder = READERS[card.name](root), locate(card, root)
    found, frozen = manifest.describe(source), manifest.FROZEN.get(card.name)
    same = frozen is not None and not manifest.changed(found, frozen)
    hashes = dict(card.contents) | {file.name: file.md5 for file in card.downloads if not file.unpacks and file.md5}
    other = [name for name, md5 in hashes.items() if file_md5(folder / name) != md5]
    if other and not same:
        raise UserError(f"{folder / other[0]} has not the official MD5 {hashes[other[0]]}: get it again")
    if frozen is not None and not same:
        splits = ", ".join(manifest.changed(found, frozen))
        raise UserError(f"the images or labels of {card.title} ({splits}) are not the official ones: get it again")
    own = manifest.read(root, card.name)
    if own is not None and manifest.changed(found, own):
        raise UserError(
            f"{card.title} ({', '.join(manifest.changed(found, own))}) is not what it was when it was prepared:"
            f" restore it, or remove {manifest.path_of(root, card.name)} if the change is meant"
        )
    if other:
        return source, f"the MD5 of {other[0]} is not the official one, its images and labels are, in another order"
    compared = ["counts"] + ["MD5"] * bool(hashes) + ["content"] * same + ["manifest"] * (own is not None)
    return source, f"{', '.join(compared)} as expected"


def _stage(card: Card, root: Path, stage: Path, mirror: str | None, meter: Meter, fetch: Callable[..., Any]) -> None:
    own = {file.name: _own(file, root) for file in card.downloads}
    ready = [file for file in card.downloads if file.unpacks and (stage / file.folder / file.unpacks).exists()]
    waiting = [file for file in card.downloads if file not in ready]
    to_fetch = [file for file in waiting if own[file.name] is None and not (stage / file.folder / file.name).exists()]
    begun = sum(_bytes(stage / file.folder / f"{file.name}.part") for file in to_fetch) / 1e6
    unpacked = card.disk if any(file.unpacks for file in waiting) else 0
    check_space(root, sum(file.megabytes for file in to_fetch) - begun + unpacked)
    for file in waiting:
        target = stage / file.folder / file.name
        archive = own[file.name] or target
        if file in to_fetch:
            url = file.url if mirror is None else f"{mirror.rstrip('/')}/{file.name}"
            with meter(file.name) as report:
                fetch(url, target, md5=file.md5, by_hand=root / file.name, report=report)
        elif file.md5 and (found := file_md5(archive)) != file.md5:
            raise UserError(
                f"{archive} has the MD5 {found}, expected {file.md5}: it is truncated, damaged or another version;"
                " remove it and repeat the command"
            )
        if file.unpacks:
            with meter(f"unpacking {file.name}") as report:
                most = UNPACKED * 1e6 * max(card.disk, file.megabytes)
                unpack(archive, stage / file.folder, file.unpacks, most=most, report=report)
            target.unlink(missing_ok=True)  # an archive of the user's stays
        elif archive != target:
            with writing(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(archive, target)


def _own(file: Download, root: Path) -> Path | None:
    """A copy that the user has put there."""
    places = (root / file.name, root / file.folder / file.name)
    return next((path for path in places if path.is_file()), None)


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _move(stage: Path, folder: Path) -> None:
    """At once where the folder is new; else folders before files, without its lists a set is not there."""
    with writing(folder):
        if not folder.exists():
            os.replace(stage, folder)
            return
        for path in sorted(stage.iterdir(), key=lambda path: (path.is_file(), path.name)):
            target = folder / path.name
            if target.exists() and not target.is_file():
                raise UserError(f"{target} is in the way of the downloaded files: move it away and repeat the command")
            os.replace(path, target)


def _remember(card: Card, root: Path, source: Source) -> None:
    """An existing manifest stays: a set that changed since is for `verify` to find."""
    if (card.downloads or card.request) and manifest.read(root, card.name) is None:
        with suppress(OSError):  # a set in a folder of somebody else's is as good without
            manifest.write(root, card.name, manifest.describe(source))


@contextmanager
def _alone(root: Path, card: Card) -> Iterator[None]:
    """Two commands must not write the same set."""
    lock = root / ".ssat" / f"{card.name}.lock"
    with writing(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    with file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another command is preparing {card.title} in {root}: wait until it is done") from None
        except (ImportError, OSError):
            pass  # no locks on this system or disk
        yield
