"""Spectra of the features of a phase as a file: one row for each epoch at which they were measured."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ssat.core.files import write_text
from ssat.core.read import read_text

FLOOR = 1e-7  # of a value that is drawn: fp32 features say nothing of smaller ones
FILE, PICTURE = "spectrum.csv", "spectrum.png"  # in a phase's folder
Spectra = Mapping[int, list[float]]  # normalised singular values, in descending order, by the epoch (from 0)


def write_spectra(folder: Path, spectra: Spectra) -> Path:
    """Write `folder`/spectrum.csv: the epoch (from 0), then its normalised singular values in descending order."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    longest = max(map(len, spectra.values()), default=0)
    table.writerow(["epoch", *range(1, longest + 1)])
    table.writerows([epoch, *(f"{value:.6e}" for value in spectra[epoch])] for epoch in sorted(spectra))
    return write_text(folder / FILE, text.getvalue())


def read_spectra(folder: Path) -> dict[int, list[float]]:
    """The rows of `folder`/spectrum.csv; without those that are damaged, and none where there is no such file."""
    found = {}
    try:
        rows = csv.reader(read_text(folder / FILE).splitlines()[1:])
        for row in rows:
            with suppress(ValueError, IndexError):
                epoch, values = int(row[0]), [float(value) for value in row[1:]]
                if epoch >= 0 and all(math.isfinite(value) and 0 <= value <= 1 for value in values):
                    found[epoch] = values
    except (OSError, ValueError, csv.Error):
        pass
    return found
