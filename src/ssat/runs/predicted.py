"""What a run predicts of videos of no set: over time, as a table, as JSON, and kept for a command that goes on."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssat.core.files import write_text
from ssat.core.read import json_lines
from ssat.core.words import utf_8
from ssat.data.video.manifest import FINISHED

CSV, JSON, JOURNAL = "predictions.csv", "predictions.json", ".predicted.jsonl"  # in the folder `out`
LABELS = ";"  # between the labels of a verdict
FORMULA = ("=", "+", "-", "@")  # a cell that begins so is computed by a spreadsheet


@dataclass(frozen=True)
class Clip:
    """(K,) probabilities of one clip, and the seconds of the video that it covers."""

    begin: float
    end: float
    probs: list[float]


@dataclass(frozen=True)
class Face:
    """One face of a video, or all of it where no face was searched.

    Attributes:
        probs: (K,) mean over the clips.
        clips: in the order of their time.
        found: share of the searched frames that show it.
    """

    probs: list[float]
    clips: list[Clip]
    found: float = 0.0

    def peak(self, label: int) -> Clip | None:
        """The clip with the highest probability of a class, the first one of equals."""
        return max(self.clips, key=lambda clip: clip.probs[label], default=None)


@dataclass(frozen=True)
class Predicted:
    """One video.

    Attributes:
        name: of the file, below the input's folder.
        sha256: of its bytes.
        status: see `manifest.Status`.
        reason: of every status but ok, one sentence.
        faces: that have a score; [] without any.
        more_faces: that are not scored.
        n_faces: largest number of faces in one searched frame.
        n_frames, fps, width, height: as decoded; 0 where they are not known.
        picture: the file's strip, below `out`; empty without one.
        note: what is unusual in it, one sentence.
    """

    name: str
    sha256: str
    status: str = "ok"
    reason: str = ""
    faces: tuple[Face, ...] = ()
    more_faces: int = 0
    n_faces: int = 0
    n_frames: int = 0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    picture: str = ""
    note: str = ""

    @property
    def face(self) -> int:
        """The face that counts: that with the lowest probability of class 0 (`real`)."""
        return min(range(len(self.faces)), key=lambda number: self.faces[number].probs[0])

    @property
    def probs(self) -> list[float]:
        """(K,) of the face that counts; [] without a score."""
        return self.faces[self.face].probs if self.faces else []


@dataclass(frozen=True)
class Judge:
    """From probabilities to a verdict.

    Attributes:
        classes: names.
        threshold: with two classes, the probability above which the second one is the verdict; of several labels that
            above which an image has one.
        multi_label: an image has several of the classes, or none.
    """

    classes: Sequence[str]
    threshold: float = 0.5
    multi_label: bool = False

    def label(self, probs: Sequence[float]) -> int:
        """The number of the verdict's class; of several labels that of the most probable one."""
        if len(self.classes) == 2 and not self.multi_label:
            return int(probs[1] > self.threshold)
        return max(range(len(probs)), key=probs.__getitem__)

    def verdict(self, probs: Sequence[float]) -> str:
        """The name of the class, or those of the labels above the threshold, in the order of the classes."""
        if not self.multi_label:
            return self.classes[self.label(probs)]
        return LABELS.join(name for name, prob in zip(self.classes, probs, strict=True) if prob > self.threshold)

    def scored(self, probs: Sequence[float]) -> int:
        """The class whose probability is the score: the second of two, else that of the verdict."""
        return 1 if len(self.classes) == 2 else self.label(probs)


def per_second(clips: Sequence[Clip]) -> list[list[float] | None]:
    """(K,) mean probabilities of the clips that cover each second, [s, s + 1); None where none does."""
    end = math.ceil(max((clip.end for clip in clips), default=0))
    seconds: list[list[float] | None] = []
    for second in range(end):
        over = [clip.probs for clip in clips if clip.begin < second + 1 and clip.end > second]
        seconds.append([math.fsum(column) / len(over) for column in zip(*over, strict=True)] if over else None)
    return seconds


