"""Evaluate a trained run, clean and perturbed. python -m src.evaluate run=<run folder> data.perturb=perspective"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.progress import track
from rich.table import Table

from src.cli import CONF, run_words
from src.config import Config, check, config_hash, flatten, nearest
from src.errors import UserError
from src.run_folder import read_config, read_record

COPY = "copy the run again"  # what to do about a run folder with a damaged file
USAGE = """\
python -m src.evaluate run=<run folder> [data.perturb=<perturbation>] [key=value ...]

Evaluates the last phase of a run as its training did, and beside it on perturbed images; writes
<run>/evaluations/<checkpoint>-<split>-<perturbation>.json.

  run=<folder>            of python -m src.train
  checkpoint=last         last, best, or a checkpoint file of that run
  split=test              test or val
  phase=<the last>        of the run: pretrain, finetune, joint ...
  probe=knn,linear        what the encoder's features are worth, also where no labels were learned: k-NN (20 neighbours,
                          temperature 0.07) and a logistic regression, both on the training images
  data.perturb=<name>     perspective (Table 2), corruptions (15 families at 5 severities), or one family
  seeds=5                 of the perspective: mean and deviation over them
  severities=1,2,3,4,5    of the corruptions
  batch_size=<the run's>  images at a time; under bf16 another size may change a few predictions
  force=true              evaluate again what has been evaluated
  data.root=... trainer.accelerator=cpu ...     any key of the run that has changed since
