"""A trained run, ready to be measured."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor

from ssat.config.schema import Phase, Run
from ssat.core.batch import Batch
from ssat.core.checkpoints import load_checkpoint, weights_of
from ssat.core.errors import UserError
from ssat.core.launch import say
from ssat.core.words import many
from ssat.data.video.module import VideoDataModule
from ssat.runs.folder import read_record
from ssat.runs.inputs import DATA_KEYS, data_inputs, passport_changes, read_inputs, recorded, refuse_changes
from ssat.runs.machine import runs_on_cpu
from ssat.runs.saved import COPY
from ssat.training.build import build_module
from ssat.training.data import build_data
from ssat.training.module import JointModule
from ssat.training.video_scores import keep_scores

# Of a passport, what says nothing of the clips of an evaluation: data.frame_step counts the video's frames, not the
# store's.
NO_WAY = ("held_out", "stride")
PRECISIONS = {"bf16": torch.bfloat16, "16": torch.float16}  # of autocast, by trainer.precision


def find_checkpoint(run: Path, phase: str, name: str) -> Path:
    """`last`, `best` or a file.

    Raises:
        UserError: it does not exist; says which do.
    """
    folder = run / phase / "checkpoints"
    path = folder / f"{name}.ckpt" if name in ("last", "best") else Path(name)
    if not path.is_file():
        there = sorted(file.stem for file in folder.glob("*.ckpt") if file.is_file())
        raise UserError(
            f"checkpoint={name}: {path} does not exist, "
            + (f"the run has {', '.join(there)}" if there else f"the run has not finished an epoch of phase {phase}")
        )
    return path


def load_network(config: Run, run: Path, phase: Phase, path: Path, num_classes: int) -> tuple[JointModule, int | None]:
    """The network of a phase with the weights of the checkpoint `path`, for inference on the CPU.

    Returns:
        the network, and the epoch of its weights, from 1; None where the file does not say it.

    Raises:
        UserError: the checkpoint is of another network, or damaged.
    """
    eager = replace(config, trainer=replace(config.trainer, compile=False))
    module = build_module(eager, phase, num_classes)
    checkpoint = load_checkpoint(path)
    try:
        module.load_state_dict(weights_of(checkpoint, path))
    except RuntimeError as error:
        raise UserError(f"{path} does not hold the network of {run}: {str(error).splitlines()[0]}") from error
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
        self.module, _ = load_network(config, run, phase, self.path, self.data.num_classes)
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

    @torch.inference_mode()
    def accuracy(self, perturb: Any = None, title: str = "clean", console: Console | None = None) -> dict[str, float]:
        """acc1 and acc5 in percent and the mean loss; every image counts once.

        `self.predictions` is then a row for each image, or video: its index in the data, its class and the predicted
        one.
        """
        self.module.meters.take()
        seen: list[Tensor] = []
        rows: list[Tensor] = []
        head = cast("torch.nn.Module", self.module.head)
        hook = head.register_forward_hook(lambda _, __, logits: seen.append(logits.argmax(1)))
        loader: Iterable[Any] = self.data.eval_loader(self.split, perturb)
        if console is not None and console.is_terminal:
            loader = track(loader, title, console=console, transient=True)
        for number, batch in enumerate(loader):
            moved = Batch(*(part.to(self.device) if isinstance(part, Tensor) else part for part in batch))  # type: ignore[arg-type]
            # Not around the loader: the batched pipeline would resize in half precision.
            with torch.autocast(self.device.type, self.precision) if self.precision else nullcontext():
                self.module.validation_step(moved, number)
            rows.append(torch.stack([batch.indices.cpu(), batch.targets.cpu(), seen.pop().cpu()], dim=1))
        hook.remove()
        values = {name: float(value) for name, value in self.module.meters.take().items()}
        self.predictions = torch.cat(rows).numpy() if self.scored_videos is None else self.scored_videos
        return values

    @property
    def scored_videos(self) -> NDArray[np.int64] | None:
        """`predictions` of videos after an evaluation: a row for each, its number in the split; None of images."""
        if not isinstance(self.data, VideoDataModule):
            return None
        scores, labels = sorted(self.module.meters.scores.items()), self.data.labels(self.split)
        return np.array([[video, labels[video], int(probs.argmax())] for video, (probs, _) in scores], dtype=np.int64)

    def keep_scores(self, path: Path) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """Of `video_scores.keep_scores`: what the last evaluation has predicted of every video; None of images."""
        return keep_scores(path, self.module, self.data, self.split)
