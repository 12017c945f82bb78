"""Runs the benchmarks one after the other and puts what they have measured into one table.

    python -m benchmarks.all                            # quick: a few pairs, under three minutes; prints the table
    python -m benchmarks.all full [images=<folder>] [large=<folder>] [only=step,ddp]    # every bar, 9 pairs
    python -m benchmarks.all render                     # docs/benchmarks.md again from what was measured

Each script writes its JSON under runs/benchmarks, quick ones under runs/benchmarks/quick; all.json there says which
command made which file. `full` and `render` write the table between the two marks of docs/benchmarks.md, whose rows are
what was measured with `full`; what was not is absent. A script that fails does not stop the next one. `images` has
train/<class>/* and test/<class>/* of small images (default: made-up ones), `large` class folders of photographs.
"""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.device import refuse

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "runs" / "benchmarks"
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- benchmarks.all: begin -->", "<!-- benchmarks.all: end -->"
HEADINGS = ("what", "against", "ratio (median)", "range", "pairs", "load", "command")
PAIRS = 9


@dataclass(frozen=True)
class Job:
    """A script of this folder with its words.

    Attributes:
        script: module in benchmarks/.
        file: the JSON that it writes, below the folder of all of them.
        words: its arguments without where it writes; `{images}` and `{large}` stand for the folders.
    """

    script: str
    file: str
    words: tuple[str, ...]

    def command(self, folder: Path, folders: dict[str, str]) -> list[str]:
        """Words after `python`."""
        path = folder / self.file
        where = [f"out={path.parent}"] if self.script == "input_pipeline" else ["--json", str(path)]
        return ["-m", f"benchmarks.{self.script}", *(word.format(**folders) for word in self.words), *where]


@dataclass(frozen=True)
class Row:
    """A line of the table; `ratio` and its range as text, for some are milliseconds."""

    what: str
    against: str
    ratio: str
    span: str
    pairs: int
    load: str
    command: str


BF16 = ("--baseline", "two-pass bf16", "--variants", "packed bf16")
AT_224 = ("--img-size", "224", "--patch-size", "16")
MEMORY = ("--memory-batches", "16")
NINE = ("--pairs", str(PAIRS))
QUICK = (
    Job("step", "step.json", ("--batch", "4", "--pairs", "3", "--variants", "packed", "--memory-batches")),
    Job("input_pipeline", "input_pipeline.json", ("small={images}/train", "images=256", "rounds=3")),
    Job("inference", "inference.json", ("--sizes", "32/2", "--batches", "1", "--pairs", "3")),
    Job("epoch", "epoch-overhead.json", ("overhead", "--steps", "40", "--pairs", "1")),
)
FULL = (
    Job("step", "step-32.json", ("--batch", "16", *NINE, "--variants", "packed", *MEMORY)),
    Job("step", "step-32-bf16.json", ("--batch", "16", *NINE, *BF16, *MEMORY)),
    Job("step", "step-224-bf16.json", (*AT_224, "--batch", "16", *NINE, *BF16, *MEMORY)),
    Job("input_pipeline", "small/input_pipeline.json", ("small={images}/train", f"rounds={PAIRS}")),
    Job("input_pipeline", "large/input_pipeline.json", ("large={large}", "images=256", f"rounds={PAIRS}")),
    Job("epoch", "epoch-overhead.json", ("overhead", "--steps", "200", *NINE)),
    Job("epoch", "epoch-authors.json", ("authors", "--root", "{images}", "--images", "320", "--pairs", "7")),
    Job("inference", "inference.json", NINE),
    Job("ddp", "ddp.json", ("--rounds", str(PAIRS))),
    Job("startup", "startup.json", ("--repeats", str(PAIRS), "--imports")),
)


