from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from sklearn.datasets import load_sample_images
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from ssat.core.errors import UserError
from ssat.core.views import View, dino_views, simclr_views
from ssat.data.image import ImageDataModule
from ssat.data.sets.sources import ImageList, Source
from ssat.data.transforms.views import JITTER_DRAWS, ViewTransform, color_jitter, gaussian_blur, shift_hue

Make = Callable[..., ImageDataModule]
NORMAL = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}


@pytest.fixture(scope="module")
def photos() -> Tensor:
    """(8, 3, 32, 32) uint8 pieces of a photograph."""
    picture = torch.from_numpy(load_sample_images().images[0].copy()).permute(2, 0, 1)
    return torch.stack([picture[:, 100 : 100 + 32, x : x + 32] for x in range(0, 512, 64)])


@pytest.mark.parametrize("amount", [-0.3, 0.0, 0.1, 0.5])
def test_the_hue_is_turned_as_torchvision_does(photos: Tensor, amount: float) -> None:
    expected = torch.stack([tv.adjust_hue(image, amount) for image in photos])
    ours = shift_hue(photos, torch.full((8,), amount))
    assert (ours.int() - expected.int()).abs().max() <= 2


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_the_blur_is_a_gaussian(photos: Tensor, sigma: float) -> None:
    expected = torch.stack([tv.gaussian_blur(image, [27, 27], [sigma, sigma]) for image in photos])
    ours = gaussian_blur(photos, torch.full((8,), sigma))
    inner = slice(8, -8)  # torchvision mirrors at the edges
    assert (ours.int() - expected.int())[..., inner, inner].abs().max() <= 1
    pillow = Image.fromarray(photos[0].permute(1, 2, 0).numpy()).filter(ImageFilter.GaussianBlur(sigma))
    assert np.abs(np.asarray(pillow).astype(int) - ours[0].permute(1, 2, 0).numpy()).mean() < 2


def test_jitter_without_strength_changes_nothing(photos: Tensor) -> None:
    uniforms = torch.rand(8, JITTER_DRAWS, generator=torch.Generator().manual_seed(0))
    assert torch.equal(color_jitter(photos, uniforms, (0.0, 0.0, 0.0, 0.0), 1.0), photos)
    assert torch.equal(color_jitter(photos, uniforms, (0.4, 0.4, 0.4, 0.1), 0.0), photos)


def test_one_kind_of_jitter_is_torchvisions(photos: Tensor) -> None:
    uniforms = torch.rand(8, JITTER_DRAWS, generator=torch.Generator().manual_seed(0))
    ours = color_jitter(photos, uniforms, (0.8, 0.0, 0.0, 0.0), 1.0)
    factors = (0.2 + uniforms[:, 2] * 1.6).tolist()
    expected = torch.stack([tv.adjust_brightness(image, factor) for image, factor in zip(photos, factors, strict=True)])
    assert (ours.int() - expected.int()).abs().max() <= 1


def test_simclr_and_dino_views_have_their_published_values() -> None:
    small, large = simclr_views(32), simclr_views(224)
    assert small[0].jitter == (0.4, 0.4, 0.4, 0.1)
    assert small[0].blur_prob == 0
    assert large[0].jitter == (0.8, 0.8, 0.8, 0.2)
    assert large[0].blur_prob == 0.5
    views = dino_views(224, local_views=8)
    assert [view.size for view in views] == [224, 224] + [96] * 8
    assert [view.blur_prob for view in views[:3]] == [1.0, 0.1, 0.5]
    assert views[1].solarize_prob == 0.2
    assert [view.size for view in dino_views(32, local_views=1)] == [32, 32, 16]


def test_views_are_functions_of_the_sample_and_differ_from_each_other(photos: Tensor) -> None:
    indices = torch.arange(8)
    first, second = (ViewTransform(view, **NORMAL, seed=0, number=n) for n, view in enumerate(simclr_views(32)))
    whole = first(photos, first.uniforms(indices, 2))
    assert torch.equal(whole[3:5], first(photos[3:5], first.uniforms(indices[3:5], 2)))
    assert not torch.equal(whole, first(photos, first.uniforms(indices, 3)))
    assert not torch.equal(whole, second(photos, second.uniforms(indices, 2)))


@pytest.mark.parametrize("side", [12, 140])  # held in memory, cropped one by one
def test_batches_carry_the_views_asked_for(make_data: Make, side: int) -> None:
    rng = np.random.default_rng(0)
    images = ImageList(rng.integers(0, 256, (16, side, side, 3), dtype=np.uint8), np.arange(16) % 2)
    source = Source("toy", ["a", "b"], images, images)
    views = dino_views(12, local_views=2)
    data = make_data(source, pipeline="batched", views=views, batch_size=4)
    plain = make_data(source, pipeline="batched", batch_size=4)
    for batch, without in zip(data.train_dataloader(), plain.train_dataloader(), strict=True):
        assert [tuple(view.shape) for view in batch.views] == [(4, 3, view.size, view.size) for view in views]
        assert torch.equal(batch.images, without.images)
    assert next(iter(data.val_dataloader())).views == ()


def test_grey_views_have_no_colour(photos: Tensor) -> None:
    view = View(32, (1.0, 1.0), (1.0, 1.0), hflip=0.0, jitter_prob=0.0, grey_prob=1.0)
    transform = ViewTransform(view, mean=(0.0,) * 3, std=(1.0,) * 3, seed=0, number=0)
    output = transform(photos, transform.uniforms(torch.arange(8), 0))
    assert torch.equal(output[:, 0], output[:, 1])
    assert torch.equal(output[:, 0], output[:, 2])


def test_views_need_the_batched_pipeline(make_data: Make) -> None:
    with pytest.raises(UserError, match="use batched"):
        make_data(views=simclr_views(12))
