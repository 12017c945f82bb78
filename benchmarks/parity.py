"""A training of ours against the authors' code on the same weights, batches and masks: their losses at every step.

    python -m benchmarks.parity authors=<their repository> images=<train/ and test/ of class folders> [steps=300]

`authors` is a checkout of the paper's public code, of which the network, the schedule and the loop's arithmetic are
used. Ours is the real command, `python -m src.train mode=ssat recipe=official` with ViT-T, patch 4, 32 pixels and 16
images a step in fp32, whose first weights, batches and mask noise are kept. Theirs then learns from these. Prints the
largest relative difference of the loss and of its two parts, and of the weights behind the last step, and writes
runs/benchmarks/parity.json with both curves. Exit code 1: the losses differ by more than 1e-3 somewhere.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import param_groups_weight_decay
from torch import Tensor

from benchmarks.device import refuse
from ssat.core.batch import Batch
from ssat.runs.machine import versions
from ssat.training.authors_weights import to_official

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "runs" / "benchmarks" / "parity.json"
DEFAULTS = {"authors": "", "images": "", "steps": "300", "json": str(OUT)}
BATCH, PATCH, SIZE, EPOCHS, WARM_UP = 16, 4, 32, 5, 1
LAM, RATE, LOWEST, DECAY, SMOOTHING, HIDDEN = 0.1, 1e-3, 1e-6, 0.05, 0.1, 0.75  # of recipe=official and the paper
BAR = 1e-3
PARTS = ("loss", "loss_cls", "loss_ssl")


class Recorder(Callback):
    """Keeps the first weights, and each step's batch, mask noise and losses, in `folder`/recorded.pt.

    Args:
        folder: to write to.
    """

    def __init__(self, folder: str) -> None:
        self.file = Path(folder) / "recorded.pt"
        self.kept: dict[str, Any] = {"steps": []}
        self.noise: list[Tensor] = []

    def weights(self, module: Any) -> dict[str, Tensor]:
        """The network under the authors' names."""
        state = to_official(module.encoder, module.ssl, module.head)
        return {name: value.detach().clone() for name, value in state.items()}

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Keep the weights, and see every mask from now on."""
        self.kept |= {"first": self.weights(pl_module), "classes": pl_module.head.out_features}
        draw, losses = pl_module.ssl.mask_of, pl_module.losses

        def seen(noise: Tensor) -> Tensor:
            self.noise.append(noise.clone())
            return draw(noise)

        def told(batch: Batch, progress: Any) -> Any:
            loss, values = losses(batch, progress)
            parts = {name: float(values[name].detach()) for name in PARTS}
            step = {"images": batch.images.clone(), "targets": batch.targets, "noise": self.noise.pop()}
            self.kept["steps"].append(step | {"parts": parts, "batches": len(trainer.train_dataloader)})
            return loss, values

        pl_module.ssl.mask_of, pl_module.losses = seen, told

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write it."""
        torch.save(self.kept | {"last": self.weights(pl_module)}, self.file)


