"""Hydra's way into src/sweep.py: Hydra finds sweepers only in the package `hydra_plugins`."""

# No postponed annotations here: Hydra runs this file before the module is registered, and dataclass would look it up.

import copy
import gc
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobStatus
from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from src.cli import CONF, explain
from src.cluster import run_on_cluster
from src.config import check, config_hash, resolve
from src.errors import UserError
from src.launchers import check_launcher, run_here
from src.run_folder import describe, find_finished, run_name, usable
from src.sweep import Job, Outcome, cells, exit_code, key_of, outcome_of, report_failure, summary


@dataclass
class CellSweeperConf(BasicSweeperConf):
    _target_: str = "hydra_plugins.ssat.CellSweeper"
    rows: Any = None  # name of a row: its list of overrides
    columns: Any = None
    skip: Any = None  # 'row / column' of each cell that is not run
    unbuilt: Any = None  # why this experiment cannot be run yet


ConfigStore.instance().store(group="hydra/sweeper", name="cells", node=CellSweeperConf, provider="ssat")


class CellSweeper(BasicSweeper):
    """Rows x columns, times `params` and what the command line sweeps; a failed job does not stop the others."""

    def __init__(
        self, max_batch_size: int | None, params: Any, rows: Any, columns: Any, skip: Any, unbuilt: str | None
    ) -> None:
        super().__init__(max_batch_size, params)
        self.rows, self.columns, self.skip = plain(rows), plain(columns), plain(skip)
        self.unbuilt = unbuilt

    def sweep(self, arguments: list[str]) -> None:
        """Run every job that is not finished yet.

        Raises:
            UserError: the experiment cannot be run, a job does not compose, or the launcher cannot start.
            SystemExit: 2 when a job's values were refused, 1 when one crashed.
        """
        if self.unbuilt:
            raise UserError(f"this experiment cannot be run yet: {self.unbuilt}")
        jobs = self.compose(self.combine(arguments))
        results = [(job, outcome) for job in jobs if (outcome := before_start(job))]
        known = {id(job) for job, _ in results}
        left = [job for job in jobs if id(job) not in known]
        options: Any = OmegaConf.to_container(self.master.launcher, resolve=True)
        estimates = any(job.config["estimate"] for job in jobs)  # they are of this machine and have a sum of their own
        if not estimates:
            check_launcher(options, left)
        try:
            for job, outcome in self.launch(left, len(jobs), options):
                report_failure(job, outcome)
                results.append((job, outcome))
        finally:
            code = exit_code(outcome for _, outcome in results)
            if code or not estimates:
                print("\n" + "\n".join(summary(results, len(jobs))), flush=True)
        if code:
            raise SystemExit(code)

    @property
    def context(self) -> HydraContext:
        assert self.hydra_context is not None, "setup() comes first"
        return self.hydra_context

    @property
    def master(self) -> DictConfig:
        assert self.config is not None, "setup() comes first"
        return self.config

    def combine(self, arguments: list[str]) -> dict[tuple[str, ...], str]:
        """Every job's overrides, each list once, and the cell that it belongs to."""
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        found: dict[tuple[str, ...], str] = {}
        for cell in cells(self.rows, self.columns, skip=self.skip, given=arguments):
            overrides = parser.parse_overrides([*self._parse_config(), *cell.words, *arguments])
            for words in itertools.chain(*self.split_arguments(overrides, None)):
                found.setdefault(tuple(words), cell.label)
        return found

    def compose(self, combined: dict[tuple[str, ...], str]) -> list[Job]:
        """The jobs with their configurations; what computes the same is one job.

        Each choice of groups is composed once and gets every job's values: a composition takes a tenth of a second.

        Raises:
            UserError: a job does not compose.
        """
        loader, parser = self.context.config_loader, OverridesParser.create()
        found_in = [word for word in self.master.hydra.overrides.hydra if key_of(word) == "hydra.searchpath"]
        bases: dict[tuple[str, ...], DictConfig] = {}
        jobs: dict[str, Job] = {}
        for words, label in combined.items():
            groups = tuple(word for word in words if chooses_group(word))
            try:
                if groups not in bases:
                    bases[groups] = without_hydra(loader.load_sweep_config(self.master, list(groups)))
                cfg = copy.deepcopy(bases[groups])
                values = parser.parse_overrides([word for word in words if word not in groups])
                ConfigLoaderImpl._apply_overrides_to_config(values, cfg)
                config = resolve(cfg)
            except (HydraException, OmegaConfBaseException) as error:
                where = f"{label}: " if label else ""
                raise UserError(where + explain(error, "train", groups)) from error
            key = str(config["run_dir"] or config_hash(config))
            jobs.setdefault(key, Job(run_name(config), label, (*words, *found_in), config))
        return list(jobs.values())

    def launch(self, jobs: Sequence[Job], total: int, options: dict[str, Any]) -> Iterator[tuple[Job, Outcome]]:
        """Start the jobs as `launcher` says; yields each with what became of it."""
        if not jobs:
            return
        folder = Path(self.master.hydra.sweep.dir)
        with usable(jobs[0].config, "written", key="runs_dir"):
            folder.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(self.master, folder / "multirun.yaml")
        if options["name"] == "local" or jobs[0].config["estimate"]:
            yield from self.launch_here(jobs, total)
            return
        print(f"{len(jobs)} jobs, launcher={options['name']}; their output: {folder}/*.log", flush=True)
        start = run_here if options["name"] == "joblib" else run_on_cluster
        for done, (job, outcome) in enumerate(start(jobs, options, folder), start=total - len(jobs) + 1):
            print(f"[{done}/{total}] {outcome.status}: {job}", flush=True)
            yield job, outcome

    def launch_here(self, jobs: Sequence[Job], total: int) -> Iterator[tuple[Job, Outcome]]:
        """With Hydra's launcher: its basic one runs one job after the other in this process."""
        assert self.launcher is not None, "setup() comes first"
        one_by_one = isinstance(self.launcher, BasicLauncher)
        size = 1 if one_by_one else self.max_batch_size or len(jobs)
        for start in range(0, len(jobs), size):
            chunk, first = jobs[start : start + size], total - len(jobs) + start
            if one_by_one:
                print(f"\n[{first + 1}/{total}] {chunk[0]}", flush=True)
            try:
                returns = self.launcher.launch([job.words for job in chunk], initial_job_idx=first)
                outcomes = [
                    Outcome("finished") if ret.status == JobStatus.COMPLETED else outcome_of(ret._return_value)
                    for ret in returns
                ]
            except Exception as error:  # another launcher's pool of processes that broke
                outcomes = [Outcome("finished") if find_finished(job.config) else outcome_of(error) for job in chunk]
            returns = []
            gc.collect()  # a crash's traceback holds the model
            yield from zip(chunk, outcomes, strict=True)


def plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def chooses_group(word: str) -> bool:
    """Whether an override can change which files a configuration is made of."""
    return word[0] in "+~" or "@" in word or (CONF / key_of(word)).is_dir()


def without_hydra(cfg: DictConfig) -> DictConfig:
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


def before_start(job: Job) -> Outcome | None:
    """What is known of a job without running it: its values are refused, or it is already finished."""
    try:
        check(job.config)
        done = None if job.config["force"] or job.config["estimate"] else find_finished(job.config)
        shown = f"skipped, already finished in {done[0]}: {describe(done[1])} (force=true trains again)" if done else ""
    except Exception as error:  # one job's bug does not stop the others
        outcome = outcome_of(error)
        report_failure(job, outcome)
        return outcome
    if not done:
        return None
    print(shown, flush=True)
    return Outcome("skipped")
