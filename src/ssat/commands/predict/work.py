"""Videos of no set, one after the other: prepared, predicted, drawn, written down."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any

from ssat.commands.predict import show
from ssat.commands.predict.inputs import sha256_of, writable
from ssat.commands.predict.strip import draw, seen_during
from ssat.commands.predict.trained import Trained
from ssat.commands.prepare_videos import stoppable
from ssat.commands.progress import progress
from ssat.core.files import alone_in, file_sha256
from ssat.core.terminal import Console
from ssat.core.words import many
from ssat.data.video.prepare_set import versions
from ssat.data.video.unseen import Unseen, place_of, prepared
from ssat.runs.predicted import CSV, JSON, Face, Judge, Kept, Predicted, write_tables
from ssat.training.predictor import Predictor, clip_options


class Work:
    """The files of one command.

    Args:
        console: to print on.
        options: of the command line.
        folder: of the files.
        names: of the files in it.
        out: folder of the predictions.
        trained: the run's records.
        predictor: its network.
        judge: threshold and classes.
    """

    def __init__(
        self,
        console: Console,
        options: dict[str, str],
        folder: Path,
        names: list[str],
        out: Path,
        trained: Trained,
        predictor: Predictor,
        judge: Judge,
    ) -> None:
        self.console, self.options, self.folder, self.names, self.out = console, options, folder, names, out
        self.trained, self.predictor, self.judge = trained, predictor, judge
        sha256 = file_sha256(predictor.saved.path)
        self.about = trained.about() | {"sha256": sha256, "epoch": predictor.saved.epoch, "says": show.NO_PROOF}
        self.how: dict[str, Any] = {
            "checkpoint": sha256,
            "classes": [*judge.classes],
            "device": predictor.device.type,
        }

    def videos(self) -> list[Predicted]:
        """All videos, those of earlier commands from their lines."""
        options = clip_options(self.predictor.saved, self.options["detector"], self.options["max_seconds"])
        every_face = self.options["face"] == "all" and options.detects
        notes = self.trained.notes(options)
        if self.options["face"] == "all" and not options.detects:
            notes.append(f"detector={options.detector} searches no faces, so face=all changes nothing")
        for note in notes:
            show.line(self.console, f"note: {note}")
        self.how |= {"options": options.passport(), "every_face": every_face, "versions": versions(options)}
        self.about |= {"options": options.passport(), "versions": self.how["versions"], "notes": notes}
        rows: dict[str, Predicted] = {}
        with (
            writable(self.out),
            alone_in(self.out),
            stoppable(),
            tempfile.TemporaryDirectory(prefix="ssat-predict-") as made,
        ):
            kept = Kept(self.out, self.how, afresh=self.options["force"] == "true")
            again = [name for name in self.names if name in kept.names]  # the others are read once, when they are due
            found = [kept.get(name, sha256_of(self.folder / name)) for name in again]
            rows = {row.name: row for row in found if row is not None}
            todo = [name for name in self.names if name not in rows]
            before = f", {len(rows):,} of them finished before" if rows else ""
            slower = (
                "; face=all reads a video once more for each of its faces (up to 8): several times slower" * every_face
            )
            show.line(self.console, f"{many(len(self.names), 'video')}{before}{slower}")
            root, device, workers = Path(made), self.predictor.device.type, int(self.options["workers"])
            work = prepared(self.folder, todo, root, options, every_face=every_face, device=device, workers=workers)
            try:
                shown = progress(self.console, ("predicting", "predicted"), "videos", at_once=workers)
                with closing(work), shown as tell:
                    for done, (number, unseen) in enumerate(work, 1):
                        row = self._video(todo[number], unseen, place_of(root, number))
                        shutil.rmtree(place_of(root, number), ignore_errors=True)
                        kept.add(row)
                        rows[row.name] = row
                        tell(done, len(self.names), len(self.names) - len(todo))
            finally:
                finished = [rows[name] for name in self.names if name in rows]
                missing = len(self.names) - len(finished)
                write_tables(self.out, self.about | {"not_yet_predicted": missing}, finished, self.judge)
        return finished

    def _video(self, name: str, unseen: Unseen, root: Path) -> Predicted:
        """Score one prepared video, whose files lie in `root`, and draw its picture."""
        entry = unseen.entry
        faces = []
        for face, track in zip(unseen.faces, unseen.tracks, strict=True):
            found = self.predictor.video(root, face, seen_during(track, face, root))
            faces.append(Face(found.probs, found.clips, face.det_rate))
        row = Predicted(
            name=name,
            sha256=sha256_of(self.folder / name),
            status=entry.status,
            reason=entry.reason.replace(str(self.folder), ""),
            faces=tuple(faces),
            more_faces=unseen.more,
            n_faces=entry.n_faces,
            n_frames=entry.n_frames,
            fps=entry.fps,
            width=entry.width,
            height=entry.height,
            picture=_picture(self.out, name) if faces else "",
            note=self.trained.note_of(entry.fps),
        )
        if faces:
            network = f"{self.predictor.saved.name}, checkpoint {self.predictor.saved.path.stem}"
            (self.out / row.picture).parent.mkdir(parents=True, exist_ok=True)
            draw(self.out / row.picture, row, unseen, root, self.judge, network)
        return row


def _picture(out: Path, name: str) -> str:
    """The PNG of a video; where its name is too long for a file, or taken by a folder or file, its hash is in it."""
    path = PurePosixPath(name)
    is_long = len(path.name.encode("utf-8", "surrogateescape")) > 200
    picture = path.with_name(_hashed(path, path.name) if is_long else path.name + ".png")
    # `a.mp4` lies beside a folder `a.mp4.png/`, or below one that is called as a table or as another's picture is.
    above = [out / each for each in picture.parents[:-1]]
    is_taken = (out / picture).is_dir() or any(each.exists() and not each.is_dir() for each in above)
    return _hashed(path, name) if is_taken or picture.parts[0] in (CSV, JSON) else str(picture)


def _hashed(path: PurePosixPath, name: str) -> str:
    return f"{path.name[:40]}-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}.png"
