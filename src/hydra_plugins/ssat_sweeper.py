"""Hydra's way into ssat.sweeps: Hydra finds plugins only in the package `hydra_plugins`."""

# No postponed annotations here: Hydra runs this file before the module is registered, and dataclass would look it up.

import copy
import gc
import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobStatus
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from ssat.config.check_typed import check_typed, whole_keys
from ssat.config.command_line import explain
from ssat.config.fields import parse
from ssat.config.identity import config_hash
from ssat.config.overrides import FAULTS
from ssat.config.resolve import resolve
from ssat.config.schema import Launcher
from ssat.config.words import CONF, FILES, as_typed_here
from ssat.core.errors import UserError
from ssat.runs.folder import compare_line, describe, find_finished, run_name, usable
from ssat.runs.names import ends_of, with_swept
from ssat.sweeps.here import check_launcher, run_here, warmed
from ssat.sweeps.jobs import (
    Job,
    JobOutcome,
    Request,
    exit_code,
    key_of,
    outcome_of,
    own_folder,
    report_failure,
    stages,
    summary,
    variants,
    without_start,
)
from ssat.sweeps.names import swept_keys, swept_values
from ssat.sweeps.packed import Packing, advised, keep, pack, sharing, throughput
from ssat.sweeps.slurm import run_on_cluster
from ssat.sweeps.table import results_table
from ssat.sweeps.warm import Warm

Failures = list[tuple[Job, JobOutcome]]


@dataclass
class VariantSweeperConf(BasicSweeperConf):
    """What an experiment file sets under `hydra.sweeper`."""

    _target_: str = "hydra_plugins.ssat_sweeper.VariantSweeper"
    params: Any = field(default_factory=dict)  # not None: a key can be set below it
    rows: Any = None  # name of a row: its list of overrides
    columns: Any = None
    skip: Any = None  # each 'row / column' that is not run
    cells: Any = None  # patterns of 'row / column': overrides of these alone
    trains_nothing: Any = None  # why there is nothing to train, and what to do instead


ConfigStore.instance().store(group="hydra/sweeper", name="cells", node=VariantSweeperConf, provider="ssat")


