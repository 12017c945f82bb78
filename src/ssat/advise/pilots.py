"""Pilots: short ordinary runs without test images, which the same command continues or skips."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssat.config.check_typed import check_typed
from ssat.config.overrides import composed
from ssat.config.resolve import resolve
from ssat.config.schema import Run
from ssat.core.errors import UserError
from ssat.core.terminal import tell
from ssat.core.words import duration
from ssat.runs.folder import find_finished, run_name
from ssat.runs.record import Record
from ssat.sweeps.here import check_launcher, run_here, warmed
from ssat.sweeps.jobs import Job

Train = Callable[[Run], object]
AT_THE_END = 1_000_000  # epochs between two evaluations: the last epoch is always evaluated
LOG = "pilots.txt"  # in the folder of the advice: what the pilots say
QUIET = (
    *("data.use_test=false", f"eval_every={AT_THE_END}", "reconstruct_every=0"),
    *("monitor.pictures=false", "trainer.progress=lines"),
)


@dataclass(frozen=True)
class Pilot:
    """One pilot: the number and name of its candidate, its share of the budget, its epochs by phase, and its run."""

    candidate: int
    name: str
    share: float
    epochs: tuple[int, ...]
    job: Job

    @property
    def config(self) -> Run:
        """Of its run."""
        return self.job.config

    @property
    def said(self) -> str:
        """As it is named while it goes on."""
        return f"{self.name}, {' + '.join(map(str, self.epochs))} epochs, seed {self.config.seed}"


@dataclass(frozen=True)
class Outcome:
    """What a pilot has shown: accuracy on validation images in percent, their number, and seconds of training."""

    accuracy: float
    images: int
    seconds: float


def refuse_launcher(config: Run) -> None:
    """Raises: UserError: the pilots would go to another machine, whose seconds are not those that are predicted."""
    if config.launcher.name not in ("local", "processes", "joblib"):
        raise UserError(
            f"launcher={config.launcher.name} is not possible here: the predicted seconds are of this machine and"
            " of runs with a core each, so use launcher=local or processes",
            key="launcher",
        )


def configured(words: Sequence[str]) -> Run:
    """The configuration of `python -m src.train` with these words.

    Raises:
        UserError: a word is wrong.
    """
    config = resolve(composed(words))
    check_typed(config, words)
    return config


def job_of(words: Sequence[str]) -> Job:
    """The run of these words."""
    config = configured(words)
    return Job(run_name(config), "", tuple(words), config)


def outcome_of(config: Run) -> Outcome | None:
    """What the finished pilot has shown; None where it is not finished.

    Raises:
        UserError: it has no accuracy.
    """
    try:
        found = find_finished(config)
    except UserError as error:  # which names force=true, and that would train all pilots anew
        damaged = str(error).partition(": move it away")[0]
        raise UserError(f"{damaged}: move it away, the same command trains it again") from error
    if found is None:
        return None
    record = Record(found[0] / "result.json", "", found[1])
    accuracy, images, seconds = record.accuracy, record.split_size, record.number("seconds")
    if record.split != "val" or accuracy is None or not images or seconds is None:
        raise UserError(
            f"{found[0]} has no accuracy on validation images: move it away, the same command trains it again"
        )
    return Outcome(accuracy, images, seconds)


def run_pilots(pilots: Sequence[Pilot], folder: Path, train: Train) -> Iterator[tuple[Pilot, Outcome | str]]:
    """Train what is not finished yet, one after the other or as the launcher says; yields each as it ends.

    Args:
        pilots: of one round.
        folder: of the advice.
        train: one run in this process.

    Yields:
        the pilot, and what it has shown, or why it could not be trained.
    """
    left = []
    for pilot in pilots:
        if done := outcome_of(pilot.config):
            yield pilot, done
        else:
            left.append(pilot)
    if not left:
        return
    launcher = left[0].config.launcher
    folder.mkdir(parents=True, exist_ok=True)
    if launcher.name == "local":
        for number, pilot in enumerate(left, 1):
            tell(f"  [{number}/{len(left)}] {pilot.said} ...")
            yield pilot, _here(pilot, folder / LOG, train)
        return
    jobs, by_name = [pilot.job for pilot in left], {pilot.job.name: pilot for pilot in left}
    check_launcher(launcher, jobs)
    with warmed(launcher) as warm:
        for job, ended in run_here(jobs, launcher, folder / "logs", warm=warm):
            pilot = by_name[job.name]
            yield pilot, outcome_of(pilot.config) or ended.reason or ended.status


def _here(pilot: Pilot, log: Path, train: Train) -> Outcome | str:
    """In this process, its lines in a file."""
    try:
        with open(log, "a") as file, redirect_stdout(file):
            train(pilot.config)
    except UserError as error:
        return str(error)
    return outcome_of(pilot.config) or "it has left no record"


def said(outcome: Outcome | str) -> str:
    """One line."""
    if isinstance(outcome, str):
        return f"not possible: {outcome}"
    return f"{outcome.accuracy:.1f} % of {outcome.images:,} validation images in {duration(outcome.seconds)}"


def as_plain(pilot: Pilot, outcome: Outcome | str) -> dict[str, Any]:
    """For the JSON file."""
    values: dict[str, Any] = {
        "run": run_name(pilot.config),
        "share": pilot.share,
        "epochs": list(pilot.epochs),
        "seed": pilot.config.seed,
    }
    if isinstance(outcome, str):
        return values | {"failed": outcome}
    return values | {"accuracy": outcome.accuracy, "images": outcome.images, "seconds": outcome.seconds}
