"""A run's decoder after training: pictures of what it makes of a part of the patches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ssat.config.schema import Phase
from ssat.core.checkpoints import load_checkpoint, weights_of
from ssat.core.noise import sample_noise
from ssat.core.tensors import built_within, fill
from ssat.encoders.base import Encoder
from ssat.tasks.masking import mask_from_noise, mask_scores
from ssat.tasks.reconstruction import Reconstruction
from ssat.training.build import build_module
from ssat.training.evaluation import OTHER_FILE
from ssat.training.saved_network import SavedNetwork

RATIOS = tuple(number / 20 for number in range(1, 20))
USUAL = 0.75  # hidden: what the paper trains with


@dataclass(frozen=True, eq=False)
class Reconstructor:
    """Encoder and decoder of one phase, in evaluation mode.

    Attributes:
        encoder: the one that the decoder was trained with.
        task: with the decoder.
        phase: name of the phase whose weights these are.
        ratios: shares of hidden patches that leave one to see and one to predict, ascending.
    """

    encoder: Encoder
    task: Reconstruction
    phase: str
    ratios: tuple[float, ...]

    @torch.inference_mode()
    def pictures(self, images: Tensor, ratio: float, draw: int = 0) -> tuple[Tensor, Tensor]:
        """Transformed images (B, C, H, W) with patches hidden, and with these predicted, both (B, C, H, W) on the CPU.

        Args:
            images: as the phase's evaluation transforms them.
            ratio: share of hidden patches.
            draw: number of the mask; the same number is the same mask.

        Raises:
            UserError: the ratio leaves no patch to see or to predict.
        """
        task, images = self.task, images.to(next(self.encoder.parameters()).device)
        noise = sample_noise(torch.arange(len(images)), task.length, seed=task.seed, draw=draw)
        mask = mask_from_noise(mask_scores(noise, task.grid, task.mask_kind, task.mask_block), ratio)
        mask = mask.to(images.device)
        return task.hide(images, mask).cpu(), task.reconstruct(self.encoder, images, mask).cpu()


def reconstructor_of(saved: SavedNetwork, device: torch.device) -> Reconstructor | str:
    """The decoder that a run's checkpoints still hold, the last one of its phases; else a sentence why there is none.

    The network that classifies comes from the last phase. Where that has learned labels alone, as in ssl_ft, the
    decoder is that of the phase before, with the encoder of that time.

    Raises:
        UserError: a checkpoint is damaged.
    """
    config = saved.config
    phases = [phase for phase in config.mode.phases if phase.lam < 1]
    if not phases:
        return f"mode={config.mode.name} trains no decoder"
    for phase in reversed(phases):
        path = _checkpoint(saved, phase)
        if path is None:
            continue
        weights = weights_of(load_checkpoint(path), path)
        if not any(name.startswith("ssl.") for name in weights):
            continue
        if _reads_as(phase) != _reads_as(saved.phase):
            return f"its decoder, of phase {phase.name}, was trained on images that are normalised or cropped otherwise"
        eager = replace(config, trainer=replace(config.trainer, compile=False))
        wrong = f"{path} does not hold the network of {saved.run or saved.name}"
        with built_within(path, wrong, OTHER_FILE):
            module = build_module(eager, phase, len(saved.known.classes))
        parts = [] if module.ssl is None else module.ssl.modules()
        task = next((part for part in parts if isinstance(part, Reconstruction) and part.has_pictures), None)
        if task is None:
            return f"ssl={config.ssl.name} reconstructs no pixels"
        fill(module, weights, wrong, OTHER_FILE)
        module = module.eval().to(device)
        ratios = tuple(ratio for ratio in RATIOS if 0 < int(task.length * (1 - ratio)) < task.length)
        if not ratios:
            return f"the image is {task.length} patch" + "es" * (task.length != 1) + ", too few to hide some"
        return Reconstructor(module.encoder, task, phase.name, ratios)
    return "this file holds no decoder, which is dropped for inference: name the run folder"


def _reads_as(phase: Phase) -> tuple[str, float]:
    return phase.recipe.statistics, phase.recipe.eval_crop_pct


def _checkpoint(saved: SavedNetwork, phase: Phase) -> Path | None:
    """That of the network, if it is of this phase; else the last one of the phase."""
    if phase.name == saved.phase.name:
        return saved.path if saved.path.suffix == ".ckpt" else None
    path = None if saved.run is None else saved.run / phase.name / "checkpoints" / "last.ckpt"
    return path if path is not None and path.is_file() else None


def usual_ratio(ratios: tuple[float, ...]) -> float:
    """The one nearest to 0.75."""
    return min(ratios, key=lambda ratio: abs(ratio - USUAL))
