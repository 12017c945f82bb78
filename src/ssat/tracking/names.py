"""What W&B shows of a run: the axes of its curves, its configuration's flat columns and its record's figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssat.config.schema import Phase, Run
from ssat.runs.record import Record

RESULT_TAG = "result"  # of the W&B runs that end with the accuracy of a run, one per run
STEP = "trainer/global_step"
AXES = {  # metrics as define_metric takes them: x axis and what the runs' table keeps of each
    "train/*": (STEP, "last"),
    "epoch/train/*": ("epoch", "last"),
    "epoch/train/loss*": ("epoch", "min,last"),
    "throughput/*": ("epoch", "mean,last"),
    "reconstructions": ("epoch", "none"),
    "spectrum": ("epoch", "none"),
} | {
    f"{split}/{name}": ("epoch", kept)
    for split in ("test", "val")
    for name, kept in (
        ("*", "last"),
        ("acc1", "max,last"),
        ("acc5", "max,last"),
        ("map", "max,last"),
        ("loss", "min,last"),
    )
}
FIGURES = {  # name in the summary -> key of the record
    "acc1_last": "metrics.{split}.acc1.last",
    "acc1_best": "metrics.{split}.acc1.best",
    "best_epoch": "metrics.{split}.acc1.best_epoch",
    "acc5_last": "metrics.{split}.acc5.last",
    "map_last": "metrics.{split}.map.last",
    "map_best": "metrics.{split}.map.best",
    "map_best_epoch": "metrics.{split}.map.best_epoch",
    "loss_last": "metrics.{split}.loss.last",
    "balanced_acc_last": "metrics.{split}.balanced_acc.last",
    "macro_f1_last": "metrics.{split}.macro_f1.last",
    "auroc_last": "metrics.{split}.auroc.last",
    "auc_last": "metrics.{split}.auc.last",  # of videos
    "seconds": "seconds",
    "steps": "steps",
    "images_per_s": "images_per_s",
    "data_wait": "data_wait",
    "params_inference": "params.inference",
    "params_training": "params.training",
    "macs_inference": "macs.full",
    "macs_both_passes": "macs.both",
    "macs_step": "macs.step",
    "peak_memory_bytes": "peak_memory_bytes",
    "kwh": "energy.kwh",
    "co2_kg": "energy.co2_kg",
    "co2_kg_lacoste": "energy.co2_kg_lacoste",
    "energy_source": "energy.source",
    "energy_shared": "energy.shared",
    "train_images": "data_fingerprint.splits.train",
    "test_images": "data_fingerprint.splits.test",
    "faithful": "faithful",
}


def figures(values: dict[str, Any]) -> dict[str, Any]:
    """The figures of a run's (or a phase's) record as `result/<name>`; what is missing is left out."""
    record = Record(Path(), "", values)
    found = {name: record.get(key.format(split=record.split)) for name, key in FIGURES.items()}
    found |= {"kwh": record.number("energy.kwh"), "co2_kg": record.number("energy.co2_kg")}  # None where it is shared
    found["acc1"] = record.accuracy  # THE accuracy, as tables show it
    seconds = record.number("seconds")
    found["hours"] = None if seconds is None else seconds / 3600
    found["data_sha256"] = record.text("data_fingerprint.sha256.train") or None
    if found["faithful"] is not None:
        found["unfaithful_reasons"] = "; ".join(record.items("unfaithful_reasons"))
    return {f"result/{name}": value for name, value in found.items() if value is not None}


def columns(run: Run, phase: Phase) -> dict[str, Any]:
    """What runs differ in, flat and with the recipe's defaults filled in, for W&B's columns and axes."""
    found: dict[str, Any] = {
        "encoder_name": run.encoder.name,
        "data_name": run.data.name,
        "mode_name": run.mode.name,
        "ssl_name": None,
        "phase": phase.name,
        "lam": phase.lam,
        "fraction": run.data.fraction,
        "label_fraction": run.data.label_fraction,
        "batch_size": phase.recipe.batch_size,
        "base_lr": phase.recipe.base_lr,
        "phase_epochs": phase.epochs,
    }
    self_supervised = [each for each in run.mode.phases if each.lam < 1]
    if not self_supervised:
        return found
    found["ssl_name"] = "+".join(run.ssl.tasks)
    if len(run.ssl.tasks) > 1:
        return found
    (task,) = run.ssl.tasks.values()
    decoders = self_supervised[0].recipe.decoder
    size = decoders.get(run.encoder.name, decoders["default"])
    sizes = {"decoder_dim": size.dim, "decoder_depth": size.depth, "decoder_heads": size.num_heads}
    for name, default in ({"mask_ratio": None} | sizes).items():
        if name in task.options:
            given = task.options[name]
            found[name] = default if given is None else given
    return found
