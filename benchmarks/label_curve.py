"""How often the interval of an extrapolated label curve holds a later run: the fit of the report, on known points.

    python -m benchmarks.label_curve                               # hundreds of curves of fast classifiers
    python -m benchmarks.label_curve --runs runs/next_labels       # the runs of a folder, whatever their epochs

Of every curve the shares of the labels up to some share are fitted, and every run with more labels is compared with the
interval for it. The fast classifiers are scikit-learn's, on its digits and on its breast cancer data: of each data set
so many random splits, with 3 draws of the labels as seeds. Prints the share of runs inside, the mean width and the mean
of measured minus predicted, by how many times the labels were extrapolated.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.device import Arguments, at_least, present_folder
from ssat.results.content import LABELS
from ssat.results.extrapolation import FEWEST, NOMINAL, Point, extrapolate
from ssat.runs.record import as_number, read_records

SHARES = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
TESTED = 0.2  # of the images
FEWEST_LABELS = 10
Curve = Mapping[float, Sequence[float]]  # accuracies in percent, one for each seed, by the share of the labels


@dataclass
class Hits:
    """Later runs: whether each lay inside its interval, the interval's width, and measured minus predicted (points)."""

    inside: list[bool] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)


def compare(curve: Curve, images: int, *, seeds: int | None = None) -> Iterator[tuple[float, bool, float, float]]:
    """For every run with more labels than a fit: how many times as many, and its row of `Hits`.

    Args:
        curve: what was measured; the runs with all labels are later ones too.
        images: of the test.
        seeds: of the points that are fitted; None = all.
    """
    shares = sorted(curve)
    for end in range(FEWEST, len(shares)):
        points = [Point(share, list(curve[share])[:seeds], images) for share in shares[:end]]
        for found in extrapolate(points, shares[end:]):
            for accuracy in curve[found.labels]:
                inside = found.low <= accuracy <= found.high
                yield found.labels / shares[end - 1], inside, found.high - found.low, accuracy - found.accuracy


def classifiers() -> dict[str, Any]:
    """Fast ones by name, each a function that makes one."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier

    return {
        "logistic regression": lambda: LogisticRegression(C=0.1, max_iter=100),
        "3 nearest neighbours": lambda: KNeighborsClassifier(3),
        "support vectors": SVC,
        "tree": lambda: DecisionTreeClassifier(random_state=0),
        "naive Bayes": lambda: GaussianNB(var_smoothing=1e-2),
        "forest": lambda: RandomForestClassifier(30, random_state=0),
    }


def split_curves(inputs: Any, labels: Any, split: int, seeds: int) -> tuple[dict[str, dict[float, list[float]]], int]:
    """The curve of each classifier on one random split, and the number of test images."""
    order = np.random.default_rng(split).permutation(len(labels))
    test, train = np.split(order, [round(TESTED * len(labels))])
    found: dict[str, dict[float, list[float]]] = {name: defaultdict(list) for name in classifiers()}
    for seed in range(seeds):
        drawn = np.random.default_rng([split, seed]).permutation(train)  # nested: a share is part of a larger one
        for share in SHARES:
            known = drawn[: max(FEWEST_LABELS, round(share * len(drawn)))]
            if len({*labels[known]}) < 2:
                continue
            for name, make in classifiers().items():
                right = make().fit(inputs[known], labels[known]).predict(inputs[test]) == labels[test]
                found[name][share].append(100 * float(right.mean()))
    return {name: dict(curve) for name, curve in found.items()}, len(test)


def fast_curves(splits: Sequence[int], seeds: int) -> Iterator[tuple[str, Curve, int]]:
    """Data set and classifier, the curve, and the number of test images."""
    from sklearn.datasets import load_breast_cancer, load_digits

    for name, load in (("digits", load_digits), ("breast cancer", load_breast_cancer)):
        inputs, labels = load(return_X_y=True)
        inputs = (inputs - inputs.mean(0)) / (inputs.std(0) + 1e-6)
        for split in splits:
            curves, images = split_curves(inputs, labels, split, seeds)
            for classifier, curve in curves.items():
                yield f"{name}, {classifier}", curve, images


def run_curves(folder: Path) -> Iterator[tuple[str, Curve, int]]:
    """The finished runs of a folder by encoder, data and mode."""
    found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    images = {}
    for record in read_records(folder)[0]:
        share = as_number(record.settings.get(LABELS, 1.0))
        if record.finished and share and record.accuracy is not None and record.split_size:
            name = f"{record.encoder} on {record.data}, {record.mode}"
            found[name][share].append(record.accuracy)
            images[name] = record.split_size
    yield from ((name, curve, images[name]) for name, curve in found.items())


def table_of(rows: Mapping[tuple[str, str], Hits]) -> Table:
    table = Table(title=f"later runs inside the {NOMINAL} % interval", title_justify="left")
    for title in ("curves", "labels", "inside", "mean width, points", "measured - predicted, points"):
        table.add_column(title, justify="left" if title in ("curves", "labels") else "right")
    for (name, times), hits in rows.items():
        inside = f"{100 * np.mean(hits.inside):.1f} % of {len(hits.inside):,}"
        table.add_row(name, times, inside, f"{np.mean(hits.widths):.1f}", f"{np.mean(hits.errors):+.2f}")
    return table


def main(words: Sequence[str]) -> None:
    parser = Arguments(__doc__)
    parser.add_argument("--runs", type=present_folder, help="folder of src.train; without it the fast classifiers")
    parser.add_argument("--splits", type=at_least(1), default=20, help="random splits of each data set")
    parser.add_argument("--first", type=at_least(0), default=20, help="the first split; 0 to 19 have chosen the width")
    parser.add_argument("--seeds", type=at_least(1), default=3, help="draws of the labels of each split")
    asked = parser.parse_args(words)
    splits = range(asked.first, asked.first + asked.splits)
    curves = run_curves(Path(asked.runs)) if asked.runs else fast_curves(splits, asked.seeds)
    rows: dict[tuple[str, str], Hits] = defaultdict(Hits)
    for name, curve, images in curves:
        for times, inside, width, error in compare(curve, images):
            far = "up to 2 times" if times < 2.1 else "up to 8 times" if times < 8.1 else "more than 8 times"
            for row in ((name, far), ("all", far), ("all", "all")):
                rows[row].inside.append(inside)
                rows[row].widths.append(width)
                rows[row].errors.append(error)
    Console(width=140).print(table_of(dict(sorted(rows.items(), key=lambda row: row[0][0] == "all"))))


if __name__ == "__main__":
    main(sys.argv[1:])
