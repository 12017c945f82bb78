"""A trained run, ready to be measured."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from ssat.config.schema import Phase, Run
from ssat.core.batch import Batch
from ssat.core.checkpoints import load_checkpoint, weights_of
from ssat.core.errors import UserError
from ssat.core.launch import say
from ssat.core.tensors import built_within, fill
from ssat.core.terminal import Console
from ssat.core.words import many
from ssat.data.image import ImageDataModule
from ssat.data.video.module import VideoDataModule
from ssat.runs.folder import read_record
from ssat.runs.image_classes import Calibration, ImagePredictions, too_few
from ssat.runs.inputs import DATA_KEYS, data_inputs, passport_changes, read_inputs, recorded, refuse_changes
from ssat.runs.label_scores import LabelPredictions
from ssat.runs.machine import runs_on_cpu
from ssat.runs.record import as_number, lookup
from ssat.runs.saved import COPY
from ssat.training.build import build_module
from ssat.training.data import build_data
from ssat.training.image_scores import calibrated, keep_image_scores, keep_label_scores
from ssat.training.label_meters import LabelMeters
from ssat.training.meters import Meters
from ssat.training.module import JointModule
from ssat.training.video_scores import keep_scores

# Of a passport, what says nothing of the clips of an evaluation: data.frame_step counts the video's frames, not the
# store's.
NO_WAY = ("held_out", "stride")
PRECISIONS = {"bf16": torch.bfloat16, "16": torch.float16}  # of autocast, by trainer.precision
OTHER_FILE = "name a checkpoint of this run, or copy the run again"


def find_checkpoint(run: Path, phase: str, name: str) -> Path:
    """`last`, `best` or a file.

    Raises:
        UserError: it does not exist; says which do.
    """
    folder = run / phase / "checkpoints"
    path = folder / f"{name}.ckpt" if name in ("last", "best") else Path(name)
    if not path.is_file():
        there = " or ".join(sorted(file.stem for file in folder.glob("*.ckpt") if file.is_file()))
        cure = f"name another by checkpoint={there}" if there else f"the run has not finished an epoch of phase {phase}"
        raise UserError(f"checkpoint={name}: {path} does not exist, {cure}")
    return path


def load_network(config: Run, run: Path, phase: Phase, path: Path, num_classes: int) -> tuple[JointModule, int | None]:
    """The network of a phase with the weights of the checkpoint `path`, for inference on the CPU.

    Returns:
        the network, and the epoch of its weights, from 1; None where the file does not say it.

    Raises:
        UserError: the checkpoint is of another network, or damaged.
    """
    eager = replace(config, trainer=replace(config.trainer, compile=False))
    wrong = f"{path} does not hold the network of {run}"
    with built_within(path, wrong, OTHER_FILE):
        module = build_module(eager, phase, num_classes)
    checkpoint = load_checkpoint(path)
    fill(module, weights_of(checkpoint, path), wrong, OTHER_FILE)
    epoch = checkpoint.get("epoch")
    return module.eval(), min(epoch + 1, phase.epochs) if isinstance(epoch, int) else None


class Evaluator:
    """The network of a run, ready to measure its accuracy on any loader.

    Raises:
        UserError: data or checkpoint do not fit.
    """

    def __init__(
        self,
        config: Run,
        run: Path,
        phase_name: str,
        checkpoint: str,
        split: str,
        batch_size: int,
        *,
        other_data: bool = False,
    ) -> None:
        phases = {phase.name: phase for phase in config.mode.phases}
        if phase_name and phase_name not in phases:
            raise UserError(f"phase={phase_name} does not exist, the run has {', '.join(phases)}")
        phase = phases[phase_name or list(phases)[-1]]
        self.path = find_checkpoint(run, phase.name, checkpoint)
        self.data = build_data(config, phase)
        self.data.setup("test")
        if split not in self.data.sizes:
            raise UserError(f"split={split} does not exist, the data have {', '.join(self.data.sizes)}")
        self.data.batch_size = batch_size or phase.recipe.batch_size
        self.split, self._other_data = split, other_data
        self._same_data(run, phase.name, only_classes=other_data)
        self._recorded = self._recorded_calibration(run, phase.name, checkpoint)
        self.module, self._epoch = load_network(config, run, phase, self.path, self.data.num_classes)
        self.device = torch.device("cpu" if runs_on_cpu(config) else "cuda")
        self.module.to(self.device)
        self.precision = PRECISIONS.get(config.trainer.precision)

    def _same_data(self, run: Path, phase: str, *, only_classes: bool) -> None:
        """Compare the data with what the run has recorded of its own."""
        then = read_inputs(run, COPY)
        if not then and (run / phase / "phase.json").is_file():
            then = recorded(read_record(run / phase / "phase.json", COPY))
        kept = ("classes",) if only_classes else ("classes", *DATA_KEYS)
        trained = then.get("data", {})
        then = {key: value for key, value in trained.items() if key in kept}
        now = data_inputs(self.data.fingerprint(), self.data.class_names)
        if changes := passport_changes(now, trained, leave_out=NO_WAY):
            say(f"note: the clips are made otherwise than those it was trained on: {'; '.join(changes)}")
        cure = "give the data it was trained on" + ("" if only_classes else ", or say data.root=... if you mean others")
        refuse_changes({"data": now}, {"data": then}, run, cure)

    @property
    def better(self) -> str:
        """Which epoch best.ckpt holds, where the checkpoint is another one of the run; else ''."""
        best = self.path.with_name("best.ckpt")
        if self.path.stem != "last" or self.module.head is None or not best.is_file():
            return ""
        epoch = load_checkpoint(best).get("epoch")
        if not isinstance(epoch, int) or epoch + 1 == self._epoch:
            return ""
        return f"best.ckpt (by {self.data.decides}, epoch {epoch + 1}) is another epoch: checkpoint=best measures it"

    @property
    def share(self) -> str:
        """How many of the user's own videos are scored, where the test split is a part of them; else ''."""
        data, name = self.data, "test"
        if not isinstance(data, VideoDataModule) or data.source.name != "video_folder" or self.split != name:
            return ""
        source = data.source
        scored = [*source.splits[name], *source.unscored.get(name, ())]
        total = sum(map(len, source.splits.values())) + sum(map(len, source.unscored.values()))
        if any(entry.split == name for entry in scored) or len(scored) == total:
            return ""
        of = f"split=test scores {len(scored):,} of {many(total, 'video')} (data.test_fraction)"
        return f"{of}: data.test_fraction=1 takes all" if self._other_data else f"{of}, the others are train and val"

    def probe(self, names: list[str]) -> dict[str, float]:
        """Accuracies of the probes in percent."""
        from ssat.training.probe import probe

        return probe(self.module.encoder, self.data, self.split, self.device, names)

    def accuracy(self, perturb: Any = None, title: str = "clean", console: Console | None = None) -> dict[str, float]:
        """acc1 and acc5 in percent, the mean loss and what `Meters` measures besides; every image counts once.

        `self.predictions` is then a row for each image, or video: its index in the data, its class and the predicted
        one; None where an image has several labels.
        """
        loader: Iterable[Any] = self.data.eval_loader(self.split, perturb)
        values = self._measured(loader, title, console)
        kept = self.kept
        self.predictions = (
            self.scored_videos if kept is None else np.stack([kept.indices, kept.targets, kept.predicted], axis=1)
        )
        return values

    @torch.inference_mode()
    def _measured(self, loader: Iterable[Any], title: str, console: Console | None) -> dict[str, float]:
        self.module.meters.take()
        if isinstance(self.module.meters, Meters):
            self.module.meters.keep_logits()
        if console is not None and console.is_terminal:
            loader = track(loader, title, console=console, transient=True)
        for number, batch in enumerate(loader):
            moved = Batch(*(part.to(self.device) if isinstance(part, Tensor) else part for part in batch))  # type: ignore[arg-type]
            # Not around the loader: the batched pipeline would resize in half precision.
            with torch.autocast(self.device.type, self.precision) if self.precision else nullcontext():
                self.module.validation_step(moved, number)
        return {name: float(value) for name, value in self.module.meters.take().items()}

    @property
    def kept(self) -> ImagePredictions | None:
        """Of the last evaluation, with logits; None of videos, and of several labels of an image."""
        return self.module.meters.kept if isinstance(self.module.meters, Meters) else None

    @property
    def scored_videos(self) -> NDArray[np.int64] | None:
        """`predictions` of videos after an evaluation: a row for each, its number in the split; None of images."""
        if not isinstance(self.data, VideoDataModule):
            return None
        scores, labels = sorted(self.module.meters.scores.items()), self.data.labels(self.split)
        return np.array([[video, labels[video], int(probs.argmax())] for video, (probs, _) in scores], dtype=np.int64)

    def keep_scores(self, path: Path) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """What the last evaluation has predicted of every video (`video_scores.keep_scores`) or image (its metrics).

        The predictions are written to the CSV file `path`, the pictures of the images beside it: <path>-confusion.png,
        -reliability.png and -mistakes.png. Of several labels there are no pictures.
        """
        kept = self.kept
        if isinstance(self.module.meters, LabelMeters) and isinstance(self.data, ImageDataModule):
            assert self.module.meters.kept is not None
            labelled: LabelPredictions = self.module.meters.kept
            return None, keep_label_scores(path, labelled, self.data, self.split, self._calibration(labelled))
        if kept is None or not isinstance(self.data, ImageDataModule):
            return keep_scores(path, self.module, self.data, self.split)

        def place(what: str) -> Path:
            return path if what == "predictions" else path.with_name(f"{path.stem}-{what}.png")

        return None, keep_image_scores(place, kept, self.data, self.split, self._calibration(kept))

    def _calibration(self, kept: ImagePredictions | LabelPredictions) -> Calibration:
        """The temperature of the training, where it is of these weights; else one of the run's validation images."""
        if self.split == "val":
            return calibrated(kept, self.split, same_images=True)
        if self._recorded is not None:
            return self._recorded
        if "val" not in self.data.sizes:
            return Calibration()
        if self._other_data:
            return Calibration(
                None, "the data are not those of the training, whose validation images give a temperature"
            )
        if reason := too_few(self.data.sizes["val"], "val"):
            return Calibration(None, reason)
        self._measured(self.data.eval_loader("val"), "validation images", None)
        assert self.module.meters.kept is not None
        return calibrated(self.module.meters.kept, "val")

    def _recorded_calibration(self, run: Path, phase: str, checkpoint: str) -> Calibration | None:
        """That of the last weights, as the phase's record has it."""
        record = run / phase / "phase.json"
        if checkpoint != "last" or not record.is_file():
            return None
        found = lookup(read_record(record, COPY), "classification")
        temperature, source = as_number(lookup(found, "temperature")), lookup(found, "temperature_source")
        return None if not temperature else Calibration(temperature, f"of the training, {source}")
