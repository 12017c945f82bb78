"""Reconstruction: patches, loss, decoder and masks against independent computations."""

from functools import partial

import pytest
import torch
from torch import nn

from ssat.core.errors import UserError
from ssat.core.noise import sample_noise
from ssat.encoders.base import Latent
from ssat.encoders.vit import VisionTransformer
from ssat.tasks.decoders import MAEDecoder
from ssat.tasks.masking import mask_from_noise, num_visible
from ssat.tasks.reconstruction import Reconstruction, normalise_patches, patchify, unpatchify
from tests.encoders.cases import build, hidden_pixels, images_for, mask_for
from tests.tasks.cases import batch_for, mae


@pytest.fixture
def encoder() -> VisionTransformer:
    return build("vit")


@pytest.fixture(params=[False, True], ids=["raw", "norm_pix"])
def task(request, encoder) -> Reconstruction:
    torch.manual_seed(1)
    task = mae(encoder, norm_pix=request.param)
    with torch.no_grad():
        for parameter in task.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return task.eval()


def test_patches_are_in_raster_order_with_channels_last():
    images = torch.arange(2 * 4 * 6).view(1, 2, 4, 6)
    patches = patchify(images, 2)
    assert patches.shape == (1, 6, 8)
    for cell in range(6):
        row, col = divmod(cell, 3)
        expected = [images[0, c, 2 * row + y, 2 * col + x].item() for y in range(2) for x in range(2) for c in range(2)]
        assert patches[0, cell].tolist() == expected


def test_unpatchify_inverts_patchify():
    images = torch.randn(2, 3, 8, 20)
    assert torch.equal(unpatchify(patchify(images, 4), 4, (2, 5)), images)


def test_patches_are_normalised_with_the_unbiased_variance():
    normalised, mean, std = normalise_patches(torch.tensor([[[1.0, 2.0, 3.0, 6.0]]]))
    deviation = (14 / 3 + 1e-6) ** 0.5
    assert mean.item() == 3
    assert std.item() == pytest.approx(deviation)
    assert normalised[0, 0].tolist() == pytest.approx([-2 / deviation, -1 / deviation, 0, 3 / deviation])


def test_a_constant_patch_is_normalised_to_zero():
    assert normalise_patches(torch.full((1, 1, 12), 0.7))[0].abs().max() < 1e-3


def test_loss_is_the_mean_over_hidden_patches_of_the_mean_squared_error(encoder, task):
    images, mask = images_for(encoder), mask_for(encoder)
    loss = task(encoder, batch_for(encoder, task, 3)._replace(images=images), False, mask=mask).loss
    prediction = task.decoder.forward_all(encoder.forward_masked(images, mask), mask).double()
    patches, size = images.double(), encoder.mask_cell_px
    total, count = 0.0, 0
    for sample in range(3):
        for cell in range(16):
            if not mask[sample, cell]:
                continue
            row, col = divmod(cell, 4)
            pixels = patches[sample, :, row * size : (row + 1) * size, col * size : (col + 1) * size]
            target = pixels.permute(1, 2, 0).flatten()
            if task.norm_pix:
                target = (target - target.mean()) / (target.var(unbiased=True) + 1e-6).sqrt()
            total += ((prediction[sample, cell] - target) ** 2).mean().item()
            count += 1
    assert loss.item() == pytest.approx(total / count, abs=1e-5)


def test_perfect_predictions_have_no_loss_and_zero_predictions_the_mean_square():
    encoder = build("vit")
    images, mask = images_for(encoder), mask_for(encoder)

    class Fixed(nn.Module):
        def __init__(self, value: torch.Tensor) -> None:
            super().__init__()
            self.value = value

        def forward(self, latent: Latent, mask: torch.Tensor, *, num_visible: int | None = None) -> torch.Tensor:
            return self.value

    truth = patchify(images, encoder.mask_cell_px)[mask].view(3, -1, 27)
    task = mae(encoder)
    batch = batch_for(encoder, task, 3)._replace(images=images)
    task.decoder = Fixed(truth)
    assert task(encoder, batch, False, mask=mask).loss == 0
    task.decoder = Fixed(torch.zeros_like(truth))
    zero = task(encoder, batch, False, mask=mask).loss
    assert zero.item() == pytest.approx(truth.square().mean().item(), rel=1e-6)


def test_visible_patches_do_not_enter_the_target(encoder, task):
    images, mask = images_for(encoder), mask_for(encoder)
    scale = 3.0
    brighter = torch.where(hidden_pixels(encoder, mask), images, images * scale)
    target = [task.target(x)[mask] for x in (images, brighter)]
    assert torch.equal(target[0], target[1])


def test_fast_decoder_predicts_the_hidden_patches_of_the_plain_one(encoder, task):
    images, mask = images_for(encoder), mask_for(encoder)
    latent = encoder.forward_masked(images, mask)
    hidden, everything = task.decoder(latent, mask), task.decoder.forward_all(latent, mask)
    assert hidden.shape == (3, int(mask[0].sum()), 27)
    assert everything.shape == (3, 16, 27)
    assert torch.allclose(hidden.flatten(0, 1), everything[mask], atol=1e-5, rtol=0)