class SsatSearchPath(SearchPathPlugin):
    """Lets `+experiments=<name>` find the files of experiments/, wherever the package lies."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append("ssat", f"file://{FILES}")


class VariantSweeper(BasicSweeper):
    """Rows x columns, times `params` and what the command line sweeps; a failed job does not stop the others."""

    def __init__(
        self,
        max_batch_size: int | None,
        params: Any,
        rows: Any,
        columns: Any,
        skip: Any,
        cells: Any,
        trains_nothing: str | None,
    ) -> None:
        super().__init__(max_batch_size, whole_keys(plain(params) or {}))
        self.rows, self.columns, self.skip = plain(rows), plain(columns), plain(skip)
        self.cells, self.trains_nothing = plain(cells), trains_nothing
        self.failed: dict[str, Request] = {}
        self.told: set[str] = set()  # the reasons of failures
        self.warm: Warm | None = None  # what forks the jobs off

    def sweep(self, arguments: list[str]) -> None:
        """Run every job that is not finished yet.

        Raises:
            UserError: the experiment trains nothing, a job does not compose, or the launcher cannot start.
            SystemExit: 2 when a job's values were refused, 1 when one crashed.
        """
        if self.trains_nothing:
            raise UserError(as_typed_here(self.trains_nothing))
        launcher = parse(Launcher, OmegaConf.to_container(self.master.launcher, resolve=True), "launcher")
        with warmed(launcher) as self.warm:
            self._sweep(arguments, launcher)

    def _sweep(self, arguments: list[str], launcher: Launcher) -> None:
        jobs, results = self.compose(self.combine(arguments))
        total = len(jobs) + len(results)
        results += [(job, outcome) for job in jobs if (outcome := before_start(job, self.told))]
        # The folders of the runs that did not finish: none of them is a start.
        self.failed = {
            own_folder(job): job for job, outcome in results if outcome.status != "skipped" and own_folder(job)
        }
        known = {id(job) for job, _ in results}
        left = [job for job in jobs if id(job) not in known]
        estimates = any(job.config.estimate for job in jobs)  # they are of this machine and have a sum of their own
        if not estimates:
            check_launcher(launcher, left)
        packing = pack(launcher, left) if launcher.name == "packed" and left and not estimates else None
        began = time.monotonic()
        try:
            with estimating(left if estimates else ()) as impossible:
                for job, outcome in impossible:
                    report_failure(job, outcome, self.told, begun=False)
                    results.append((job, outcome))
                    if own_folder(job):
                        self.failed[own_folder(job)] = job
                    left.remove(job)
                for job, outcome in self.launch(left, total, launcher, packing):
                    report_failure(job, outcome, self.told)
                    results.append((job, outcome))
        finally:
            code = exit_code(outcome for _, outcome in results)
            # A table of failures alone would say less than the summary.
            if not estimates and any(outcome.status in ("finished", "skipped") for _, outcome in results):
                print(
                    "\n" + "\n".join(results_table([(*result, record_of(result[0])) for result in results])), flush=True
                )
            if code or not estimates:
                print("\n" + "\n".join(summary(results, total)), flush=True)
            trained = [record_of(job) for job, outcome in results if outcome.status == "finished"] if packing else []
            if trained:
                line = throughput([record for record in trained if record], time.monotonic() - began)
                print(line, flush=True)
                keep(Path(self.master.hydra.sweep.dir), [line])
            done = [job for job, outcome in results if outcome.status in ("finished", "skipped")]
            folders = dict.fromkeys(job.config.runs_dir for job in done if isinstance(job, Job))
            if not estimates:
                print(*map(compare_line, folders), sep="\n", end="\n" * bool(folders), flush=True)
        if code:
            raise SystemExit(code)

    @property
    def context(self) -> HydraContext:
        """Hydra's loader of configurations."""
        assert self.hydra_context is not None, "setup() comes first"
        return self.hydra_context

    @property
    def master(self) -> DictConfig:
        """The configuration of the sweep itself."""
        assert self.config is not None, "setup() comes first"
        return self.config

    def combine(self, arguments: list[str]) -> dict[tuple[str, ...], str]:
        """Every job's overrides, each list once, and the row and column that it belongs to."""
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        found: dict[tuple[str, ...], str] = {}
        for variant in variants(self.rows, self.columns, skip=self.skip, cells=self.cells, given=arguments):
            overrides = parser.parse_overrides([*self._parse_config(), *variant.words, *arguments])
            for words in itertools.chain(*self.split_arguments(overrides, None)):
                found.setdefault(tuple(words), variant.label)
        return found

    def compose(self, combined: dict[tuple[str, ...], str]) -> tuple[list[Job], list[tuple[Request, JobOutcome]]]:
        """The jobs with their configurations, and what is refused; what computes the same is one job.

        Raises:
            UserError: overrides do not compose.
        """
        found_in = [word for word in self.master.hydra.overrides.hydra if key_of(word) == "hydra.searchpath"]
        bases: dict[tuple[str, ...], DictConfig] = {}
        jobs: dict[str, Job] = {}
        refused: list[tuple[Request, JobOutcome]] = []
        swept = swept_keys([*combined])
        for words, label in combined.items():
            cfg = self.composed(words, label, bases)
            try:
                config = resolve(cfg)
                check_typed(config, words)
                name = with_swept(config.name, ends_of(config), swept_values(words, swept, config))
                if name != config.name:  # by the names alone the runs of a sweep are told apart, here and in W&B
                    cfg.name = name
                    config, words = resolve(cfg), (*words, f"name='{name}'")
            except Exception as error:  # one job's mistake or bug does not stop the others
                name = OmegaConf.select(cfg, "name", throw_on_resolution_failure=False)
                refused.append((Request(str(name or "run"), label, (*words, *found_in)), outcome_of(error)))
                report_failure(*refused[-1], self.told, begun=False)
                continue
            key = str(config.run_dir or config_hash(config))
            jobs.setdefault(key, Job(run_name(config), label, (*words, *found_in), config))
        return list(jobs.values()), refused

    def composed(self, words: tuple[str, ...], label: str, bases: dict[tuple[str, ...], DictConfig]) -> DictConfig:
        """The configuration under the overrides `words`.

        Each choice of groups is composed once, into `bases`, and gets the values: a composition takes a tenth of a
        second.

        Raises:
            UserError: they do not compose.
        """
        groups = tuple(word for word in words if chooses_group(word))
        try:
            if groups not in bases:
                bases[groups] = without_hydra(self.context.config_loader.load_sweep_config(self.master, list(groups)))
            cfg = copy.deepcopy(bases[groups])
            values = OverridesParser.create().parse_overrides([word for word in words if word not in groups])
            ConfigLoaderImpl._apply_overrides_to_config(values, cfg)
            return cfg
        except FAULTS as error:
            where = f"{label}: " if label else ""
            raise UserError(where + explain(error, "train", groups)) from error

    def launch(
        self, jobs: Sequence[Job], total: int, launcher: Launcher, packing: Packing | None = None
    ) -> Iterator[tuple[Job, JobOutcome]]:
        """Start the jobs as `launcher` says; yields each with what became of it."""
        if not jobs:
            return
        folder = Path(self.master.hydra.sweep.dir)
        with usable(jobs[0].config, "written", key="runs_dir"):
            folder.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(self.master, folder / "multirun.yaml")
        here = launcher.name == "local" or jobs[0].config.estimate
        if not here:
            print(f"{len(jobs)} jobs, launcher={launcher.name}; their output: {folder}/*.log", flush=True)
        done = total - len(jobs)
        with sharing(packing, folder) if packing else nullcontext() as placement:
            here_too = partial(run_here, placement=placement, warm=self.warm)
            start = run_on_cluster if launcher.name == "slurm" else here_too
            for stage in stages(jobs):
                refused = [(job, outcome) for job in stage if (outcome := without_start(job, self.failed))]
                known = {id(job) for job, _ in refused}
                ready = [job for job in stage if id(job) not in known]
                running = (
                    self.launch_here(ready, total, done + len(refused)) if here else start(ready, launcher, folder)
                )
                for job, outcome in itertools.chain(refused, running if ready else ()):
                    done += 1
                    if not here:
                        print(f"[{done}/{total}] {outcome.status}: {what_came_of(job, outcome)}", flush=True)
                    if outcome.status != "finished" and own_folder(job):
                        self.failed[own_folder(job)] = job
                    yield job, advised(outcome, placement) if placement else outcome

    def launch_here(self, jobs: Sequence[Job], total: int, before: int) -> Iterator[tuple[Job, JobOutcome]]:
        """With Hydra's launcher: its basic one runs one job after the other in this process; `before` of `total` have
        been run or skipped.
        """
        assert self.launcher is not None, "setup() comes first"
        one_by_one = isinstance(self.launcher, BasicLauncher)
        size = 1 if one_by_one else self.max_batch_size or len(jobs)
        for start in range(0, len(jobs), size):
            chunk, first = jobs[start : start + size], before + start
            if one_by_one:
                print(f"\n[{first + 1}/{total}] {chunk[0]}", flush=True)
            try:
                returns = self.launcher.launch([job.words for job in chunk], initial_job_idx=first)
                outcomes = [
                    JobOutcome("finished") if ret.status == JobStatus.COMPLETED else outcome_of(ret._return_value)
                    for ret in returns
                ]
            except Exception as error:  # another launcher's pool of processes that broke
                outcomes = [JobOutcome("finished") if find_finished(job.config) else outcome_of(error) for job in chunk]
            returns = []
            gc.collect()  # a crash's traceback holds the model
            yield from zip(chunk, outcomes, strict=True)


