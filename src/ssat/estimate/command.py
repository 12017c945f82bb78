"""estimate=true: what a run, or every run of a sweep, will take, by a short calibration that leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssat.config.identity import check_same_run, config_hash, official_name
from ssat.config.schema import Component, Phase, Run
from ssat.core.errors import UserError
from ssat.core.interrupts import Stopped, ending_at_once
from ssat.core.launch import is_main_process, run_processes
from ssat.core.terminal import tell
from ssat.core.words import duration, many
from ssat.runs.folder import AFRESH, find_finished, find_run_dir, read_phase, usable
from ssat.runs.record import as_number, lookup, write_record

if TYPE_CHECKING:  # torch takes seconds, and src.train imports this
    from ssat.estimate.cost import Cost
    from ssat.estimate.prediction import Amount, Done
from ssat.estimate.show import busy, line, show, size

FOLDER = ".estimates"  # below runs_dir; reports pass over folders with a dot
SUMMED = ("seconds", "gpu_hours", "kwh", "co2_kg", "co2_kg_lacoste", "disk_bytes")
# Of this process, as a sweep's jobs have nothing else in common.
COSTS: dict[str, Cost] = {}  # the rows of a table share their calibrations
ESTIMATES: list[dict[str, Any]] = []
SWEEP: list[str] = []  # the hashes of its runs
PLANNED: dict[tuple[str, int], tuple[str, Amount]] = {}  # by hash and phase: what `plan` has found out already


def estimate(config: Run, run_dir: Path, done: tuple[Path, dict[str, Any]] | None) -> None:
    """Print what the run will take, or has taken, and write `runs_dir`/.estimates/<name>-<hash>.json.

    Args:
        config: of the run.
        run_dir: where it is or would be.
        done: folder and record of the run, if it is finished.

    Raises:
        UserError: what the run itself would raise.
    """
    with interruptible():
        _estimate(config, run_dir, done)


def _estimate(config: Run, run_dir: Path, done: tuple[Path, dict[str, Any]] | None) -> None:
    notes: list[str] = []
    if done:
        folder, record = done
        rows = finished_phases(folder, record)
        notes.append(f"already finished in {folder}: these are its own figures")
    else:
        rows = remaining_phases(config, run_dir, notes)
    if not is_main_process():
        return
    runs, left = Path(config.runs_dir), [row for row in rows if row["status"] != "finished"]
    notes += short_of_disk(runs, sum(row["disk_bytes"] for row in left), "the run writes")
    result = {
        "kind": "estimate",
        "name": config.name,
        "hash": config_hash(config),
        "experiment": config.experiment,
        "runs_dir": config.runs_dir,
        "status": "finished"
        if done
        else "estimated"
        if all(row["status"] == "estimated" for row in rows)
        else "interrupted",
        "unit": "images" if config.data.frames is None else "clips",
        "phases": rows,
        "peak_memory_bytes": max(row["peak_memory_bytes"] for row in rows),
        "total": {key: total(row[key] for row in rows) for key in SUMMED},
        "left": {key: total(row[key] for row in left) for key in SUMMED},
        "notes": notes,
    }
    with usable(config, "written", key="runs_dir"):
        path = write_record(runs / FOLDER, result, name=f"{config.name}-{result['hash']}.json")
    ESTIMATES.append(result)
    if in_sweep():
        tell(line(config.name, result["left"], result["peak_memory_bytes"], notes))
    else:
        show(result, path)


def finished_phases(run_dir: Path, record: dict[str, Any]) -> list[dict[str, Any]]:
    """Every phase of a finished run.

    Raises:
        UserError: its record is damaged.
    """
    try:
        rows = [finished_phase(phase, run_dir, gpus(record["hardware"])) for phase in record["phases"]]
    except (KeyError, TypeError):
        rows = []
    if not rows:
        path = run_dir / "result.json"
        raise UserError(f"{path} is damaged: move it away, or force=true to estimate the whole run")
    return rows


def finished_phase(phase: dict[str, Any], run_dir: Path, devices: int) -> dict[str, Any]:
    """A phase that is over, with its own figures; `devices` is the number of GPUs, 0 on a CPU."""
    files = (path for path in (run_dir / phase["name"]).rglob("*") if path.is_file())
    same = ("name", "steps", "images_per_s", "seconds", "peak_memory_bytes")
    return {
        **{key: phase[key] for key in same},
        "status": "finished",
        "gpu_hours": phase["seconds"] / 3600 * devices if devices else None,
        **{key: None if phase["energy"].get("shared") else phase["energy"][key] for key in ("kwh", "co2_kg")},
        "co2_kg_lacoste": phase["energy"]["co2_kg_lacoste"],
        "disk_bytes": sum(path.stat().st_size for path in files),
    }


def gpus(hardware: dict[str, Any]) -> int:
    """GPUs of a run by the `hardware` of its record; 0 on a CPU."""
    return hardware["processes"] if hardware["accelerator"] == "cuda" else 0


def remaining_phases(config: Run, run_dir: Path, notes: list[str]) -> list[dict[str, Any]]:
    """Every phase of a run that is not finished; `notes` gets what one must know of the numbers."""
    from ssat.estimate.prediction import Done, predict
    from ssat.runs.energy import check_country
    from ssat.runs.machine import check_hardware, hardware

    check_hardware(config)
    if config.footprint.energy:
        check_country(config.footprint.country)
    with_images, rows = with_data(config, notes), []
    if sizes := next((phase.recipe.sizes for phase in config.mode.phases if phase.recipe.sizes), None):
        raise UserError(
            f"estimate=true times steps of one size, and recipe.sizes={[*sizes]} makes several: leave it out, and"
            " know that the run takes less with it",
            key="recipe.sizes",
            value=[*sizes],
        )
    for index, phase in enumerate(config.mode.phases):
        folder = run_dir / phase.name
        if os.path.lexists(folder / "phase.json") and not config.force:
            record = read_phase(folder / "phase.json", config)
            rows.append(finished_phase(record, run_dir, gpus(hardware(config.trainer))))
            continue
        cost, amount = measured(with_images, index)
        if cost is None:  # the main process goes on alone
            continue
        done = Done() if config.force else behind(config, phase, folder / "checkpoints" / "last.ckpt")
        if done.steps:
            spent = duration(done.seconds) + (f" and {done.kwh:.3g} kWh" if done.kwh else "")
            notes.append(f"{phase.name} was interrupted at step {done.steps}, after {spent}: what is shown is left")
        rows.append(predict(config, phase, cost, amount, done))
    if rows and config.monitor.linear_every:
        notes.append("monitor.linear_every: of the probe, the features are counted and the regression is not")
    if rows and not config.footprint.energy:
        notes.append("footprint.energy=false: kWh by the device's rated power")
    return rows


def with_data(config: Run, notes: list[str]) -> Run:
    """`config`, with made-up images where the official set is not there: an estimate downloads nothing."""
    from ssat.data.sets.catalog import CATALOG
    from ssat.data.sets.checks import Missing, locate
    from ssat.data.sets.stand_in import PIXELS, stands_in

    name = official_name(config)
    if config.data.source.kind == "hf":
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    if not stands_in(name):
        return config
    try:
        locate(CATALOG[name], Path(str(config.data.extra["root"])))
        return config
    except Missing:
        pass
    made_up = "random pixels of its size" if name in PIXELS else "made-up JPEGs: loader not measured"
    notes.append(f"data not present, {name} is not in {config.data.extra['root']}: timed with {made_up}")
    made = Component("stand_in", name, {"name": name})
    return replace(config, data=replace(config.data, source=made))


def measured(config: Run, index: int, window: float | None = None) -> tuple[Cost | None, Amount]:
    """What the parts of a phase cost, and its amount of data; calibrates unless this process has for an equal phase.

    Returns:
        the cost, None where another process of the run has it.
    """
    from ssat.estimate.cost import Cost, calibrate

    phase, runs = config.mode.phases[index], Path(config.runs_dir)
    key, amount = PLANNED.get((config_hash(config), index)) or key_and_amount(config, index)
    if key in COSTS:
        return COSTS[key], amount
    if is_main_process():
        planned = {key for key, _ in PLANNED.values()}
        place = f" ({len(planned & COSTS.keys()) + 1} of {len(planned)})" if key in planned else ""
        tell(f"calibrating {config.name}, phase {phase.name}{place} ...")
    with usable(config, "written", key="runs_dir"):
        (runs / FOLDER).mkdir(parents=True, exist_ok=True)
        # On the disk of the run, as writing checkpoints is timed.
        folder = Path(tempfile.mkdtemp(prefix=".calibration-", dir=runs / FOLDER))
    try:
        run_processes(calibrate, config, index, folder, window, processes=config.trainer.devices)
        if not is_main_process():
            return None, amount
        COSTS[key] = cost = Cost(**json.loads((folder / "cost.json").read_text()))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return cost, amount


def key_and_amount(config: Run, index: int) -> tuple[str, Amount]:
    """What decides the costs of a phase, and its amount of data."""
    from ssat.estimate.prediction import amount_of, cost_key
    from ssat.training.data import build_data

    phase = config.mode.phases[index]
    data = build_data(config, phase)
    data.setup()
    return cost_key(config, phase, data), amount_of(config, data)


def plan(runs: Sequence[Run]) -> dict[int, UserError]:
    """Look ahead over the runs of a sweep, and print how many calibrations their estimates will take.

    Returns:
        by its number, why a run's data cannot be used.
    """
    SWEEP[:] = [config_hash(run) for run in runs]
    refused: dict[int, UserError] = {}
    for number, run in enumerate(runs):
        with suppress(Exception):  # its own estimate says what is wrong with it
            if not run.force and find_finished(run):
                continue
            config, folder = with_data(run, []), find_run_dir(run)
            for index, phase in enumerate(run.mode.phases):
                if run.force or not os.path.lexists(folder / phase.name / "phase.json"):
                    try:
                        PLANNED[config_hash(config), index] = key_and_amount(config, index)
                    except UserError as error:
                        refused.setdefault(number, error)
    calibrations = len({key for key, _ in PLANNED.values()} - COSTS.keys())
    tell(f"{many(len(runs), 'run')} to estimate, {many(calibrations, 'calibration')} to come")
    return refused


@contextmanager
def interruptible() -> Iterator[None]:
    """Around an estimate or a sweep of them, also in a fit, where Lightning would end the process as if all was well.

    Raises:
        KeyboardInterrupt: after Ctrl-C; says how far it was.
        SystemExit: 128 + the number of another signal, of which a line on stderr says the same.
    """
    with ending_at_once():
        import ssat.estimate.cost
        import ssat.estimate.prediction  # noqa: F401  (torch and Lightning)
        from ssat.training.stop import Stop

    try:
        with Stop().listening():
            yield
    except Stopped as stopped:
        if stopped.number == signal.SIGINT:
            raise KeyboardInterrupt(progress()) from None
        tell(f"stopped by {signal.Signals(stopped.number).name}: {progress()}", file=sys.stderr)
        raise SystemExit(stopped.code) from None


def progress() -> str:
    """How far the estimates are, as the sentence of one that is interrupted."""
    if not SWEEP:
        return "the run is not estimated, and the calibration has left nothing behind"
    to_come = len({key for key, _ in PLANNED.values()} - COSTS.keys())
    return (
        f"{len(ESTIMATES)} of {many(len(SWEEP), 'run')} {'is' if len(SWEEP) == 1 else 'are'} estimated,"
        f" {many(to_come, 'calibration')} {'was' if to_come == 1 else 'were'} still to come;"
        " the same command begins again"
    )


def behind(config: Run, phase: Phase, last: Path) -> Done:
    """What the checkpoint `last` of an interrupted phase says; nothing where there is none.

    Raises:
        UserError: it belongs to another configuration.
    """
    from ssat.core.checkpoints import check_continuable, load_checkpoint
    from ssat.estimate.prediction import Done

    if not last.exists():
        return Done()
    checkpoint = load_checkpoint(last)
    check_continuable(checkpoint, last, AFRESH, epochs=phase.epochs)
    check_same_run(config, checkpoint.get("config"), last)
    seconds, kwh = (as_number(lookup(checkpoint, f"callbacks.Meter.{key}")) for key in ("seconds", "kwh"))
    measured = lookup(checkpoint, "callbacks.Meter.source")
    return Done(checkpoint["global_step"], seconds or 0.0, kwh if measured else None)


def total(values: Iterator[Any] | Sequence[Any]) -> float | None:
    """The sum; None where a part is not known."""
    values = list(values)
    return None if None in values else sum(values)


def short_of_disk(runs: Path, needed: int, what: str) -> list[str]:
    """A note where `needed` bytes do not fit on the disk of `runs`; `what` needs them, e.g. "the run writes"."""
    free = shutil.disk_usage(existing(runs)).free
    return [f"the disk of {runs} has {size(free)} left, and {what} {size(needed)}"] if needed > free else []


def existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that there is."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def in_sweep() -> bool:
    """Whether this is a job of a sweep."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


@contextmanager
def sum_at_end() -> Iterator[None]:
    """Around a command: prints the sum over a sweep's estimates at its end, however it ends."""
    try:
        yield
    finally:
        if len(ESTIMATES) > 1:
            sums = {key: total(result["left"][key] for result in ESTIMATES) for key in SUMMED}
            memory = max(result["peak_memory_bytes"] for result in ESTIMATES)
            over = sum(result["status"] == "finished" for result in ESTIMATES)
            of_all = f"{len(ESTIMATES)} of {len(SWEEP)}" if len(ESTIMATES) < len(SWEEP) else len(ESTIMATES)
            counted = f"SUM of {of_all} runs" + (f", {over} of them finished" if over else "")
            notes = [many(len(COSTS), "calibration"), *busy([row for result in ESTIMATES for row in result["phases"]])]
            for runs in dict.fromkeys(result["runs_dir"] for result in ESTIMATES):
                needed = sum(each["left"]["disk_bytes"] for each in ESTIMATES if each["runs_dir"] == runs)
                notes += short_of_disk(Path(runs), needed, "the runs write")
            tell(line(counted, sums, memory, notes).strip())