"""
OWN = {
    "run": "",
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
PROBED = {"acc1": "clean", "knn_acc1": "k-NN", "linear_acc1": "linear probe"}
HANDED_ON = ("data", "trainer")  # groups whose keys may be changed


def parse(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """This command's own options, and the overrides of the run's configuration.

    Raises:
        UserError: no run, a word without a value or an unknown key.
    """
    options, overrides = dict(OWN), []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{word!r} has no value: write key=value (--help lists the keys)")
        if key in OWN:
            options[key] = value
        elif key.split(".")[0] in HANDED_ON and "." in key:
            overrides.append(word)
        else:
            raise UserError(f"there is no option {key!r}{nearest(key, list(OWN))} (--help lists them)")
    if not options["run"]:
        raise UserError("say which run: run=<folder that python -m src.train has made>")
    if not {*options["probe"].split(",")} <= {"", "knn", "linear"}:
        raise UserError(f"probe={options['probe']} is not possible: it is knn, linear or knn,linear")
    if options["probe"] and options["data.perturb"]:
        raise UserError("probe= measures clean images: leave data.perturb out, or run two commands")
    for key in ("seeds", "batch_size"):
        if key == "batch_size" and not options[key]:
            continue
        if not options[key].isdigit() or int(options[key]) < 1:
            raise UserError(f"{key}={options[key]} is not possible: it must be a whole number from 1 on")
    return options, overrides


def configuration(run: Path, overrides: list[str]) -> Config:
    """The run's configuration with the overrides, which must name keys that it has.

    Raises:
        UserError: there is no run, its configuration is damaged, or there is no such key.
    """
    path = run / "config.yaml"
    if not path.is_file():
        raise UserError(f"run={run} is no run folder: {path} does not exist")
    config = read_config(path, COPY)
    if not isinstance(config.get("data"), dict):
        raise UserError(f"{path} is damaged: {COPY}")
    defaults: Any = OmegaConf.to_container(OmegaConf.load(CONF / "data" / "base.yaml"), resolve=False)
    config["data"] = defaults | config["data"]  # a run of an earlier version lacks the keys that have come since
    keys = list(flatten(config))
    for word in overrides:
        key = word.split("=")[0]
        if key not in keys:
            raise UserError(f"the run has no key {key!r}{nearest(key, keys)}")
    try:
        changed: Any = OmegaConf.to_container(OmegaConf.merge(config, OmegaConf.from_dotlist(overrides)))
    except OmegaConfBaseException as error:
        raise UserError(f"{' '.join(overrides)} is not understood: {str(error).splitlines()[0]}") from error
    # The saved configuration is resolved: the reader's arguments are copies of the keys above them.
    source = changed["data"]["source"]
    changed["data"]["source"] = {key: changed["data"].get(key, value) for key, value in source.items()}
    return changed


def find_checkpoint(run: Path, phase: str, name: str) -> Path:
    """`last`, `best` or a file.

    Raises:
        UserError: it does not exist; says which do.
    """
    folder = run / phase / "checkpoints"
    path = folder / f"{name}.ckpt" if name in ("last", "best") else Path(name)
    if not path.is_file():
        there = sorted(file.stem for file in folder.glob("*.ckpt"))
        raise UserError(
            f"checkpoint={name}: {path} does not exist, "
            + (f"the run has {', '.join(there)}" if there else f"the run has not finished an epoch of phase {phase}")
        )
    return path


class Evaluator:
    """The network of a run, ready to measure its accuracy on any loader.

    Raises:
        UserError: data or checkpoint do not fit.
    """

    def __init__(
        self, config: Config, run: Path, phase_name: str, checkpoint: str, split: str, batch_size: int
    ) -> None:
        from src.build import build_data, build_module, runs_on_cpu
        from src.weights import load_checkpoint

        phases = {phase["name"]: phase for phase in config["mode"]["phases"]}
        if phase_name and phase_name not in phases:
            raise UserError(f"phase={phase_name} does not exist, the run has {', '.join(phases)}")
        phase = phases[phase_name or list(phases)[-1]]
        self.path = find_checkpoint(run, phase["name"], checkpoint)
        self.data = build_data(config, phase)
        self.data.setup()
        if split not in self.data.sizes:
            raise UserError(f"split={split} does not exist, the data have {', '.join(self.data.sizes)}")
        self.data.batch_size = batch_size or phase["recipe"]["batch_size"]
        self.split = split
        self._same_classes(run, phase["name"])
        eager = config | {"trainer": config["trainer"] | {"compile": False}}
        self.module = build_module(eager, phase, self.data.num_classes)
        try:
            self.module.load_state_dict(load_checkpoint(self.path)["state_dict"])
        except (RuntimeError, KeyError) as error:
            raise UserError(f"{self.path} does not hold the network of {run}: {str(error).splitlines()[0]}") from error
        self.device = torch.device("cpu" if runs_on_cpu(config) else "cuda")
        self.module.to(self.device).eval()
        precisions = {"bf16": torch.bfloat16, "16": torch.float16}
        self.precision = precisions.get(str(config["trainer"]["precision"]))

    def _same_classes(self, run: Path, phase: str) -> None:
        record = run / phase / "phase.json"
        trained = self.data.class_names
        if record.is_file():
            trained = read_record(record, COPY).get("class_names", trained)
        if trained != list(self.data.class_names):
            new = sorted(set(self.data.class_names) ^ set(trained))
            raise UserError(
                f"the run was trained on {len(trained)} classes and the data have {len(self.data.class_names)}"
                f" (the first that differs: {new[0] if new else 'their order'}): give the data it was trained on"
            )

    def probe(self, names: list[str]) -> dict[str, float]:
        """Accuracies of the probes in percent."""
        from src.probe import probe

        return probe(self.module.encoder, self.data, self.split, self.device, names)

    @torch.inference_mode()
    def accuracy(self, perturb: Any = None, title: str = "clean", console: Console | None = None) -> dict[str, float]:
        """acc1 and acc5 in percent and the mean loss; every image counts once."""
        loader: Iterable[Any] = self.data.eval_loader(self.split, perturb)
        if console is not None and console.is_terminal:
            loader = track(loader, title, console=console, transient=True)
        for number, batch in enumerate(loader):
            moved = batch._replace(images=batch.images.to(self.device), targets=batch.targets.to(self.device))
            # Not around the loader: the batched pipeline would resize in half precision.
            with torch.autocast(self.device.type, self.precision) if self.precision else nullcontext():
                self.module.validation_step(moved, number)
        values = {}
        for name in self.module.meters:
            meter = self.module.meter(name)
            values[name] = float(meter.compute() * (100 if name.startswith("acc") else 1))
            meter.reset()
        return values


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


def show(record: dict[str, Any], console: Console) -> None:
    """One short table."""
    clean = record["clean"] | (record.get("probe") or {})
    named = [f"{PROBED[name]} acc1 {value:.2f} %" for name, value in clean.items() if name in PROBED]
    rest = [f"{name} {value:.4g}" for name, value in clean.items() if name not in PROBED]
    console.print(f"{record['run']} ({record['checkpoint']}, {record['split']}): {', '.join(named + rest)}")
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


def evaluate(words: list[str], console: Console) -> dict[str, Any]:
    """The command: evaluate, write the record, print it.

    Raises:
        UserError: the command line, the run, the data or the checkpoint is not right.
    """
    options, overrides = parse(words)
    run = Path(options["run"])
    config = configuration(run, overrides)
    check(config)
    # Heavy imports only for a command line that can be right.
    from src.data.perturb import SEVERITIES, perturbations
    from src.provenance import versions
    from src.results.record import write_record

    chosen = options["severities"].strip("[]").split(",")
    if not {*chosen} <= {str(severity) for severity in SEVERITIES}:
        raise UserError(f"severities={options['severities']} is not possible: choose from 1,2,3,4,5")
    perturb = options["data.perturb"]
    sets = {}
    if perturb and perturb != "null":
        sets = perturbations(perturb, seeds=int(options["seeds"]), severities=tuple(map(int, chosen)))
    what = options["probe"].replace(",", "+") or perturb or "clean"
    of_phase = f"{options['phase']}-" if options["phase"] else ""
    name = f"{of_phase}{Path(options['checkpoint']).stem}-{options['split']}-{what}.json"
    settings = {key: value for key, value in options.items() if key not in ("force", "run")} | {"overrides": overrides}
    done = run / "evaluations" / name
    if done.is_file() and options["force"] != "true":
        record = read_record(done, "move it away, or force=true to evaluate again")
        if record.get("settings") == settings:
            console.print(f"already evaluated, from {done} (force=true evaluates again):")
            show(record, console)
            return record
    evaluator = Evaluator(
        config, run, options["phase"], options["checkpoint"], options["split"], int(options["batch_size"] or 0)
    )
    if evaluator.module.head is None and not options["probe"]:
        raise UserError(
            f"run={run} has learned no labels (lam=0): there is no accuracy to measure but that of probe=knn,linear"
        )
    if not (run / "result.json").is_file():
        console.print(f"note: {run} is not finished; this is its checkpoint {evaluator.path.name}")
    clean = evaluator.accuracy(console=console) if evaluator.module.head is not None else {}
    perturbed = {label: evaluator.accuracy(function, label, console) for label, function in sets.items()}
    record = {
        "run": str(run),
        "hash": config_hash(config),
        "checkpoint": options["checkpoint"],
        "split": options["split"],
        "perturb": perturb or None,
        "settings": settings,
        "clean": clean,
        "probe": evaluator.probe(options["probe"].split(",")) if options["probe"] else None,
        "perturbed": perturbed,
        "summary": summarise(perturbed) if perturbed else None,
        "data_fingerprint": evaluator.data.fingerprint(),
        "versions": versions(),
    }
    write_record(run / "evaluations", record, name=name)
    show(record, console)
    console.print(f"written to {done}")
    return record


def main() -> None:
    console = Console(highlight=False, soft_wrap=True)
    run_words(lambda words: evaluate(words, console), USAGE, interrupted="nothing was written")


if __name__ == "__main__":
    main()
