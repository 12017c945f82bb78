"""What the command writes: features as .npz or .parquet, a table, the map, and what made them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssat.commands.embed.features import Embedded
from ssat.commands.predict.images import no_formula
from ssat.core.errors import UserError
from ssat.core.files import refuse_unwritable, replacing, write_text
from ssat.core.words import utf_8
from ssat.runs.predicted import LABELS
from ssat.runs.prediction_rows import write_rows

ENDINGS = (".npz", ".parquet")
Points = NDArray[np.float32]


def check_out(path: Path) -> None:
    """Refuse a file that cannot be written, before anything is computed.

    Raises:
        UserError: another ending, .parquet without its library, or a folder that cannot be written.
    """
    if path.suffix not in ENDINGS:
        raise UserError(
            f"out={path} ends neither in .npz (NumPy) nor in .parquet: add one of them", key="out", value=str(path)
        )
    if path.is_dir():
        raise UserError(f"out={path} is a folder: name a file", key="out", value=str(path))
    refuse_unwritable(path.parent, key="out", value=path, cure="name a file in another folder")
    if path.suffix == ".parquet":
        _pyarrow(path)


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(
            f'out={path} needs the library pyarrow, which is not installed: pip install "ssat[embed]", or name a .npz',
            key="out",
            value=str(path),
        ) from None
    return pyarrow


def write_features(path: Path, embedded: Embedded, points: Points | None, about: dict[str, Any]) -> None:
    """Write the features (N, D), names, labels and class names, and the points (N, 2) of the map if there is one."""
    with replacing(path) as partial:
        if path.suffix == ".npz":
            _write_npz(partial, embedded, points, about)
        else:
            _write_parquet(partial, embedded, points, about)


def _write_npz(path: Path, embedded: Embedded, points: Points | None, about: dict[str, Any]) -> None:
    arrays: dict[str, Any] = {
        "features": embedded.features,
        "files": np.array(embedded.files, dtype=np.str_),  # no objects: it loads without pickle
        "labels": embedded.labels,
        "classes": np.array(embedded.classes, dtype=np.str_),
        "about": np.array(json.dumps(about)),
    }
    with open(path, "wb") as file:  # savez would add .npz to the name
        np.savez_compressed(file, **arrays | ({} if points is None else {"map": points}))


def _write_parquet(path: Path, embedded: Embedded, points: Points | None, about: dict[str, Any]) -> None:
    arrow = _pyarrow(path)
    count, width = embedded.features.shape
    features = arrow.FixedSizeListArray.from_arrays(arrow.array(embedded.features.reshape(-1)), width)
    columns = {
        "file": arrow.array([utf_8(name) for name in embedded.files], arrow.string()),
        "label": arrow.array(embedded.labels.tolist()),  # of several labels a list for each image
        "class": arrow.array([_class(embedded, number) or None for number in range(count)], arrow.string()),
        "features": features,
    }
    if points is not None:
        columns |= {"x": arrow.array(points[:, 0]), "y": arrow.array(points[:, 1])}
    said = {"classes": json.dumps(embedded.classes), "about": json.dumps(about)}
    arrow.parquet.write_table(arrow.table(columns, metadata=said), path)


def _class(embedded: Embedded, number: int) -> str:
    if embedded.labels.ndim == 2:
        return LABELS.join(embedded.classes[place] for place in np.flatnonzero(embedded.labels[number] == 1))
    label = int(embedded.labels[number])
    return "" if label < 0 else embedded.classes[label]


def write_table(path: Path, embedded: Embedded, points: Points | None) -> None:
    """Replace the CSV table: a row for each file with its label and its point, the files that failed at the end."""
    rows = []
    for number, name in enumerate(embedded.files):
        x, y = ("", "") if points is None else (float(value) for value in points[number])
        rows.append([no_formula(utf_8(name)), "ok", no_formula(_class(embedded, number)), x, y, ""])
    rows += [[no_formula(utf_8(row.name)), row.status, "", "", "", utf_8(row.reason)] for row in embedded.failed]
    write_rows(path, ["file", "status", "label", "x", "y", "reason"], rows)


def write_about(path: Path, about: dict[str, Any]) -> None:
    """Replace the JSON file that says what made the others."""
    write_text(path, json.dumps(about, indent=1) + "\n")
