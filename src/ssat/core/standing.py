"""How far a run is, in a small file: a run writes it for the sweep that has started it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ssat.core.read import read_json
from ssat.core.words import duration

VARIABLE = "SSAT_STANDING"  # of the environment: the file in which a run says how far it is


@dataclass(frozen=True)
class Standing:
    """How far a run is.

    Attributes:
        phase: that goes on.
        epoch: of that phase, from 1.
        epochs: of that phase.
        share: of all epochs of the run that is done, from 0 to 1.
        measured: of the last evaluation, such as 'test/acc1 93.6'; empty before the first one.
        left: seconds that the run still takes, roughly; None before that is known.
    """

    phase: str
    epoch: int
    epochs: int
    share: float
    measured: str = ""
    left: float | None = None

    @property
    def place(self) -> str:
        """Phase and epoch: 'joint 5/12'."""
        return f"{self.phase} {self.epoch}/{self.epochs}"

    @property
    def remaining(self) -> str:
        """'45 s left', or empty."""
        return "" if self.left is None else f"{duration(self.left)} left"

    def __str__(self) -> str:
        return "  ".join(filter(None, (self.place, self.measured, self.remaining)))


def standing_file(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Where this run is to say how far it is; None where nobody asks."""
    path = environment.get(VARIABLE)
    return Path(path) if path else None


def write_standing(path: Path, standing: Standing) -> None:
    """Replace what the file says. A full disk is no reason to stop a training: then the file stays as it is."""
    with suppress(OSError):
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(standing)))
        part.replace(path)


def read_standing(path: Path) -> Standing | None:
    """What the file says; None where it is not there yet, or another version has written it."""
    try:
        return Standing(**read_json(path))
    except (OSError, ValueError, TypeError):
        return None
