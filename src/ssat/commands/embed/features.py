"""The features of a command's images: of files, or of a split of the run's own data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray

from ssat.commands.predict.images import Row, read_image
from ssat.commands.predict.inputs import Inputs
from ssat.commands.progress import progress
from ssat.core.batch import NO_LABEL
from ssat.core.errors import UserError
from ssat.core.terminal import Console
from ssat.core.words import many
from ssat.data.image import ImageDataModule
from ssat.model import READERS, Model
from ssat.runs.record import lookup
from ssat.runs.saved import saved_configuration
from ssat.training.evaluation import Evaluator

LABEL = "label"  # column of a list
OF_FOLDERS = "of the class folders"


@dataclass(frozen=True, eq=False)
class Embedded:
    """Images as features.

    Attributes:
        features: (N, D) float32, those that the head classifies.
        files: (N,) names, below the folder of the inputs, or of the run's data.
        labels: (N,) int64 class numbers, -1 where there is none; of a network that gives an image several labels
            (N, K), 1 for each label that it has and 0 for the others, rows of -1 where they are not known.
        classes: names, in the order of the numbers.
        failed: the files that could not be read, and why.
        remark: where the labels come from, or why there are none.
    """

    features: NDArray[np.float32]
    files: list[str]
    labels: NDArray[np.int64]
    classes: list[str]
    failed: list[Row] = field(default_factory=list)
    remark: str = ""


def of_inputs(model: Model, inputs: Inputs, batch_size: int, console: Console) -> Embedded:
    """Embed the files; those that cannot be read are named, the others done.

    Raises:
        UserError: the network gives nan.
    """
    size = batch_size or model.saved.phase.recipe.batch_size
    names, rows = inputs.names, list[Row]()
    features = [np.zeros((0, model.encoder.num_features), np.float32)]
    with (
        ThreadPoolExecutor(READERS) as pool,
        progress(console, ("embedding", "embedded"), "files") as tell,
    ):
        tell(0, len(names))
        for first in range(0, len(names), size):
            read = list(pool.map(lambda name: read_image(inputs.folder, name, model), names[first : first + size]))
            rows += [row for row, _ in read]
            if good := [tensor for _, tensor in read if tensor is not None]:
                features.append(_features(model, torch.stack(good)))
            tell(len(rows), len(names))
    columns = lookup(dict(model.saved.config.data.extra), "columns.label")
    label_columns = dict.fromkeys([LABEL, *[columns] * isinstance(columns, str)])
    labels, remark = (
        several_labels_of(inputs, model.classes)
        if model.multi_label
        else labels_of(inputs, model.classes, [*label_columns])
    )
    good_rows = [number for number, row in enumerate(rows) if row.status == "ok"]
    return Embedded(
        np.concatenate(features),
        [rows[number].name for number in good_rows],
        labels[good_rows],
        model.classes,
        [row for row in rows if row.status != "ok"],
        remark,
    )


def of_split(
    model: Model, split: str, checkpoint: str, overrides: Sequence[str], batch_size: int, console: Console
) -> Embedded:
    """Embed a split of the run's own data, each image once and without augmentation.

    Raises:
        UserError: the network is of no run, its data are not there or not those of the training, or it gives nan.
    """
    run = model.saved.run
    if run is None:
        raise UserError(
            f"split={split} is of a run's own data, and {model.saved.name} is no run folder: give its run, or input=",
            key="split",
            value=split,
        )
    config = saved_configuration(run, [*overrides])
    # It compares the data with the run's records.
    evaluator = Evaluator(config, run, model.saved.phase.name, checkpoint, split, batch_size)
    assert isinstance(evaluator.data, ImageDataModule)
    found, labels, indices = list[NDArray[np.float32]](), list[int](), list[int]()
    total = evaluator.data.sizes[split]
    with progress(console, ("embedding", "embedded"), "images") as tell:
        for batch in evaluator.data.eval_loader(split):
            assert batch.targets is not None and batch.indices is not None
            found.append(_features(model, batch.images))
            labels += batch.targets.tolist()
            indices += batch.indices.tolist()
            tell(len(labels), total)
    images, _ = evaluator.data.split(split)
    in_files = images.root is not None
    files = [str(images.images[index]) if in_files else f"{split}/{index}" for index in indices]
    seen = "; the network was trained on these images, so they lie better than new ones" if split == "train" else ""
    return Embedded(
        np.concatenate(found), files, np.asarray(labels, np.int64), model.classes, remark=f"labels of the run{seen}"
    )


def _features(model: Model, images: torch.Tensor) -> NDArray[np.float32]:
    features = model.features(images)
    if not np.isfinite(features).all():
        raise UserError("the network's features are not finite: the training has diverged, choose another checkpoint")
    return features


def labels_of(
    inputs: Inputs, classes: Sequence[str], label_columns: Sequence[str] = (LABEL,)
) -> tuple[NDArray[np.int64], str]:
    """Class numbers (N,) of files, -1 where there is none, and a sentence on where they come from.

    A list says them in its column `label`, or in that which the run's own table had; else the nearest folder above an
    image does that is called as a class of the run.
    """
    number_of = {name: number for number, name in enumerate(classes)}
    column = next((name for name in label_columns if inputs.columns and name in inputs.columns[0]), None)
    if column is not None:
        words = [[row[column].strip()] for row in inputs.columns]
        source, wanted = f"of the column {column}", f"the column {column} names no class of the run"
    else:
        words = [[*reversed(PurePosixPath(Path(name).as_posix()).parts[:-1])] for name in inputs.names]
        lacking = f"the list has no column {label_columns[0]}, and " if inputs.columns else ""
        source, wanted = OF_FOLDERS, f"{lacking}no folder is called as a class of the run"
    labels = np.array([next((number_of[w] for w in each if w in number_of), NO_LABEL) for each in words], np.int64)
    count = int((labels != NO_LABEL).sum())
    if not count:
        return labels, f"no labels: {wanted} ({_few(classes)})"
    if count == len(labels):
        return labels, f"labels {source}"
    strange = next(each for each, label in zip(words, labels.tolist(), strict=True) if label == NO_LABEL)
    first = f", the first is {strange[0]!r}" if strange and strange[0] else ""
    return labels, f"labels {source}: {many(count, 'image')} of {len(labels):,}; the others name no class{first}"


def several_labels_of(inputs: Inputs, classes: Sequence[str]) -> tuple[NDArray[np.int64], str]:
    """(N, K) of files that may have several labels, rows of -1 where they are not known, and where they come from.

    A list says them as the table of a training does: in columns of 0 and 1 that are called as the labels, or by their
    names in a column `label` or `labels`, with `;` or `|` between them.
    """
    labels = np.full((len(inputs.names), len(classes)), NO_LABEL, np.int64)
    header = inputs.columns[0].keys() if inputs.columns else ()
    one = next((name for name in (LABEL, f"{LABEL}s") if name in header), None)
    if all(name in header for name in classes):
        cells = [[row[name].strip() for name in classes] for row in inputs.columns]
        known = [all(cell in ("0", "1") for cell in row) for row in cells]
        source = "the columns of the list that are called as the run's labels"
        found = [[cell == "1" for cell in row] for row in cells]
    elif one is not None:
        named = [{word.strip() for word in re.split("[;|]", row[one]) if word.strip()} for row in inputs.columns]
        known, source = [each <= {*classes} for each in named], f"the column {one}"
        found = [[name in each for name in classes] for each in named]
    else:
        where = "the list has not all columns of 0 and 1" if header else "only a list says them, in columns"
        return labels, f"no labels: {where} that are called as the run's labels ({_few(classes)})"
    for number, each in enumerate(known):
        if each:
            labels[number] = found[number]
    if all(known):
        return labels, f"labels of {source}"
    return labels, f"labels of {source}: {many(sum(known), 'image')} of {len(labels):,}; of the others they are unclear"


def _few(classes: Sequence[str]) -> str:
    return ", ".join([*classes[:5], *["..."] * (len(classes) > 5)])
