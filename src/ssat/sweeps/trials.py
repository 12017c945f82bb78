"""The trials of a search with Optuna: each is a run of its own, named and told as those of a sweep."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from ssat.config.check_typed import check_typed
from ssat.config.command_line import explain
from ssat.config.overrides import FAULTS
from ssat.config.resolve import resolve
from ssat.config.search import TARGET
from ssat.core.errors import UserError
from ssat.core.terminal import tell
from ssat.runs.folder import find_finished, run_name
from ssat.runs.names import ends_of, with_swept
from ssat.sweeps.jobs import Job, JobOutcome, Request, key_of, outcome_of, repeat_command, report_failure, summary
from ssat.sweeps.names import swept_values
from ssat.sweeps.table import aligned

NO_NUMBER = JobOutcome("refused", "its run gives no finite number that trials could be compared by")


class TrialFailed(Exception):
    """A trial gave no value; what has happened is told by its outcome."""


class Failed(JobReturn):
    """What Optuna's sweeper gets of a trial that failed; Hydra's own prints a line whenever it is looked at."""

    @property
    def return_value(self) -> Any:
        """Raises: TrialFailed: always."""
        raise self._return_value

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self._return_value = value


@dataclass(frozen=True)
class Trial:
    """One trial that has ended: its run, the values that were drawn for it, what became of it, and its number."""

    request: Request
    chosen: tuple[str, ...]
    outcome: JobOutcome
    value: float | None = None


@dataclass
class Trials:
    """In the place of Hydra's launcher: runs the trials that Optuna asks for, one after the other.

    Args:
        sweeper: Optuna's, which knows how many trials there will be.
        launcher: Hydra's, which runs each.
        context: Hydra's.
        master: the configuration of the search itself.
        fixed: the keys that every trial has with the same value.
    """

    sweeper: Any
    launcher: Launcher
    context: HydraContext
    master: DictConfig
    fixed: frozenset[str]
    done: list[Trial] = field(default_factory=list)
    begun: int = 0
    told: set[str] = field(default_factory=set)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run one trial for each list of overrides; Optuna counts one that fails as failed."""
        return [self._launch(tuple(words)) for words in job_overrides]

    def stopped_by(self, error: Exception) -> bool:
        """Whether `error` is how Optuna's sweeper ends where trials fail: too many of them, all, or a grid's last."""
        of_grid = isinstance(error, RuntimeError) and "`Study.stop` is supposed" in str(error)
        return isinstance(error, TrialFailed) or of_grid or all(trial.value is None for trial in self.done)

    @property
    def best(self) -> dict[str, Any]:
        """`best_value` and `best_params` of the study; of its own trials where Optuna's sweeper has written none."""
        path = Path(self.master.hydra.sweep.dir) / "optimization_results.yaml"
        if path.is_file():
            found: Any = OmegaConf.to_container(OmegaConf.load(path))
            return found
        valued = [trial for trial in self.done if trial.value is not None]
        if not valued:
            return {}
        choose = min if "minimize" in str(self.sweeper.direction) else max
        best = choose(valued, key=lambda trial: trial.value or 0.0)
        params = {key_of(word): word.partition("=")[2] for word in best.chosen}
        return {"best_value": best.value, "best_params": params}

    def _launch(self, words: tuple[str, ...]) -> JobReturn:
        number, self.begun = self.begun, self.begun + 1
        chosen = tuple(word for word in words if key_of(word) not in self.fixed)
        tell("", f"[{self.begun}/{self.sweeper.n_trials}] {' '.join(chosen)}")
        trial, returned = self._run(words, chosen, number)
        self.done.append(trial)
        report_failure(trial.request, trial.outcome, self.told)
        gc.collect()  # a crash's traceback holds the model
        if trial.value is not None:
            return returned
        return Failed(overrides=words, status=JobStatus.FAILED, _return_value=TrialFailed(trial.outcome.reason))

    def _run(self, words: tuple[str, ...], chosen: tuple[str, ...], number: int) -> tuple[Trial, JobReturn]:
        request, returned = Request(" ".join(chosen), "", words), JobReturn()
        try:
            job = self._job(words, chosen)
            known = not job.config.force and find_finished(job.config) is not None
            [returned] = self.launcher.launch([job.words], initial_job_idx=number)
        except Exception as error:  # one trial's mistake or bug does not stop the others
            return Trial(request, chosen, outcome_of(error)), returned
        request = replace(request, name=job.name)
        value = returned._return_value
        if returned.status != JobStatus.COMPLETED:
            return Trial(request, chosen, outcome_of(value)), JobReturn()
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            return Trial(request, chosen, NO_NUMBER), returned
        return Trial(request, chosen, JobOutcome("skipped" if known else "finished"), float(value)), returned

    def _job(self, words: tuple[str, ...], chosen: tuple[str, ...]) -> Job:
        """The run of a trial, whose name holds what was drawn for it.

        Raises:
            UserError: the values are not possible together.
        """
        cfg = self._composed(words)
        config = resolve(cfg)
        check_typed(config, words)
        name = with_swept(config.name, ends_of(config), swept_values(words, [key_of(word) for word in chosen], config))
        if name != config.name:
            cfg.name = name
            config, words = resolve(cfg), (*words, f"name='{name}'")
        return Job(run_name(config), "", words, config)

    def _composed(self, words: tuple[str, ...]) -> DictConfig:
        try:
            cfg = self.context.config_loader.load_sweep_config(self.master, list(words))
        except FAULTS as error:
            raise UserError(explain(error, "train", words)) from error
        with open_dict(cfg):
            cfg.pop("hydra")
        return cfg


def table(trials: Sequence[Trial]) -> list[str]:
    """A line for each trial: its number, what became of it, its value, what was drawn for it."""
    lines = [("trial", "status", "value", "parameters")]
    for number, trial in enumerate(trials, 1):
        value = "" if trial.value is None else f"{trial.value:.4f}".rstrip("0").rstrip(".")
        lines.append((str(number), trial.outcome.status, value, " ".join(trial.chosen)))
    return aligned(lines, right=(0, 2))


def report(trials: Trials, words: Sequence[str]) -> None:
    """Print the table of the trials, the failures with their reasons, and the best trial.

    Args:
        trials: that have ended.
        words: the overrides of the search.
    """
    counted = [(trial.request, trial.outcome) for trial in trials.done]
    lines = ["", *table(trials.done), "", *summary(counted, trials.sweeper.n_trials, "search")]
    if "best_value" in (found := trials.best):
        lines += best_lines(found, words)
    tell(*lines)


def best_lines(found: Mapping[str, Any], words: Iterable[str]) -> list[str]:
    """The best value with its parameters, and the command of its run.

    Args:
        found: `best_value` and `best_params` of the study.
        words: the overrides of the search.
    """
    best = {str(key): value for key, value in found["best_params"].items()}
    chosen = [f"{key}={value}" for key, value in best.items()]
    fixed = [word for word in words if key_of(word) not in best and word != TARGET]
    return [f"best trial: {found['best_value']:.4g} with {' '.join(chosen)}", f"  {repeat_command([*fixed, *chosen])}"]
