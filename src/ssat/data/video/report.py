"""`report.md` of a prepared folder: how many videos of each kind are usable, and why the others are not."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from ssat.core.files import write_text
from ssat.core.words import many, markdown_text, printable
from ssat.data.video.manifest import MANIFEST, USABLE, Entry, Status
from ssat.data.video.preparation import CLIP_FRAMES, NO_FACE, REPEATS

REPORT = "report.md"
LISTED = 500  # reasons at most; the manifest has all
NAMED = 3  # videos of one reason
OFTEN = 0.1  # share of the usable videos above which a remark is a hint


def write_report(out: Path, dataset: str, entries: Sequence[Entry], undone: int = 0, notes: Sequence[str] = ()) -> Path:
    """Replace the report.

    Args:
        out: prepared folder.
        dataset: name of the set.
        entries: rows of the manifest.
        undone: videos of the set that no command has prepared yet.
        notes: what there is to say of the whole, a sentence each; empty ones are left out.
    """
    return write_text(out / REPORT, "\n".join(_lines(dataset, entries, undone, notes)) + "\n")


def hints(entries: Sequence[Entry], *, stride: int, max_frames: int | None = None) -> list[str]:
    """What holds for so many videos that the command should perhaps be another one; a sentence each.

    Args:
        entries: rows of the manifest.
        stride, max_frames: with which they were prepared.
    """
    usable = [entry for entry in entries if entry.status in USABLE]
    opened = [entry for entry in entries if entry.status in (*USABLE, "no_face")]
    short = [entry for entry in usable if entry.n_stored < CLIP_FRAMES]
    remarks = Counter(
        part for entry in usable for part in entry.reason.split("; ") if part and not part.endswith(REPEATS)
    )
    faceless = sum(entry.status == "no_face" for entry in entries) + sum(
        count for part, count in remarks.items() if part.startswith(NO_FACE)
    )
    found = []
    if 2 * faceless > len(opened):
        cure = "detector=none takes videos that show a face only, detector=boxes takes boxes of your own"
        found.append(f"no face was found in {faceless:,} of {many(len(opened), 'video')}: {cure}")
    if len(short) > OFTEN * len(usable):
        cure = _longer(short, stride, max_frames)
        which = f"{len(short):,} of {many(len(usable), 'usable video')}"
        found.append(f"{which} give{'s' * (len(usable) == 1)} fewer than {CLIP_FRAMES} frames: {cure}")
    for part, count in sorted(remarks.items()):
        if count > OFTEN * len(usable) and not part.startswith(NO_FACE):
            found.append(f"{count:,} of {many(len(usable), 'usable video')}: {part}")
    return found


def _longer(short: Sequence[Entry], stride: int, max_frames: int | None) -> str:
    """What makes the clips of most of these videos whole."""
    if max_frames is not None and max_frames < CLIP_FRAMES:
        return f"prepare with max_frames={CLIP_FRAMES} or more, and force=true"
    # A training cannot show more than the store has, and data.frame_step leaves frames of it out.
    fitting = min(statistics.median_low(entry.n_frames for entry in short) // CLIP_FRAMES, stride - 1)
    if fitting < 1:
        return "their clips repeat the last frame"
    return f"prepare with a smaller stride, stride={fitting} force=true, and train with data.frame_step={fitting}"


def _lines(dataset: str, entries: Sequence[Entry], undone: int, notes: Sequence[str]) -> list[str]:
    usable = sum(entry.status in USABLE for entry in entries)
    lines = [f"# {dataset}: {usable:,} of {many(len(entries), 'video')} can be used", ""]
    for note in notes:
        lines += [f"{markdown_text(note)}.", ""] if note else []
    if undone:
        has = "has" if undone == 1 else "have"
        lines += [f"{many(undone, 'video')} of the set {has} not been prepared yet (interrupted, limit or shard).", ""]
    lines += [*_table(entries), ""]
    failed = sorted((one for one in entries if one.status not in USABLE), key=lambda one: (one.status, one.video_id))
    noted = sorted((one for one in entries if one.status in USABLE and one.reason), key=lambda one: one.video_id)
    for title, rows in (("Videos without frames", failed), ("Remarks on usable videos", noted)):
        groups: dict[tuple[str, str], list[str]] = {}
        for entry in rows:
            groups.setdefault((entry.status, entry.reason), []).append(entry.video_id)
        if groups:
            lines += [f"## {title}", "", *(_item(*why, names) for why, names in list(groups.items())[:LISTED])]
            more = len(groups) - LISTED
            lines += [f"- and {many(more, 'more reason')}, see {MANIFEST}"] * (more > 0) + [""]
    return lines


def _item(status: str, reason: str, names: Sequence[str]) -> str:
    named = ", ".join(f"`{_as_code(name)}`" for name in names[:NAMED])
    if len(names) == 1:
        return f"- {named}: {status}: {markdown_text(reason)}"
    more = f" and {len(names) - NAMED:,} more ({MANIFEST} has all)" if len(names) > NAMED else ""
    return f"- {many(len(names), 'video')}: {status}: {markdown_text(reason)}: {named}{more}"


def _as_code(text: str) -> str:
    """A file's name may hold anything; between backticks Markdown has no other escape."""
    return printable(text.replace("\n", " ")).replace("`", "'").replace("|", "/")


def _table(entries: Sequence[Entry]) -> list[str]:
    statuses = get_args(Status)
    counts: dict[tuple[str, str, str], Counter[str]] = {}
    for entry in entries:
        counts.setdefault((entry.split or "-", entry.method, entry.level or "-"), Counter())[entry.status] += 1
    lines = [f"| split | method | level | {' | '.join(statuses)} |", "|---|---|---|" + "---|" * len(statuses)]
    for (split, method, level), of_status in sorted(counts.items()):
        numbers = " | ".join(f"{of_status[status]:,}" for status in statuses)
        lines.append(f"| {split} | {markdown_text(method)} | {level} | {numbers} |")
    return lines
