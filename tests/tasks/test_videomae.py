"""Tube masks, targets, decoder and loss of VideoMAE: by hand, by published numbers, and by the library transformers."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.encoders.videomae import VideoTransformer, from_transformers
from ssat.encoders.vit import VisionTransformer
from ssat.runs.footprint import count_macs, count_step_macs
from ssat.tasks.base import Task
from ssat.tasks.masking import num_visible_in_tubes, tube_mask
from ssat.tasks.patches import clips_of, tubelets_of
from ssat.tasks.reconstruction import Reconstruction
from ssat.tasks.videomae import IMAGENET_MEAN, IMAGENET_STD, VideoMAE

SMALL = partial(VideoTransformer, 4, 32, 8, embed_dim=48, depth=2, num_heads=3)
SIZES = {"videomae_s": (384, 6), "videomae_b": (768, 12)}
CLIP = (3, 16, 224, 224)


def small(**options) -> tuple[VideoTransformer, VideoMAE]:
    torch.manual_seed(0)
    encoder = SMALL()
    return encoder.eval(), VideoMAE(encoder, **{"decoder_dim": 32, "decoder_depth": 2} | options).eval()


def meta(name: str, ratio: float) -> tuple[VideoTransformer, VideoMAE]:
    """The full size without memory and time."""
    width, heads = SIZES[name]
    with torch.device("meta"):
        encoder = VideoTransformer(embed_dim=width, num_heads=heads)
        return encoder, VideoMAE(encoder, mask_ratio=ratio)


@pytest.mark.parametrize(("ratio", "hidden"), [(0.75, 147), (0.9, 176), (0.95, 186)])
def test_tubes_hide_the_official_numbers(ratio: float, hidden: int) -> None:
    noise = torch.rand(3, 196)
    mask = tube_mask(noise, ratio, 8)
    assert mask.shape == (3, 1568)
    assert mask.sum(1).tolist() == [8 * hidden] * 3
    assert num_visible_in_tubes(196, ratio) == 196 - hidden


def test_a_tube_is_hidden_in_every_slot_and_samples_differ() -> None:
    slots = tube_mask(torch.rand(4, 49), 0.75, 8).view(4, 8, 49)
    assert (slots == slots[:, :1]).all()
    assert len({tuple(row) for row in slots[:, 0].tolist()}) == 4


def test_every_tube_is_hidden_equally_often() -> None:
    share = tube_mask(torch.rand(4000, 16), 0.75, 1).float().mean(0)
    assert (share - 0.75).abs().max() < 0.04  # 5.8 standard deviations


@pytest.mark.parametrize(("ratio", "sentence"), [(0.0, "outside"), (1.0, "outside"), (0.01, "hides no patch")])
def test_a_ratio_that_is_no_share_or_hides_nothing_is_refused(ratio: float, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        small(mask_ratio=ratio)


def test_masks_follow_from_seed_draw_and_sample_alone() -> None:
    encoder, task = small(seed=3)
    other = VideoMAE(encoder, decoder_dim=32, seed=4)
    clips, indices = torch.randn(3, 3, 4, 32, 32), torch.tensor([5, 9, 2])
    task.train()
    first, second = (task.draw_mask(Batch(clips, indices=indices)) for _ in range(2))
    assert not torch.equal(first, second)
    task.draws.zero_()
    assert torch.equal(task.draw_mask(Batch(clips[:2], indices=indices[[2, 0]])), first[[2, 0]])
    task.eval()
    assert torch.equal(task.draw_mask(Batch(clips, indices=indices)), task.fixed_mask(indices))
    assert not torch.equal(task.fixed_mask(indices), other.fixed_mask(indices))


def test_tubelets_are_in_the_order_of_the_paper_and_give_the_clip_back() -> None:
    clips = torch.randn(2, 3, 4, 16, 24)
    tubelets = tubelets_of(clips, (2, 8))
    assert tubelets.shape == (2, 2 * 2 * 3, 2 * 8 * 8, 3)
    slot, row, col, frame, y, x, channel = 1, 0, 2, 1, 3, 5, 2
    pixel = clips[1, channel, 2 * slot + frame, 8 * row + y, 8 * col + x]
    assert tubelets[1, slot * 6 + row * 3 + col, frame * 64 + y * 8 + x, channel] == pixel
    assert torch.equal(clips_of(tubelets, (2, 8), (2, 2, 3)), clips)


def test_the_target_is_each_channel_of_a_tubelet_on_0_to_1_with_mean_0_and_deviation_1() -> None:
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    _, task = small(mean=mean, std=std)
    clips = torch.randn(1, 3, 4, 32, 32)
    pixels = clips[0, 1, 2:4, 8:16, 24:32] * std[1] + mean[1]  # slot 1, row 1, column 3, green
    expected = (pixels - pixels.mean()) / (pixels.std(unbiased=True) + 1e-6)
    target = task.target(clips)
    assert target.shape == (1, 32, 2 * 8 * 8 * 3)
    assert torch.allclose(target[0, 16 + 4 + 3].view(2, 8, 8, 3)[..., 1], expected, atol=1e-5)


def test_a_flat_tubelet_has_a_finite_target() -> None:
    _, task = small()
    assert task.target(torch.ones(1, 3, 4, 32, 32)).abs().max() < 1


def test_the_loss_is_the_plain_formulation_with_its_gradients() -> None:
    encoder, task = small()
    clips = torch.randn(2, 3, 4, 32, 32)
    mask = task.fixed_mask(torch.arange(2))
    results = []
    for loss in (task(encoder, Batch(clips), True, mask=mask).loss, task.forward_reference(encoder, clips, mask)):
        modules = nn.ModuleList([encoder, task])
        modules.zero_grad()
        loss.backward()
        results.append((loss.item(), [p.grad.clone() for p in modules.parameters() if p.grad is not None]))
    (ours, own), (plain, expected) = results
    assert ours == pytest.approx(plain, abs=1e-6)
    assert max((a - b).abs().max() for a, b in zip(own, expected, strict=True)) < 1e-5


def test_a_reconstruction_keeps_the_visible_tubes_and_shows_the_prediction_in_colour() -> None:
    encoder, task = small(mask_ratio=0.5)
    clips = torch.randn(2, 3, 4, 32, 32)
    mask = task.fixed_mask(torch.arange(2))
    rebuilt = tubelets_of(task.reconstruct(encoder, clips, mask), task.size)
    given = tubelets_of(clips, task.size)
    assert torch.allclose(rebuilt[~mask], given[~mask], atol=1e-5)
    with torch.no_grad():
        predicted = task.decoder(encoder.forward_masked(clips, mask), mask).view(2, -1, 128, 3)
    true = given[mask].view_as(predicted)
    expected = predicted * true.std(2, keepdim=True) + true.mean(2, keepdim=True)
    assert torch.allclose(rebuilt[mask].view_as(predicted), expected, atol=1e-4)


def test_hiding_sets_the_tubes_to_the_mean_colour_in_all_frames() -> None:
    _, task = small()
    clips = torch.rand(1, 3, 4, 32, 32) + 1
    hidden = task.hide(clips, task.fixed_mask(torch.arange(1))) == 0
    assert torch.equal(hidden, hidden[:, :1, :1].expand_as(hidden))
    assert hidden.float().mean() == 0.75


@pytest.mark.parametrize(
    ("name", "ratio", "pretrained", "decoder"),
    [("videomae_s", 0.75, 24_029_376, 2_075_520), ("videomae_b", 0.75, 94_210_944, 7_688_448)],
)
def test_parameters_are_the_official_ones(name: str, ratio: float, pretrained: int, decoder: int) -> None:
    encoder, task = meta(name, ratio)
    of_encoder = sum(p.numel() for n, p in encoder.named_parameters() if n not in encoder.only_full())
    assert of_encoder + sum(p.numel() for p in task.parameters()) == pretrained
    narrow = sum(p.numel() for p in (task.decoder.mask_token, task.decoder.embed.weight))
    assert sum(p.numel() for p in task.parameters()) - narrow == decoder


@pytest.mark.parametrize(
    ("name", "full", "auxiliary"),
    [("videomae_s", 56.9, {0.75: 17.6, 0.9: 11.5, 0.95: 9.7}), ("videomae_b", 180.3, {0.75: 57.4, 0.95: 28.3})],
)
def test_macs_are_the_specs_within_half_a_percent(name: str, full: float, auxiliary: dict) -> None:
    for ratio, expected in auxiliary.items():
        macs = count_macs(*meta(name, ratio), CLIP)
        assert macs["full"] / 1e9 == pytest.approx(full, rel=0.005)
        assert macs["auxiliary"] / 1e9 == pytest.approx(expected, rel=0.005)
    assert macs["both"] / macs["full"] <= 1.2  # at 0.95


def test_a_joint_step_at_95_percent_costs_at_most_1_2_of_scratch() -> None:
    encoder, task = meta("videomae_s", 0.95)
    with torch.device("meta"):
        head = nn.Linear(encoder.num_features, 2)
    scratch = count_step_macs(encoder, None, CLIP, head=head)
    assert 1 < count_step_macs(encoder, task, CLIP, head=head) / scratch <= 1.2


@pytest.mark.parametrize(
    ("task", "encoder", "sentence"),
    [
        (VideoMAE, VisionTransformer, "ssl=this hides tubes of clips, and VisionTransformer takes images"),
        (Reconstruction, SMALL, "ssl=this reads images, and VideoTransformer takes clips: use ssl=videomae"),
    ],
)
def test_clips_and_images_are_told_apart(task: type[Task], encoder: type, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        task.check_encoder(encoder(), "this")


def test_statistics_of_another_number_of_channels_are_refused() -> None:
    with pytest.raises(UserError, match=r"mean=\[0.5\] has 1 values, and the clips have 3 channels"):
        small(mean=(0.5,))


def test_the_loss_equals_the_transformers_library() -> None:
    transformers = pytest.importorskip("transformers", reason="the oracle is not installed")
    from transformers.models.videomae.modeling_videomae import VideoMAEForPreTraining

    config = transformers.VideoMAEConfig(
        image_size=32, patch_size=8, num_frames=4, hidden_size=48, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=192, layer_norm_eps=1e-6, decoder_hidden_size=32, decoder_num_attention_heads=2,
        decoder_num_hidden_layers=2, decoder_intermediate_size=128, norm_pix_loss=True, use_mean_pooling=False,
    )  # fmt: skip
    theirs = VideoMAEForPreTraining(config).eval()
    theirs.decoder.norm.eps = 1e-6
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    encoder, task = small(decoder_heads=2, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    state = theirs.state_dict()
    ours = from_transformers({name: value for name, value in state.items() if name.startswith("videomae.")})
    missing, unexpected = encoder.load_state_dict(ours, strict=False)
    assert set(missing) == encoder.only_full() and not unexpected
    decoder = {name.removeprefix("decoder.").replace("decoder_layers.", "encoder.layer."): value
               for name, value in state.items() if name.startswith("decoder.")}  # fmt: skip
    renamed = from_transformers(decoder)
    renamed |= {"mask_token": state["mask_token"], "embed.weight": state["encoder_to_decoder.weight"]}
    task.decoder.load_state_dict(renamed)
    clips = torch.randn(3, 3, 4, 32, 32)
    mask = task.fixed_mask(torch.arange(3))
    gradients = []
    expected = theirs(clips.transpose(1, 2), bool_masked_pos=mask).loss
    for loss in (task(encoder, Batch(clips), False, mask=mask).loss, task.forward_reference(encoder, clips, mask)):
        assert loss.item() == pytest.approx(expected.item(), abs=1e-4)
        encoder.zero_grad()
        loss.backward()
        gradients.append(encoder.patch_embed.proj.weight.grad.clone())
    expected.backward()
    reference = theirs.videomae.embeddings.patch_embeddings.projection.weight.grad
    assert all((gradient - reference).abs().max() < 1e-4 for gradient in gradients)