def ratio_of(values: Sequence[float]) -> tuple[str, str]:
    """Median and range; a range that includes 1 decides nothing and says so."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.2f}", f"{low:.2f} to {high:.2f}" + (" (undecided)" if low <= 1 <= high else "")


def load_of(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.1f}" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f} to {high:.1f}"


def step_rows(report: dict[str, Any], command: str) -> Iterator[Row]:
    """Ratios of the steps, of their peak memory, and shares of the matmul peak."""
    s, baseline = report["settings"], report["baseline"]
    net = f"{s['encoder']} {s['img_size']}/{s['patch_size']}, batch {s['batch']}, {s['device']}"
    clock = "cpu" if s["device"] == "cpu" and s["threads"] == 1 else "wall"
    for variant, pairs in report["pairs"].items():
        load = load_of([pair["variant"]["load"] for pair in pairs])
        ratio = ratio_of([pair[f"{clock}_ratio"] for pair in pairs])
        yield Row(f"step {net}: {variant}", baseline, *ratio, len(pairs), load, command)
        if roof := report.get("roofline", {}).get(variant):
            what = f"FLOP/s of the step {net}: {variant}, {roof['flops'] / 1e9:,.0f} GFLOP/s"
            yield Row(what, "matmul peak", f"{roof['share']:.2f}", "fastest step", len(pairs), load, command)
    for batch, used in report["memory_bytes"].items():
        for variant in (name for name in used if name != baseline):
            what = f"peak memory of the step {s['encoder']} {s['img_size']}/{s['patch_size']}, batch {batch}: {variant}"
            yield Row(what, baseline, f"{used[variant] / used[baseline]:.2f}", "one step each", 1, "", command)


def input_rows(report: dict[str, Any], command: str) -> Iterator[Row]:
    for name, row in report["results"].items():
        if "ratio" not in row:
            continue
        span = f"{row['range'][0]:.2f} to {row['range'][1]:.2f}"
        load = load_of([row["load"]]) if "load" in row else ""
        what = f"input, {name}: batched, {row['batched']:,.0f} images/s"
        yield Row(what, "PIL + timm", f"{row['ratio']:.2f}", span, row["rounds"], load, command)


def epoch_rows(report: dict[str, Any], command: str) -> Iterator[Row]:
    for name, row in report["rows"].items():
        rounds = report["rounds"][name]
        load = load_of([one["load"] for one in rounds])
        if "more_ms" in row:
            more = row["more_ms"]
            span = f"{more['min']:+.2f} to {more['max']:+.2f} ms"
            what = f"training loop a step: {name}"
            yield Row(what, "bare loop", f"{more['median']:+.2f} ms", span, len(rounds), load, command)
        else:
            ratio = ratio_of([one["baseline"]["cpu"] / one["own"]["cpu"] for one in rounds])
            what = f"epoch of {report['images']:,} images: {name}"
            yield Row(what, "the authors' loop", *ratio, len(rounds), load, command)


def inference_rows(report: dict[str, Any], command: str) -> Iterator[Row]:
    for row in report["rows"]:
        what = f"inference, {row['size']}, batch {row['batch']}"
        yield Row(what, "timm", *ratio_of(row["ratios"]), len(row["ratios"]), load_of([row["load"]]), command)


def ddp_rows(report: dict[str, Any], command: str) -> Iterator[Row]:
    s = report["settings"]
    for row in report["ratios"]:
        net = f"{s['encoder']} {s['img_size']}/{s['patch_size']}"
        what = f"steps/s of {row['variant']}, {row['images']} images each, {net}"
        against = f"1 process, {s['batch']} images"
        yield Row(what, against, *ratio_of(row["ratios"]), len(row["ratios"]), load_of(report["load"]), command)


def startup_rows(report: dict[str, Any], command: str) -> Iterator[Row]:
    for name, times in report["times"].items():
        cpu, load = [one["cpu"] for one in times], load_of([one["load"] for one in times])
        span = f"{min(cpu):.2f} to {max(cpu):.2f} s"
        yield Row(f"`{name}`", "-", f"{statistics.median(cpu):.2f} s of CPU", span, len(cpu), load, command)


ROWS: dict[str, Callable[[dict[str, Any], str], Iterator[Row]]] = {
    **{"step": step_rows, "input_pipeline": input_rows, "epoch": epoch_rows},
    **{"inference": inference_rows, "ddp": ddp_rows, "startup": startup_rows},
}


def rows_of(folder: Path) -> list[Row]:
    """The rows of all that all.json of the folder names."""
    index = folder / "all.json"
    found: list[Row] = []
    for entry in json.loads(index.read_text())["jobs"].values() if index.is_file() else ():
        path = folder / entry["file"]
        if path.is_file() and entry["exit"] == 0:
            found += ROWS[entry["script"]](json.loads(path.read_text()), entry["command"])
    return found


def markdown(rows: Sequence[Row]) -> str:
    """The table, a line a row."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    for row in rows:
        cells = (row.what, row.against, row.ratio, row.span, str(row.pairs), row.load, f"`{row.command}`")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def replaced(page: str, table: str) -> str:
    """The page with the table between its marks.

    Raises:
        ValueError: the page has not one mark of each kind in this order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in after:
        raise ValueError(f"needs one line {BEGIN} and below it one line {END}")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def made_up(folder: Path) -> str:
    """Images of 32 px, as `benchmarks.gpu` makes them."""
    from benchmarks.gpu_stages import Asked, images_of

    return str(images_of(Asked("cuda", folder, "", ())))


def shown(words: Sequence[str], folders: dict[str, str]) -> str:
    """A command as a user types it; a folder of images is `<images>` or `<large>`, wherever it lies here."""
    typed = shlex.join(words).replace(f"{ROOT}{os.sep}", "")
    for name in filter(folders.get, ("images", "large")):
        typed = typed.replace(folders[name], f"<{name}>")
    return f"python {typed}"


def reason_to_skip(job: Job, folders: dict[str, str]) -> str | None:
    """Why a job is left out, or None."""
    if not (ROOT / "benchmarks" / f"{job.script}.py").is_file():
        return "there is no such script here"
    if not folders["large"] and any("{large}" in word for word in job.words):
        return "it needs large=<folder of photographs>"
    if any("bf16" in word for word in job.words):
        from ssat.encoders.layers import multiplies_bf16  # here: most of what this script does needs no torch

        if not multiplies_bf16():
            return "this processor has no instructions for bf16"
    return None


def run(jobs: Sequence[Job], folder: Path, folders: dict[str, str]) -> int:
    """Run the jobs, one after the other, and note each in all.json; returns how many failed.

    Args:
        jobs: what to run.
        folder: of their JSON.
        folders: what `{images}` and `{large}` stand for.
    """
    index, failed = folder / "all.json", 0
    for job in jobs:
        if reason := reason_to_skip(job, folders):
            print(f"{job.script} ({job.file}) is left out: {reason}")
            continue
        words = job.command(folder, folders)
        command, path = shown(words, folders), folder / job.file
        print(f"$ {command}", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # figures of an earlier run are not this one's
        start = time.perf_counter()
        code = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment()).returncode
        print(f"{job.script}: exit code {code}, {time.perf_counter() - start:.0f} s", flush=True)
        failed += code != 0
        jobs_of = json.loads(index.read_text())["jobs"] if index.is_file() else {}
        jobs_of[job.file] = {"script": job.script, "file": job.file, "command": command, "exit": code}
        partial = index.with_suffix(".partial")
        partial.write_text(json.dumps({"jobs": jobs_of}, indent=1) + "\n")
        os.replace(partial, index)
    return failed


def environment() -> dict[str, str]:
    """One thread; the package is importable from src/."""
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "COLUMNS": "140"}


def folders_of(words: Sequence[str]) -> dict[str, str]:
    """The command's key=value words; ends with one sentence for a mistake."""
    given = dict(word.partition("=")[::2] for word in words)
    folders = {"images": "", "large": "", "only": ""}
    if unknown := given.keys() - folders.keys():
        refuse(f"{sorted(unknown)[0]!r} is not an option; words: full, render, images=, large=, only=")
    folders |= given
    if folders["images"] and not Path(folders["images"], "train").is_dir():
        refuse(f"images={folders['images']} has no folder train: give a folder with train/<class>/* and test/<class>/*")
    if folders["large"] and not Path(folders["large"]).is_dir():
        refuse(f"large={folders['large']} is not a folder: give one with <class>/*")
    names = list(dict.fromkeys([*ROWS, *(Path(job.file).stem for job in FULL)]))
    if strange := [name for name in filter(None, folders["only"].split(",")) if name not in names]:
        refuse(f"only={strange[0]} is not a script; scripts, and parts of them: {', '.join(names)}")
    return folders


