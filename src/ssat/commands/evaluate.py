"""Evaluate a trained run, clean and perturbed. python -m src.evaluate run=<run folder> data.perturb=perspective"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from ssat.commands.show_images import show_images, show_labels
from ssat.config.command_line import run_words
from ssat.config.identity import config_hash
from ssat.core.errors import UserError
from ssat.core.options import read_options, whole_number
from ssat.core.terminal import Console
from ssat.runs.folder import read_record
from ssat.runs.saved import saved_configuration

USAGE = """\
python -m src.evaluate run=<run folder> [data.perturb=<perturbation>] [key=value ...]

Evaluates the last phase of a run as its training did, and beside it on perturbed images; writes
<run>/evaluations/<checkpoint>-<split>-<perturbation>.json, and of clean images beside it every prediction (.csv, .npz)
and pictures: confusion matrix, reliability diagram, the worst mistakes (-confusion.png ...).

  run=<folder>            of python -m src.train
  checkpoint=last         last, best, or a checkpoint file of that run
  split=test              test or val; of videos also in_domain, test_Deepfakes and the like (docs/video.md)
  phase=<the last>        of the run: pretrain, finetune, joint ...
  probe=knn,linear        what the encoder's features are worth, also where no labels were learned: k-NN (20 neighbours,
                          temperature 0.07) and a logistic regression, both on the training images
  data.perturb=<name>     perspective (Table 2), corruptions (15 families at 5 severities), or one family
  seeds=5                 of the perspective: mean and deviation over them
  severities=1,2,3,4,5    of the corruptions
  batch_size=<the run's>  images or clips at a time; under bf16 another size may change a few predictions
  force=true              evaluate again what has been evaluated
  data.root=... trainer.accelerator=cpu ...     any key of the run that has changed since
  data=<name> data.root=...                     other data of the same classes, such as data=ffpp for a run on dfdc
  --config-dir <folder>   with configuration files of your own, where a run was trained with them
"""
OWN = {
    "run": "",
    "data": "",
    "checkpoint": "last",
    "split": "test",
    "phase": "",
    "probe": "",
    "data.perturb": "",
    "seeds": "5",
    "severities": "1,2,3,4,5",
    "batch_size": "",
    "force": "false",
}
PLACES = ("data.root", "data.num_workers", "data.memory_gb")  # keys of the data that change no result
PROBED = {"acc1": "clean", "knn_acc1": "k-NN", "linear_acc1": "linear probe"}
BELOW = ("balanced_acc", "macro_f1", "auroc")  # of images they are said below the first line
# Columns of `detection_metrics` and `class_metrics`: heading and form of the number.
DETECTION = {
    "n_total": ("videos", "{:,}"),
    "n_failed": ("failed", "{:,}"),
    "accuracy": ("acc %", "{:.2f}"),
    "accuracy_low": ("from", "{:.1f}"),
    "accuracy_high": ("to", "{:.1f}"),
    "accuracy_all": ("of all %", "{:.2f}"),
    "balanced_accuracy": ("balanced", "{:.2f}"),
    "auc": ("AUC", "{:.4f}"),
    "ap": ("AP", "{:.4f}"),
    "eer": ("EER", "{:.4f}"),
    "log_loss": ("log-loss", "{:.4f}"),
}
HANDED_ON = ("data", "trainer")  # groups whose keys may be changed


def parse(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """This command's own options, and the overrides of the run's configuration.

    Raises:
        UserError: no run, a word without a value or an unknown key.
    """
    given, _, overrides = read_options(words, dict.fromkeys(OWN, "..."), handed_on=HANDED_ON, empty=True)
    options = OWN | given
    if options["data"]:
        overrides = [f"data={options['data']}", *overrides]
    if not options["run"]:
        raise UserError("say which run: run=<folder that python -m src.train has made>")
    if not {*options["probe"].split(",")} <= {"", "knn", "linear"}:
        raise UserError(f"probe={options['probe']} is not possible: it is knn, linear or knn,linear")
    if options["probe"] and options["data.perturb"]:
        raise UserError("probe= measures clean images: leave data.perturb out, or run two commands")
    for key in ("seeds", "batch_size"):
        if options[key] or key == "seeds":
            whole_number(key, options[key])
    return options, overrides


def summarise(results: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Mean and standard deviation (n - 1) of acc1 over the perturbed sets, and the mean of each family."""
    accuracies = {label: values["acc1"] for label, values in results.items()}
    families: dict[str, list[float]] = {}
    for label, value in accuracies.items():
        families.setdefault(label.partition("/")[0], []).append(value)
    return {
        "acc1_mean": statistics.fmean(accuracies.values()),
        "acc1_std": statistics.stdev(accuracies.values()) if len(accuracies) > 1 else None,
        "acc1_of": {family: statistics.fmean(values) for family, values in families.items()},
    }


