"""What is hidden and what is predicted: block and grid masks, histograms, averaged features, other sources."""

import math

import pytest
import torch

from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.core.noise import sample_noise
from ssat.core.views import weak_view
from ssat.tasks.hog import hog, hog_dim
from ssat.tasks.latent import LatentReconstruction
from ssat.tasks.masking import mask_from_noise, mask_scores
from ssat.tasks.reconstruction import Reconstruction
from tests.encoders.cases import build, images_for
from tests.tasks.cases import latent, mae


def masks(kind: str, *, grid=(8, 6), ratio=0.75, size=2) -> torch.Tensor:
    noise = torch.rand(50, math.prod(grid))
    return mask_from_noise(mask_scores(noise, grid, kind, size), ratio).view(50, *grid)


@pytest.mark.parametrize("kind", ["random", "block", "grid"])
@pytest.mark.parametrize("ratio", [0.5, 0.6, 0.75, 0.9])
def test_every_kind_of_mask_hides_the_same_number_of_patches(kind, ratio):
    hidden = masks(kind, ratio=ratio).flatten(1).sum(1)
    assert hidden.unique().tolist() == [48 - int(48 * (1 - ratio))]


def test_random_masks_are_the_noise_itself():
    noise = torch.rand(2, 12)
    assert torch.equal(mask_scores(noise, (3, 4), "random", 2), noise)


def test_blocks_are_hidden_whole_but_for_one_that_the_ratio_cuts():
    hidden = masks("block", ratio=0.6).view(50, 4, 2, 3, 2).permute(0, 1, 3, 2, 4).flatten(3).sum(3)
    assert ((hidden != 0) & (hidden != 4)).flatten(1).sum(1).max() <= 1


def test_every_block_of_a_grid_mask_shows_one_of_its_four_cells():
    visible = (~masks("grid")).view(50, 4, 2, 3, 2).permute(0, 1, 3, 2, 4).flatten(3)
    assert (visible.sum(3) == 1).all()
    assert (visible.float().mean((0, 1, 2)) - 0.25).abs().max() < 0.08


@pytest.mark.parametrize("kind", ["block", "grid"])
def test_grids_that_blocks_do_not_divide_keep_the_count(kind):
    assert masks(kind, grid=(5, 7), size=3).flatten(1).sum(1).unique().tolist() == [35 - 8]


@pytest.mark.parametrize("kind", ["random", "block", "grid"])
def test_every_patch_is_hidden_equally_often(kind):
    noise = torch.rand(3000, 64)
    share = mask_from_noise(mask_scores(noise, (8, 8), kind, 2), 0.75).float().mean(0)
    assert (share - 0.75).abs().max() < 0.05


def test_the_block_that_the_ratio_cuts_prefers_none_of_its_cells():
    noise = sample_noise(torch.arange(20_000), 64, seed=0, draw=1)
    visible = ~mask_from_noise(mask_scores(noise, (8, 8), "block", 2), 0.7)
    share = visible.float().view(-1, 4, 2, 4, 2).mean((0, 1, 3))
    deviation = (0.297 * 0.703 / 20_000 / 16) ** 0.5
    assert (share - 19 / 64).abs().max() < 5 * deviation


def slow_hog(image: torch.Tensor, patch: int) -> torch.Tensor:
    """Pixel by pixel."""
    channels, height, width = image.shape
    cell = 8 if patch % 8 == 0 else patch
    at = lambda c, y, x: float(image[c, min(max(y, 0), height - 1), min(max(x, 0), width - 1)])  # noqa: E731
    rows = []
    for top in range(0, height, patch):
        for left in range(0, width, patch):
            numbers = []
            for y0 in range(top, top + patch, cell):
                for x0 in range(left, left + patch, cell):
                    for c in range(channels):
                        bins = [0.0] * 9
                        for y in range(y0, y0 + cell):
                            for x in range(x0, x0 + cell):
                                dx, dy = at(c, y, x + 1) - at(c, y, x - 1), at(c, y + 1, x) - at(c, y - 1, x)
                                angle = math.atan2(dy, dx) % math.pi
                                bins[min(int(angle / math.pi * 9), 8)] += math.hypot(dx, dy)
                        norm = math.sqrt(sum(value**2 for value in bins)) or 1.0
                        numbers += [value / norm for value in bins]
            rows.append(numbers)
    return torch.tensor(rows)


@pytest.mark.parametrize(("size", "patch"), [((8, 12), 4), ((16, 32), 16)])
def test_histograms_are_the_definition_written_out(size, patch):
    images = torch.randn(2, 2, *size)
    expected = torch.stack([slow_hog(image, patch) for image in images])
    assert expected.shape[2] == hog_dim(patch, 2)
    assert torch.allclose(hog(images, patch), expected, atol=1e-5)


