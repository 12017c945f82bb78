"""The files of analyses, which python -m src.analyze writes beside the runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssat.runs.record import Tree, as_number, folders, lookup, read_json

FOLDER = "analyses"


@dataclass(frozen=True)
class AnalysisRecord:
    """One analysis of some models; ssat.analysis.output documents the values.

    Attributes:
        path: of the file.
        values: its content; any of them may be missing or odd.
    """

    path: Path
    values: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the analysis: distance, gradcam, ..."""
        return str(self.values["analysis"])

    @property
    def title(self) -> str:
        """Encoder, data set and number of images or clips."""
        images = as_number(self.values.get("images"))
        count = f", {images:,.0f} {self.values.get('unit', 'images')}" if images else ""
        return f"{self.values.get('encoder')} on {self.values.get('data')}{count}"

    @property
    def of_clips(self) -> bool:
        """Whether videos were looked at, and not images as in all figures of the paper."""
        return self.values.get("unit") == "clips"

    @property
    def models(self) -> list[dict[str, Any]]:
        """The models that it was made of, with their curves."""
        return _dictionaries(self.values.get("models"))

    @property
    def axes(self) -> list[dict[str, Any]]:
        """The pairs of axes that its curves are drawn in: name, labels and scale."""
        return [axes for axes in _dictionaries(self.values.get("panels")) if isinstance(axes.get("name"), str)]


def _dictionaries(values: Any) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def read_analyses(runs: Path, tree: Tree | None = None) -> tuple[list[AnalysisRecord], list[str]]:
    """Every analysis below `runs`, and a line for each file beside them that is none.

    Args:
        runs: the folder of the runs.
        tree: what `folders` has found there, if that is known.
    """
    found, warnings = [], []
    for path in _files(tree or folders(runs)):
        try:
            values = read_json(path)
        except ValueError as error:
            warnings.append(f"{path}: {error}")
            continue
        if lookup(values, "kind") == "analysis" and values.get("schema") == 1 and "analysis" in values:
            found.append(AnalysisRecord(path, values))
        else:
            warnings.append(f"{path}: not a record of an analysis")
    return found, warnings


def _files(tree: Tree) -> Sequence[Path]:
    """The JSON files of analyses; read_records warns of folders that cannot be read."""
    inside = [(folder, names) for folder, names in tree.folders if folder.parent.name == FOLDER]
    return [folder / name for folder, names in inside for name in names if name.endswith(".json")]
