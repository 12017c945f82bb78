"""The paper as data: experiments/tableN.yaml says what is run, experiments/paper_numbers.yaml what the paper prints."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from src.cli import CONF
from src.config import nearest
from src.errors import UserError

EXPERIMENTS = CONF.parent / "experiments"
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where it is there, is ten times as fast


@dataclass(frozen=True)
class Experiment:
    """What experiments/<name>.yaml runs: every row with every column, but for `skip`."""

    name: str
    rows: dict[str, list[str]]  # name -> overrides
    columns: dict[str, list[str]]
    base: list[str]  # overrides that all cells share
    skip: frozenset[tuple[str, str]] = frozenset()
    unbuilt: str = ""  # why it cannot be run yet

    def words(self, row: str, column: str) -> list[str]:
        """The overrides of one cell; a later one of the same key replaces an earlier one."""
        words = {word.split("=")[0]: word for word in [*self.base, *self.rows[row], *self.columns[column]]}
        return list(words.values())

    def command(self, row: str, column: str) -> str:
        """The command line that runs one cell; empty where nothing can be run."""
        if self.unbuilt:
            return ""
        words = [word for word in self.words(row, column) if word != "trainer.accumulate=1"]  # the default
        words.append(f"experiment={self.name}")
        return shlex.join(["python", "-m", "src.train", *words])


@dataclass(frozen=True)
class Cell:
    """One number of the paper, or an empty place of a figure where it prints none."""

    item: str
    row: str
    column: str
    measure: str
    unit: str
    number: float | None = None
    shown: str = ""  # the number as printed
    notes: tuple[str, ...] = ()
    key: str = ""  # of the configuration, under measure=setting
    value: Any = None  # as printed; under measure=setting also a word, a list or None

    @property
    def reference(self) -> str:
        return f"{self.item}/{self.row}/{self.column}"


@dataclass(frozen=True)
class Item:
    """A table or figure of the paper, with its experiment."""

    name: str
    title: str
    source: str
    cells: dict[tuple[str, str], Cell]
    experiment: Experiment
    notes: list[str] = field(default_factory=list)
    row_header: str = ""
    kind: str = "table"  # table | line | bars | none
    analysis: str = ""  # the analysis that a figure is drawn from
    axes: tuple[str, str] = ("", "")
    relative_to: str = ""  # bars: the column whose accuracy is 0 (Figure 1)
    means: dict[str, list[str]] = field(default_factory=dict)  # bars: rows that are shown as their mean

    @property
    def is_figure(self) -> bool:
        return self.name.startswith("figure")

    @property
    def rows(self) -> list[str]:
        return list(dict.fromkeys(row for row, _ in self.cells))

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(column for _, column in self.cells))


def read_yaml(path: Path) -> Any:
    """Raises: UserError where the file is damaged."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from error


def read_experiment(name: str) -> Experiment:
    """experiments/<name>.yaml; one without rows has nothing to run."""
    path = EXPERIMENTS / f"{name}.yaml"
    content = read_yaml(path) if path.is_file() else {}
    sweeper = (content.get("hydra") or {}).get("sweeper") or {}
    base = []
    for entry in content.get("defaults") or []:
        for group, option in entry.items() if isinstance(entry, dict) else ():
            if str(group).startswith("override /"):
                base.append(f"{str(group).removeprefix('override /')}={option}")
    own = {key: value for key, value in content.items() if key not in ("defaults", "hydra", "experiment")}
    base += list(_as_words(own))
    skip = frozenset(tuple(part.strip() for part in str(pair).rsplit(" / ", 1)) for pair in sweeper.get("skip") or ())
    return Experiment(
        name,
        {str(row): [str(word) for word in words] for row, words in (sweeper.get("rows") or {}).items()},
        {str(column): [str(word) for word in words] for column, words in (sweeper.get("columns") or {}).items()},
        base,
        skip,  # type: ignore[arg-type]
        str(sweeper.get("unbuilt") or ""),
    )


