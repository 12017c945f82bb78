"""Images of no set, in batches: predicted, explained, drawn, written down."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ssat.commands.predict import show
from ssat.commands.predict.explained import draw_explained
from ssat.commands.predict.inputs import Inputs, sha256_of, writable
from ssat.commands.predict.sheet import Doubtful, draw
from ssat.commands.predict.trained import Trained
from ssat.commands.progress import progress
from ssat.core.errors import UserError
from ssat.core.files import alone_in, file_sha256, write_text
from ssat.core.terminal import Console
from ssat.core.words import many, utf_8
from ssat.data.pixels import TooLarge
from ssat.data.single import why_no_file
from ssat.model import READERS, Model, Prediction, ranked
from ssat.runs.predicted import CSV, FORMULA, JSON, LABELS, Judge

NO_LABEL = "no label"
SHEET, EXPLAIN = "sheet.png", "explain"  # in the folder `out`
IN_SHEET = 24  # images
COUNTED = 10  # classes in the last line
SMALLEST = 224  # pixels of the side of an explained image


@dataclass(frozen=True)
class Row:
    """One image.

    Attributes:
        name: of the file, below the folder of the inputs.
        sha256: of its bytes.
        status: ok, missing, corrupt or too_large.
        reason: of every status but ok, one sentence.
        probs: (K,); None of an image that is not predicted.
        picture: of its explanation, below `out`; empty without one.
        columns: further ones of the list that names it.
    """

    name: str
    sha256: str
    status: str = "ok"
    reason: str = ""
    probs: NDArray[np.float64] | None = None
    picture: str = ""
    columns: dict[str, str] = field(default_factory=dict)


class ImageWork:
    """The images of one command.

    Args:
        console: to print on.
        options: of the command line.
        inputs: the files.
        out: folder of the predictions.
        model: the network.
        trained: its records.
        judge: threshold and classes.
    """

    def __init__(
        self,
        console: Console,
        options: dict[str, str],
        inputs: Inputs,
        out: Path,
        model: Model,
        trained: Trained,
        judge: Judge,
    ) -> None:
        self.console, self.options, self.inputs, self.out = console, options, inputs, out
        self.model, self.judge = model, judge
        self.tta, self.explains = options["tta"] or None, options["explain"] == "true"
        self.batch_size = int(options["batch_size"] or 0) or model.saved.phase.recipe.batch_size
        sha256, epoch = file_sha256(model.saved.path), model.saved.epoch
        self.about = trained.about() | {"sha256": sha256, "epoch": epoch, "says": show.NO_PROOF_OF_IMAGES}
        self.about |= {"tta": options["tta"], "temperature": model.saved.temperature}
        self.about |= {"left_out": inputs.left_out}
        self.drawn: list[Path] = []

    def run(self) -> list[Row]:
        """Predict all; what is finished is written also where the command is ended.

        Raises:
            UserError: `out` cannot be written, or a prediction is nan.
        """
        rows: list[Row] = []
        doubtful: list[Doubtful] = []
        self._notes()
        with writable(self.out), alone_in(self.out):
            try:
                with progress(self.console, ("predicting", "predicted"), "files") as tell:
                    tell(0, len(self.inputs.names))
                    for found, unsure in self._batches():
                        rows += found
                        # Those of later batches are as doubtful as earlier ones: the sort is stable.
                        doubtful = sorted([*doubtful, *unsure], key=lambda each: each.prediction.prob)[:IN_SHEET]
                        tell(len(rows), len(self.inputs.names))
            finally:
                missing = len(self.inputs.names) - len(rows)
                try:
                    write_tables(self.out, self.about | {"not_yet_predicted": missing}, rows, self.judge)
                except OSError:  # a full disk: pictures that no table names are nothing
                    self._remove_pictures()
                    raise
            if doubtful:
                draw(self.out / SHEET, doubtful, self.model.saved.name)
            else:
                (self.out / SHEET).unlink(missing_ok=True)  # of an earlier command
        return rows

    def _remove_pictures(self) -> None:
        for picture in self.drawn:
            picture.unlink(missing_ok=True)
        with suppress(OSError):  # pictures of an earlier command stay, and their folder
            (self.out / EXPLAIN).rmdir()

    def _titles(self, row: Row, label: int) -> tuple[str, str]:
        """Of an explanation: the verdict with its probability, and the class that is explained."""
        probs, name = _list(row), self.judge.classes[label]
        verdict = f"{self.judge.verdict(probs) or NO_LABEL}, {name} {probs[label]:.2f}"
        said = verdict if self.judge.multi_label else f"{name} {probs[label]:.2f}"
        return f"{PurePath(row.name).name}: {said}", f"what speaks for {name} (Grad-CAM)"

    def _notes(self) -> None:
        mirrored = self.model.saved.config.data.hflip
        if self.tta and mirrored == 0:
            show.line(self.console, "note: the training mirrored no image (data.hflip=0), and tta=flips does")

    def _batches(self) -> Iterator[tuple[list[Row], list[Doubtful]]]:
        names, size = self.inputs.names, self.batch_size
        with ThreadPoolExecutor(READERS) as pool:
            for first in range(0, len(names), size):
                read = list(pool.map(self._read, names[first : first + size]))
                yield self._batch(read, first)

    def _read(self, name: str) -> tuple[Row, Tensor | None]:
        return read_image(self.inputs.folder, name, self.model)

    def _batch(self, read: Sequence[tuple[Row, Tensor | None]], first: int) -> tuple[list[Row], list[Doubtful]]:
        tensors = [tensor for _, tensor in read if tensor is not None]
        images = torch.stack(tensors) if tensors else None
        probs = iter([] if images is None else self.model.scores(images, tta=self.tta))
        rows = [replace(row, probs=None if tensor is None else next(probs)) for row, tensor in read]
        if self.inputs.columns:
            columns = self.inputs.columns[first : first + len(rows)]
            rows = [replace(row, columns=of) for row, of in zip(rows, columns, strict=True)]
        good = [number for number, row in enumerate(rows) if row.probs is not None]
        if images is None:
            return rows, []
        shown = self.model.pictures(images)
        if self.explains:
            labels = [self.judge.label(_list(rows[number])) for number in good]
            heated = self.model.explain_batch(images, labels)
            for place, number in enumerate(good):
                picture = f"{EXPLAIN}/{first + number + 1:05d}-{_plain(rows[number].name)}.png"
                self.drawn.append(self.out / picture)
                draw_explained(
                    self.out / picture, shown[place], heated[place], self._titles(rows[number], labels[place])
                )
                rows[number] = replace(rows[number], picture=picture)
        if self.judge.multi_label:  # a sheet of the least certain is of one class each
            return rows, []
        unsure = [
            Doubtful(rows[number].name, ranked(self.judge.classes, _probs(rows[number]), 2), shown[place])
            for place, number in enumerate(good)
        ]
        return rows, unsure


def read_image(folder: Path, name: str, model: Model) -> tuple[Row, Tensor | None]:
    """The file `folder`/`name` as (C, H, W) for the network; None where it cannot be read, which the row says."""
    path = folder / name
    if reason := why_no_file(path):
        return Row(name, "", "corrupt" if os.path.exists(path) else "missing", reason), None
    row = Row(name, sha256_of(path))
    try:
        return row, model.transform(path)
    except TooLarge as error:
        return replace(row, status="too_large", reason=str(error)), None
    except UserError as error:
        return replace(row, status="corrupt", reason=str(error)), None


def _probs(row: Row) -> NDArray[np.float64]:
    assert row.probs is not None
    return row.probs


def _list(row: Row) -> list[float]:
    return _probs(row).tolist()


def _plain(name: str) -> str:
    """The stem of a file's name in letters that every file system takes."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", PurePath(name).stem)[:60]