def table(rows: Iterable[Predicted], judge: Judge) -> list[dict[str, Any]]:
    """What `predictions.csv` says of each file."""
    return [_cells(row, judge) for row in rows]


def _cells(row: Predicted, judge: Judge) -> dict[str, Any]:
    probs = row.probs
    label = judge.scored(probs) if probs else 0
    peak = row.faces[row.face].peak(label) if probs else None
    return {
        "file": f"./{row.name}" if row.name.startswith(FORMULA) else row.name,
        "status": row.status,
        "verdict": judge.classes[judge.label(probs)] if probs else "",
        **{f"prob_{name}": probs[number] if probs else "" for number, name in enumerate(judge.classes)},
        "clips": len(row.faces[row.face].clips) if probs else 0,
        "highest_from_s": "" if peak is None else peak.begin,
        "highest_to_s": "" if peak is None else peak.end,
        "highest_prob": "" if peak is None else peak.probs[label],
        "face": row.face + 1 if probs else "",
        "faces_scored": len(row.faces),
        "faces_not_scored": row.more_faces,
        "n_faces": row.n_faces,
        "n_frames": row.n_frames,
        "fps": row.fps,
        "width": row.width,
        "height": row.height,
        "picture": row.picture,
        "sha256": row.sha256,
        "reason": row.reason,
        "note": row.note,
    }


def write_tables(out: Path, about: dict[str, Any], rows: Sequence[Predicted], judge: Judge) -> None:
    """Replace both files: every probability in full, as JSON also of every clip and second of each face."""
    cells = table(rows, judge)
    text = io.StringIO()
    writer = csv.DictWriter(text, [*cells[0]] if cells else ["file"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(cells)
    write_text(out / CSV, utf_8(text.getvalue()))
    files = [
        {
            **cell,
            "file": row.name,
            "faces": [asdict(face) | {"per_second": per_second(face.clips)} for face in row.faces],
        }
        for cell, row in zip(cells, rows, strict=True)
    ]
    content = {"about": about | {"classes": [*judge.classes], "threshold": judge.threshold}, "files": files}
    write_text(out / JSON, json.dumps(content, indent=1, ensure_ascii=True) + "\n")


class Kept:
    """What commands before this one have predicted, a line for each file.

    Args:
        out: folder of the predictions.
        how: network and options; lines of others do not count.
        afresh: whether nothing counts.

    Attributes:
        names: of the files that there are lines of.
    """

    def __init__(self, out: Path, how: dict[str, Any], *, afresh: bool = False) -> None:
        self.out, self._path = out, out / JOURNAL
        self._key = hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()[:16]
        self._rows = {} if afresh else self._read()
        self.names = {name for name, _ in self._rows}

    def get(self, name: str, sha256: str) -> Predicted | None:
        """The finished prediction of this very file, whose picture is still there."""
        row = self._rows.get((name, sha256))
        if row is None or row.status not in FINISHED or (row.picture and not (self.out / row.picture).is_file()):
            return None
        return row

    def add(self, row: Predicted) -> None:
        """Write one line, at once."""
        line = json.dumps({"how": self._key, "row": asdict(row)})
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def _read(self) -> dict[tuple[str, str], Predicted]:
        found: dict[tuple[str, str], Predicted] = {}
        if not self._path.is_file():
            return found
        for content in json_lines(self._path):
            try:
                if content["how"] == self._key:
                    row = _row(content["row"])
                    found[row.name, row.sha256] = row
            except (KeyError, TypeError, ValueError):
                continue  # a command was killed while it wrote the line: the file is predicted again
        return found


def _row(values: dict[str, Any]) -> Predicted:
    faces = [Face(**face | {"clips": [Clip(**clip) for clip in face["clips"]]}) for face in values["faces"]]
    return Predicted(**values | {"faces": tuple(faces)})
