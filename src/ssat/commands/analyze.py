"""Compare trained networks from the inside. python -m src.analyze runs=[<run>,<run>,<run>] analysis=attention,distance

The records that this writes are described in ssat.analysis.output.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssat.config.command_line import run_words
from ssat.core.errors import UserError
from ssat.core.options import is_true, read_options, unquoted, whole_number
from ssat.core.read import read_json
from ssat.core.terminal import Console
from ssat.core.words import nearest
from ssat.runs.saved import saved_configuration

if TYPE_CHECKING:
    from ssat.analysis.figures import Analysis
    from ssat.analysis.models import Model


USAGE = """\
python -m src.analyze runs=[<run folder>,<run folder>,...] [analysis=<names>] [key=value ...]

Measures the last phase of each run on the same test images, or on the first clip of the same test videos, in fp32, and
writes <out>/<analysis>.json, .png and .csv.

  runs=[a,b,c]            folders of python -m src.train, of the same data; their order is that of the figures;
                          a name with a comma in quotes: 'runs=["a,1",b]'
  analysis=<names>        attention (Fig. 6), distance (7), variance (8), hessian (9), gradcam (10), maps (12), with
                          commas between; default all but hessian, which takes long; maps is of images alone
  images=1000             test images, or videos, drawn by seed (attention, distance, variance)
  pictures=8              images, or videos, shown by gradcam and maps, of as many classes as possible
  seed=0                  of the choice of images and of the Hessian's start vectors
  checkpoint=last         last, best, or a checkpoint file
  split=test              test or val
  batch_size=32           images at a time, of clips 4; does not change the result
  out=<folder>            default <runs>/analyses/<encoder>-<data>-<hash of the runs and their images>, beside the
                          first run's experiment; a folder that holds this analysis of other runs is refused
  force=true              measure again what has been measured; with out=, also replace the analysis of other runs
  distance.with_cls=false whether the class token counts among the tokens
  maps.mass=1             below 1: show only the patches that hold this share of the attention (DINO: 0.6)
  maps.rollout=false      through all blocks in place of the last one
  hessian.batches=10 hessian.batch_size=16 hessian.top=5 hessian.tol=0.001 hessian.max_iter=100
  hessian.weight_decay=0  w adds w/2 |parameters|^2 to the loss
  hessian.augmented=true  images as in training
  data.root=... trainer.accelerator=cpu ...     any key of the runs that has changed since
  --config-dir <folder>   with configuration files of your own, where a run was trained with them
"""
OWN = {
    "runs": "",
    "images": "1000",
    "pictures": "8",
    "seed": "0",
    "checkpoint": "last",
    "split": "test",
    "out": "",
    "force": "false",
    "distance.with_cls": "false",
    "maps.mass": "1",
    "maps.rollout": "false",
    "hessian.batches": "10",
    "hessian.batch_size": "16",
    "hessian.top": "5",
    "hessian.tol": "0.001",
    "hessian.max_iter": "100",
    "hessian.weight_decay": "0",
    "hessian.augmented": "true",
}
HANDED_ON = ("data", "trainer")
OF_IMAGES = {"analysis": "attention,distance,variance,gradcam,maps", "batch_size": "32"}
OF_CLIPS = {"analysis": "attention,distance,variance,gradcam", "batch_size": "4"}  # 1,568 tokens each
NAMES = ("attention", "distance", "variance", "hessian", "gradcam", "maps")
COUNTS = (
    "images", "pictures", "batch_size", "hessian.batches", "hessian.batch_size", "hessian.top", "hessian.max_iter",
)  # fmt: skip
SWITCHES = ("force", "distance.with_cls", "maps.rollout", "hessian.augmented")
NO_RESULT = ("runs", "analysis", "out", "force", "batch_size")  # options that do not change what is measured


@dataclass(frozen=True)
class Options:
    """The command line; `values` holds numbers and booleans by option."""

    runs: list[Path]
    analyses: list[str]
    values: dict[str, Any]
    overrides: list[str]

    def settings(self, analysis: str) -> dict[str, Any]:
        """Those options that change what `analysis` measures."""
        others = tuple(f"{name}." for name in NAMES if name != analysis)
        skipped = (*NO_RESULT, *(("images",) if analysis in ("hessian", "gradcam", "maps") else ("pictures",)))
        kept = {k: v for k, v in self.values.items() if k not in skipped and not k.startswith(others)}
        return kept | {"overrides": self.overrides}


def parse(words: list[str], *, clips: bool = False) -> Options:
    """The command line, with the defaults of runs on images or on clips.

    Raises:
        UserError: no run, a word without a value, an unknown key or analysis, a value that is not possible.
    """
    keys = dict.fromkeys(OWN | OF_IMAGES, "...")
    given, _, overrides = read_options(words, keys, handed_on=HANDED_ON, empty=True)
    runs = _listed(given.get("runs", ""))
    if not runs:
        raise UserError("say which runs: runs=[<folder of a scratch run>,<of an SSL+FT run>,<of an SSAT run>]")
    if len({Path(run).resolve() for run in runs}) < len(runs):
        raise UserError(f"runs={given['runs']} names a run twice: name each once")
    options = OWN | (OF_CLIPS if clips else OF_IMAGES) | given
    analyses = _listed(options["analysis"])
    for name in analyses:
        if name not in NAMES:
            raise UserError(
                f"analysis={name} does not exist{nearest(name, list(NAMES))}; it can be: {', '.join(NAMES)}"
            )
    if not analyses:
        raise UserError(f"analysis= names nothing; it can be: {', '.join(NAMES)}")
    return Options([Path(run) for run in runs], list(dict.fromkeys(analyses)), _values(options), overrides)


def _listed(text: str) -> list[str]:
    """The parts of `[a,b,"c, d"]`; a folder whose name has a comma stands in quotes."""
    inside = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    parts = re.findall(r"""\s*("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^,]*),?""", inside)
    return [unquoted(part.strip()) for part in parts if part.strip()]


