"""What `model.json` says of a network: how to prepare its images, what it learned from, and what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssat.config.schema import Phase, Run
from ssat.core.errors import UserError
from ssat.core.files import file_sha256
from ssat.data.transforms.timm_transforms import eval_transform
from ssat.runs.calibration import doubt, recorded_temperature
from ssat.runs.folder import read_config, read_record
from ssat.runs.record import as_number, lookup
from ssat.runs.saved import COPY

SCHEMA = 1
KIND = "ssat-model"
NOT_THE_PAPER = "not to be compared with the paper's tables"  # beginning of a caveat


def finished_record(run: Path) -> dict[str, Any]:
    """The record of a finished run.

    Raises:
        UserError: it is not finished, or its record is damaged.
    """
    path = run / "result.json"
    record = read_record(path, COPY) if path.is_file() else {}
    if record.get("status") != "finished":
        how = "has failed" if record else "is not finished"
        raise UserError(
            f"run={run} {how}, and only a finished run is exported: the command that began it continues it", key="run"
        )
    return record


def phase_record(record: dict[str, Any], run: Path) -> dict[str, Any]:
    """The record of the last phase, with its class names.

    Raises:
        UserError: the record does not say them.
    """
    phases = record.get("phases")
    last = phases[-1] if isinstance(phases, list) and phases else None
    classes = lookup(last, "class_names") if isinstance(last, dict) else None
    if not isinstance(last, dict) or not isinstance(classes, list) or not classes:
        raise UserError(f"{run / 'result.json'} is damaged, it does not say the classes: {COPY}", key="run")
    return last


def statistics(phase: dict[str, Any], run: Path) -> dict[str, list[float]]:
    """`mean` and `std` of the normalisation, as the phase has recorded them.

    Raises:
        UserError: the record does not say them.
    """
    values = {name: lookup(phase, f"statistics.{name}") for name in ("mean", "std")}
    for name, given in values.items():
        if not isinstance(given, list) or not given or any(as_number(value) is None for value in given):
            raise UserError(f"{run / 'result.json'} is damaged, it does not say the {name} of its pixels: {COPY}")
    return {name: [float(value) for value in given] for name, given in values.items()}


def preprocessing(config: Run, phase: Phase, moments: dict[str, list[float]]) -> dict[str, Any]:
    """How a picture becomes the network's input.

    Returns:
        img_size (pixels), resize (of the short side; of clips the long side), crop (centre, pixels), interpolation,
        channels, value_range, mean, std; of clips frames and frame_step too.
    """
    data = config.data
    common = {"img_size": data.img_size, "channels": data.channels, "value_range": data.value_range}
    if data.frames is not None:
        clip = {"frames": data.frames, "frame_step": data.frame_step, "average": data.average}
        return common | {"resize": data.img_size, "crop": None, "interpolation": "fit, black around"} | clip | moments
    options: Any = moments | {"channels": data.channels, "crop_pct": phase.recipe.eval_crop_pct}
    made: Any = eval_transform(data.img_size, **options)
    resize, crop = made.transforms[:2]
    if data.channels not in (1, 3):
        resize, crop = resize.transform, crop.transform
    return common | {
        "resize": _side(resize.size),
        "crop": _side(crop.size),
        "interpolation": resize.interpolation.value,
        **moments,
    }


def _side(size: Any) -> int:
    """Of a square, or of the short side."""
    return int(size if isinstance(size, int) else size[0])


def measured(record: dict[str, Any], checkpoint: str, epoch: int | None) -> dict[str, float]:
    """The metrics of a checkpoint as `test/acc1`; {} of a file, of which nothing is recorded.

    Args:
        record: of the run.
        checkpoint: best, last or a file.
        epoch: of its weights, from 1.
    """
    found, splits = {}, record.get("metrics")
    for split, metrics in splits.items() if isinstance(splits, dict) else ():
        for name, values in metrics.items() if isinstance(metrics, dict) else ():
            value = as_number(lookup(values, checkpoint))
            # `best` of a metric may be of another epoch than the checkpoint, which the deciding one has chosen.
            same = checkpoint == "last" or epoch is None or lookup(values, "best_epoch") == epoch - 1
            if value is not None and same:
                found[f"{split}/{name}"] = value
    return found


PARTS = {"fraction": 1.0, "label_fraction": 1.0, "samples_per_class": None}  # of the training data


def caveats(config: Run, record: dict[str, Any], checkpoint: str) -> list[str]:
    """What to keep in mind about the metrics of a checkpoint: best, last or a file."""
    found = []
    if checkpoint not in ("best", "last"):
        found.append("nothing is recorded of this checkpoint file: python -m src.evaluate measures it")
    if checkpoint == "best" and not lookup(record, "metrics.val"):
        found.append("the test images also chose this epoch, so their numbers are optimistic")
    parts = {key: getattr(config.data, key) for key, whole in PARTS.items() if getattr(config.data, key) != whole}
    if parts:
        keys = ", ".join(f"data.{key}={value:g}" for key, value in parts.items())
        found.append(f"it has learned from a part of the training data ({keys})")
    if skipped := record.get("skipped_images"):
        found.append(f"{len(skipped)} unreadable images were left out")
    if reasons := record.get("unfaithful_reasons"):
        found.append(f"{NOT_THE_PAPER}: {'; '.join(map(str, reasons))}")
    return found


def of_temperature(phase: dict[str, Any], temperature: float | None) -> list[str]:
    """The caveat of a temperature that has not helped, from the record of its phase."""
    sentence = "" if temperature is None else doubt(lookup(phase, "classification") or {})
    return [sentence] if sentence else []


def gather(
    config: Run, run: Path, phase: Phase, record: dict[str, Any], *, checkpoint: str, path: Path, epoch: int | None
) -> dict[str, Any]:
    """All that model.json says besides the format and its parity.

    Args:
        config: of the run.
        run: its folder.
        phase: the last one.
        record: of the finished run.
        checkpoint: best, last or a file.
        path: of the checkpoint.
        epoch: of its weights, from 1; None where the file does not say it.

    Raises:
        UserError: the record is damaged.
    """
    last = phase_record(record, run)
    moments = statistics(last, run)
    temperature = recorded_temperature(last, is_last=path.stem == "last" or epoch == phase.epochs)
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "name": record.get("name"),
        "hash": record.get("hash"),
        "classes": [str(name) for name in last["class_names"]],
        "num_classes": len(last["class_names"]),
        **({"multi_label": True, "output": "sigmoid of each logit"} if config.data.multi_label else {}),
        "phase": phase.name,
        "checkpoint": {"name": path.stem, "epoch": epoch, "epochs": phase.epochs, "sha256": file_sha256(path)},
        "statistics": moments,
        "preprocessing": preprocessing(config, phase, moments),
        "temperature": temperature,
        "metrics": measured(record, checkpoint, epoch),
        "caveats": [*caveats(config, record, checkpoint), *of_temperature(last, temperature)],
        "data_splits": lookup(last, "data_fingerprint.splits"),
        "data_sha256": lookup(last, "data_fingerprint.sha256"),
        "params": as_number(lookup(last, "params.inference")),
        "macs": as_number(lookup(last, "macs.full")),
        "footprint": {
            "seconds": as_number(record.get("seconds")),
            "device": lookup(record, "hardware.device"),
            "energy_kwh": as_number(lookup(record, "energy.kwh")),
            "co2_kg": as_number(lookup(record, "energy.co2_kg")),
            "co2_kg_lacoste": as_number(lookup(record, "energy.co2_kg_lacoste")),
            "energy_shared": lookup(record, "energy.shared"),
        },
        "git_commit": record.get("git_commit"),
        "versions": record.get("versions"),
        "config": read_config(run / "config.yaml", COPY),
    }
