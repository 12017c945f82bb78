"""Predict videos or images with a trained run. python -m src.predict run=<run folder> input=<file or folder>"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ssat.commands.predict import show
from ssat.config.command_line import run_words
from ssat.core.errors import UserError
from ssat.core.options import is_true, read_options, whole_number
from ssat.runs.predicted import CSV, JSON, Judge
from ssat.runs.saved import saved_configuration

if TYPE_CHECKING:
    from ssat.commands.predict.trained import Trained
    from ssat.config.schema import Run
    from ssat.training.predictor import Predictor

USAGE = """\
python -m src.predict run=<run folder> input=<video or folder> [key=value ...]

Says of every video how probable each class is, for example fake: decodes it, follows its face, makes clips as the run's
own were made, and averages over them. Of a run on images, input= is an image or a folder of images.
Writes predictions.csv, predictions.json (every clip and second) and for each video a picture: frames, face, score over
time. The same command goes on where it was ended; what is finished is kept.

  run=<folder>            of python -m src.train
  input=<file|folder>     one file, or all below a folder
  checkpoint=best         best, last, or a checkpoint file of that run
  out=<folder>            of what is written; by default predictions/<run>/<input>
  threshold=0.5           a video is called fake above it (runs with two classes)
  face=largest            largest: as in the training; all: every face is scored, and the highest score counts
  detector=<the run's>    of faces: mtcnn, mediapipe, or none for videos that show a face only
  max_seconds=<the run's> of a video that are read, usually 600
  device=auto             auto (the GPU if there is one), cpu, cuda
  batch_size=<the run's>  clips at a time
  workers=1               processes that decode and find faces, each up to 3 GB; 0 = none, where a bad file may end all
  force=true              predict again what is finished
  --config-dir <folder>   with configuration files of your own, where a run was trained with them

Exit code: 0 = all predicted, 3 = some not (the table says why), 2 = a mistake.
"""
OWN = {
    "run": "<run folder>",
    "input": "<video or folder>",
    "checkpoint": "best",
    "out": "<folder>",
    "threshold": "0.5",
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
}
CHOICES = {"face": ("largest", "all"), "device": ("auto", "cpu", "cuda"), "detector": ("mtcnn", "mediapipe", "none")}
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
SOME_FAILED = 3


def parse(words: list[str]) -> dict[str, str]:
    """The options, checked; "" where none was given and none is the default.

    Raises:
        UserError: an unknown word, or a value that is not possible.
    """
    given, flags, _ = read_options(words, OWN, names=("force",))
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
    if options["batch_size"]:
        whole_number("batch_size", options["batch_size"])
    whole_number("workers", options["workers"], least=0)
    is_true("force", options["force"])
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
    run, path = Path(options["run"]), Path(options["input"])
    config = saved_configuration(run, [])
    of_videos = config.data.frames is not None
    # Heavy imports only for a command line that can be right.
    from ssat.commands.predict.trained import Trained
    from ssat.commands.predict.work import Work
    from ssat.data.video.layouts.tree import ENDINGS
    from ssat.data.video.unseen import find

    _check_kind(path, of_videos)
    folder, names = find(path, ENDINGS if of_videos else IMAGES)
    trained = Trained(config, run)
    judge = Judge(trained.known.classes, float(options["threshold"]))
    _check_classes(options, judge, of_videos)
    predictor = _predictor(config, run, trained, options)
    out = Path(options["out"] or Path("predictions") / run.resolve().name / path.resolve().name)
    for text in trained.lines(options["checkpoint"], predictor.path, predictor.epoch):
        show.line(console, text)
    work = Work(console, options, folder, names, out, trained, predictor, judge)
    rows = work.videos() if of_videos else work.images()
    show.line(console, "")
    show.show(console, rows, judge)
    show.line(console, "")
    show.line(console, f"{show.counts(rows, judge)}; {show.NO_PROOF}")
    show.line(console, f"written to {out}: {CSV}, {JSON}{', a picture of each video' if of_videos else ''}")
    return SOME_FAILED if any(not row.faces for row in rows) else 0


def _check_kind(path: Path, of_videos: bool) -> None:
    """Refuse an image for a run on videos, and the other way round."""
    if of_videos and path.suffix.lower() in IMAGES and path.is_file():
        raise UserError(f"input={path} is an image, and this run is of videos: give a video", key="input")
    from ssat.data.video.layouts.tree import ENDINGS

    if not of_videos and path.suffix.lower() in ENDINGS and path.is_file():
        raise UserError(f"input={path} is a video, and this run is of images: give an image", key="input")


def _check_classes(options: dict[str, str], judge: Judge, of_videos: bool) -> None:
    if len(judge.classes) != 2 and options["threshold"] != DEFAULTS["threshold"]:
        raise UserError(f"threshold= is of two classes, and this run has {len(judge.classes)}", key="threshold")
    if options["face"] == "all" and len(judge.classes) != 2:
        raise UserError(f"face=all is for real and fake, and this run has {len(judge.classes)} classes", key="face")
    given = [key for key in ("detector", "max_seconds") if options[key]]
    given += ["face"] if options["face"] == "all" else []
    if not of_videos and given:
        raise UserError(f"{given[0]}= is of videos, and this run is of images: leave it out", key=given[0])


def _predictor(config: Run, run: Path, trained: Trained, options: dict[str, str]) -> Predictor:
    import torch

    from ssat.training.predictor import Predictor

    gpu = torch.cuda.is_available()
    if options["device"] == "cuda" and not gpu:
        raise UserError("device=cuda is not possible: PyTorch finds no GPU; leave it out", key="device", value="cuda")
    device = torch.device("cuda" if gpu and options["device"] != "cpu" else "cpu")
    size = int(options["batch_size"] or 0)
    return Predictor(config, run, options["checkpoint"], trained.known, device=device, batch_size=size)


def main() -> None:
    """The command."""
    console, codes = Console(highlight=False, soft_wrap=True), [0]
    run_words(
        lambda words: codes.append(predict(words, console)),
        USAGE,
        interrupted="finished files are kept, the same command goes on",
        config_dir=True,
    )
    raise SystemExit(codes[-1])
