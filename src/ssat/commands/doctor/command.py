"""Is everything in order here? python -m src.doctor [data=<name>,...|all] [data.root=<folder>] [quick=true]"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape

from ssat.commands.doctor.finding import MARKS, Finding, guarded
from ssat.config.command_line import fail
from ssat.core import interrupts
from ssat.core.errors import UserError
from ssat.core.options import is_true, read_options
from ssat.core.terminal import Console
from ssat.core.words import nearest
from ssat.data.sets.catalog import CATALOG

USAGE = f"""\
python -m src.doctor [data=<name>,...|all] [data.root=<folder>] [runs_dir=<folder>] [quick=true] [out=<file>] [--json]
python -m src.doctor promises=true [out=<file>] [--json]

Checks versions, devices, disk, data sets, patches and masks, and trains some tiny runs in a temporary folder: one batch
learnt by heart, a killed run continued, the same seed twice, two processes against one, the report. Nothing is uploaded
or downloaded. One line a check: ok, warning, failed or skipped, what was measured and, if needed, the cure. About a
minute and a half on two cores. Exit code 0: nothing failed; 1: something did; 2: this command line is wrong.

  data=all         data sets to look at: {", ".join(CATALOG)}; one that is absent is skipped
  data.root=data   folder of the data sets
  runs_dir=runs    where training would write
  quick=true       no training, four encoders, only small data sets are read: some seconds
  promises=true    what docs/doctor.md promises of faults, and nothing else: killed and stopped runs, lost processes,
                   files that carry code or fill the memory
  out=<file.json>  also write the findings for a bug report, without your folders, names or keys
  --json           print that to the standard output, and the lines to the standard error
  --help           this text
"""
KEYS = {
    "data": "<names>",
    "data.root": "<folder>",
    "runs_dir": "<folder>",
    "quick": "true or false",
    "promises": "true or false",
    "out": "<file.json>",
}
COLOURS = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "dim"}
PATIENCE = 15.0  # seconds between two words about what is still running
SCHEMA = 1


@dataclass(frozen=True)
class Options:
    """The command line: no names = every data set."""

    data: tuple[str, ...] = ()
    root: Path = Path("data")
    runs_dir: Path = Path("runs")
    quick: bool = False
    promises: bool = False
    out: Path | None = None
    json: bool = False
    help: bool = False


def parse(words: list[str]) -> Options:
    """The command line.

    Raises:
        UserError: an unknown word, or a value that is not possible.
    """
    given, flags, _ = read_options(words, KEYS, names=("--json", "--help"), aliases={"-h": "--help"})
    names = tuple(dict.fromkeys(name for name in given.get("data", "all").split(",") if name))
    for name in names:
        if name not in ("all", *CATALOG):
            listed = ", ".join([*CATALOG, "all"])
            raise UserError(f"data={name} does not exist{nearest(name, list(CATALOG))}; it can be: {listed}")
    quick, promises = (is_true(name, given.get(name, "false")) for name in ("quick", "promises"))
    if quick and promises:
        raise UserError("promises=true trains and quick=true does not: leave one of them out", key="promises")
    root, out = Path(given.get("data.root", "data")).expanduser(), given.get("out")
    if "data.root" in given and not root.is_dir():
        raise UserError(f"data.root={given['data.root']!r} is not a folder: name the one that holds the data sets")
    if out is not None and (not Path(out).absolute().parent.is_dir() or Path(out).is_dir()):
        raise UserError(f"out={out} cannot be written: name a file in a folder that exists")
    return Options(
        data=() if "all" in names else names,
        root=root,
        runs_dir=Path(given.get("runs_dir", "runs")).expanduser(),
        quick=quick,
        promises=promises,
        out=None if out is None else Path(out),
        json="--json" in flags,
        help="--help" in flags,
    )


class Screen:
    """One line a finding; what runs meanwhile stands below them in a terminal, in a line now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun = self._said = time.monotonic()
        self._status = console.status("") if console.is_terminal else None

    def __enter__(self) -> Screen:
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._status:
            self._status.stop()

    def show(self, finding: Finding) -> None:
        """The line of a finding."""
        colour, text = COLOURS[finding.mark], finding.text + (f" -> {finding.cure}" if finding.cure else "")
        line = f"[{colour}]{finding.mark:8}[/{colour}] {escape(f'{finding.check:18}')} {escape(text)}"
        self._console.print(line, soft_wrap=True)
        self._said = time.monotonic()

    def working(self, what: str) -> None:
        """What is going on."""
        now = time.monotonic()
        text = f"... {now - self._begun:.0f} s: {what}"
        if self._status:
            self._status.update(text)
        elif now - self._said >= PATIENCE:
            self._console.print(text, soft_wrap=True, style="dim")
            self._said = now


