"""The jobs of a sweep and what became of them: rows x columns of an experiment file, the summary, how to repeat one."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, get_args

from ssat.config.schema import Run
from ssat.config.words import FOLDERS, as_typed_here, command_line, expand_tasks, words_of_cell
from ssat.core.errors import OwnCodeError, UserError
from ssat.core.terminal import tell
from ssat.core.words import many

NAMED = 3  # jobs of one reason in the summary
OVERRIDE = r"\+{0,2}[^\s=+~][^=]*=|~[^\s=]"  # how one begins
Status = Literal["finished", "skipped", "refused", "crashed", "stopped"]


@dataclass(frozen=True)
class Variant:
    """One row and column of an experiment file: its name, `row / column`, and its overrides."""

    label: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class JobOutcome:
    """What became of one job; plain text, so that it crosses processes.

    `refused` is a mistake of the user's, `crashed` anything else, `stopped` a job that Ctrl-C or SIGTERM ended.
    """

    status: Status
    reason: str = ""
    details: str = ""  # the traceback of a crash
    common: str = ""  # the reason where the jobs of a sweep share it and differ in a name only; by default `reason`


@dataclass(frozen=True)
class Request:
    """One run of a sweep as it was asked for: the name of its folder and its overrides."""

    name: str
    label: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} ({self.label})" if self.label else self.name


@dataclass(frozen=True)
class Job(Request):
    """One run of a sweep with the configuration that its overrides compose to."""

    config: Run = field(repr=False)


def variants(
    rows: Mapping[str, Sequence[str] | None] | None,
    columns: Mapping[str, Sequence[str] | None] | None,
    *,
    skip: Sequence[str] | None = None,
    cells: Mapping[str, Sequence[str]] | None = None,
    given: Sequence[str] = (),
) -> list[Variant]:
    """rows x columns without `skip`, row by row; a nameless one where there are neither rows nor columns.

    A column's override wins over its row's of the same key, that of `cells` (`words_of_cell`) over both, and the
    command line's (`given`) over all.

    Raises:
        UserError: `skip` or `cells` names no variant, or one of these is not what it has to be.
    """
    rows, columns, cells = _named("rows", rows), _named("columns", columns), _named("cells", cells)
    if skip is not None and not _is_list(skip):
        raise UserError(f"hydra.sweeper.skip={skip!r} is not a list of 'row / column'", key="hydra.sweeper.skip")
    found = []
    for row, row_words in (rows or {"": ()}).items():
        for column, column_words in (columns or {"": ()}).items():
            label = " / ".join(name for name in (row, column) if name)
            of_column = without_given([*column_words, *words_of_cell(cells, row, column)], given)
            of_column = list({key_of(word): word for word in of_column}.values())
            replaced = {key_of(word) for word in of_column}
            of_row = [word for word in without_given(row_words, given) if key_of(word) not in replaced]
            found.append(Variant(label, tuple(expand_tasks(of_row + of_column))))
    labels = {variant.label for variant in found}
    if lost := [pattern for pattern in cells if not any(fnmatchcase(label, pattern) for label in labels)]:
        raise UserError(f"cells names {lost[0]!r}, which is no 'row / column' of this experiment")
    unknown = [name for name in skip or () if name not in labels]
    if unknown:
        raise UserError(f"skip names {unknown[0]!r}, which is no 'row / column' of this experiment")
    return [variant for variant in found if variant.label not in (skip or ())]


def _is_list(words: object, form: str = "") -> bool:
    """Whether it is a list of texts, each of which begins with the pattern `form`."""
    if not isinstance(words, Sequence) or isinstance(words, str):
        return False
    return all(isinstance(word, str) and re.match(form, word) for word in words)


def _named(name: str, lists: object) -> dict[str, Sequence[str]]:
    """The overrides of rows, columns or cells by their name, which YAML may have read as a number.

    Raises:
        UserError: they are not names with a list of overrides, or nothing, each.
    """
    key = f"hydra.sweeper.{name}"
    found = lists if isinstance(lists, Mapping) else {}
    wrong = [] if lists is None or isinstance(lists, Mapping) else [lists]
    wrong += [words for words in found.values() if words is not None and not _is_list(words, OVERRIDE)]
    if wrong:
        raise UserError(
            f"{key} has {wrong[0]!r} where a name with a list of overrides must be: '{key}={{name:[\"seed=1\"]}}'",
            key=key,
        )
    return {str(row): words or () for row, words in found.items()}


def without_given(words: Sequence[str], given: Sequence[str]) -> list[str]:
    """`words` without the keys that the command line gives.

    Another data set on the command line also removes how the batch of this one is put together.
    """
    taken = {key_of(word) for word in given}
    if "data" in taken and any(key_of(word) == "data" for word in words):
        taken.add("trainer.accumulate")
    return [word for word in words if key_of(word) not in taken]


def stages(jobs: Sequence[Job]) -> list[list[Job]]:
    """The jobs in the order in which they can run: one that starts from another's run comes in a later stage."""
    left, found = list(jobs), []
    while left:
        folders = {folder for job in left if (folder := own_folder(job))}
        ready = [job for job in left if start_folder(job) not in folders] or left  # a circle has no first
        found.append(ready)
        left = [job for job in left if job not in ready]
    return found


def own_folder(job: Request) -> str:
    """The folder that the job's command names for its run; empty where it names none, or does not compose."""
    run_dir = job.config.run_dir if isinstance(job, Job) else None
    return os.path.realpath(run_dir) if run_dir else ""


