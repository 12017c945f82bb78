"""All videos of a set: which are left to do, in which order, by several processes, and what became of them."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from ssat.core.errors import UserError
from ssat.data.video import decode
from ssat.data.video.compact import compacted
from ssat.data.video.faces import read_boxes, refuse_missing
from ssat.data.video.journal import Line, opened, stamp
from ssat.data.video.manifest import FINISHED, MANIFEST, USABLE, Entry, Video
from ssat.data.video.places import unwritable
from ssat.data.video.pool import Lost, run
from ssat.data.video.preparation import OWN_BOXES, PrepareOptions, Tools, lost, prepare_video

TIMEOUT = 120.0  # seconds for a video of up to SIZE bytes; longer ones get more, up to MOST times
SIZE, MOST = 20_000_000, 20
Task = tuple[Video, Entry | None]  # a video, and the row of its original


@dataclass
class Progress:
    """How far a command is.

    Attributes:
        total: videos of this command.
        kept: of them finished by an earlier command.
        done: prepared, or found to be impossible, by this one.
        statuses: of all that are kept or done.
        hints: what the rows of the whole set tell together, see `report.hints`.
        changed: finished earlier, and due again because their file, or their original's, has changed since.
        gone: prepared earlier and no longer in the set: they have no row any more.
    """

    total: int = 0
    kept: int = 0
    done: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    hints: list[str] = field(default_factory=list)
    changed: int = 0
    gone: int = 0

    @property
    def failed(self) -> int:
        """Videos without frames."""
        return sum(count for status, count in self.statuses.items() if status not in USABLE)

    @property
    def remarks(self) -> list[str]:
        """What the user should know of earlier commands, one sentence each."""
        told = []
        if self.changed:
            are = "videos are" if self.changed > 1 else "video is"
            told.append(f"{self.changed:,} {are} prepared again, because files in data.raw have changed since")
        if self.gone:
            are = "videos are" if self.gone > 1 else "video is"
            told.append(f"{self.gone:,} {are} no longer in data.raw: {MANIFEST} has no row of them any more")
        return told


@dataclass(frozen=True)
class How:
    """How a command works; nothing here changes what it makes.

    Attributes:
        workers: processes; 0 works in this one, without time-outs.
        device: of the detector.
        shard: part of the videos that is this command's, from (1, n) to (n, n).
        limit: videos at most.
        timeout: seconds for a video, more for a large file.
        force: prepare again what is finished, and with other options.
    """

    workers: int = 1
    device: str = "cpu"
    shard: tuple[int, int] = (1, 1)
    limit: int | None = None
    timeout: float = TIMEOUT
    force: bool = False


def prepare_all(
    dataset: str,
    videos: Sequence[Video],
    raw: Path,
    out: Path,
    options: PrepareOptions,
    *,
    how: How | None = None,
    missing: Sequence[Entry] = (),
    others: Collection[str] = (),
    classes: Sequence[str] = (),
    boxes: Path | None = None,
    subset: str = "",
    progress: Callable[[Progress], None] = lambda state: None,
) -> Progress:
    """Prepare the videos that are not finished; writes the manifest and the report, also when it is interrupted.

    Args:
        dataset: name of the set.
        videos: that are there.
        raw: their folder.
        out: prepared folder.
        options: of the store.
        how: processes, shard and the like.
        missing: rows of videos that the set lists and that are not there.
        others: video_id of files of the set that were not asked for; rows of any further ones are dropped.
        classes: names of the labels.
        boxes: file of the user's own boxes, with detector=boxes.
        subset: how much of the official set is not there, for the report.
        progress: called after each video.

    Raises:
        UserError: `out` was made with other options or cannot be written, or a package is missing.
        KeyboardInterrupt: after the manifest has been written.
    """
    how = how or How()
    passport = options.passport()
    chosen = selected(videos, how.shard, how.limit)
    try:
        refuse_missing(options.detector, how.device)  # before anything is written
        about = {"classes": [*classes], "versions": versions(options)}
        journal = opened(out, dataset, how.shard, passport, about, force=how.force)
    except OSError as error:
        raise unwritable(out, error) from error
    with closing(journal):
        plan = Plan(chosen, journal.lines(), raw, out, options, again=how.force)
        state = Progress(len(chosen), len(plan.kept), 0, Counter(row.status for row in plan.kept.values()))
        state.changed = 0 if how.force else len(plan.stale)
        progress(state)
        start = functools.partial(_start if how.workers else _alone, raw, out, options, how.device, boxes)
        seconds = functools.partial(_seconds, raw, how.timeout)
        try:
            bounded = how.device == "cpu"
            work = run(start, plan.queue, workers=how.workers, seconds=seconds, bounded=bounded)
            with closing(work):
                journal.note(missing)
                for (video, _), result in work:
                    entry = _lost(video, out, result) if isinstance(result, Lost) else result
                    journal.add(plan.line(video, entry))
                    plan.finish(entry, state)
                    progress(state)
        except OSError as error:
            raise unwritable(out, error) from error
        finally:
            known = [*videos, *missing]
            state.gone, state.hints = compacted(dataset, journal, known, others, plan.stale, subset, options)
    return state


def _alone(raw: Path, out: Path, options: PrepareOptions, device: str, boxes: Path | None) -> Callable[[Task], Entry]:
    """The work of one process."""
    tools = Tools.of(options, device, None if boxes is None else read_boxes(boxes))

    def work(task: Task) -> Entry:
        video, original = task
        return prepare_video(video, raw, out, options, tools, original)

    return work


def _start(raw: Path, out: Path, options: PrepareOptions, device: str, boxes: Path | None) -> Callable[[Task], Entry]:
    """The work of one of several processes: with one thread, as there is one for each processor."""
    if options.detector == "mtcnn":
        import torch

        torch.set_num_threads(1)
    return _alone(raw, out, options, device, boxes)


def _lost(video: Video, out: Path, end: Lost) -> Entry:
    return lost(video, out, "timeout" if end.timed_out else "corrupt", end.reason)


def _seconds(raw: Path, timeout: float, task: Task) -> float:
    try:
        size = (raw / task[0].path).stat().st_size
    except OSError:
        return timeout
    return timeout * min(max(size / SIZE, 1), MOST)


def versions(options: PrepareOptions) -> dict[str, str]:
    """Of what decides the pixels.

    Raises:
        UserError: PyAV is not installed.
    """
    names = ["numpy", "pillow", *(["facenet-pytorch", "torch"] if options.detector == "mtcnn" else [])]
    return decode.versions() | {name: importlib.metadata.version(name) for name in names}


def selected(videos: Sequence[Video], shard: tuple[int, int] = (1, 1), limit: int | None = None) -> list[Video]:
    """The videos of one shard, each original followed by its fakes, so that both are in one shard and a limit."""
    number, count = shard
    mine = [video for video in videos if count == 1 or _place(_root(video), count) == number]
    return sorted(mine, key=lambda video: (_root(video), bool(video.source_id), video.video_id))[:limit]


def _root(video: Video) -> str:
    return video.source_id or video.video_id


def _place(name: str, count: int) -> int:
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big") % count + 1


class Plan:
    """The order of the work: a fake waits for the boxes of its original.

    Args:
        chosen: videos of this command.
        lines: of earlier ones.
        raw: folder of the original videos.
        out: prepared folder.
        options: of the store.
        again: whether nothing of them is kept.

    Attributes:
        kept: rows of the chosen videos that are finished.
        stale: chosen videos that were finished, and whose file, or that of the original with their boxes, has changed.
        queue: what can be done now, the largest files first.
    """

    def __init__(
        self,
        chosen: Sequence[Video],
        lines: dict[str, Line],
        raw: Path,
        out: Path,
        options: PrepareOptions,
        *,
        again: bool,
    ) -> None:
        self._borrows = options.detects and options.reuse_original_boxes
        self._stamps = {video.video_id: stamp(raw / video.path) for video in chosen}
        found = {video.video_id: lines[video.video_id] for video in chosen if video.video_id in lines}
        finished = {name: line for name, line in found.items() if line.entry.status in FINISHED}
        self.stale = {one.video_id for one in chosen if one.video_id in finished and self._changed(one, finished)}
        self.kept = {
            name: line.entry
            for name, line in finished.items()
            if not again and name not in self.stale and (not line.entry.clip or (out / line.entry.clip).is_file())
        }
        todo = {video.video_id for video in chosen} - self.kept.keys()
        self._waiting: dict[str, list[Video]] = defaultdict(list)
        self.queue: deque[Task] = deque()
        # The largest first, so that no worker begins a long one when the others are done.
        for video in sorted(chosen, key=lambda one: -(self._stamps[one.video_id] or (0,))[0]):
            source = video.source_id
            waits = self._borrows and source in todo
            own = video.video_id in self.kept and OWN_BOXES in self.kept[video.video_id].reason
            if waits and (video.video_id in todo or own):
                self._waiting[source].append(video)
            elif video.video_id in todo:
                self.queue.append((video, lines[source].entry if source in lines else None))

    def _changed(self, video: Video, lines: dict[str, Line]) -> bool:
        """Whether its file is another now, or its original; nothing is known of a file that is gone."""
        entry, raw, lent = lines[video.video_id]
        if raw is not None and raw != self._stamps[video.video_id]:
            return True
        if not self._borrows or entry.source_id != video.source_id:
            return self._borrows
        source = self._stamps.get(video.source_id)
        return lent is not None and source is not None and lent != source and OWN_BOXES not in entry.reason

    def line(self, video: Video, entry: Entry) -> Line:
        """What is kept of `video`."""
        lent = self._stamps.get(video.source_id) if self._borrows else None
        return Line(entry, self._stamps[video.video_id], lent)

    def finish(self, entry: Entry, state: Progress) -> None:
        """Note a result, and queue what waited for it."""
        before = self.kept.pop(entry.video_id, None)
        if before is not None:
            state.statuses[before.status] -= 1
            state.kept -= 1
        self.stale.discard(entry.video_id)
        state.done += 1
        state.statuses[entry.status] += 1
        for video in self._waiting.pop(entry.video_id, []):
            if video.video_id not in self.kept or entry.clip:  # its own boxes were found while the original failed
                self.queue.append((video, entry))


def ensure_apart(raw: Path, out: Path) -> None:
    """The store does not lie among the original videos, nor they in it.

    Raises:
        UserError: one folder is in the other.
    """
    inner, outer = out.resolve(), raw.resolve()
    if inner == outer or inner in outer.parents or outer in inner.parents:
        raise UserError(
            f"data.root={out} lies in data.raw={raw}, or the other way round: name another folder for what is made",
            key="data.root",
            value=str(out),
        )
