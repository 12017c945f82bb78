"""Checks the arguments of encoder, data reader and tasks against the classes behind them, which loads their code."""

from __future__ import annotations

from ssat.config.create import checked_options
from ssat.config.schema import Run
from ssat.data.sets import SOURCES
from ssat.encoders import ENCODERS
from ssat.tasks import TASKS


def check_components(run: Run) -> None:
    """Refuse a class that does not exist, or an argument that it does not take; null values are the recipe's to give.

    Raises:
        UserError: names the key.
    """
    tasks = run.ssl.tasks
    single = list(tasks) == [run.ssl.name]
    parts = [
        (ENCODERS, run.encoder, "encoder"),
        (SOURCES, run.data.source, "data.source"),
        *((TASKS, task, "ssl" if single else f"ssl.tasks.{name}") for name, task in tasks.items()),
    ]
    for table, part, key in parts:
        given = {name: value for name, value in part.options.items() if value is not None}
        checked_options(table, part.kind, given, key)