def render(folder: Path, page: Path = PAGE) -> None:
    """Write the table of a folder's figures into the page; ends with one sentence where there is nothing or no mark."""
    rows = rows_of(folder)
    if not rows:
        refuse(f"nothing is measured in {folder}: run python -m benchmarks.all full first")
    try:
        text = replaced(page.read_text(), markdown(rows))
    except ValueError as error:
        refuse(f"{page} {error}")
    partial = page.with_name(f".{page.name}.partial")
    partial.write_text(text)
    os.replace(partial, page)
    print(f"{len(rows)} rows written to {page}")


def main(words: list[str]) -> int:
    """The command; returns its exit code."""
    if {"--help", "-h"} & {*words}:
        print(__doc__)
        return 0
    kind = words.pop(0) if words and words[0] in ("full", "render") else "quick"
    folders = folders_of(words)
    if kind == "render":
        render(OUT)
        return 0
    only = list(filter(None, folders.pop("only").split(",")))
    jobs = [
        job for job in (FULL if kind == "full" else QUICK) if not only or {job.script, Path(job.file).stem} & {*only}
    ]
    folder = OUT if kind == "full" else OUT / "quick"
    with tempfile.TemporaryDirectory(prefix="ssat-benchmarks-") as temporary:
        failed = run(jobs, folder, folders | {"images": folders["images"] or made_up(Path(temporary))})
    print(markdown(rows_of(folder)))
    if kind == "full":
        render(folder)
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
