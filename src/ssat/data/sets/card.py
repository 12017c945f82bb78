"""What is known of an official data set, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Download:
    """One file on a public server.

    Attributes:
        url: where it is.
        md5: of the file, None where no official or widely used one is known.
        megabytes: its size, rounded.
        folder: where it is put, below data.root.
        unpacks: for an archive, the folder in it, which ends up in `folder`.
    """

    url: str
    md5: str | None
    megabytes: float
    folder: str
    unpacks: str = ""

    @property
    def name(self) -> str:
        """File name, as on the server."""
        return urlsplit(self.url).path.rpartition("/")[2]


@dataclass(frozen=True)
class Card:
    """What is known of a data set.

    Attributes:
        name: as in `data=<name>`.
        title: as in the paper.
        train, test, val: images of the official splits; `val` is None where there is no official validation split.
        classes: number of classes.
        class_names: None where they are read from the files.
        img_size: pixels per side that the paper trains at (Table 14).
        licence, citation, homepage: as the makers state them.
        folder: of the set, below data.root.
        also: another name of that folder, as its makers pack it.
        marks: files and folders in `folder` without which the set is not there.
        tree: the folder tree in words.
        downloads: empty where the set is embedded or must be asked for.
        request: where and how to ask; empty where it can be downloaded.
        contents: MD5 of files in `folder` that come out of an archive.
        per_class: images of each class in the official splits whose counts are known, in the order of the labels; those
            of the sets in manifests.json stand there.
        disk: megabytes on disk, rounded; 0 = unknown.
        trains_on_val: the paper trains on train + val.
        note: what differs from Table 9 and why.
    """

    name: str
    title: str
    train: int
    test: int
    classes: int
    img_size: int
    licence: str
    citation: str
    homepage: str
    folder: str
    marks: tuple[str, ...]
    tree: str
    val: int | None = None
    class_names: tuple[str, ...] | None = None
    downloads: tuple[Download, ...] = ()
    also: str = ""
    request: str = ""
    contents: dict[str, str] = field(default_factory=dict)
    per_class: dict[str, tuple[int, ...]] = field(default_factory=dict)
    disk: int = 0
    trains_on_val: bool = False
    note: str = ""

    @property
    def counts(self) -> dict[str, int]:
        """Images of each official split."""
        return {"train": self.train, **({} if self.val is None else {"val": self.val}), "test": self.test}

    @property
    def trained(self) -> int:
        """Images that the paper trains on."""
        return self.train + (self.val or 0) * self.trains_on_val

    @property
    def download_megabytes(self) -> float:
        """Megabytes of all files together."""
        return sum(download.megabytes for download in self.downloads)
