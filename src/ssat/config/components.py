"""The parts of a run that are classes chosen by name: encoder, data reader and tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ssat.config.create import checked_options
from ssat.config.own_files import naming_files
from ssat.config.schema import Component, Run
from ssat.data.sets import SOURCES
from ssat.encoders import ENCODERS
from ssat.tasks import TASKS


def components(run: Run) -> Iterator[tuple[str, Mapping[str, str], Component]]:
    """Each with its key, such as `data.source`, and the table of the short names."""
    yield "encoder", ENCODERS, run.encoder
    yield "data.source", SOURCES, run.data.source
    single = list(run.ssl.tasks) == [run.ssl.name]
    for name, task in run.ssl.tasks.items():
        yield "ssl" if single else f"ssl.tasks.{name}", TASKS, task


def check_components(run: Run) -> None:
    """Refuse a class that does not exist, or an argument that it does not take, which loads the code of the classes.

    Null values are the recipe's to give.

    Raises:
        UserError: names the key.
    """
    for key, table, part in components(run):
        given = {name: value for name, value in part.options.items() if value is not None}
        with naming_files():
            checked_options(table, part.kind, given, key)