def _values(options: dict[str, str]) -> dict[str, Any]:
    """Every option as what it is.

    Raises:
        UserError: it is not.
    """
    values: dict[str, Any] = {}
    for key, text in options.items():
        if key in COUNTS or key == "seed":
            values[key] = whole_number(key, text, least=0 if key == "seed" else 1)
        elif key in SWITCHES:
            values[key] = is_true(key, text)
        elif key in ("maps.mass", "hessian.tol", "hessian.weight_decay"):
            values[key] = _number(key, text)
        else:
            values[key] = text
    return values


def _number(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    lowest, highest = (0.0, float("inf")) if key == "hessian.weight_decay" else (1e-12, 1.0)
    if not lowest <= value <= highest or value == float("inf"):
        span = "at least 0" if lowest == 0 else "above 0 and at most 1"
        raise UserError(f"{key}={text} is not possible: it must be a number {span}")
    return value


def default_out(runs: Sequence[Path], models: Sequence[Model]) -> Path:
    """<runs>/analyses/<encoder>-<data>-<hash>, where the first run lies in <runs>/<experiment>/<run>.

    The hash is of the runs and their checkpoints, in their order, and of the images: others go to another folder.
    """
    first, root = models[0], runs[0].resolve().parent.parent
    checkpoints = [os.path.relpath(Path(model.facts["checkpoint"]).resolve(), root) for model in models]
    hashes = [model.facts["hash"] for model in models]
    images = first.data.fingerprint()["content"][first.split]
    text = json.dumps([checkpoints, hashes, first.split, images])
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return root / "analyses" / f"{first.facts['encoder']}-{first.facts['data']}-{digest}"


def refuse_unfit(analyses: Mapping[str, Analysis], models: Sequence[Model]) -> None:
    """Refuse analyses that a model cannot have, and name those that all of them can.

    Raises:
        UserError: names the first of them and its run.
    """
    refused: dict[str, tuple[Model, UserError]] = {}
    for name, analysis in analyses.items():
        for model in models:
            try:
                analysis.check(model)
            except UserError as error:
                refused.setdefault(name, (model, error))
    for name, (model, why) in refused.items():
        fit = ",".join(each for each in analyses if each not in refused)
        rest = f"; analysis={fit} can be made" if fit else ""
        raise UserError(f"analysis={name} of run {model.facts['run']}: {why}{rest}", key="analysis", value=name)


def refuse_others(out: Path, analyses: Iterable[str], models: Sequence[Model]) -> None:
    """Refuse to write over an analysis of other runs, before anything is measured.

    Raises:
        UserError: `out` holds one, or a file that is none.
    """
    ours = [model.facts["hash"] for model in models]
    for path in (out / f"{name}.json" for name in analyses):
        if not path.exists():
            continue
        try:
            theirs = [model["hash"] for model in read_json(path)["models"]]
        except (OSError, ValueError, KeyError, TypeError):
            theirs = []
        if theirs != ours:
            raise UserError(
                f"out={out} holds {path.name} of other runs: name another folder, or force=true to replace it",
                key="out",
                value=str(out),
            )


def full_precision() -> None:
    """No TF32 on a GPU."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def already_done(path: Path, models: Sequence[Model], settings: dict[str, Any]) -> dict[str, Any] | None:
    """The record at `path`, if it is of the same weights under the same settings."""
    try:
        record = read_json(path)
        keys = ("run", "hash", "checkpoint_sha256", "finished")
        same = [[m[key] for key in keys] for m in record["models"]] == [[m.facts[key] for key in keys] for m in models]
        return record if same and record["settings"] == settings else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def show(record: dict[str, Any], console: Console) -> None:
    """The summary of every model."""
    unit = record.get("unit", "images")
    console.print(f"{record['analysis']} (Figure {record['figure']}), {record['images']} {unit}")
    for model in record["models"]:
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in model["summary"].items() if value is not None)
        console.print(f"  {model['name']}: {numbers}  ({model['seconds']:.0f} s)")


def analyze(words: list[str], console: Console) -> list[dict[str, Any]]:
    """The command: measure, write and print each analysis; returns the records.

    Raises:
        UserError: the command line, a run or its data is not right, or an encoder has not what an analysis looks at.
    """
    options = parse(words)
    data = [saved_configuration(run, options.overrides).data for run in options.runs]
    if several := [run for run, of_run in zip(options.runs, data, strict=True) if of_run.multi_label]:
        raise UserError(
            f"run {several[0]} gives an image several labels, and the analyses look at one class of each: use"
            " python -m src.predict run=... explain=true, which shows the evidence for the most probable label",
            key="runs",
        )
    frames = [of_run.frames for of_run in data]
    options = parse(words, clips=frames[0] is not None)
    # Heavy imports only for a command line that can be right.
    from ssat.analysis.figures import analysis_of
    from ssat.commands.models import load_models
    from ssat.core.files import refuse_unwritable

    full_precision()
    values = options.values
    models = load_models(options.runs, options.overrides, checkpoint=values["checkpoint"], split=values["split"])
    out = Path(values["out"]) if values["out"] else default_out(options.runs, models)
    clips = models[0].encoder.takes_clips
    analyses = {name: analysis_of(name, values, clips=clips) for name in options.analyses}
    refuse_unfit(analyses, models)
    if values["out"] and not values["force"]:
        refuse_others(out, analyses, models)
    records = []
    for name, analysis in analyses.items():
        settings = options.settings(name)
        done = None if values["force"] else already_done(out / f"{name}.json", models, settings)
        if done is None:
            refuse_unwritable(out, key="out", value=out, cure="name another folder")
            done = run_analysis(name, analysis, models, values, settings, out, console)
            show(done, console)
            console.print(f"  written to {out / name}.json")
        else:
            show(done, console)
            console.print(f"  already there, from {out / name}.json (force=true measures again)")
        records.append(done)
    return records


def run_analysis(
    name: str,
    analysis: Analysis,
    models: Sequence[Model],
    values: dict[str, Any],
    settings: dict[str, Any],
    out: Path,
    console: Console,
) -> dict[str, Any]:
    """Measure every model and write the files of one analysis; returns its record."""
    from ssat.analysis.models import choose_images, choose_varied
    from ssat.analysis.output import header, model_entry, write_curves, write_grids, write_strips

    if analysis.panels:
        chosen = choose_images(models[0], values["images"], values["seed"])
    else:
        chosen = choose_varied(models[0], values["pictures"], values["seed"])
    results, entries = [], []
    for model in models:
        started = time.perf_counter()
        # The Hessian has a bar of its own.
        with nullcontext() if name == "hessian" else console.status(f"{name}: {model.name}"):
            results.append(analysis.measure(model, chosen))
        entries.append(model_entry(model, results[-1], time.perf_counter() - started))
    record = header(name, analysis, models[0], settings, entries, chosen)
    if analysis.panels:
        write_curves(out, record, analysis.panels, models, results)
    elif analysis.strip:
        write_strips(out, record, analysis.strip, models, results)
    else:
        labels = models[0].labels(models[0].split)
        titles = [models[0].data.class_names[labels[index]] for index in chosen]
        write_grids(out, record, titles, models, results)
    return record


def main() -> None:
    """The command."""
    console = Console(highlight=False, soft_wrap=True)
    left = "what was being measured was not written"
    run_words(lambda words: analyze(words, console), USAGE, interrupted=left, config_dir=True)