def record_of(job: Request) -> dict[str, Any] | None:
    """The record of a finished run; None of one that failed, or whose record cannot be read."""
    try:
        found = find_finished(job.config) if isinstance(job, Job) else None
    except UserError:  # its failure has been told already
        return None
    return found[1] if found else None


def what_came_of(job: Job, outcome: JobOutcome) -> str:
    """The job, with its accuracy and seconds where it is finished."""
    record = record_of(job) if outcome.status == "finished" else None
    return str(job) if record is None else describe(record) + (f" ({job.label})" if job.label else "")


@contextmanager
def estimating(jobs: Sequence[Job]) -> Iterator[Failures]:
    """Around the estimates of a sweep: says how many calibrations they will take, and how far they are when a signal
    ends them; yields the jobs whose data do not fit."""
    if not jobs:
        yield []
        return
    from ssat.estimate.command import interruptible, plan  # torch, which takes seconds

    with interruptible():
        refused = plan([job.config for job in jobs])
        yield [(job, outcome_of(refused[number])) for number, job in enumerate(jobs) if number in refused]


def plain(value: Any) -> Any:
    """`value` without OmegaConf's classes."""
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def chooses_group(word: str) -> bool:
    """Whether an override can change which files a configuration is made of."""
    return word[0] in "+~" or "@" in word or (CONF / key_of(word)).is_dir()


def without_hydra(cfg: DictConfig) -> DictConfig:
    """`cfg` with our keys alone."""
    with open_dict(cfg):
        cfg.pop("hydra")
    return cfg


def before_start(job: Job, told: set[str]) -> JobOutcome | None:
    """What is known of a job without running it: it is already finished, or its folder is not usable."""
    try:
        done = None if job.config.force or job.config.estimate else find_finished(job.config)
        if done:
            folder, record = done
            print(f"skipped, already finished in {folder}: {describe(record)} (force=true trains again)", flush=True)
    except Exception as error:  # one job's bug does not stop the others
        outcome = outcome_of(error)
        report_failure(job, outcome, told, begun=False)
        return outcome
    return JobOutcome("skipped") if done else None
