"""Predict images or videos with a trained network. python -m src.predict run=<run folder> input=<file or folder>"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from ssat.commands.predict import show
from ssat.config.command_line import run_words
from ssat.core.errors import UserError
from ssat.core.options import is_true, read_options, whole_number
from ssat.core.terminal import Console
from ssat.runs.predicted import CSV, JSON, Judge

if TYPE_CHECKING:
    from ssat.commands.predict.inputs import Inputs
    from ssat.training.saved_network import SavedNetwork

USAGE = """\
python -m src.predict run=<run folder> input=<image, video or folder> [key=value ...]

Says of every image or video how probable each class is. The data of the training need not be there.
Of images: reads them as the run's evaluation does. Writes predictions.csv, predictions.json and sheet.png (the images
of which the network is least certain).
Of videos: decodes each, follows its face, makes clips as the run's own were made, and averages over them. Writes
predictions.csv, predictions.json (every clip and second) and for each video a picture: frames, face, score over time.
Where it was ended, the same command goes on with videos; images are predicted again.

  run=<folder|file>       a run folder of python -m src.train, a checkpoint file, or an export of format=safetensors
  input=<file|folder|->   one file, all below a folder, list.csv with a column path (images), or - = paths on standard
                          input, one a line (images)
  checkpoint=best         best, last, or a checkpoint file of that run (src.evaluate takes last by default)
  out=<folder>            of what is written; by default predictions/<run>/<input>
  threshold=0.5           with two classes the second one, such as fake, is said above it; of several labels each
  device=auto             auto (the GPU if there is one), cpu, cuda
  batch_size=<the run's>  images or clips at a time
  --config-dir <folder>   with configuration files of your own, where a run was trained with them

images:
  top_k=5                 classes of each image in the table
  tta=flips               the mean over the image and its mirror image
  explain=true            writes a picture for each image: the image, and Grad-CAM of the verdict over it

videos:
  face=largest            largest: as in the training; all: every face is scored, and the highest score counts
  detector=<the run's>    of faces: mtcnn, mediapipe, or none for videos that show a face only
  max_seconds=<the run's> of a video that are read, usually 600
  workers=1               processes that decode and find faces, each up to 3 GB; 0 = none, where a bad file may end all
  force=true              predict again what is finished

