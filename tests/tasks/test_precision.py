"""Losses and softmaxes under bf16 autocast are those of fp32, with logits so large that half precision would differ."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ssat.core.batch import Batch
from ssat.tasks.dino import dino_loss
from ssat.tasks.drloc import Drloc
from ssat.tasks.guidance import distance
from ssat.tasks.hog import hog
from ssat.tasks.patches import normalise_patches, normalise_tubelets, patchify
from ssat.tasks.reconstruction import DISTANCES
from ssat.tasks.simclr import nt_xent
from ssat.training.classification import ClassLoss
from ssat.training.label_loss import LabelLoss


def noise(*shape: int, scale: float = 60.0) -> Tensor:
    """bf16 numbers held in fp32, so that both computations begin with the same."""
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape))) * scale).bfloat16().float()


LOGITS, CLASSES = noise(64, 10), torch.arange(64) % 10
MIXED = torch.nn.functional.one_hot(CLASSES, 10) * 0.7 + 0.03
LABELS = (noise(64, 10) > 0).float()
WEIGHTS = torch.linspace(0.37, 3.11, 10)
IMAGES = noise(4, 3, 16, 16, scale=3.0)


def classes(logits: Tensor, targets: Tensor = CLASSES, **options: object) -> Tensor:
    return ClassLoss(options.pop("label_smoothing", 0.0), **options)(logits, Batch(IMAGES, targets))  # type: ignore[arg-type]


def labels(logits: Tensor, **options: object) -> Tensor:
    return LabelLoss(options.pop("label_smoothing", 0.0), **options)(logits, Batch(IMAGES, LABELS))  # type: ignore[arg-type]


def reconstruction(logits: Tensor) -> Tensor:
    target = normalise_patches(patchify(IMAGES, 4))[0]
    return DISTANCES["mse"](logits[:64].repeat(1, 5)[:, :48].view(4, 16, 48).float() - target).mean()


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "cross-entropy": classes,
    "smoothed": lambda x: classes(x, label_smoothing=0.1),
    "mixed": lambda x: classes(x, MIXED),
    "mixed and weighted": lambda x: classes(x, MIXED, class_weights=WEIGHTS),
    "weighted": lambda x: classes(x, class_weights=WEIGHTS),
    "focal": lambda x: classes(x, focal_gamma=2.0),
    "binary": labels,
    "binary weighted": lambda x: labels(x, pos_weight=WEIGHTS),
    "binary focal": lambda x: labels(x, focal_gamma=2.0),
    "nt-xent": lambda x: nt_xent(x[:32], x[32:], 0.05),
    "dino": lambda x: dino_loss([x, x.flip(0)], [((x.float() / 0.04).softmax(1))], student_temp=0.1),
    "guidance": lambda x: distance(x[:16].view(2, 5, 4, 4), x[16:32].view(2, 5, 4, 4)),
    "reconstruction": reconstruction,
    "hog": lambda x: (
        hog(x.view(1, 1, 32, 20)[..., :16], 8).square().sum() + hog(x.view(1, 1, 32, 20)[..., :16], 8)[0, 1, 3]
    ),
    "normalised tubelets": lambda x: normalise_tubelets(x.float().view(2, 4, 20, 4))[0].pow(3).mean(),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16], ids=["of fp32", "of bf16"])
def test_a_loss_under_autocast_is_that_of_fp32(name: str, given: torch.dtype) -> None:
    loss = LOSSES[name]
    expected = loss(LOGITS)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(LOGITS.to(given))
    assert found.dtype == torch.float32 and torch.isfinite(found)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_the_comparison_sees_half_precision() -> None:
    """The same in bf16 is off by far more than what the test above allows."""
    expected = classes(LOGITS, MIXED, class_weights=WEIGHTS)
    with torch.autocast("cpu", torch.bfloat16):
        sizes = MIXED @ WEIGHTS
    off = (sizes.float().sum() / (MIXED @ WEIGHTS).sum() - 1).abs()
    assert off > 1e-5 and expected > 0


def test_drloc_measures_its_distances_in_fp32() -> None:
    from ssat.encoders.vit import VisionTransformer

    encoder = VisionTransformer(img_size=16, patch_size=4, embed_dim=32, depth=1, num_heads=2)
    task = Drloc(encoder)
    final, index = noise(2, 32, 4, 4), torch.arange(16).expand(2, 16)
    with torch.autocast("cpu", torch.bfloat16):
        predicted = task.mlp(torch.cat(final.flatten(2).transpose(1, 2).chunk(2, dim=1), 2))
        found = task.distance_loss(final, index)
    first, second = index.chunk(2, dim=1)
    truth = torch.stack([first // 4 - second // 4, first % 4 - second % 4], 2).abs().float()
    assert predicted.dtype == torch.bfloat16 and found.dtype == torch.float32
    torch.testing.assert_close(found, (predicted.float() - truth).abs().mean())


@pytest.mark.parametrize("kind", ["pixels", "hog"])
def test_targets_under_autocast_are_those_of_fp32(kind: str) -> None:
    from tests.encoders.cases import build
    from tests.tasks.cases import mae

    encoder = build("vit")
    task = mae(encoder, target=kind, norm_pix=kind == "pixels")
    images = noise(2, encoder.in_chans, *encoder.img_size, scale=3.0)
    with torch.autocast("cpu", torch.bfloat16):
        found = task.target(images)
    assert torch.equal(found, task.target(images))


def test_the_latent_targets_are_normalised_in_fp32() -> None:
    from tests.encoders.cases import build
    from tests.tasks.cases import latent

    encoder = build("vit")
    task = latent(encoder, blocks=2)
    task.begin(encoder)
    with torch.autocast("cpu", torch.bfloat16):
        found = task.target(noise(2, encoder.in_chans, *encoder.img_size, scale=3.0))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.mean(-1), torch.zeros(found.shape[:-1]), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.var(-1, unbiased=False), torch.ones(found.shape[:-1]), atol=1e-3, rtol=0)