def test_a_constant_image_has_empty_histograms():
    assert hog(torch.full((1, 3, 8, 8), 0.3), 4).abs().max() == 0


def test_a_ramp_votes_for_its_own_direction():
    ramp = torch.arange(16.0)
    across, down = ramp.expand(1, 1, 16, 16), ramp.view(16, 1).expand(1, 1, 16, 16)
    assert hog(across, 16)[0, 0].view(4, 9).argmax(1).tolist() == [0] * 4
    assert hog(down, 16)[0, 0].view(4, 9).argmax(1).tolist() == [4] * 4


def test_histograms_do_not_depend_on_contrast_and_brightness():
    images = torch.randn(1, 3, 8, 8)
    assert torch.allclose(hog(images * 5 + 2, 4), hog(images, 4), atol=1e-4)


def test_latent_targets_are_the_normalised_mean_of_the_teachers_last_blocks():
    encoder = build("vit")
    task, images = latent(encoder, blocks=2), images_for(encoder)
    with torch.no_grad():
        blocks = [block[:, 1:] for block in task.teacher.forward_blocks(images)[-2:]]
    standard = lambda x: (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()  # noqa: E731
    expected = standard((standard(blocks[0]) + standard(blocks[1])) / 2)
    assert torch.allclose(task.target(images), expected, atol=1e-4)


def test_latent_teacher_follows_the_encoder():
    encoder, task = build("vit"), latent(build("vit"), blocks=1, momentum=0.9)
    with torch.no_grad():
        encoder.norm.weight.add_(1)
    before = task.teacher.norm.weight.clone()
    task.after_step(encoder, 0.0, 1_000)
    assert torch.allclose(task.teacher.norm.weight, 0.9 * before + 0.1 * encoder.norm.weight)
    before = task.teacher.norm.weight.clone()
    task.after_step(encoder, 0.0, 1)  # an early step: the average warms up
    assert torch.allclose(task.teacher.norm.weight, 2 / 11 * before + 9 / 11 * encoder.norm.weight)


def test_latent_logs_whether_its_targets_collapse():
    encoder = build("vit")
    task = latent(encoder, blocks=1)
    batch = Batch(images_for(encoder), indices=torch.arange(3))
    assert task(encoder, batch, False).logs["target_std"] > 0.1


def test_unmixed_source_predicts_the_images_before_mixing():
    encoder = build("vit")
    task = mae(encoder, source="unmixed").eval()
    mixed, original = images_for(encoder), images_for(encoder)
    batch = Batch(mixed, indices=torch.arange(3), unmixed=original)
    loss, features, _ = task(encoder, batch, True)
    expected = task(encoder, Batch(original, indices=torch.arange(3)), False).loss
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert torch.allclose(features, encoder.forward_features(mixed), atol=1e-5)


def test_weak_source_predicts_the_extra_view():
    encoder = build("vit")
    task = mae(encoder, source="weak").eval()
    strong, weak = images_for(encoder), images_for(encoder)
    assert task.extra_views == [weak_view(12)]
    loss, features, _ = task(encoder, Batch(strong, views=(weak,), indices=torch.arange(3)), True)
    expected = task(encoder, Batch(weak, views=(weak,), indices=torch.arange(3)), False).loss
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert torch.allclose(features, encoder.forward_features(strong), atol=1e-5)


def test_weak_view_is_crop_and_flip_alone():
    view = weak_view(32)
    assert (view.jitter_prob, view.grey_prob, view.blur_prob, view.solarize_prob) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("make", "encoder", "sentence"),
    [
        (lambda e: mae(e, mask="blocks"), "vit", "ssl.mask='blocks'"),
        (lambda e: mae(e, mask_block=0), "vit", "ssl.mask_block=0"),
        (lambda e: mae(e, mask="grid", mask_ratio=0.6), "vit", "ssl.mask_ratio=0.6 of 4 x 4 cells"),
        (lambda e: mae(e, target="sift"), "vit", "ssl.target='sift'"),
        (lambda e: mae(e, source="strong"), "vit", "ssl.source='strong'"),
        (lambda e: Reconstruction(e, decoder="simmim", target="hog"), "swin", "use ssl=swin_light"),
        (lambda e: latent(e, blocks=9), "vit", "ssl.blocks=9"),
        (LatentReconstruction, "cvt", "plain ViT"),
        (lambda e: latent(e, decoder="mae", blocks=1), "mixer", "use ssl.decoder=swin_light"),
        (lambda e: mae(e, decoder="mae"), "mixer", "use ssl=simmim or ssl=swin_light"),
    ],
)
def test_impossible_values_are_refused(make, encoder, sentence):
    with pytest.raises(UserError, match=sentence):
        make(build(encoder))
