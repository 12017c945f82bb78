"""estimate=true: what a run, or every run of a sweep, will take, by a short calibration that leaves nothing behind."""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.config import Config, check_same_run, config_hash
from src.errors import UserError
from src.launch import is_main_process, run_processes
from src.results.record import write_record
from src.run_folder import read_phase, usable

if TYPE_CHECKING:  # torch takes seconds, and src.train imports this
    from src.cost import Cost
    from src.prediction import Amount, Done

FOLDER = ".estimates"  # below runs_dir; reports pass over folders with a dot
SUMMED = ("seconds", "gpu_hours", "kwh", "co2_kg", "co2_kg_lacoste", "disk_bytes")
BUSY = 0.6  # share of the time that a thread runs; below it the machine does other work, or has too many threads

# Of this process, as a sweep's jobs have nothing else in common.
COSTS: dict[str, Cost] = {}  # the rows of a table share their calibrations
ESTIMATES: list[dict[str, Any]] = []


def estimate(config: Config, run_dir: Path, done: tuple[Path, dict[str, Any]] | None) -> None:
    """Print what the run will take, or has taken, and write `runs_dir`/.estimates/<name>-<hash>.json.

    Args:
        config: of the run.
        run_dir: where it is or would be.
        done: folder and record of the run, if it is finished.

    Raises:
        UserError: what the run itself would raise.
    """
    notes: list[str] = []
    if done:
        folder, record = done
        rows = finished_phases(folder, record)
        notes.append(f"already finished in {folder}: these are its own figures")
    else:
        rows = remaining_phases(config, run_dir, notes)
    if not is_main_process():
        return
    runs, left = Path(config["runs_dir"]), [row for row in rows if row["status"] != "finished"]
    notes += short_of_disk(runs, sum(row["disk_bytes"] for row in left), "the run writes")
    result = {
        "kind": "estimate",
        "name": config["name"],
        "hash": config_hash(config),
        "experiment": config["experiment"],
        "runs_dir": config["runs_dir"],
        "status": "finished"
        if done
        else "estimated"
        if all(row["status"] == "estimated" for row in rows)
        else "interrupted",
        "phases": rows,
        "peak_memory_bytes": max(row["peak_memory_bytes"] for row in rows),
        "total": {key: total(row[key] for row in rows) for key in SUMMED},
        "left": {key: total(row[key] for row in left) for key in SUMMED},
        "notes": notes,
    }
    with usable(config, "written", key="runs_dir"):
        path = write_record(runs / FOLDER, result, name=f"{config['name']}-{result['hash']}.json")
    ESTIMATES.append(result)
    if in_sweep():
        print(line(config["name"], result["left"], result["peak_memory_bytes"], notes), flush=True)
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
        **{key: phase["energy"][key] for key in ("kwh", "co2_kg", "co2_kg_lacoste")},
        "disk_bytes": sum(path.stat().st_size for path in files),
    }


def gpus(hardware: dict[str, Any]) -> int:
    """GPUs of a run by the `hardware` of its record; 0 on a CPU."""
    return hardware["processes"] if hardware["accelerator"] == "cuda" else 0


def remaining_phases(config: Config, run_dir: Path, notes: list[str]) -> list[dict[str, Any]]:
    """Every phase of a run that is not finished; `notes` gets what one must know of the numbers."""
    from src.build import check_hardware
    from src.energy import check_country
    from src.prediction import Done, predict
    from src.provenance import hardware

    check_hardware(config)
    if config["footprint"]["energy"]:
        check_country(config["footprint"]["country"])
    with_images, rows = with_data(config, notes), []
    for index, phase in enumerate(config["mode"]["phases"]):
        folder = run_dir / phase["name"]
        if (folder / "phase.json").exists() and not config["force"]:
            record = read_phase(folder / "phase.json")
            rows.append(finished_phase(record, run_dir, gpus(hardware(config))))
            continue
        cost, amount = measured(with_images, index)
        if cost is None:  # the main process goes on alone
            continue
        done = Done() if config["force"] else behind(config, folder / "checkpoints" / "last.ckpt")
        if done.steps:
            spent = duration(done.seconds) + (f" and {done.kwh:.3g} kWh" if done.kwh else "")
            notes.append(f"{phase['name']} was interrupted at step {done.steps}, after {spent}: what is shown is left")
        rows.append(predict(config, phase, cost, amount, done))
    if rows and config["monitor"]["linear_every"]:
        notes.append("monitor.linear_every: of the probe, the features are counted and the regression is not")
    if rows and not config["footprint"]["energy"]:
        notes.append("footprint.energy=false: kWh by the device's rated power")
    return rows


def with_data(config: Config, notes: list[str]) -> Config:
    """`config`, with made-up images where the official set is not there: an estimate downloads nothing."""
    from src.data.catalog import CATALOG
    from src.data.checks import Missing, locate
    from src.data.stand_in import PIXELS, stands_in

    name = config["data"]["name"]
    if config["data"]["source"].get("_target_") == "src.data.hub.hf":
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    if not stands_in(name):
        return config
    try:
        locate(CATALOG[name], config["data"]["root"])
        return config
    except Missing:
        config = copy.deepcopy(config)
        config["data"]["source"] = {"_target_": "src.data.stand_in.stand_in", "name": name}
    made_up = "random pixels of its size" if name in PIXELS else "made-up JPEGs: loader not measured"
    notes.append(f"data not present, {name} is not in {config['data']['root']}: timed with {made_up}")
    return config