def show_videos(found: dict[str, Any], part: str, console: Console) -> None:
    """A line for all videos, and for the videos of each part: of each method with the originals, or of each class."""
    chosen = {key: shown for key, shown in DETECTION.items() if key in found}
    rows = [[part, *(heading for heading, _ in chosen.values())]]
    for name, of in {"all": found, **found["methods" if part == "method" else "classes"]}.items():
        numbers = ["-" if of.get(key) is None else form.format(of[key]) for key, (_, form) in chosen.items()]
        rows.append([name, *numbers])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        numbers = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        console.print("  ".join([name.ljust(widths[0]), *numbers]), markup=False)
    console.print("from, to: Wilson's 95 % interval of acc; of all: videos without a score are errors")
    for note in dict.fromkeys(found["notes"]):
        console.print(f"note: {note}", markup=False)


def show(record: dict[str, Any], console: Console) -> None:
    """One short table."""
    clean = record["clean"] | (record.get("probe") or {})
    named = [f"{PROBED[name]} acc1 {value:.2f} %" for name, value in clean.items() if name in PROBED]
    found = record.get("classification") or {}
    of_labels = "labels" in found
    said: tuple[str, ...] = BELOW if "images" in found else ()
    said = (*BELOW, "map", "micro_f1", "exact_match", "hamming_acc") if of_labels else said
    rest = [f"{name} {value:.4g}" for name, value in clean.items() if name not in (*PROBED, *said)]
    named += [f"mAP {clean['map']:.4f}"] if of_labels and "map" in clean else []
    console.print(f"{record['run']} ({record['checkpoint']}, {record['split']}): {', '.join(named + rest)}")
    if record.get("detection"):
        show_videos(record["detection"], "method", console)
    if found := record.get("classification"):
        if "labels" in found:
            show_labels(found, console)
        elif "images" in found:
            show_images(found, console)
        else:
            show_videos(found, "class", console)
    if record.get("better"):
        console.print(record["better"], markup=False)
    if not record["perturbed"]:
        return
    name, summary = record["perturb"], record["summary"]
    if name == "perspective":
        accuracies = [f"{values['acc1']:.2f}" for values in record["perturbed"].values()]
        over = f"over {len(accuracies)} seeds ({', '.join(accuracies)})"
        deviation = f" ± {summary['acc1_std']:.2f}" if summary["acc1_std"] is not None else ""
        console.print(f"perspective: acc1 {summary['acc1_mean']:.2f}{deviation} % {over}")
        return
    severities = sorted({label.partition("/")[2] for label in record["perturbed"]})
    table = Table("corruption", *[f"severity {severity}" for severity in severities], "mean", box=None)
    for family, mean in summary["acc1_of"].items():
        cells = [f"{record['perturbed'][f'{family}/{severity}']['acc1']:.2f}" for severity in severities]
        table.add_row(family, *cells, f"{mean:.2f}")
    console.print(table)
    console.print(
        f"mean corruption accuracy {summary['acc1_mean']:.2f} %, error {100 - summary['acc1_mean']:.2f} %"
        " (a plain mean, not relative to AlexNet's)"
    )


def _other(overrides: Sequence[str]) -> str:
    """A mark of the overrides that choose what is measured, so that one result does not take another's place."""
    chosen = sorted(word for word in overrides if word.startswith("data.") and word.split("=")[0] not in PLACES)
    return f"-{hashlib.sha256(' '.join(chosen).encode()).hexdigest()[:8]}" if chosen else ""