def ours(images: str, steps: int, folder: Path) -> dict[str, Any]:
    """What a training of `steps` steps has kept."""
    each = -(-steps * BATCH // EPOCHS // 10)
    words = ["encoder=vit_t", f"encoder.patch_size={PATCH}", "data=image_folder", f"data.root={images}", "mode=ssat"]
    words += [
        f"data.img_size={SIZE}",
        f"data.samples_per_class={each}",
        "recipe=official",
        f"recipe.batch_size={BATCH}",
    ]
    words += [f"recipe.warmup_epochs={WARM_UP}", "recipe.drop_last=true", f"epochs={EPOCHS}", f"eval_every={EPOCHS}"]
    words += [
        "data.max_test=100",
        "trainer=cpu",
        "trainer.precision=32",
        "footprint.energy=false",
        "reconstruct_every=0",
    ]
    words += ["monitor.pictures=false", f"run_dir={folder / 'run'}", f"trainer.max_steps={steps}", "mode.lam=0.1"]
    words += [f"callbacks=[{{kind: 'benchmarks.parity:Recorder', folder: '{folder}'}}]"]
    if code := subprocess.run([sys.executable, "-m", "src.train", *words], cwd=ROOT).returncode:
        raise SystemExit(code)
    kept: dict[str, Any] = torch.load(folder / "recorded.pt", weights_only=True)
    return kept


def network_of(folder: Path, classes: int) -> Any:
    """The authors' joint ViT-T; numpy has dropped a name that their code uses."""
    if not (folder / "model_mae_image_loss.py").is_file():
        refuse(f"authors={folder} has no model_mae_image_loss.py: give a checkout of the paper's public code")
    sys.path.insert(0, str(folder))
    np.float = float  # type: ignore[attr-defined]
    sys.modules.setdefault("wandb", types.ModuleType("wandb"))
    try:
        build = importlib.import_module("model_mae_image_loss").mae_vit_tiny
    finally:
        sys.path.remove(str(folder))
    return build(img_size=SIZE, patch_size=PATCH, num_classes=classes, norm_pix_loss=False)


def theirs(folder: Path, kept: dict[str, Any]) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """The losses of each step of the authors' network, optimizer and schedule, and its last weights."""
    model = network_of(folder, kept["classes"])
    model.load_state_dict(kept["first"])
    sys.path.insert(0, str(folder))
    adjust = importlib.import_module("util.lr_sched").adjust_learning_rate
    sys.path.remove(str(folder))
    schedule = types.SimpleNamespace(lr=RATE * BATCH / 256, min_lr=LOWEST, warmup_epochs=WARM_UP, epochs=EPOCHS)
    optimizer = torch.optim.AdamW(param_groups_weight_decay(model, DECAY), lr=schedule.lr)
    criterion, told = LabelSmoothingCrossEntropy(SMOOTHING), []
    model.train()
    for number, step in enumerate(kept["steps"]):
        adjust(optimizer, number / step["batches"], schedule)
        with mock.patch("torch.rand", lambda *_, noise=step["noise"], **__: noise):
            reconstruction, logits = model(step["images"], HIDDEN)
        classification = criterion(logits, step["targets"])
        loss = (1 - LAM) * reconstruction + LAM * classification
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values = (loss, classification, reconstruction)
        told.append({name: float(value.detach()) for name, value in zip(PARTS, values, strict=True)})
    return told, model.state_dict()


def apart(kept: dict[str, Any], told: list[dict[str, float]], last: dict[str, Tensor]) -> dict[str, Any]:
    """The largest relative differences, and where the loss differs most."""
    found: dict[str, Any] = {}
    for name in PARTS:
        each = [
            abs(step["parts"][name] - other[name]) / abs(other[name])
            for step, other in zip(kept["steps"], told, strict=True)
        ]
        found[name] = {"largest": max(each), "step": each.index(max(each)), "first": each[0], "last": each[-1]}
    norms = [((kept["last"][name] - last[name]).norm(), last[name].norm()) for name in last]
    found["weights"] = float(torch.stack([a for a, _ in norms]).norm() / torch.stack([b for _, b in norms]).norm())
    return found


def main(words: Sequence[str]) -> int:
    if {"--help", "-h"} & {*words}:
        print(__doc__)
        return 0
    given = dict(word.partition("=")[::2] for word in words)
    if unknown := given.keys() - DEFAULTS.keys():
        refuse(f"{sorted(unknown)[0]!r} is not an option; options: {', '.join(DEFAULTS)}")
    option = DEFAULTS | given
    if not option["steps"].isdigit() or not int(option["steps"]):
        refuse(f"steps={option['steps']} is not a number of steps: give e.g. steps=300")
    authors, images = Path(option["authors"] or "-").resolve(), Path(option["images"] or "-").resolve()
    if not (images / "train").is_dir():
        refuse(f"images={option['images']} has no folder train: give a folder with train/<class>/* and test/<class>/*")
    network_of(authors, 10)  # refused before a training
    with tempfile.TemporaryDirectory(prefix="ssat-parity-") as work:
        kept = ours(str(images), int(option["steps"]), Path(work))
        told, last = theirs(authors, kept)
    found = apart(kept, told, last)
    curves = {"ours": [step["parts"] for step in kept["steps"]], "theirs": told}
    report = {"steps": len(told), "apart": found, "versions": versions(), **curves}
    Path(option["json"]).parent.mkdir(parents=True, exist_ok=True)
    Path(option["json"]).write_text(json.dumps(report, indent=1) + "\n")
    for name in PARTS:
        one = found[name]
        print(f"{name}: largest relative difference {one['largest']:.1e} (step {one['step']}), last {one['last']:.1e}")
    print(f"loss {told[0]['loss']:.4f} to {told[-1]['loss']:.4f} in {len(told)} steps")
    print(f"weights apart {found['weights']:.1e} of their length")
    print(f"written to {option['json']}")
    return int(found["loss"]["largest"] > BAR)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