def measured(config: Config, index: int) -> tuple[Cost | None, Amount]:
    """What the parts of a phase cost, and its amount of data; calibrates unless this process has for an equal phase.

    Returns:
        the cost, None where another process of the run has it.
    """
    from src.build import build_data
    from src.cost import Cost, calibrate
    from src.prediction import amount_of, cost_key

    phase, runs = config["mode"]["phases"][index], Path(config["runs_dir"])
    data = build_data(config, phase)
    data.setup()
    key, amount = cost_key(config, phase, data), amount_of(config, data)
    if key in COSTS:
        return COSTS[key], amount
    del data
    if is_main_process():
        print(f"calibrating {config['name']}, phase {phase['name']} ...", flush=True)
    with usable(config, "written", key="runs_dir"):
        (runs / FOLDER).mkdir(parents=True, exist_ok=True)
        # On the disk of the run, as writing checkpoints is timed.
        folder = Path(tempfile.mkdtemp(prefix=".calibration-", dir=runs / FOLDER))
    try:
        run_processes(calibrate, config, index, folder, processes=config["trainer"]["devices"])
        if not is_main_process():
            return None, amount
        COSTS[key] = cost = Cost(**json.loads((folder / "cost.json").read_text()))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return cost, amount


def behind(config: Config, last: Path) -> Done:
    """What the checkpoint `last` of an interrupted phase says; nothing where there is none.

    Raises:
        UserError: it belongs to another configuration.
    """
    from src.prediction import Done
    from src.weights import load_checkpoint

    if not last.exists():
        return Done()
    checkpoint = load_checkpoint(last)
    check_same_run(config, checkpoint.get("config"), last)
    meter = checkpoint["callbacks"].get("Meter", {})
    kwh = meter["kwh"] if meter.get("source") else None
    return Done(checkpoint["global_step"], meter.get("seconds", 0.0), kwh)


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


def duration(seconds: float) -> str:
    """As in reports: 8.2 s, 2m05s or 3h07m."""
    from src.results.tables import duration as shown

    return shown(seconds)


def size(count: float) -> str:
    """Bytes with a fitting unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


TITLES = ("time", "GPU h", "energy", "CO2", "CO2 (Lacoste)", "memory", "disk")


def cells(sums: dict[str, Any], memory: float) -> list[str]:
    """Under `TITLES`; a dash where it is not known."""
    from src.results.tables import quantity

    gpu_hours = "-" if sums["gpu_hours"] is None else f"{sums['gpu_hours']:.3g}"
    units = {"kwh": "Wh", "co2_kg": "g", "co2_kg_lacoste": "g"}
    shown = ["-" if sums[key] is None else quantity(sums[key] * 1000, unit) for key, unit in units.items()]
    return [duration(sums["seconds"]), gpu_hours, *shown, size(memory), size(sums["disk_bytes"])]


def busy(rows: list[dict[str, Any]]) -> list[str]:
    """A note where a CPU had other things to do while the phases were timed."""
    timed = [row for row in rows if row["status"] != "finished" and row["gpu_hours"] is None]
    if min((row["cpu_share"] for row in timed), default=1.0) >= BUSY:
        return []
    whole, alone = sum(row["seconds"] for row in timed), sum(row["seconds"] * row["cpu_share"] for row in timed)
    share = alone / whole if whole else 1.0
    return [
        f"threads ran {share:.0%} of the time: it holds for a machine as busy as now, idle perhaps {duration(alone)}"
    ]


def show(result: dict[str, Any], path: Path) -> None:
    """One run: a line per phase and in total, then the notes."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("phase")
    for title in ("steps", "images/s", *TITLES, "of it training, evaluation, other"):
        table.add_column(title, justify="right", overflow="fold")
    for row in result["phases"]:
        parts = "finished"
        if row["status"] != "finished":
            parts = ", ".join(duration(seconds) for seconds in row["parts"].values())
        speed = [f"{row['steps']:,}", f"{row['images_per_s'] or 0:,.0f}"]
        table.add_row(row["name"], *speed, *cells(row, row["peak_memory_bytes"]), parts)
    if len(result["phases"]) > 1:
        table.add_row("total", "", "", *cells(result["total"], result["peak_memory_bytes"]), "", style="bold")
    console.print(f"estimate of {result['name']}:")
    console.print(table)
    timed = ", ".join(f"{row['name']} {row['timed']} batches" for row in result["phases"] if "timed" in row)
    for note in [*result["notes"], *([f"timed: {timed}"] if timed else []), *busy(result["phases"])]:
        console.print(f"  {note}", soft_wrap=True)
    console.print(f"  written to {path}", soft_wrap=True)


def line(name: str, sums: dict[str, Any], memory: float, notes: list[str]) -> str:
    """One job of a sweep: what it has left."""
    values = cells(sums, memory)
    shown = [f"{values[0]:>7}", *(f"{value} {title}" for value, title in zip(values[1:], TITLES[1:], strict=True))]
    shown = [text for text in shown if not text.startswith("- ")]
    return f"  {name}: " + ", ".join(shown) + "".join(f"; {note}" for note in notes)


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
            counted = f"SUM of {len(ESTIMATES)} runs" + (f", {over} of them finished" if over else "")
            notes = [f"{len(COSTS)} calibrations", *busy([row for result in ESTIMATES for row in result["phases"]])]
            for runs in dict.fromkeys(result["runs_dir"] for result in ESTIMATES):
                needed = sum(each["left"]["disk_bytes"] for each in ESTIMATES if each["runs_dir"] == runs)
                notes += short_of_disk(Path(runs), needed, "the runs write")
            print(line(counted, sums, memory, notes).strip(), flush=True)