def evaluate(words: list[str], console: Console) -> dict[str, Any]:
    """The command: evaluate, write the record, print it.

    Raises:
        UserError: the command line, the run, the data or the checkpoint is not right.
    """
    options, overrides = parse(words)
    run = Path(options["run"])
    config = saved_configuration(run, overrides)
    # Heavy imports only for a command line that can be right.
    from ssat.data.transforms.perturb import SEVERITIES, perturbations
    from ssat.runs.machine import versions
    from ssat.runs.predictions import write_predictions
    from ssat.runs.record import write_record

    chosen = options["severities"].strip("[]").split(",")
    if not {*chosen} <= {str(severity) for severity in SEVERITIES}:
        raise UserError(f"severities={options['severities']} is not possible: choose from 1,2,3,4,5")
    perturb = options["data.perturb"]
    if config.data.multi_label != saved_configuration(run, []).data.multi_label:
        kinds = ("several labels", "one class") if config.data.multi_label else ("one class", "several labels")
        raise UserError(
            f"these data give an image {kinds[0]}, and run={run} has learned {kinds[1]} of it: other data need"
            f" data.{'file' if config.data.multi_label else 'labels'}=... of the same kind",
            key="data.labels",
        )
    for key in ("probe", "data.perturb"):
        if config.data.multi_label and options[key] not in ("", "null"):
            raise UserError(
                f"{key}={options[key]} measures the accuracy of one class each, and run={run} is of several labels:"
                " leave it out",
                key=key,
            )
    sets = {}
    if perturb and perturb != "null":
        sets = perturbations(perturb, seeds=int(options["seeds"]), severities=tuple(map(int, chosen)))
        if config.data.frames is not None:
            raise UserError("data.perturb changes single images, and this run is of videos: leave it out")
    what = options["probe"].replace(",", "+") or perturb or "clean"
    of_phase = f"{options['phase']}-" if options["phase"] else ""
    of_data = f"{options['data']}-" if options["data"] else ""
    name = f"{of_phase}{Path(options['checkpoint']).stem}-{of_data}{options['split']}-{what}{_other(overrides)}.json"
    settings = {key: value for key, value in options.items() if key not in ("force", "run")} | {"overrides": overrides}
    done = run / "evaluations" / name
    if done.is_file() and options["force"] != "true":
        record = read_record(done, "move it away, or force=true to evaluate again")
        if record.get("settings") == settings:
            console.print(f"already evaluated, from {done} (force=true evaluates again):")
            show(record, console)
            return record
    from ssat.core.files import refuse_unwritable
    from ssat.training.evaluation import Evaluator
    from ssat.training.image_scores import PICTURES

    cure = "evaluations are written to the run's folder: allow it, or copy the run to a folder of yours"
    refuse_unwritable(done.parent, key="run", value=run, cure=cure)
    evaluator = Evaluator(
        config,
        run,
        options["phase"],
        options["checkpoint"],
        options["split"],
        int(options["batch_size"] or 0),
        other_data=any(word.startswith(("data.", "data=")) for word in overrides),
    )
    if evaluator.module.head is None and not options["probe"]:
        raise UserError(
            f"run={run} has learned no labels (lam=0): there is no accuracy to measure but that of probe=knn,linear"
        )
    if not (run / "result.json").is_file():
        console.print(f"note: {run} is not finished; this is its checkpoint {evaluator.path.name}")
    for function in list(sets.values())[:1]:  # what cannot be measured is refused before anything is
        evaluator.data.eval_loader(evaluator.split, function)
    if options["probe"]:
        evaluator.data.eval_loader("train")
    if evaluator.share:
        console.print(f"note: {evaluator.share}")
    clean = evaluator.accuracy(console=console) if evaluator.module.head is not None else {}
    predictions = evaluator.predictions if clean else None
    # Of perturbed images a file of predictions would hold the clean ones under another name.
    kept = bool(clean) and (what == "clean" or config.data.frames is not None)
    detection, classification = evaluator.keep_scores(done.with_suffix(".csv")) if kept else (None, None)
    perturbed = {label: evaluator.accuracy(function, label, console) for label, function in sets.items()}
    probed = evaluator.probe(options["probe"].split(",")) if options["probe"] else None
    record = {
        "run": str(run),
        "hash": config_hash(saved_configuration(run, [])),  # without the overrides: whose weights these are
        "checkpoint": options["checkpoint"],
        "split": options["split"],
        "perturb": perturb or None,
        "settings": settings,
        "clean": clean,
        "detection": detection,
        "classification": classification,
        "probe": probed,
        "better": evaluator.better,
        "perturbed": perturbed,
        "summary": summarise(perturbed) if perturbed else None,
        "data_fingerprint": evaluator.data.fingerprint(),
        "versions": versions(),
    }
    if predictions is not None and what == "clean":
        write_predictions(done.with_suffix(".npz"), config_hash(config), predictions)
    write_record(run / "evaluations", record, name=name)
    show(record, console)
    stem, found = done.with_suffix("").name, [".csv", ".npz", *(f"-{picture}.png" for picture in PICTURES)]
    beside = [ending for ending in found if (done.parent / f"{stem}{ending}").is_file()]
    console.print(f"written to {done.parent}: {', '.join([done.name, *beside])}", markup=False)
    return record


def main() -> None:
    """The command."""
    console = Console(highlight=False, soft_wrap=True)
    run_words(lambda words: evaluate(words, console), USAGE, interrupted="nothing was written", config_dir=True)