def enlarged(image: NDArray[Any]) -> Image.Image:
    """(H, W, 3) in [0, 1] as a picture, enlarged by whole numbers where it is small."""
    pixels = np.rint(255 * image).astype(np.uint8)
    times = -(-SMALLEST // pixels.shape[0])
    return Image.fromarray(pixels).resize((pixels.shape[1] * times, pixels.shape[0] * times), Image.Resampling.NEAREST)


def predictions(rows: Sequence[Row], judge: Judge, top_k: int) -> list[Prediction | None]:
    """Of each image the `top_k` most probable classes; None where it was not predicted."""
    return [None if row.probs is None else ranked(judge.classes, row.probs, top_k) for row in rows]


def show_images(console: Console, rows: Sequence[Row], judge: Judge, top_k: int) -> None:
    """The table in the terminal: verdict, its probability and the next classes; of many files the first ones."""
    header = ["file", "verdict", "probability", "next" if top_k > 1 else "", "status"]
    if judge.multi_label:
        header = ["file", f"labels above {judge.threshold:g}", "most probable", "", "status"]
    cells = [header]
    for row, found in list(zip(rows, predictions(rows, judge, top_k), strict=True))[: show.SHOWN]:
        if row.probs is None or found is None:
            cells.append([row.name, "-", "-", "-" if top_k > 1 else "", f"{row.status}: {row.reason}"])
            continue
        label = judge.label(_list(row))
        verdict, top = judge.verdict(_list(row)) or NO_LABEL, judge.classes[label]
        others = [f"{name} {prob:.3f}" for name, prob in zip(found.classes, found.probs, strict=True) if name != top]
        if judge.multi_label:
            verdict, others = verdict.replace(LABELS, ", "), [f"{top} {row.probs[label]:.3f}", *others]
            cells.append([row.name, verdict, ", ".join(others[:top_k]), "", row.status])
            continue
        cells.append([row.name, verdict, f"{row.probs[label]:.4f}", ", ".join(others[: top_k - 1]), row.status])
    show.columns(console, cells, right=() if judge.multi_label else (2,))
    if len(rows) > show.SHOWN:
        show.line(console, f"... and {many(len(rows) - show.SHOWN, 'more file')}")


def counts(rows: Sequence[Row], judge: Judge) -> str:
    """'12 files: dog (8), cat (3), corrupt (1)': first the most frequent verdicts, last what was not predicted."""
    verdicts = [judge.verdict(_list(row)) for row in rows if row.probs is not None]
    if judge.multi_label:  # each label counts
        verdicts = [label for verdict in verdicts for label in verdict.split(LABELS) if label] + [
            NO_LABEL for verdict in verdicts if not verdict
        ]
    of = Counter(verdicts).most_common()
    said = [f"{name} ({number:,})" for name, number in of[:COUNTED]]
    said += [f"{len(of) - COUNTED:,} other {'labels' if judge.multi_label else 'classes'}"] * (len(of) > COUNTED)
    said += [f"{name} ({number:,})" for name, number in Counter(r.status for r in rows if r.probs is None).items()]
    return f"{many(len(rows), 'file')}: {', '.join(said)}"


def write_tables(out: Path, about: dict[str, Any], rows: Sequence[Row], judge: Judge) -> None:
    """Replace predictions.csv and predictions.json: every probability in full."""
    cells = [_cells(row, judge) for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*cells[0]] if cells else ["file"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: no_formula(value) for key, value in each.items()} for each in cells)
    write_text(out / CSV, utf_8(text.getvalue()))
    content = {"about": about | {"classes": [*judge.classes], "threshold": judge.threshold}, "files": cells}
    write_text(out / JSON, json.dumps(content, indent=1, ensure_ascii=True) + "\n")


def no_formula(value: Any) -> Any:
    """A cell that no spreadsheet computes."""
    return f"./{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _cells(row: Row, judge: Judge) -> dict[str, Any]:
    label = None if row.probs is None else judge.label(_list(row))
    ours = {
        "file": row.name,
        "status": row.status,
        "verdict": "" if label is None else judge.verdict(_list(row)),
        "prob": "" if label is None else float(_probs(row)[label]),
        **{f"prob_{name}": "" if label is None else _list(row)[number] for number, name in enumerate(judge.classes)},
        "picture": row.picture,
        "sha256": row.sha256,
        "reason": row.reason,
    }
    return ours | {f"list_{key}" if key in ours else key: value for key, value in row.columns.items()}