def still_checks(options: Options, screen: Screen) -> Iterator[Finding]:
    """What needs no training run."""
    from ssat.commands.doctor import data_sets, fit, machine, services

    names = list(options.data)
    looks = {
        "versions": machine.check_versions,
        "requirements.lock": machine.check_lock,
        "CPU": machine.check_cpu,
        "GPU": machine.check_gpus,
        "runs folder": lambda: machine.check_disk(options.runs_dir),
        "shared memory": machine.check_shared_memory,
        "W&B": services.check_wandb,
        "energy": services.check_energy,
        "data": lambda: data_sets.check_data(names, options.root, quick=options.quick),
        "packed pass": lambda: fit.check_packed(quick=options.quick),
        "fit": lambda: fit.check_fit(names, quick=options.quick),
    }
    for name, look in looks.items():
        screen.working(name)
        for finding in guarded(name, look):
            yield finding
            screen.working(name)


def running(futures: dict[str, Future[Finding]], screen: Screen) -> Iterator[Finding]:
    """The findings of the trainings as they end."""
    waiting = dict(futures)
    while waiting:
        for name in [name for name, future in waiting.items() if future.done()]:
            yield waiting.pop(name).result()
        screen.working(f"in the background: {', '.join(waiting)}")
        time.sleep(0.1)


def examine(options: Options, screen: Screen) -> Generator[Finding, None, None]:
    """Every check; the trainings run in the background of the others."""
    screen.working("loading PyTorch")
    from ssat.commands.doctor import promises, trainings

    if options.quick:
        yield from still_checks(options, screen)
        for name in trainings.CHECKS:
            yield Finding(name, "skipped", "quick=true trains nothing")
        return
    with tempfile.TemporaryDirectory(prefix="ssat-doctor-", ignore_cleanup_errors=True) as folder:
        runs = trainings.Runs(Path(folder))
        try:
            chosen = promises.CHECKS if options.promises else trainings.checks()
            futures = {name: runs.submit(check, name) for name, check in chosen.items()}
            if not options.promises:
                yield from still_checks(options, screen)
            yield from running(futures, screen)
        finally:
            runs.stop()


def as_json(findings: list[Finding], options: Options, seconds: float) -> dict[str, Any]:
    """What a bug report needs, with nothing that says whose machine it is."""
    from ssat.commands.doctor.machine import ROOT, snapshot
    from ssat.commands.doctor.privacy import replacements, scrub
    from ssat.runs.machine import git_commit

    folders = {".": ROOT, "<data.root>": options.root, "<runs_dir>": options.runs_dir}
    content = {
        "schema": SCHEMA,
        "command": "doctor",
        "quick": options.quick,
        "promises": options.promises,
        "seconds": round(seconds, 1),
        "git_commit": git_commit(),
        **snapshot(),
        "summary": summary(findings),
        "checks": [asdict(finding) | {"seconds": round(finding.seconds, 2)} for finding in findings],
    }
    return scrub(content, replacements(folders))


def summary(findings: list[Finding]) -> dict[str, int]:
    """How many findings have each mark."""
    counts = Counter(finding.mark for finding in findings)
    return {mark: counts[mark] for mark in MARKS}


def doctor(words: list[str]) -> int:
    """The command; returns its exit code.

    Raises:
        UserError: the command line is wrong, or `out` cannot be written.
    """
    options = parse(words)
    if options.help:
        print(USAGE, end="")
        return 0
    console = Console(highlight=False, stderr=options.json)
    begun, findings = time.monotonic(), []
    with Screen(console) as screen, closing(examine(options, screen)) as examination:
        for finding in examination:
            findings.append(finding)
            screen.show(finding)
    seconds, counts = time.monotonic() - begun, summary(findings)
    text = ""
    if options.json or options.out:
        text = json.dumps(as_json(findings, options, seconds), indent=1, ensure_ascii=False)
    console.print(f"\n{', '.join(f'{counts[mark]} {mark}' for mark in MARKS)} in {seconds:.0f} s", soft_wrap=True)
    if options.json:
        print(text)
    if options.out:
        try:
            options.out.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write {options.out}: {error.strerror}; name another file with out=") from error
        console.print(f"wrote {options.out}", soft_wrap=True)
    return int(counts["failed"] > 0)


def main() -> None:
    """The command."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # on the way out the trainings are ended
    try:
        raise SystemExit(doctor(sys.argv[1:]))
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        interrupts.last_word("nothing is left behind")
        raise SystemExit(130) from None
