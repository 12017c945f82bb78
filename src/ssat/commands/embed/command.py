"""Features of images, and their map. python -m src.embed run=<run folder> input=<folder, list.csv or image>"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssat.commands.predict import show
from ssat.commands.predict.command import CHOICES, SOME_FAILED
from ssat.config.command_line import run_words
from ssat.core.errors import UserError
from ssat.core.options import read_options, whole_number
from ssat.core.terminal import Console
from ssat.core.words import many

if TYPE_CHECKING:
    from ssat.commands.embed.features import Embedded
    from ssat.commands.embed.output import Points
    from ssat.model import Model

USAGE = """\
python -m src.embed run=<run folder> input=<image, folder or list.csv> [key=value ...]
python -m src.embed run=<run folder> split=test [key=value ...]

Writes the features that the network classifies, one row for each image, with file names and labels; beside them a map
of the images in two dimensions, coloured by class (PNG), a table (CSV: file, label, x, y) and what made them (JSON).
Where there are labels it prints the k-NN accuracy of the features: each image is classified by its nearest others.

  run=<folder|file>       a run folder of python -m src.train, a checkpoint file, or an export of format=safetensors
  input=<file|folder|->   one image, all below a folder, list.csv with a column path, or - = paths on standard input
  split=<name>            in place of input: test, val or train images of the run's own data, without augmentation; the
                          files then lie in <run>/embeddings, and python -m src.report shows the map
  checkpoint=best         best, last, or a checkpoint file of that run
  out=<file>              .npz or .parquet; by default embeddings/<run>/<input>.npz
  map=auto                tsne, pca, umap or none; auto = tsne, of more than 5,000 or fewer than 10 images pca
  seed=0                  of the map
  device=auto             auto (the GPU if there is one), cpu, cuda
  batch_size=<the run's>  images at a time
  data.root=... ...       with split: any key of the run's data that has changed since
  --config-dir <folder>   with configuration files of your own, where a run was trained with them

