"""What a run would read now."""

from __future__ import annotations

from typing import Any

from ssat.config.schema import Run
from ssat.runs.inputs import inputs_of
from ssat.training.data import AnyData, build_data


def present_inputs(run: Run) -> dict[str, Any]:
    """The run's inputs by content, as the disk has them now.

    Raises:
        UserError: data or weights are not there, or not right.
    """
    data = build_data(run, run.mode.phases[-1])
    data.setup()
    return module_inputs(run, data)


def module_inputs(run: Run, data: AnyData) -> dict[str, Any]:
    """The same for data that are already set up."""
    return inputs_of(run, data.fingerprint(), data.class_names)
