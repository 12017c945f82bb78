"""Evidence for a class per patch and time slot: known answers, and sums that are the network's own scores."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssat.analysis import plots
from ssat.analysis.evidence import check, evidence, film_strip, log_odds, names_of, token_logits
from ssat.analysis.models import Curve
from ssat.analysis.plots import Line, Panel, draw_strip
from ssat.core.errors import UserError
from ssat.data.video.manifest import Entry
from ssat.encoders.videomae import VideoTransformer
from ssat.training.classification import linear_head
from tests.encoders.cases import build, images_for


def model_of(encoder: nn.Module, head: nn.Module) -> SimpleNamespace:
    facts = {"run": "a/run"}
    return SimpleNamespace(
        encoder=encoder, head=head, facts=facts, logits=lambda clips: head(encoder.forward_features(clips))
    )


def video_model(classes: int, *, case: str = "videomae", norm: bool = False) -> SimpleNamespace:
    encoder = build(case)
    head = linear_head(encoder.num_features, classes, norm=norm).eval()
    with torch.no_grad():
        for module in head.modules():
            if isinstance(module, nn.Linear):
                module.bias.normal_()
            elif isinstance(module, nn.BatchNorm1d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return model_of(encoder, head)


def test_log_odds_of_two_classes_are_those_of_the_probability() -> None:
    logits, classes = torch.randn(5, 2), torch.tensor([0, 1, 0, 1, 1])
    probability = logits.softmax(1).gather(1, classes.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(log_odds(logits, classes).sigmoid(), probability)


def test_log_odds_of_more_classes_are_against_the_mean_of_the_others() -> None:
    logits = torch.tensor([[[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]], [[1.0, 2.0, 6.0], [9.0, 0.0, 3.0]]])
    assert log_odds(logits, torch.tensor([2, 0])).tolist() == [[4.5, 3.0], [-3.0, 7.5]]


@pytest.mark.parametrize("case", ["videomae", "videomae-rectangular-grey"])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_mean_evidence_is_the_clips_own_score(case: str, norm: bool, classes: int) -> None:
    model = video_model(classes, case=case, norm=norm)
    clips, targets = images_for(model.encoder, 4), torch.tensor([0, 1, 1, 0])
    with torch.no_grad():
        logits, found = evidence(model, clips, targets)
        own = model.logits(clips)
    assert found.shape == (4, *model.encoder.mask_grid)
    torch.testing.assert_close(logits, own, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.mean((1, 2, 3)), log_odds(own, targets), atol=1e-5, rtol=1e-4)


def test_the_evidence_of_two_classes_is_opposite() -> None:
    model = video_model(2)
    clips = images_for(model.encoder, 1).expand(2, -1, -1, -1, -1)
    with torch.no_grad():
        _, found = evidence(model, clips, torch.tensor([0, 1]))
    torch.testing.assert_close(found[0], -found[1])


def see_through(frames: int = 8, size: int = 12, patch: int = 4) -> VideoTransformer:
    """Blocks that change nothing and no positions: a token is the mean of its tubelet's red in channel 0."""
    encoder = VideoTransformer(frames, size, patch, embed_dim=4, depth=2, num_heads=1).eval()
    with torch.no_grad():
        for block in encoder.blocks:
            for layer in (block.attn.proj, block.mlp.fc2):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
        encoder.pos_embed.zero_()
        weight = encoder.patch_embed.proj.weight.zero_()
        weight[0, 0] = 1 / weight[0, 0].numel()
        encoder.patch_embed.proj.bias.copy_(torch.tensor([0.0, 1.0, 0.0, -1.0]))
    return encoder


@pytest.mark.parametrize("place", [(0, 0, 0), (2, 0, 1), (3, 2, 2)])
def test_evidence_that_sits_in_one_patch_and_one_slot_is_found_there(place: tuple[int, int, int]) -> None:
    encoder, head = see_through(), nn.Linear(4, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[0.0, 0, 0, 0], [1, 0, 0, 0]]))  # fake = red
        head.bias.zero_()
    clip = torch.zeros(1, 3, 8, 12, 12)
    slot, row, col = place
    clip[0, 0, 2 * slot : 2 * slot + 2, 4 * row : 4 * row + 4, 4 * col : 4 * col + 4] = 1.0
    with torch.no_grad():
        _, (found,) = evidence(model_of(encoder, head), clip, torch.tensor([1]))
    others = torch.ones_like(found, dtype=torch.bool)
    others[place] = False
    # The mean token is (1 / 36, 1, 0, -1): its deviation scales all tokens, of (1, 1, 0, -1) and (0, 1, 0, -1).
    mean = torch.tensor([1 / 36, 1.0, 0.0, -1.0])
    scale = (mean.var(unbiased=False) + 1e-6).rsqrt()
    torch.testing.assert_close(found[place], 0.75 * scale)
    torch.testing.assert_close(found[others], torch.zeros(35), atol=1e-6, rtol=0)
    assert found.mean((1, 2)).argmax() == slot


