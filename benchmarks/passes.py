"""The passes of any configured encoder, each as one training step: what benchmarks.step times beside the plain ViTs."""

from __future__ import annotations

import argparse
from typing import Any

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from ssat.config.resolve import resolve
from ssat.config.words import CONF
from ssat.core.batch import Batch
from ssat.encoders.base import Encoder
from ssat.runs.footprint import macs_of
from ssat.tasks.masked import MaskedPrediction
from ssat.training.build import build_encoder, overlapping_convolutions, use_channels_last
from ssat.training.tasks import build_ssl

LAM = 0.1
BASELINE = "full"
PASSES = (
    "masked",
    "masked plain",
    "joint",
    "joint plain",
    "full bf16",
    "joint bf16",
    "full channels_last",
    "full bf16 channels_last",
)


class Step(nn.Module):
    """The loss of one kind of step.

    `full`: classification alone, as mode=scratch. `masked`: reconstruction alone, as the first phase of ssl_ft.
    `joint`: both, as ssat. `plain`: with the masked pass in its plainest form, every position computed.
    `channels_last`: with the convolutions' weights laid out as by trainer.channels_last.
    """

    def __init__(self, encoder: Encoder, task: MaskedPrediction | None, head: nn.Module, kind: str) -> None:
        super().__init__()
        self.encoder, self.task, self.head, self.kind = encoder, task, head, kind
        if "channels_last" in kind:
            use_channels_last(encoder, type(encoder).__name__)

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor]:
        if self.kind.startswith("full"):
            return (F.cross_entropy(self.head(self.encoder.forward_features(images)), labels),)
        assert self.task is not None
        batch = Batch(images, labels)
        if "plain" not in self.kind:
            out = self.task(self.encoder, batch, self.kind.startswith("joint"))
            if out.features is None:
                return (out.loss,)
            return (LAM * F.cross_entropy(self.head(out.features), labels) + (1 - LAM) * out.loss,)
        mask = self.task.mask_of(torch.rand(len(images), self.task.noise_length, device=images.device))
        masked = self.task.forward_reference(self.encoder, images, mask)
        if self.kind.startswith("masked"):
            return (masked,)
        classified = F.cross_entropy(self.head(self.encoder.forward_features(images)), labels)
        return (LAM * classified + (1 - LAM) * masked,)


def parts(args: argparse.Namespace) -> tuple[Encoder, MaskedPrediction | None, nn.Module]:
    """Encoder, its default task (None where there is no masked pass) and head, as the configuration says."""
    overrides = [f"encoder={args.encoder}", "data=cifar10", f"data.img_size={args.img_size}"]
    overrides += [f"data.patch_size={args.patch_size}", f"data.channels={args.channels}", *args.set]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = resolve(compose("train", overrides=overrides))
    torch.manual_seed(args.seed)
    (phase,) = config.mode.phases
    encoder = build_encoder(config, phase)
    task: Any = build_ssl(config, phase, encoder) if encoder.mask_style else None
    return encoder, task, nn.Linear(encoder.num_features, args.classes)


def sides(args: argparse.Namespace) -> tuple[int, ...]:
    """(height, width) of the images that the encoder takes, or (frames, height, width) of the clips."""
    return parts(args)[0].img_size


def available(args: argparse.Namespace) -> list[str]:
    """The passes that the encoder has."""
    encoder, task, _ = parts(args)
    names = [name for name in PASSES if name.startswith("full") or task is not None]
    return [name for name in names if "channels_last" not in name or overlapping_convolutions(encoder)]


def difference(args: argparse.Namespace) -> dict[str, float]:
    """Largest absolute differences between the masked pass as trained and in its plainest form, in evaluation mode."""
    encoder, task, _ = parts(args)
    if task is None:
        return {}
    encoder.eval(), task.eval()
    images = torch.randn(2, args.channels, *encoder.img_size)
    mask = task.fixed_mask(torch.arange(2))
    losses, gradients = [], []
    for loss in (task(encoder, Batch(images), False, mask=mask).loss, task.forward_reference(encoder, images, mask)):
        encoder.zero_grad()
        loss.backward()
        losses.append(loss.item())
        gradients.append({name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None})
    apart = max((gradients[0][name] - gradients[1][name]).abs().max().item() for name in gradients[1])
    return {"reconstruction_loss": abs(losses[0] - losses[1]), "gradient": apart}


def count(args: argparse.Namespace) -> dict[str, int]:
    """MACs of an image's passes through the encoder alone, without head and decoder."""
    encoder, task, _ = parts(args)
    encoder.eval()
    images = torch.zeros(1, args.channels, *encoder.img_size)
    counted = {"full": macs_of(lambda: encoder.forward_features(images))}
    if task is not None:
        mask = task.fixed_mask(torch.arange(1))
        counted["masked"] = macs_of(lambda: encoder.forward_masked(images, mask))
        counted["masked plain"] = macs_of(lambda: encoder.forward_masked_plain(images, mask))
    return counted
