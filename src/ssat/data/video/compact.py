"""The manifest and the report of a prepared folder, from the lines of its journal."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields, replace

from ssat.data.video.journal import Journal, one_at_a_time
from ssat.data.video.manifest import FINISHED, Entry, Video, write_manifest
from ssat.data.video.places import unwritable
from ssat.data.video.preparation import PrepareOptions
from ssat.data.video.report import hints, write_report


def compacted(
    dataset: str,
    journal: Journal,
    known: Sequence[Video],
    others: Collection[str],
    stale: Collection[str],
    subset: str,
    options: PrepareOptions,
) -> tuple[int, list[str]]:
    """Write manifest and report from the lines of all shards.

    Args:
        dataset: name of the set.
        journal: of this command; it reads those of all shards.
        known: the set's videos, and the rows of those that it lists and that are not there.
        others: video_id of files of the set that were not asked for: they keep the rows that they have.
        stale: video_id of those whose file has changed since.
        subset: how much of the official set is not there, for the report.
        options: of the store.

    Returns:
        how many lines are of videos that were prepared and are gone, and the hints.

    Raises:
        UserError: the folder cannot be written.
    """
    by_id, others, gone = {video.video_id: video for video in known}, {*others}, 0
    rows = {row.video_id: row for row in known if isinstance(row, Entry)}
    undone = by_id.keys() - rows.keys()
    try:
        with one_at_a_time(journal.out):
            for name, (row, _, _) in journal.lines().items():
                if name in by_id:
                    if name not in stale and (name not in rows or row.status in FINISHED):
                        rows[name] = refreshed(row, by_id[name])
                elif name in others:
                    rows[name] = row
                else:
                    gone += row.status != "missing"
            write_manifest(journal.out, rows.values())
            found = hints([*rows.values()], stride=options.stride, max_frames=options.max_frames)
            write_report(journal.out, dataset, [*rows.values()], len(undone - rows.keys()), [subset, *found])
    except OSError as error:
        raise unwritable(journal.out, error) from error
    return gone, found


def refreshed(entry: Entry, video: Video) -> Entry:
    """A row with what the set's tree and lists say of the video now (split, group)."""
    return replace(entry, **{each.name: getattr(video, each.name) for each in fields(Video)})