def _as_words(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _as_words(value, f"{prefix}{key}.")
        else:
            text = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
            yield f"{prefix}{key}={text}"


@cache
def read_paper() -> dict[str, Item]:
    """Every table and figure, in the paper's order."""
    numbers = read_yaml(EXPERIMENTS / "paper_numbers.yaml")
    return {name: _item(name, content) for name, content in numbers.items() if name.startswith(("table", "figure"))}


@cache
def read_text_numbers() -> list[dict[str, Any]]:
    """The numbers in the paper's running text."""
    return read_yaml(EXPERIMENTS / "paper_numbers.yaml").get("text") or []


@cache
def read_claims() -> list[dict[str, Any]]:
    """The paper's sentences that are claims."""
    return read_yaml(EXPERIMENTS / "claims.yaml")


def choose(names: Sequence[str]) -> dict[str, Item]:
    """The named tables and figures; all of them for no name.

    Raises:
        UserError: there is no such table or figure.
    """
    items = read_paper()
    for name in names:
        if name not in items:
            raise UserError(
                f"there is no table or figure {name!r}{nearest(name, list(items))}; there are {', '.join(items)}"
            )
    return {name: items[name] for name in items if not names or name in names}


def _item(name: str, content: dict[str, Any]) -> Item:
    experiment, is_figure = read_experiment(name), name.startswith("figure")
    notes = content.get("notes") or []
    text = {key: str(content.get(key) or "") for key in ("row_header", "analysis", "relative_to")}
    return Item(
        name=name,
        title=str(content.get("title", name)),
        source=str(content.get("source", name)),
        cells=_cells(name, content, experiment, is_figure),
        experiment=experiment,
        notes=[str(note["text"]) for note in notes if "row" not in note and "column" not in note],
        kind=str(content.get("kind", "none")) if is_figure else "table",
        axes=tuple((content.get(axis) or {}).get("label", "") for axis in ("x", "y")),
        means=content.get("means") or {},
        **text,
    )


def _cells(name: str, content: dict[str, Any], experiment: Experiment, is_figure: bool) -> dict[tuple[str, str], Cell]:
    """A table's cells are those with a number; a figure's also those that are run and that the paper only draws."""
    columns = {str(column): values or {} for column, values in (content.get("columns") or {}).items()}
    rows = {str(row): values or {} for row, values in (content.get("rows") or {}).items()}
    cells = {}
    for row in dict.fromkeys([*rows, *experiment.rows]) if is_figure else rows:
        for column in dict.fromkeys([*columns, *experiment.columns]) if is_figure else columns:
            value = rows.get(row, {}).get(column)
            if (value is None and not is_figure) or (row, column) in experiment.skip:
                continue
            told = [str(n["text"]) for n in content.get("notes") or [] if _is_about(n, row, column)]
            cells[row, column] = _cell(name, row, column, value, columns.get(column, {}) | _key_of(rows.get(row)), told)
    return cells


def _key_of(row: dict[str, Any] | None) -> dict[str, Any]:
    return {"key": row["key"]} if row and "key" in row else {}


def _is_about(note: dict[str, Any], row: str, column: str) -> bool:
    """Whether a note names this cell, its row or its column."""
    named = {key: str(note[key]) for key in ("row", "column") if key in note}
    return bool(named) and named.get("row", row) == row and named.get("column", column) == column


def _cell(item: str, row: str, column: str, value: Any, head: dict[str, Any], notes: list[str]) -> Cell:
    details = value if isinstance(value, dict) else {"value": value}
    raw = details.get("value")
    number = float(raw) if isinstance(raw, (int, float)) and not isinstance(raw, bool) else None
    shown = str(details.get("shown", "" if raw is None else raw))
    notes = [*notes, str(details["note"])] if details.get("note") else notes
    measure = str(details.get("measure") or head.get("measure") or "acc1")
    unit = str(details.get("unit") or head.get("unit") or ("%" if measure in ("acc1", "perspective") else ""))
    return Cell(item, row, column, measure, unit, number, shown, tuple(notes), str(head.get("key") or ""), raw)
