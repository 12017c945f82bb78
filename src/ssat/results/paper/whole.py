"""Whether a run had all that a cell of the paper asks of its data: the images of the official set and every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ssat.core.files import file_sha256
from ssat.data.sets.card import Card
from ssat.data.sets.catalog import CATALOG
from ssat.data.sets.manifest import official_counts
from ssat.results.content import is_of_videos
from ssat.results.paper.videos import is_whole_set
from ssat.runs.record import Record, as_number, lookup

# The hashes in the names of the weight files that timm loads for encoder.pretrained=true: the first digits of SHA-256.
TIMM_SHA256 = {"deit_tiny_patch16_224": "a1311bcf", "deit_small_patch16_224": "cd65a155"}
UNVERIFIED = "weights not verified"


def lacks(record: Record) -> tuple[str, ...]:
    """What a run had less or other than the whole official set and its whole schedule, each in words.

    As far as the record tells: one of an earlier version may not know its class counts.
    """
    found = []
    if steps := record.get("config.trainer.max_steps"):
        found.append(f"stopped after {steps} steps (trainer.max_steps)")
    if skipped := record.items("skipped_images"):
        found.append(f"{len(skipped)} unreadable image{'s' * (len(skipped) != 1)} skipped")
    if record.get("config.data.verify") is False:
        found.append("images not counted against the official set (data.verify=false)")
    if is_of_videos(record):
        return tuple(found + ([] if is_whole_set(record) else [f"a part of the videos of {record.data}"]))
    card = CATALOG.get(record.data)
    return tuple(found + (_unlike(record, card) if card is not None else []))


def _unlike(record: Record, card: Card) -> list[str]:
    """Where the counts of a run are not those of the official set."""
    found = []
    if record.classes not in (None, card.classes):
        found.append(_of(record.classes, card.classes, "classes"))
    if record.split == "test":
        found.append(_of(record.number("data_fingerprint.splits.test"), card.test, "test images"))
    whole_set = {"fraction": (1,), "label_fraction": (None, 1), "protocol": ("paper",)}
    whole_set |= {"samples_per_class": (None, 0), "val_fraction": (None, 0)}
    if any(record.get(f"config.data.{key}") not in values for key, values in whole_set.items()):
        wanted = {"test": official_counts(card).get("test")}  # the settings say what was trained on
    else:
        found.append(_of(record.number("data_fingerprint.splits.train"), card.trained, "training images"))
        wanted = {"train": trained_counts(card), "test": official_counts(card).get("test")}
    if not any(found):
        found += [_of_classes(record, split, counts) for split, counts in wanted.items() if counts]
    return [text for text in found if text]


def trained_counts(card: Card) -> list[int] | None:
    """Images of each class that the paper trains on; None where they are not known."""
    counts = official_counts(card)
    parts = [counts.get(split) for split in ("train", *(["val"] if card.trains_on_val else []))]
    known = [part for part in parts if part is not None]
    return [sum(column) for column in zip(*known, strict=True)] if len(known) == len(parts) else None


def _of(ours: float | None, whole: int, what: str) -> str:
    if ours is None or ours == whole:
        return ""
    return f"{ours:,.0f} of {whole:,} {what}" if ours < whole else f"{ours:,.0f} {what}, not {whole:,}"


def _of_classes(record: Record, split: str, official: Sequence[int]) -> str:
    """Where the labels of a split are not the official ones: as many images, and others of each class."""
    check = lookup(record.phases[-1], "data_check.counts") if record.phases else None
    counts = check.get(split) if isinstance(check, Mapping) else None
    ours = [*counts.values()] if isinstance(counts, Mapping) else []
    for name, found, whole in zip(counts or (), ours, official, strict=False):
        if as_number(found) is not None and found != whole:
            return f"other labels: {found:,} {split} images of class {name!r}, not {whole:,}"
    return ""


def unverified_weights(record: Record) -> str:
    """That the start weights are a file which may hold anything; empty where they are timm's, or there are none."""
    source = record.get("config.encoder.pretrained")
    if not isinstance(source, str):
        return ""
    sha, name = _weight_hash(record), record.encoder
    begin = TIMM_SHA256.get(name)
    is_timms = bool(sha) and ((begin is not None and sha.startswith(begin)) or sha in _cached_hashes(name))
    return "" if is_timms else UNVERIFIED


def _weight_hash(record: Record) -> str:
    weights: Any = record.get("inputs.weights")
    return str(weights.get("encoder.pretrained") or "") if isinstance(weights, Mapping) else ""


@cache
def _cached_hashes(name: str) -> frozenset[str]:
    """SHA-256 of the files that timm has stored of a model on this machine."""
    try:
        import timm
        from huggingface_hub import try_to_load_from_cache

        config = timm.get_pretrained_cfg(name)
    except (ImportError, RuntimeError, ValueError):
        return frozenset()
    if config is None or not config.hf_hub_id:
        return frozenset()
    files = ("model.safetensors", "pytorch_model.bin")
    found = [try_to_load_from_cache(config.hf_hub_id, file) for file in files]
    return frozenset(file_sha256(Path(path)) for path in found if isinstance(path, str))