def start_folder(job: Job) -> str | None:
    """The folder of the run that the job starts from; None where it starts from none."""
    source = job.config.mode.phases[0].init_from
    return os.path.realpath(source) if source and source != "previous" else None


def without_start(job: Job, failed: Mapping[str, Request]) -> JobOutcome | None:
    """The refusal of a job whose start is one of the `failed` runs, by folder; None where it can run."""
    start = failed.get(start_folder(job) or "")
    if start is None:
        return None
    reason = f"it starts from the run of {start}, which did not finish: repeat that one first"
    return JobOutcome("refused", reason, common="each starts from a run that did not finish: repeat that one first")


def key_of(word: str) -> str:
    """The key that an override such as `+a.b=1` sets: `a.b`."""
    return word.lstrip("+~").partition("=")[0]


def own_words(words: Iterable[str]) -> list[str]:
    """The overrides that one run needs, as a user writes them: without the sweep's launcher, `ssl=[a,b]` put together.

    A run of an experiment file states `hydra.mode=RUN`: the file alone would start its sweep.
    """
    kept = [word for word in words if not re.match(r"\+*(launcher\b|hydra\b(?!\.searchpath))", word)]
    tasks = [match[1] for word in kept if (match := re.fullmatch(r"\+ssl@ssl\.tasks\.(\w+)=\1", word))]
    if "ssl=several" in kept and tasks:
        kept = [f"ssl=[{','.join(tasks)}]" if word == "ssl=several" else word for word in kept]
        kept = [word for word in kept if not word.startswith("+ssl@ssl.tasks.")]
    if any(key_of(word) == "experiments" for word in kept):
        kept.append("hydra.mode=RUN")
    return kept


def repeat_command(words: Iterable[str]) -> str:
    """The command that repeats one job, quoted for a shell; with the user's folders of configuration files."""
    folders = [word for folder in FOLDERS[1:] for word in ("--config-dir", str(folder))]
    return command_line("train", [*folders, *own_words(words)])


def outcome_of(error: BaseException) -> JobOutcome:
    """What an exception of a job means."""
    if isinstance(error, UserError):
        return JobOutcome("refused", as_typed_here(str(error)))
    if isinstance(error, OwnCodeError):
        return JobOutcome("crashed", as_typed_here(str(error)), error.lines)
    details = "".join(traceback.format_exception(error))
    return JobOutcome("crashed", last_line(str(error), type(error).__name__), details)


def last_line(text: str, kind: str) -> str:
    """The last line of an error's text with its kind before it, which a process's own traceback already names."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return kind
    return lines[-1] if len(lines) > 1 and re.match(r"[\w.]+(Error|Exception)\b", lines[-1]) else f"{kind}: {lines[-1]}"


def summary(results: Sequence[tuple[Request, JobOutcome]], total: int, what: str = "sweep") -> list[str]:
    """The lines at the end of a sweep or a search: the counts; then name, reason and command of every job that failed.

    Jobs that failed for the same reason are one line of the reason and one of the first names.
    """
    counts = {status: sum(outcome.status == status for _, outcome in results) for status in get_args(Status)}
    failed = [(job, outcome) for job, outcome in results if outcome.status in ("refused", "crashed")]
    open_jobs = total - counts["finished"] - counts["skipped"] - len(failed)
    line = (
        f"{what}: {counts['finished']} finished, {counts['skipped']} skipped (already finished), {len(failed)} failed"
    )
    lines = [line + (f", {open_jobs} not finished" if open_jobs else "")]
    groups: dict[tuple[str, str], list[tuple[Request, JobOutcome]]] = {}
    for job, outcome in failed:
        groups.setdefault((outcome.status, reason_of(outcome)), []).append((job, outcome))
    for (status, reason), of in groups.items():
        if len(of) > 1:
            names = ", ".join(str(job) for job, _ in of[:NAMED])
            more = f" and {len(of) - NAMED:,} more" if len(of) > NAMED else ""
            how = "cannot start" if status == "refused" else status
            lines += [f"  {many(len(of), 'run')} {how}: {reason}", f"    {names}{more}"]
            continue
        job, outcome = of[0]
        lines += [f"  {status}: {job}", f"    {outcome.reason}", f"    {repeat_command(job.words)}"]
    return lines


def reason_of(outcome: JobOutcome) -> str:
    """By which the failures of a sweep are grouped."""
    return outcome.common or outcome.reason


def exit_code(outcomes: Iterable[JobOutcome]) -> int:
    """0 when nothing failed, 2 when only the user's values were refused, 1 when something crashed."""
    statuses = {outcome.status for outcome in outcomes}
    return 1 if "crashed" in statuses else 2 if "refused" in statuses else 0


def report_failure(job: Request, outcome: JobOutcome, told: set[str] | None = None, *, begun: bool = True) -> None:
    """A failed job on stderr, as soon as it is known: its traceback, or one sentence.

    Args:
        job: that failed.
        outcome: why.
        told: the reasons that have been printed in full, to which this one is added; they are not printed again.
        begun: whether a line has said that the job begins.
    """
    told = set() if told is None else told
    if outcome.status not in ("refused", "crashed"):
        return
    if reason_of(outcome) in told:
        if begun and not outcome.common:
            tell(f"error: {job.name}: as before", file=sys.stderr)
        return
    told.add(reason_of(outcome))
    if outcome.details:
        tell(outcome.details.rstrip(), file=sys.stderr)
    tell(f"error: {job}: {outcome.reason}", file=sys.stderr)