def test_a_classifier_that_is_not_linear_is_never_explained() -> None:
    encoder = build("videomae")
    head = nn.Sequential(nn.Linear(encoder.num_features, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad(), pytest.raises(RuntimeError, match="the classifier is not linear"):
        token_logits(model_of(encoder, head), 3 * images_for(encoder))


def test_a_model_without_classes_or_without_a_mean_of_tokens_is_refused() -> None:
    with pytest.raises(UserError, match="a/run has learned no labels"):
        check(model_of(build("videomae"), None))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="VisionTransformer has no forward_tokens"):
        check(model_of(build("vit"), nn.Identity()))


def ramp(slots: int) -> Tensor:
    return torch.arange(slots, dtype=torch.float32).view(-1, 1, 1).expand(slots, 2, 2) - 4


def test_a_film_strip_shows_the_first_frame_of_each_slot_on_one_scale() -> None:
    frames = torch.arange(16.0).view(16, 1, 1, 1).expand(16, 4, 4, 3)
    strip = film_strip(frames, [number / 10 for number in range(16)], ramp(8), "fake 90 %")
    assert strip.seconds == [0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4]
    assert strip.frames[:, 0, 0, 0].tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    assert strip.heat.shape == (8, 4, 4)
    assert strip.heat[:, 3, 3].tolist() == [-4, -3, -2, -1, 0, 1, 2, 3]
    assert (strip.largest, strip.caption) == (4, "fake 90 %\nat most ±4")


def test_a_long_clip_shows_every_other_slot() -> None:
    frames = torch.arange(32.0).view(32, 1, 1, 1).expand(32, 4, 4, 3)
    strip = film_strip(frames, [*range(32)], ramp(16), "")
    assert strip.seconds == [0, 4, 8, 12, 16, 20, 24, 28]
    assert strip.frames[:, 0, 0, 0].tolist() == [0, 4, 8, 12, 16, 20, 24, 28]
    assert (strip.heat[-1, 0, 0], strip.largest) == (10, 11)  # the last slot is not shown


def test_all_networks_of_a_picture_have_one_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    monkeypatch.setattr(plots, "evidence_colours", lambda frames, heat: seen.append(np.abs(heat).max()) or frames)
    frames = torch.rand(4, 4, 4, 3)
    strips = {f"{size}": film_strip(frames, [0, 1, 2, 3], torch.full((2, 2, 2), size), "") for size in (0.5, -2.0)}
    lines = [Line(name, "ssat", Curve([0, 2], [0, 0])) for name in strips]
    draw_strip(strips, Panel("", "seconds", "evidence"), lines, "two", tmp_path / "two.png")
    assert seen[:2] == [0.25, 1]


def test_no_evidence_is_an_uncoloured_strip(tmp_path: Path) -> None:
    strip = film_strip(torch.rand(4, 4, 4, 3), [0, 0, 0, 0], torch.zeros(2, 2, 2), "")
    assert not strip.heat.any()
    line = Line("a", "ssat", Curve([0, 0], [0, 0]))
    draw_strip({"a": strip}, Panel("", "seconds", "evidence"), [line], "none", tmp_path / "none.png")
    assert (tmp_path / "none.png").stat().st_size > 1000


def test_videos_are_called_by_file_method_and_class() -> None:
    def entry(video_id: str, label: int, method: str) -> Entry:
        return Entry("video_folder", video_id, f"{video_id}.mp4", label, method)

    entries = [entry("a/b/071", 0, "original"), entry("x/071_054", 1, "Deepfakes"), entry("fake/1/v", 1, "fake")]
    assert names_of(entries, ["real", "fake"]) == ["071 (original, real)", "071_054 (Deepfakes, fake)", "v (fake)"]
    again = [entry("fake/1/v", 1, "fake"), entry("fake/2/v", 1, "fake")]
    assert names_of(again, ["real", "fake"]) == ["fake/1/v (fake)", "fake/2/v (fake)"]
