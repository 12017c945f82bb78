"""What a run predicts of each test image: kept by src.evaluate, and what a paired comparison of two runs reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssat.core.files import replacing
from ssat.core.read import read_arrays
from ssat.runs.record import Record

FILE = "last-{split}-clean.npz"  # beside the evaluation of the last weights on clean images


def write_predictions(path: Path, run_hash: str, rows: NDArray[np.int64]) -> None:
    """Keep `rows` (N, 3): the index of each image in the data, its class and the predicted one."""
    index, target, predicted = rows[rows[:, 0].argsort()].T
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, hash=run_hash, index=index, target=target, predicted=predicted)


def right_images(record: Record) -> tuple[NDArray[np.int64], NDArray[np.bool_]] | None:
    """Indices (N,) of the images that the record's accuracy is of, and which of them the run has right (N,).

    None where they were not kept, or are another run's, of other images, or damaged.
    """
    try:
        path = record.folder / "evaluations" / FILE.format(split=record.split)
        kept = read_arrays(path, ("hash", "index", "target", "predicted"))
    except (OSError, ValueError):
        return None
    is_own = str(kept["hash"]) == record.get("hash")
    index, target, predicted = (kept[name] for name in ("index", "target", "predicted"))
    if not is_own or index.shape != (record.split_size,) or not index.shape == target.shape == predicted.shape:
        return None
    right = target == predicted
    is_same = record.accuracy is not None and abs(100 * right.mean() - record.accuracy) < 0.5  # not the best epoch's
    return (index, right) if is_same else None


def paired_variance(first: list[Record], second: list[Record]) -> float | None:
    """Variance, in points squared, of the difference of two mean accuracies on the same images.

    That of McNemar's test: only the images on which the two disagree count.

    Returns:
        None where a run has kept no predictions, or they are of other images.
    """
    kept = [[right_images(record) for record in side] for side in (first, second)]
    if not all(kept) or any(each is None for side in kept for each in side):
        return None
    indices = [each[0] for side in kept for each in side if each is not None]
    if not all(np.array_equal(index, indices[0]) for index in indices):
        return None
    means = [np.mean([each[1] for each in side if each is not None], axis=0) for side in kept]
    difference = means[0] - means[1]  # of each image, over the seeds
    return float(1e4 * difference.var(ddof=1) / len(difference)) if len(difference) > 1 else None
