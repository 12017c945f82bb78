"""Writes an export: the model's file, model.json and the model card, all or nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from ssat.config.schema import Run
from ssat.core.errors import UserError
from ssat.core.files import UNFINISHED, alone_in, replacing, write_text
from ssat.export.card import model_card
from ssat.export.classifier import Classifier
from ssat.export.formats import FORMATS
from ssat.export.parity import BATCHES, compare, require

FACTS, CARD = "model.json", "README.md"
TestImages = Callable[[], "tuple[Iterable[Tensor], str]"]  # batches (B, C, H, W), or none and the reason


def write_export(
    model: Classifier,
    facts: dict[str, Any],
    config: Run,
    *,
    name: str,
    out: Path,
    test_images: TestImages,
    force: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Write the network as format `name` to the folder `out`, after a comparison with PyTorch.

    Args:
        model: encoder and head.
        facts: of `facts.gather`.
        config: of the run.
        name: of the format.
        out: a new or an empty folder.
        test_images: called once the file exists.
        force: replace what an earlier export has written there.
        say: takes the lines about the comparison.

    Returns:
        what model.json holds.

    Raises:
        UserError: `out` is not empty or cannot be written, the format does not suit the network, or the file does not
            compute what PyTorch computes. Nothing is left behind then.
    """
    refuse_filled(out, force=force)
    form, noun = FORMATS[name], "images" if config.data.frames is None else "clips"
    with _beside(out) as partial:
        data, more = form.encode(model)
        file = partial / form.file
        with _writing(out), replacing(file) as unfinished:
            unfinished.write_bytes(data)
        facts = {
            **facts,
            **more,
            "format": name,
            "file": form.file,
            "sha256": hashlib.sha256(data).hexdigest(),
            "input": {"name": "images", "shape": ["batch", *model.sample_shape], "dtype": "float32"},
            "parity": check_parity(model, file, name, test_images, say, multi_label=config.data.multi_label, noun=noun),
        }
        with _writing(out):
            write_text(partial / CARD, model_card(facts, config, form.usage(facts)))
            write_text(partial / FACTS, json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
            _publish(partial, out, [form.file, CARD, FACTS], force=force)
    return facts


def check_parity(
    model: Classifier,
    file: Path,
    name: str,
    test_images: TestImages,
    say: Callable[[str], None],
    *,
    multi_label: bool = False,
    noun: str = "images",
) -> dict[str, Any]:
    """Compare the file with PyTorch on random input, and on test images where there are some.

    Args:
        model: encoder and head.
        file: the exported one.
        name: of the format.
        test_images: called after the random input.
        say: takes the lines about the comparison.
        multi_label: the logits are of labels.
        noun: images or clips.

    Raises:
        UserError: they differ.
    """
    exported = FORMATS[name].decode(file, model)
    random = compare(model, exported, [model.example(batch, seed) for seed, batch in enumerate(BATCHES)])
    require(random, "random inputs", name, multi_label=multi_label)
    sizes = " and ".join(map(str, BATCHES))
    say(f"parity on {random.images} random inputs (batches of {sizes}): {random.said(multi_label=multi_label)}")
    batches, reason = test_images()
    if reason:
        say(f"note: parity is not measured on test images: {reason}")
        return {"random": random._asdict(), "test": None, "test_missing": reason}
    test = compare(model, exported, batches)
    require(test, f"test {noun}", name, multi_label=multi_label)
    say(f"parity on {test.images} test {noun}: {test.said(multi_label=multi_label)}")
    return {"random": random._asdict(), "test": test._asdict(), "test_missing": ""}


def refuse_filled(out: Path, *, force: bool) -> None:
    """Raises: UserError: `out` is a file, or a folder that is not empty."""
    with _writing(out):
        # What commands have not finished there is nothing yet; one of them is this.
        filled = out.is_dir() and any(not UNFINISHED.fullmatch(entry.name) for entry in out.iterdir())
        if out.exists() and not out.is_dir():
            raise UserError(f"out={out} is a file: name a new folder", key="out", value=str(out))
    if filled and not force:
        raise UserError(
            f"out={out} is not empty: name a new folder, or force=true to replace an earlier export there",
            key="out",
            value=str(out),
        )


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A folder beside `out`, or in it; it and folders that had to be made for it are removed when the block fails."""
    whole = Path(os.path.abspath(out))
    # A folder that exists may be a disk of its own, to which nothing can be moved from beside it.
    partial = (whole if whole.is_dir() else whole.parent) / f".{whole.name}.{os.getpid()}.partial"
    missing = [folder for folder in partial.parents if not folder.exists()]
    try:
        with _writing(out):
            partial.mkdir(parents=True)
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
        raise
    shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        cure = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "name another folder"
        raise UserError(f"out={out} cannot be written ({error.strerror}): {cure}", key="out", value=str(out)) from error


def _publish(partial: Path, out: Path, names: list[str], *, force: bool) -> None:
    """Move the files to `out`, at once where there is no such folder; an earlier export's other model file goes."""
    if not out.exists():
        try:
            partial.rename(out)
            return
        except OSError:  # another command has just made it
            if not out.is_dir():
                raise
    with alone_in(out, wait=True):
        refuse_filled(out, force=force)
        for name in names:  # model.json last: it names the file
            os.replace(partial / name, out / name)
        for form in FORMATS.values():
            if form.file not in names:
                (out / form.file).unlink(missing_ok=True)
