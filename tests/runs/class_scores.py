"""The predictions of several classes of videos, read as anybody would."""

import csv
from pathlib import Path

from ssat.runs.video_classes import ClassScore


def class_scores(path: Path) -> tuple[list[ClassScore], list[str]]:
    """The scores of a file of `write_class_predictions`, and the names of the classes."""
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        columns = [name for name in reader.fieldnames or () if name.startswith("prob_")]
    scores = [
        ClassScore(
            row["video"],
            int(row["label"]),
            row["method"],
            tuple(float(row[name]) for name in columns if row[name]),
            int(row["n_clips"]),
            row["status"],
        )
        for row in rows
    ]
    return scores, [name.removeprefix("prob_") for name in columns]
