"""An estimate as lines and a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssat.core.words import duration

if TYPE_CHECKING:  # torch takes seconds, and src.train imports this
    pass


BUSY = 0.6  # share of the time that a thread runs; below it the machine does other work, or has too many threads


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
    from ssat.results.text import quantity

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
    from rich.table import Table

    from ssat.core.terminal import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("phase")
    for title in ("steps", f"{result['unit']}/s", *TITLES, "of it training, evaluation, other"):
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