Labels are those of the list's column label, or else of the folders that are called as classes of the run. Of a run with
several labels for each image the list has columns of 0 and 1 that are called as the labels, or their names in label.
Exit code: 0 = all embedded, 3 = some files cannot be read (they are named), 2 = a mistake.
"""
OWN = {
    "run": "<run folder>",
    "input": "<image, folder or list.csv>",
    "split": "test",
    "checkpoint": "best",
    "out": "<file>.npz",
    "map": "auto",
    "seed": "0",
    "device": "auto",
    "batch_size": "64",
}
DEFAULTS = {"checkpoint": "best", "map": "auto", "seed": "0", "device": "auto"}
MAPS, SPLITS = ("auto", "pca", "tsne", "umap", "none"), ("test", "val", "train")
FOLDER = "embeddings"  # of a run's own images, in its folder; of others, in the current one
NEIGHBOURS = 20  # of the k-NN accuracy
MOST_SHOWN = 10  # failed files in the terminal
LARGEST_SEED = 2**32 - 1


def parse(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """The options, checked, "" where none was given and none is the default; and the words that change the data.

    Raises:
        UserError: an unknown word, or a value that is not possible.
    """
    given, _, overrides = read_options(words, OWN, handed_on=("data",))
    options = {**dict.fromkeys(OWN, ""), **DEFAULTS, **given}
    if not options["run"]:
        raise UserError(f"say run={OWN['run']} (--help lists the options)", key="run")
    if bool(options["input"]) == bool(options["split"]):
        both = "not both" if options["input"] else "which images"
        raise UserError(
            f"say input={OWN['input']}, or split=test for the run's own images: {both}", key="input", value=None
        )
    for key, choices in {"map": MAPS, "split": SPLITS, "device": CHOICES["device"]}.items():
        if options[key] and options[key] not in choices:
            raise UserError(f"{key}={options[key]} is not one of {', '.join(choices)}", key=key, value=options[key])
    if overrides and not options["split"]:
        raise UserError(f"{overrides[0]} is of the run's own data: it goes with split=, not with input=")
    if whole_number("seed", options["seed"], least=0) > LARGEST_SEED:
        raise UserError(f"seed={options['seed']} is not possible: at most {LARGEST_SEED}", key="seed")
    if options["batch_size"]:
        whole_number("batch_size", options["batch_size"])
    return options, overrides


def embed(words: list[str], console: Console) -> int:
    """The command; returns its exit code.

    Raises:
        UserError: the command line, the run or the data are not right, or `out` cannot be written.
    """
    options, overrides = parse(words)
    # Heavy imports only for a command line that can be right.
    from ssat.analysis.projection import check_method
    from ssat.commands.embed.features import of_inputs, of_split
    from ssat.commands.embed.output import check_out
    from ssat.commands.predict.inputs import read_inputs
    from ssat.commands.predict.trained import Trained
    from ssat.model import Model
    from ssat.training.predictor import device_of
    from ssat.training.saved_network import find_network

    check_method(options["map"])
    saved = find_network(options["run"], options["checkpoint"])
    if saved.config.data.frames is not None:
        raise UserError(f"run={options['run']} is of videos, and embed is of images: use predict", key="run")
    inputs = read_inputs(options["input"]) if options["input"] else None
    out = _out(options, saved.name, saved.run)
    check_out(out)
    model = Model(saved, device=device_of(None if options["device"] == "auto" else options["device"]))
    for text in Trained(saved).lines():
        show.line(console, text)
    size = int(options["batch_size"] or 0)
    if inputs is not None:
        if inputs.left_out:
            show.line(console, inputs.remark())
        embedded = of_inputs(model, inputs, size, console)
    else:
        embedded = of_split(model, options["split"], options["checkpoint"], overrides, size, console)
    return _finish(console, options, model, embedded, out)


def _out(options: dict[str, str], name: str, run: Path | None) -> Path:
    if options["out"]:
        return Path(options["out"])
    if options["split"]:
        return (run or Path(name)) / FOLDER / f"{options['split']}.npz"
    stem = "stdin" if options["input"] == "-" else Path(options["input"]).resolve().name
    return Path(FOLDER) / name / f"{stem}.npz"


def _finish(console: Console, options: dict[str, str], model: Model, embedded: Embedded, out: Path) -> int:
    """Draw, write and say what there is."""
    from ssat.commands.embed.output import write_about, write_features, write_table
    from ssat.commands.predict.inputs import writable
    from ssat.core.files import alone_in

    for row in embedded.failed[:MOST_SHOWN]:
        show.line(console, f"{row.status}: {row.name}: {row.reason}")
    if (more := len(embedded.failed) - MOST_SHOWN) > 0:
        show.line(console, f"... and {many(more, 'more file')}, see {out.with_suffix('.csv').name}")
    done = len(embedded.files)
    if not done:
        raise UserError(f"input={options['input']} holds no image that can be read: nothing is written", key="input")
    show.line(console, embedded.remark)
    knn = _knn(console, embedded, _caution(options, model))
    method, points = _points(console, options, embedded)
    about = _about(options, model, embedded, method if points is not None else "none") | knn
    with writable(out.parent), alone_in(out.parent, wait=True):
        written = [out.name]
        write_features(out, embedded, points, about)
        write_table(out.with_suffix(".csv"), embedded, points)
        if points is None:
            out.with_suffix(".png").unlink(missing_ok=True)  # of an earlier command
        else:
            _draw(out.with_suffix(".png"), embedded, points, about)
            written.append(out.with_suffix(".png").name)
        write_about(out.with_suffix(".json"), about)
    written += [out.with_suffix(ending).name for ending in (".csv", ".json")]
    failed = f", {len(embedded.failed):,} not" if embedded.failed else ""
    show.line(console, f"{many(done, 'image')} embedded{failed}: features {done:,} x {embedded.features.shape[1]}")
    show.line(console, f"written to {out.parent}: {', '.join(written)}")
    return SOME_FAILED if embedded.failed else 0


def _caution(options: dict[str, str], model: Model) -> str:
    """Whether the images may be those of the training: its records tell the images of a split, not one by one."""
    if options["split"]:
        return "too high: these images trained it" if options["split"] == "train" else ""
    root, given = model.saved.config.data.extra.get("root"), options["input"]
    if root is None or given == "-" or not Path(given).resolve().is_relative_to(Path(root).resolve()):
        return "too high where these images trained it"
    return "too high where these images trained it: they lie in the folder of the run's data (split=test takes others)"


def _knn(console: Console, embedded: Embedded, caution: str) -> dict[str, Any]:
    """Accuracy in % of each labelled image by its nearest others; {} where there is nothing to compare."""
    import numpy as np
    import torch

    from ssat.training.probe import knn_scores

    if embedded.labels.ndim == 2:
        show.line(console, "no k-NN accuracy, and no colours in the map: an image has several labels")
        return {}
    labelled = embedded.labels >= 0
    features, labels = torch.from_numpy(embedded.features[labelled]), torch.from_numpy(embedded.labels[labelled])
    counts = np.bincount(embedded.labels[labelled], minlength=1)
    if (counts > 0).sum() < 2:
        if labelled.any():
            show.line(console, "no k-NN accuracy: it needs labelled images of two classes")
        return {}
    k = min(NEIGHBOURS, len(labels) - 1)
    scores = knn_scores(features, features, labels, len(embedded.classes), k=k, leave_one_out=True)
    accuracy = float((scores.argmax(1) == labels).double().mean()) * 100
    majority = float(counts.max() / counts.sum()) * 100
    show.line(
        console,
        f"k-NN accuracy {accuracy:.1f} % (each of {many(len(labels), 'image')} by its {k} nearest others, cosine); the"
        f" most frequent class alone is {majority:.1f} %{f'; {caution}' * bool(caution)}",
    )
    return {"knn": {"accuracy": accuracy, "k": k, "images": len(labels), "majority": majority}}


def _points(console: Console, options: dict[str, str], embedded: Embedded) -> tuple[str, Points | None]:
    from ssat.analysis.projection import METHODS, chosen_method, is_flat

    if options["map"] == "none":
        return "none", None
    if is_flat(embedded.features):
        what = "one image" if len(embedded.files) == 1 else "images that all have the same features"
        show.line(console, f"no map: there is nothing to draw of {what}")
        return "none", None
    method = chosen_method(options["map"], len(embedded.files))
    return method, METHODS[method](embedded.features, int(options["seed"]))


def _about(options: dict[str, str], model: Model, embedded: Embedded, method: str) -> dict[str, Any]:
    from ssat.core.files import file_sha256

    saved = model.saved
    return {
        "run": saved.name,
        "checkpoint": saved.path.name,
        "sha256": file_sha256(saved.path),
        "epoch": saved.epoch,
        "split": options["split"],
        "images": len(embedded.files),
        "labels": embedded.remark,
        "map": method,
        "seed": int(options["seed"]),
    }


def _draw(path: Path, embedded: Embedded, points: Points, about: dict[str, Any]) -> None:
    import numpy as np

    from ssat.analysis.projection import TITLES
    from ssat.analysis.scatter import draw_points
    from ssat.core.batch import NO_LABEL

    knn = f", k-NN {about['knn']['accuracy']:.1f} %" if "knn" in about else ""
    of = f"{about['split']} images" if about["split"] else many(len(points), "image")
    title = f"{TITLES[about['map']]} of {of}{knn}\n{about['run']}, {about['checkpoint']}"
    labels = embedded.labels if embedded.labels.ndim == 1 else np.full(len(points), NO_LABEL)
    draw_points(points, labels, embedded.classes, title, path)


def main() -> None:
    """The command."""
    console, codes = Console(highlight=False, soft_wrap=True), [0]
    run_words(
        lambda words: codes.append(embed(words, console)), USAGE, interrupted="nothing is written", config_dir=True
    )
    raise SystemExit(codes[-1])
