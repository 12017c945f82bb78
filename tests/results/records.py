"""Made-up runs, shaped like those that src.train writes, and what tests of reports need beside them."""

import copy
import io
import json
import random
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from PIL import Image

from ssat.config.resolve import resolve
from ssat.config.words import CONF
from ssat.data.sets.catalog import CATALOG
from ssat.runs.record import SCHEMA, Record, read_records, write_record

PHASES = {
    "scratch": [("scratch", 1.0)],
    "ssl_ft": [("pretrain", 0.0), ("finetune", 1.0)],
    "ssat": [("joint", 0.1)],
}
SPLITS = {"train": 1437, "test": 360}


def history(lam: float, epochs: int, accuracy: float) -> list[dict[str, float]]:
    """Losses that fall and, where labels are learnt, an accuracy that rises to `accuracy`."""
    rows = []
    for epoch in range(epochs):
        done = (epoch + 1) / epochs
        row = {
            "epoch": epoch,
            "step": 45 * (epoch + 1),
            "seconds": 3.0,
            "lr": 1e-3 * (1 - done),
            "train/loss": 2 - done,
        }
        row |= {"train/loss_ssl": 1.2 - 0.8 * done} if lam < 1 else {}
        if lam > 0:
            row |= {"train/loss_cls": 2.3 - done, "test/acc1": accuracy * done**0.5, "test/loss": 2.2 - done}
        rows.append(row)
    return rows


def make_record(
    mode: str = "ssat",
    *,
    seed: int = 0,
    accuracy: float = 80.0,
    epochs: int = 12,
    encoder: str = "vit_micro",
    **more: Any,
) -> dict[str, Any]:
    """The record of a finished run; `more` replaces top-level keys."""
    phases = [
        {
            "name": name,
            "lam": lam,
            "epochs": epochs,
            "seconds": 3.0 * epochs + 1,
            "class_names": [str(digit) for digit in range(10)],
            "history": history(lam, epochs, accuracy),
            "reconstructions": [f"{name}/reconstructions/epoch_{epochs:04d}.png"] if lam < 1 else [],
        }
        for name, lam in PHASES.get(mode, [(mode, 1.0)])
    ]
    recipe = {"name": "official", "batch_size": 32, "base_lr": 1e-3, "norm_pix": False}
    record = {
        "schema": SCHEMA,
        "status": "finished",
        "error": None,
        "name": f"{encoder}-digits-{mode}-s{seed}",
        "hash": f"{abs(hash((mode, seed))) % 16**8:08x}",
        "experiment": "quickstart",
        "encoder": encoder,
        "data": "digits",
        "mode": mode,
        "seed": seed,
        "config": {
            "encoder": {"name": encoder},
            "data": {"name": "digits"},
            "mode": {
                "name": mode,
                "phases": [{"name": n, "lam": v, "recipe": recipe} for n, v in PHASES.get(mode, [])],
            },
            "ssl": {"mask_ratio": 0.75, "norm_pix": None},
            "recipe": recipe,
            "epochs": epochs,
            "seed": seed,
            "name": f"{encoder}-digits-{mode}-s{seed}",
        },
        "git_commit": "0123456789abcdef+",
        "versions": {"python": "3.11.7", "torch": "2.15.0"},
        "hardware": {"device": "AMD EPYC", "accelerator": "cpu"},
        "started": "2026-11-23T10:00:00+00:00",
        "finished": "2026-11-23T10:01:00+00:00",
        "seconds": 3.0 * epochs * len(phases) + 2,
        "steps": 45 * epochs * len(phases),
        "images_per_s": 512.3,
        "params": {"inference": 449_866, "training": 859_788 if mode != "scratch" else 449_866},
        "macs": {"full": 32_073_408, "auxiliary": 35_846_912, "both": 67_920_320},
        "peak_memory_bytes": 1_101_193_216,
        "energy": {
            "kwh": 4.04e-4,
            "co2_kg": 1.49e-4,
            "co2_kg_lacoste": 6.15e-5,
            "source": "codecarbon, modelled from CPU load",
            "country": "USA",
        },
        "data_fingerprint": {"name": "digits", "splits": dict(SPLITS), "sha256": {"train": "ee", "test": "2f"}},
        "metrics": {"test": {"acc1": {"last": accuracy, "best": min(100.0, accuracy + 0.5), "best_epoch": epochs - 2}}},
        "selection": "last",
        "faithful": False,
        "unfaithful_reasons": ["digits is not one of the paper's data sets"],
        "phases": phases,
    }
    return record | more


def failed_record(mode: str = "ssat", **more: Any) -> dict[str, Any]:
    """What src.train writes when a run fails: no phases, no metrics, no costs."""
    record = make_record(mode)
    kept = ("schema", "name", "hash", "experiment", "encoder", "data", "mode", "seed", "config", "hardware", "finished")
    return (
        {key: record[key] for key in kept}
        | {
            "status": "failed",
            "error": "UserError: the loss became nan at step 7",
            "metrics": {},
            "phases": [],
            "faithful": False,
            "unfaithful_reasons": ["the run failed"],
        }
        | more
    )


def save(runs: Path, record: dict[str, Any], *, group: str = "quickstart", picture: bytes | None = None) -> Path:
    """Write the run's folder, with `picture` as its reconstructions."""
    folder = runs / group / f"{record['name'].replace('/', '_')}-{record['hash']}"
    for phase in record["phases"]:
        for name in phase["reconstructions"] if picture else ():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(picture)
    write_record(folder, record)
    return folder


def load(runs: Path, *records: dict[str, Any]) -> list[Record]:
    """The records as reports get them: written and read again."""
    for record in records:
        save(runs, record)
    return read_records(runs)[0]


def noise_png(width: int, height: int) -> bytes:
    """A picture that hardly compresses: about 3 bytes a pixel."""
    buffer = io.BytesIO()
    Image.frombytes("RGB", (width, height), random.Random(0).randbytes(3 * width * height)).save(buffer, "PNG")
    return buffer.getvalue()


@cache
def _composed(words: tuple[str, ...]) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return dict(resolve(compose("train", overrides=list(words))).values)


def sizes_of(data: str) -> dict[str, int]:
    """Images that the paper trains on and tests on, of an official set; else those of CIFAR-10."""
    card = CATALOG.get(data, CATALOG["cifar10"])
    return {"train": card.trained, "test": card.test}


def run_of(
    *words: str,
    accuracy: float = 90.0,
    experiment: str = "depths",
    seed: int = 0,
    faithful: bool = True,
    **more: Any,
) -> Record:
    """A finished run with the configuration that the command line composes from `words`; it lies in no folder."""
    config = copy.deepcopy(_composed(words)) | {"seed": seed}
    values = {
        "name": "run",
        "status": "finished",
        "encoder": config["encoder"]["name"],
        "data": config["data"]["name"],
        "mode": config["mode"]["name"],
        "seed": seed,
        "experiment": experiment,
        "config": config,
        "faithful": faithful,
        "hardware": {"device": "NVIDIA RTX A5000", "accelerator": "cuda", "processes": 1},
        "data_fingerprint": {"splits": sizes_of(config["data"]["name"]), "sha256": {"train": "a"}},
        "metrics": {"test": {"acc1": {"last": accuracy, "best": accuracy}}},
        "phases": [{"lam": 0.1, "macs": {"full": 1e9, "auxiliary": 4e8, "both": 1.4e9}}],
    }
    return Record(Path("runs/depths/run/result.json"), "depths", values | more)


def write_json(path: Path, values: Any) -> Path:
    """Write a file of any content, in folders that are made where they are missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return path
