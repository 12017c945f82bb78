"""The paper as data: experiments/tableN.yaml are what is run, experiments/paper_numbers.yaml is what it prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from ssat.config.words import EXPERIMENTS, as_typed_here, command_line, words_of_cell
from ssat.core.errors import UserError
from ssat.core.words import nearest

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's loader is ten times as fast, where it is installed


@dataclass(frozen=True)
class Experiment:
    """What experiments/<name>.yaml runs: every row with every column.

    Attributes:
        name: of the file.
        rows: for each row its overrides.
        columns: for each column its overrides.
        base: overrides that all cells share.
        skip: (row, column) of the cells that are not run.
        cells: patterns of `row / column` with overrides of these cells alone, see `words_of_cell`.
        trains_nothing: why there is nothing to train, and what to do instead; empty where there is.
    """

    name: str
    rows: dict[str, list[str]]
    columns: dict[str, list[str]]
    base: list[str]
    skip: frozenset[tuple[str, str]] = frozenset()
    cells: dict[str, list[str]] = field(default_factory=dict)
    trains_nothing: str = ""

    @property
    def places(self) -> list[tuple[str, str]]:
        """Row and column of every cell that is run."""
        return [place for place in product(self.rows, self.columns) if place not in self.skip]

    def words(self, row: str, column: str) -> list[str]:
        """The overrides of one cell; a later one of the same key replaces an earlier one."""
        of_cell = words_of_cell(self.cells, row, column)
        words = {word.split("=")[0]: word for word in [*self.base, *self.rows[row], *self.columns[column], *of_cell]}
        return list(words.values())

    def has(self, cell: Cell) -> bool:
        """Whether the cell is one of its rows and columns."""
        return cell.row in self.rows and cell.column in self.columns

    def start(self, row: str, column: str) -> list[str]:
        """The overrides of the run that the cell's run starts from; [] where it starts from none."""
        of_cell = words_of_cell(self.cells, row, column)
        named = next((word.partition("=")[2] for word in of_cell if word.startswith("mode.init_from=")), "")
        others = (self.words(*place) for place in self.places if named)
        return next((words for words in others if f"run_dir={named}" in words), [])

    def command(self, row: str, column: str) -> str:
        """The command line that runs one cell; empty where nothing can be run."""
        if self.trains_nothing:
            return ""
        words = [word for word in self.words(row, column) if word != "trainer.accumulate=1"]  # the default
        words.append(f"experiment={self.name}")
        return command_line("train", words)


@dataclass(frozen=True)
class Cell:
    """One number of the paper, or a point of a figure for which the paper prints no number.

    Attributes:
        item: name of its table or figure.
        row: its row.
        column: its column.
        measure: what the number is of: acc1, gflops, setting, ...
        unit: of the number.
        number: the number; None where none is printed.
        shown: the number as printed.
        notes: on the number.
        key: of the configuration, where the measure is `setting`.
        value: as printed; a setting may also be a word, a list or None.
    """

    item: str
    row: str
    column: str
    measure: str
    unit: str
    number: float | None = None
    shown: str = ""
    notes: tuple[str, ...] = ()
    key: str = ""
    value: Any = None


@dataclass(frozen=True)
class Item:
    """A table or figure of the paper, with its experiment.

    Attributes:
        name: table1, figure3, ...
        title: what it shows.
        source: Table 1, Figure 3, ...
        cells: by row and column.
        experiment: what runs it.
        notes: on the whole of it.
        row_header: the heading of the first column.
        kind: table | line | bars | none.
        analysis: name of the analysis that a figure is drawn from.
        axes: labels of x and y.
        relative_to: of bars, the column whose accuracy is 0 (Figure 1).
        means: of bars, names of groups and the rows whose mean each group shows.
    """

    name: str
    title: str
    source: str
    cells: dict[tuple[str, str], Cell]
    experiment: Experiment
    notes: list[str] = field(default_factory=list)
    row_header: str = ""
    kind: str = "table"
    analysis: str = ""
    axes: tuple[str, str] = ("", "")
    relative_to: str = ""
    means: dict[str, list[str]] = field(default_factory=dict)

    @property
    def is_figure(self) -> bool:
        """Whether it is a figure; else it is a table."""
        return self.name.startswith("figure")

    @property
    def rows(self) -> list[str]:
        """The rows that have a cell."""
        return list(dict.fromkeys(row for row, _ in self.cells))

    @property
    def columns(self) -> list[str]:
        """The columns that have a cell."""
        return list(dict.fromkeys(column for _, column in self.cells))


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        UserError: the file is damaged.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from error


def read_experiment(name: str) -> Experiment:
    """experiments/<name>.yaml; an experiment without rows has nothing to run."""
    path = EXPERIMENTS / f"{name}.yaml"
    content = read_yaml(path) if path.is_file() else {}
    sweeper = (content.get("hydra") or {}).get("sweeper") or {}
    own = {key: value for key, value in content.items() if key not in ("defaults", "hydra", "experiment")}
    return Experiment(
        name=name,
        rows=_overrides(sweeper.get("rows")),
        columns=_overrides(sweeper.get("columns")),
        base=[*_chosen_groups(content.get("defaults")), *_as_words(own)],
        skip=frozenset(_row_and_column(str(pair)) for pair in sweeper.get("skip") or ()),
        cells=_overrides(sweeper.get("cells")),
        trains_nothing=as_typed_here(str(sweeper.get("trains_nothing") or "")),
    )


def _overrides(axis: dict[str, list[str]] | None) -> dict[str, list[str]]:
    return {str(name): [str(word) for word in words] for name, words in (axis or {}).items()}


def _row_and_column(pair: str) -> tuple[str, str]:
    row, _, column = pair.rpartition(" / ")
    return row.strip(), column.strip()


def _chosen_groups(defaults: list[Any] | None) -> Iterator[str]:
    """The entries `override /group: option` of a defaults list, as overrides."""
    chosen = [pair for entry in defaults or [] if isinstance(entry, dict) for pair in entry.items()]
    for group, option in chosen:
        if str(group).startswith("override /"):
            yield f"{str(group).removeprefix('override /')}={option}"


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
    """Of a table the cells with a number; of a figure also the points that the paper draws without printing them."""
    columns = {str(column): values or {} for column, values in (content.get("columns") or {}).items()}
    rows = {str(row): values or {} for row, values in (content.get("rows") or {}).items()}
    row_names = dict.fromkeys([*rows, *experiment.rows]) if is_figure else rows
    column_names = dict.fromkeys([*columns, *experiment.columns]) if is_figure else columns
    cells = {}
    for row, column in product(row_names, column_names):
        value = rows.get(row, {}).get(column)
        if (value is None and not is_figure) or (row, column) in experiment.skip:
            continue
        on_cell = [str(note["text"]) for note in content.get("notes") or [] if _is_about(note, row, column)]
        head = columns.get(column, {}) | _key_of(rows.get(row))
        cells[row, column] = _cell(name, row, column, value, head, on_cell)
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
