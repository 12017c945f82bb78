"""What is known of every video of a set: its place in the original tree, and what became of it when it was prepared."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args, get_type_hints

from ssat.core.errors import UserError
from ssat.core.files import write_text
from ssat.core.read import MOST_TABLE, read_bytes, table_lines

MANIFEST = "manifest.csv"  # in the folder of a prepared set

# ok; partial = decoded with errors, most frames are there; no_face = no crop; corrupt, missing, timeout = no frames.
Status = Literal["ok", "partial", "no_face", "corrupt", "missing", "timeout"]
USABLE: tuple[Status, ...] = ("ok", "partial")
FINISHED: tuple[Status, ...] = (*USABLE, "no_face")  # the others are tried again by the next command
SPLITS = ("", "train", "val", "test")  # that the sets' own lists know
CLIPS = "clips"  # folder of the frames, below the prepared one
MOST_FRAMES = 10_000_000  # of a video: four days
AGAIN = "prepare the videos again, finished ones are kept"
REAL, FAKE = 0, 1  # labels of a deepfake set


@dataclass(frozen=True)
class Video:
    """A video as its place in the set's tree, and the set's own lists, describe it.

    Attributes:
        dataset: ffpp, dfdc, dfdcp or video_folder.
        video_id: unique in the set: its path below the raw folder without the ending.
        path: the file below the raw folder, with `/`.
        label: class number; of a deepfake set REAL or FAKE.
        method: original, or how it was manipulated (Deepfakes, ...; dfdc where the set does not say); of a
            video_folder the class.
        level: of the compression: raw, c23 or c40; empty where the set has none.
        split: train, val or test by the set's own lists; empty where they do not say.
        source_id: video_id of the original that a fake was made of; empty for an original, or where it is unknown.
        donor_id: video_id of the original whose face it shows; likewise.
        group_id: videos of one group are never on two sides of a split: those of one identity, or of one original.
        part: folder of a set that comes in parts (dfdc_train_part_7), else empty.
    """

    dataset: str
    video_id: str
    path: str
    label: int
    method: str
    level: str = ""
    split: str = ""
    source_id: str = ""
    donor_id: str = ""
    group_id: str = ""
    part: str = ""


@dataclass(frozen=True)
class Entry(Video):
    """A video that has been prepared, or could not be: a row of the manifest.

    Attributes:
        status: see `Status`.
        reason: of every status but ok, one sentence; of an ok one a remark, such as whose boxes it has.
        n_frames: frames decoded.
        fps: frames per second, by the file.
        width, height: of the upright frames, pixels.
        n_faces: largest number of faces in a frame that was searched.
        det_rate: share of the searched frames with the face that was followed.
        n_decode_errors: packets that could not be decoded.
        n_stored: frames in the clip store.
        clip: file of the clip store below the prepared folder; empty without frames.
        clip_sha256: of its bytes; empty without frames.
    """

    status: Status = "ok"
    reason: str = ""
    n_frames: int = 0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    n_faces: int = 0
    det_rate: float = 0.0
    n_decode_errors: int = 0
    n_stored: int = 0
    clip: str = ""
    clip_sha256: str = ""


TYPES: dict[str, Any] = get_type_hints(Entry)  # once: DFDC has 119,154 rows
COLUMNS = [field.name for field in fields(Entry)]


def entry_of(video: Video, **found: Any) -> Entry:
    """The manifest's row of `video` with what was found."""
    return Entry(**asdict(video) | found)


def write_manifest(folder: Path, entries: Iterable[Entry]) -> Path:
    """Replace the manifest of a prepared folder, ordered by video."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for entry in sorted(entries, key=lambda each: each.video_id):
        writer.writerow(vars(entry))
    return write_text(folder / MANIFEST, text.getvalue())


def read_manifest(folder: Path, dataset: str = "<name>") -> list[Entry]:
    """The rows of the manifest of a folder, in which `dataset` has been prepared.

    Raises:
        UserError: there is none, or a row is damaged; names the line.
    """
    path = folder / MANIFEST
    try:
        text = io.StringIO(read_bytes(path, MOST_TABLE).decode(), newline="")
        rows = list(csv.DictReader(table_lines(text)))
    except FileNotFoundError:
        raise UserError(
            f"{folder} holds no prepared videos ({MANIFEST} is missing): make them with python -m src.prepare"
            f" data={dataset} data.raw=<folder of the original videos> {shlex.quote(f'data.root={folder}')}",
            key="data.root",
            value=str(folder),
        ) from None
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}): {AGAIN}") from error
    entries: dict[str, Entry] = {}
    for number, row in enumerate(rows, 2):
        entry = _entry(row, path, number)
        if entries.setdefault(entry.video_id, entry) is not entry:
            raise UserError(f"{path} line {number} is damaged ({entry.video_id} has two rows): {AGAIN}")
    return [*entries.values()]


def _entry(row: dict[str, Any], path: Path, line: int) -> Entry:
    try:
        entry = Entry(**{name: _value(kind, row[name]) for name, kind in TYPES.items()})
        _check(entry)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} line {line} is damaged ({error!r}): {AGAIN}") from error
    return entry


def _check(entry: Entry) -> None:
    """Refuse what no preparation writes, so that a row edited by hand is not read as something else."""
    if entry.status not in get_args(Status):
        raise ValueError(f"status={entry.status}")
    if entry.split not in SPLITS:
        raise ValueError(f"split={entry.split}")
    if entry.clip and (not entry.clip.startswith(f"{CLIPS}/") or ".." in PurePosixPath(entry.clip).parts):
        raise ValueError(f"clip={entry.clip}")
    if entry.status in USABLE and not (entry.clip and 0 < entry.n_stored <= MOST_FRAMES):
        raise ValueError(f"status={entry.status} with n_stored={entry.n_stored} and clip={entry.clip!r}")


def _value(kind: Any, text: str) -> Any:
    return kind(text) if kind in (int, float) else str(text)


def by_id(entries: Sequence[Entry]) -> dict[str, Entry]:
    """Rows by video."""
    return {entry.video_id: entry for entry in entries}