def test_fast_loss_and_its_gradients_are_the_plain_ones(encoder, task):
    images, mask = images_for(encoder), mask_for(encoder)
    batch = batch_for(encoder, task, 3)._replace(images=images)
    results = []
    for loss_of in (
        lambda: task(encoder, batch, False, mask=mask).loss,
        lambda: task.forward_reference(encoder, images, mask),
    ):
        encoder.zero_grad(), task.zero_grad()
        loss = loss_of()
        loss.backward()
        parameters = [*encoder.parameters(), *task.parameters()]
        results.append((loss.item(), [p.grad.clone() for p in parameters if p.grad is not None]))
    (fast, fast_grads), (plain, plain_grads) = results
    assert fast == pytest.approx(plain, abs=1e-5)
    for a, b in zip(fast_grads, plain_grads, strict=True):
        assert torch.allclose(a, b, atol=1e-5, rtol=0)


def test_pictures_show_the_input_where_it_was_visible(encoder, task):
    images, mask = images_for(encoder), mask_for(encoder)
    rebuilt = task.reconstruct(encoder, images, mask)
    hidden = hidden_pixels(encoder, mask).expand_as(images)
    assert rebuilt.shape == images.shape
    assert torch.equal(rebuilt[~hidden], images[~hidden])
    assert (rebuilt[hidden] - images[hidden]).abs().min() > 0
    hiding = task.hide(images, mask)
    assert torch.equal(hiding[~hidden], images[~hidden])
    assert hiding[hidden].abs().max() == 0


def test_pictures_of_normalised_predictions_get_the_patches_mean_and_deviation_back(encoder):
    images, mask = images_for(encoder), mask_for(encoder)

    class Truth(MAEDecoder):
        def forward_all(self, latent: Latent, mask: torch.Tensor) -> torch.Tensor:
            return normalise_patches(patchify(images, 3))[0]

    task = mae(encoder, norm_pix=True)
    task.decoder = Truth((4, 4), 3, in_chans=3, encoder_dim=24, dim=16, num_heads=2)
    rebuilt = task.reconstruct(encoder, images, mask)
    assert torch.allclose(rebuilt, images, atol=1e-5)


def test_training_masks_advance_with_every_batch_and_are_saved(encoder):
    task, images = mae(encoder).train(), images_for(encoder)
    batch = batch_for(encoder, task, 3)._replace(images=images)
    losses = [task(encoder, batch, False).loss.item() for _ in range(3)]
    assert len(set(losses)) == 3
    assert task.state_dict()["draws"].item() == 3


def test_training_mask_is_the_next_draw_of_each_sample(encoder):
    task = mae(encoder, seed=5).train()
    batch = batch_for(encoder, task, 3)
    task(encoder, batch, False)
    expected = mask_from_noise(sample_noise(batch.indices, 16, seed=5, draw=1), 0.75)
    plain = task(encoder, batch, False, mask=expected).loss
    assert torch.equal(task(encoder, batch, False).loss, plain)


def test_masks_do_not_touch_the_global_generator(encoder):
    task = mae(encoder).train()
    batch = batch_for(encoder, task, 3)
    before = torch.get_rng_state()
    task(encoder, batch, True)
    assert torch.equal(torch.get_rng_state(), before)


def test_two_halves_of_a_batch_average_to_the_whole(encoder):
    whole = batch_for(encoder, mae(encoder), 4)
    torch.manual_seed(2)
    task = mae(encoder).train()
    saved = {name: value.clone() for name, value in task.state_dict().items()}
    loss = task(encoder, whole, False).loss.item()
    halves = []
    for rows in (slice(0, 2), slice(2, 4)):
        task.load_state_dict(saved)
        half = whole._replace(images=whole.images[rows], indices=whole.indices[rows])
        halves.append(task(encoder, half, False).loss.item())
    assert loss == pytest.approx(sum(halves) / 2, abs=1e-5)


def test_evaluation_uses_one_mask_per_sample(encoder):
    task = mae(encoder).eval()
    batch = batch_for(encoder, task, 3)
    fixed = task.fixed_mask(batch.indices)
    assert fixed.shape == (3, 16)
    assert (~fixed).sum(1).tolist() == [num_visible(16, 0.75)] * 3
    assert torch.equal(task(encoder, batch, False).loss, task(encoder, batch, False, mask=fixed).loss)


def test_a_batch_without_indices_is_numbered(encoder):
    task = mae(encoder).eval()
    batch = batch_for(encoder, task, 3)._replace(indices=None)
    numbered = batch._replace(indices=torch.arange(3))
    assert torch.equal(task(encoder, batch, False).loss, task(encoder, numbered, False).loss)


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"mask_ratio": 0.0}, "mask_ratio=0.0"),
        ({"mask_ratio": 1.0}, "mask_ratio=1.0"),
        ({"mask_ratio": 0.99}, "no visible patch"),
        ({"decoder_dim": 20, "decoder_heads": 3}, "decoder_heads=3"),
        ({"decoder_dim": 18, "decoder_heads": 2}, "18"),
        ({"decoder_depth": 0}, "decoder_depth=0"),
    ],
)
def test_wrong_settings_are_refused_with_the_value(encoder, wrong, part):
    with pytest.raises(UserError, match=part):
        partial(Reconstruction, encoder)(**wrong)
