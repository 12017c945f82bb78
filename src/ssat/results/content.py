"""Which images runs were made of: runs on other images are not compared, but a part drawn anew for each seed is."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ssat.runs.record import Record, as_number, lookup

LABELS = "data.label_fraction"


def is_of_videos(record: Record) -> bool:
    """Whether the run is of videos."""
    return record.get("config.data.frames") is not None


def counted(records: Sequence[Record]) -> str:
    """What the runs' splits are counted in: images, videos, or both."""
    return _named(records, "videos")


def unit(records: Sequence[Record]) -> str:
    """What the runs' networks see: images, clips, or both."""
    return _named(records, "clips")


def _named(records: Sequence[Record], videos: str) -> str:
    kinds = {videos if is_of_videos(record) else "images" for record in records}
    return " or ".join(sorted(kinds, key=videos.__eq__)) or "images"


def draws_by_seed(record: Record) -> bool:
    """Whether the seed draws which images are trained on, kept for validation or used with their labels."""
    data = record.get("config.data")
    data = data if isinstance(data, Mapping) else {}
    is_part = data.get("fraction", 1) != 1 and data.get("subset") != "official"  # which has a seed of its own
    return bool(
        is_part
        or data.get("samples_per_class")
        or data.get("val_fraction")
        or data.get("label_fraction", 1) != 1
        or data.get("protocol") == "strict"
    ) or _draws_test(record)


def _draws_test(record: Record) -> bool:
    """Whether the seed, or the fold, draws which images are tested on."""
    return bool(record.get("config.data.test_fraction") or record.get("config.data.folds"))


def labelled_images(record: Record) -> float | None:
    """How many training images have a label that is used; None where the record does not say."""
    if record.phases and (some := as_number(lookup(record.phases[-1], "data_check.labelled.images"))):
        return some
    return record.number("data_fingerprint.splits.train") if record.settings.get(LABELS, 1) == 1 else None


def content_digest(record: Record) -> str:
    """Six digits of the hash of the run's images; empty where the record has none."""
    return _digits(_content(record))


def shared_content(record: Record) -> dict[str, Any]:
    """The hashes of those splits of a run that are the same for every seed, by split."""
    drawn = ["train", "val"] if draws_by_seed(record) else []
    drawn += ["test"] if _draws_test(record) else []
    return {split: sha for split, sha in _content(record).items() if split not in drawn}


def by_content(records: Sequence[Record]) -> list[tuple[str, list[Record]]]:
    """Runs on the same images together, with their mark: a folder with other images in it is another data set.

    Where the seed draws a part of the images, two seeds have others by right: the hashes of that part are compared
    between runs of one seed, and fold, alone. If a seed then has two, nothing says which of another seed's runs belong
    to which, and the images of all must be the same. A failed run may not know its images, and stands with the first.
    """
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        known = bool(_content(record))
        groups[_digits(shared_content(record)) or "none" if known else ""].append(record)
    unknown = groups.pop("", [])
    found = [part for mark, members in groups.items() for part in _by_seed(mark, members)]
    if not found:
        return [("", list(records))]
    places = {id(record): index for index, record in enumerate(records)}
    mark, first = found[0]
    found[0] = mark, sorted([*first, *unknown], key=lambda record: places[id(record)])
    return found


def _by_seed(mark: str, records: list[Record]) -> list[tuple[str, list[Record]]]:
    of_seed: dict[Any, set[str]] = defaultdict(set)
    for record in records:
        of_seed[record.get("seed"), record.fold].add(content_digest(record))
    if all(len(digests) == 1 for digests in of_seed.values()):
        return [(mark, records)]
    digests = list(dict.fromkeys(map(content_digest, records)))
    return [(digest, [each for each in records if content_digest(each) == digest]) for digest in digests]


def _content(record: Record) -> dict[str, Any]:
    content = record.get("data_fingerprint.sha256")
    return content if isinstance(content, dict) else {}


def _digits(content: Mapping[str, Any]) -> str:
    if not content:
        return ""
    text = json.dumps({"": content}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:6]