Exit code: 0 = all predicted, 3 = some not (the table says why), 2 = a mistake.
"""
OWN = {
    "run": "<run folder>",
    "input": "<image, video or folder>",
    "checkpoint": "best",
    "out": "<folder>",
    "threshold": "0.5",
    "top_k": "5",
    "tta": "flips",
    "explain": "true",
    "face": "largest",
    "detector": "mtcnn",
    "max_seconds": "600",
    "device": "auto",
    "batch_size": "8",
    "workers": "1",
    "force": "true",
}
DEFAULTS = {
    "checkpoint": "best",
    "threshold": "0.5",
    "face": "largest",
    "device": "auto",
    "workers": "1",
    "force": "false",
    "explain": "false",
}
CHOICES = {
    "face": ("largest", "all"),
    "device": ("auto", "cpu", "cuda"),
    "detector": ("mtcnn", "mediapipe", "none"),
    "tta": ("flips",),
}
OF_VIDEOS, OF_IMAGES = ("detector", "max_seconds"), ("top_k", "tta")  # options that are not given by default
SOME_FAILED = 3
TOP = 5  # classes of the table


def parse(words: list[str]) -> dict[str, str]:
    """The options, checked; "" where none was given and none is the default.

    Raises:
        UserError: an unknown word, or a value that is not possible.
    """
    given, flags, _ = read_options(words, OWN, names=("force", "explain"))
    options = {**dict.fromkeys(OWN, ""), **DEFAULTS, **given, **dict.fromkeys(flags, "true")}
    for key in ("run", "input"):
        if not options[key]:
            raise UserError(f"say {key}={OWN[key]} (--help lists the options)", key=key)
    for key, choices in CHOICES.items():
        if options[key] and options[key] not in choices:
            raise UserError(f"{key}={options[key]} is not one of {', '.join(choices)}", key=key, value=options[key])
    _number("threshold", options["threshold"], 0.0, 1.0)
    if options["max_seconds"]:
        _number("max_seconds", options["max_seconds"], 0.1, 864_000.0)
    for key in ("batch_size", "top_k"):
        if options[key]:
            whole_number(key, options[key])
    whole_number("workers", options["workers"], least=0)
    for key in ("force", "explain"):
        options[key] = str(is_true(key, options[key])).lower()
    return options


def _number(key: str, text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise UserError(f"{key}={text} is not a number from {low:g} to {high:g}", key=key, value=text)
    return value


def predict(words: list[str], console: Console) -> int:
    """The command; returns its exit code.

    Raises:
        UserError: the command line, the run or the checkpoint is not right, or `out` cannot be written.
        KeyboardInterrupt: after what is finished has been written.
    """
    options = parse(words)
    # Heavy imports only for a command line that can be right.
    from ssat.commands.predict.inputs import read_inputs
    from ssat.training.saved_network import check_run_has_labels, find_network

    check_run_has_labels(options["run"])
    saved = find_network(options["run"], options["checkpoint"])
    of_videos = saved.config.data.frames is not None
    _check_kind(options["input"], of_videos)
    inputs = read_inputs(options["input"], of_videos=of_videos)
    judge = Judge(saved.known.classes, float(options["threshold"]), saved.config.data.multi_label)
    _check_classes(options, judge, of_videos)
    name = "stdin" if options["input"] == "-" else Path(options["input"]).resolve().name
    out = Path(options["out"] or Path("predictions") / saved.name / name)
    if inputs.left_out:
        show.line(console, inputs.remark())
    work = _videos if of_videos else _images
    return work(console, options, saved, inputs, out, judge)


def _videos(
    console: Console, options: dict[str, str], saved: SavedNetwork, inputs: Inputs, out: Path, judge: Judge
) -> int:
    from ssat.commands.predict.trained import Trained
    from ssat.commands.predict.work import Work
    from ssat.training.predictor import Predictor, device_of

    size, trained = int(options["batch_size"] or 0), Trained(saved)
    predictor = Predictor(saved, device=device_of(_device(options)), batch_size=size)
    predictor.check_labels()
    for text in trained.lines():
        show.line(console, text)
    rows = Work(console, options, inputs.folder, inputs.names, out, trained, predictor, judge).videos()
    show.line(console, "")
    show.show(console, rows, judge)
    show.line(console, "")
    show.line(console, f"{show.counts(rows, judge)}; {show.NO_PROOF}")
    show.line(console, f"written to {out}: {CSV}, {JSON}, a picture of each video")
    return SOME_FAILED if any(not row.faces for row in rows) else 0


def _images(
    console: Console, options: dict[str, str], saved: SavedNetwork, inputs: Inputs, out: Path, judge: Judge
) -> int:
    from ssat.commands.predict.images import EXPLAIN, SHEET, ImageWork, counts, show_images
    from ssat.commands.predict.trained import Trained
    from ssat.model import Model
    from ssat.training.predictor import device_of

    model, trained = Model(saved, device=device_of(_device(options))), Trained(saved)
    model.check(explain=options["explain"] == "true")
    for text in trained.lines():
        show.line(console, text)
    rows = ImageWork(console, options, inputs, out, model, trained, judge).run()
    show.line(console, "")
    show_images(console, rows, judge, int(options["top_k"] or TOP))
    show.line(console, "")
    show.line(console, f"{counts(rows, judge)}; {show.NO_PROOF_OF_IMAGES}")
    predicted = [row for row in rows if row.probs is not None]
    sheet = [f"{SHEET} (the least certain)"] * (bool(predicted) and not judge.multi_label)
    pictures = [*sheet, *[f"{EXPLAIN}/"] * any(row.picture for row in rows)]
    show.line(console, f"written to {out}: {', '.join([CSV, JSON, *pictures])}")
    return SOME_FAILED if len(predicted) < len(rows) else 0


def _device(options: dict[str, str]) -> str | None:
    return None if options["device"] == "auto" else options["device"]


def _check_kind(word: str, of_videos: bool) -> None:
    """Refuse an image for a run on videos, and the other way round."""
    path = Path(word)
    if of_videos and (word == "-" or (path.suffix.lower() == ".csv" and path.is_file())):
        raise UserError(f"input={word} is a list, and lists are of images: name a video or a folder", key="input")
    from ssat.data.sets.folder import extensions
    from ssat.data.video.layouts.tree import ENDINGS

    if of_videos and path.suffix.lower() in extensions() and path.is_file():
        raise UserError(f"input={path} is an image, and this run is of videos: give a video", key="input")
    if not of_videos and path.suffix.lower() in ENDINGS and path.is_file():
        raise UserError(f"input={path} is a video, and this run is of images: give an image", key="input")


def _check_classes(options: dict[str, str], judge: Judge, of_videos: bool) -> None:
    if len(judge.classes) != 2 and not judge.multi_label and options["threshold"] != DEFAULTS["threshold"]:
        raise UserError(f"threshold= is of two classes, and this run has {len(judge.classes)}", key="threshold")
    if options["face"] == "all" and len(judge.classes) != 2:
        raise UserError(f"face=all is for real and fake, and this run has {len(judge.classes)} classes", key="face")
    given = [key for key in (OF_IMAGES if of_videos else OF_VIDEOS) if options[key]]
    given += ["face"] if options["face"] == "all" and not of_videos else []
    given += ["explain"] if options["explain"] == "true" and of_videos else []
    if given:
        is_of, this = ("images", "videos") if of_videos else ("videos", "images")
        raise UserError(f"{given[0]}= is of {is_of}, and this run is of {this}: leave it out", key=given[0])


def main() -> None:
    """The command."""
    console, codes = Console(highlight=False, soft_wrap=True), [0]
    run_words(
        lambda words: codes.append(predict(words, console)),
        USAGE,
        interrupted="finished files are written; the same command goes on with videos, and repeats images",
        config_dir=True,
    )
    raise SystemExit(codes[-1])
