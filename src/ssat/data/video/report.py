"""`report.md` of a prepared folder: how many videos of each kind are usable, and why the others are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from ssat.core.files import write_text
from ssat.core.words import printable
from ssat.data.video.manifest import MANIFEST, USABLE, Entry, Status

REPORT = "report.md"
LISTED = 500  # failures at most; the manifest has all


def write_report(out: Path, dataset: str, entries: Sequence[Entry], undone: int = 0) -> Path:
    """Replace the report.

    Args:
        out: prepared folder.
        dataset: name of the set.
        entries: rows of the manifest.
        undone: videos of the set that no command has prepared yet.
    """
    return write_text(out / REPORT, "\n".join(_lines(dataset, entries, undone)) + "\n")


def _lines(dataset: str, entries: Sequence[Entry], undone: int) -> list[str]:
    usable = sum(entry.status in USABLE for entry in entries)
    lines = [f"# {dataset}: {usable:,} of {len(entries):,} videos can be used", ""]
    if undone:
        lines += [f"{undone:,} videos of the set have not been prepared yet (interrupted, limit or shard).", ""]
    lines += [*_table(entries), ""]
    failed = sorted((one for one in entries if one.status not in USABLE), key=lambda one: (one.status, one.video_id))
    noted = sorted((one for one in entries if one.status in USABLE and one.reason), key=lambda one: one.video_id)
    for title, rows in (("Videos without frames", failed), ("Remarks on usable videos", noted)):
        if rows:
            lines += [f"## {title}", "", *(_item(entry) for entry in rows[:LISTED])]
            lines += [f"- and {len(rows) - LISTED:,} more, see {MANIFEST}"] * (len(rows) > LISTED) + [""]
    return lines


def _item(entry: Entry) -> str:
    return f"- `{_plain(entry.video_id)}`: {entry.status}: {_plain(entry.reason)}"


def _plain(text: str) -> str:
    """A file's name may hold anything; the page stays a page."""
    return printable(text.replace("\n", " ")).replace("`", "'").replace("|", "/")


def _table(entries: Sequence[Entry]) -> list[str]:
    statuses = get_args(Status)
    counts: dict[tuple[str, str, str], Counter[str]] = {}
    for entry in entries:
        counts.setdefault((entry.split or "-", entry.method, entry.level or "-"), Counter())[entry.status] += 1
    lines = [f"| split | method | level | {' | '.join(statuses)} |", "|---|---|---|" + "---|" * len(statuses)]
    for (split, method, level), of_status in sorted(counts.items()):
        numbers = " | ".join(f"{of_status[status]:,}" for status in statuses)
        lines.append(f"| {split} | {_plain(method)} | {level} | {numbers} |")
    return lines
