"""`extend=200`: a run that goes on from the end, or the interruption, of another one, under a re-planned schedule."""

from __future__ import annotations

from dataclasses import replace

from ssat.config.schema import Run
from ssat.core.errors import UserError


def extended(run: Run) -> Run:
    """`run` whose last phase has the epochs that `extend` says, and remembers those that it was planned for.

    Raises:
        UserError: it would not become longer, or a key speaks against it.
    """
    if run.extend is None:
        return run
    last = run.mode.phases[-1]
    if run.extend <= last.epochs:
        raise UserError(
            f"extend={run.extend} is not more than the {last.epochs} epochs of phase {last.name}: give the new number"
            " of its epochs in all",
            key="extend",
            value=run.extend,
        )
    against = {
        "run_dir": (run.run_dir, "the run to extend is looked for in runs_dir"),
        "estimate": (run.estimate, "an estimate knows whole runs"),
        "trainer.max_steps": (run.trainer.max_steps, "it ends the training before"),
    }
    for key, (value, why) in against.items():
        if value:
            raise UserError(f"{key}={value} does not go with extend: {why}; leave one out", key=key, value=value)
    longer = replace(last, epochs=run.extend, planned=last.epochs)
    return replace(run, mode=replace(run.mode, phases=(*run.mode.phases[:-1], longer)))
