"""Dense relative localisation: known distances, the best constant predictor, its schedule."""

import pytest
import torch

from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.encoders.cvt import ConvolutionalVisionTransformer
from ssat.encoders.vit import VisionTransformer
from ssat.tasks.drloc import Drloc
from tests.encoders.cases import build, images_for


class Constant(torch.nn.Module):
    """Answers the same distance for every pair."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, pairs: torch.Tensor) -> torch.Tensor:
        return torch.full((*pairs.shape[:2], 2), self.value)


def every_pair(side: int) -> torch.Tensor:
    cells = torch.arange(side * side)
    return torch.cat([cells.repeat_interleave(len(cells)), cells.repeat(len(cells))])[None]


@pytest.mark.parametrize(("side", "expected"), [(7, 1.347), (14, 2.724)])
def test_best_constant_answer_is_off_by_the_specifications_distance(side, expected):
    task, index = Drloc(build("vit")), every_pair(side)
    losses = []
    for answer in range(side):
        task.mlp = Constant(answer)
        losses.append(task.distance_loss(torch.zeros(1, 24, side, side), index).item())
    assert min(losses) == pytest.approx(expected, abs=1e-3)


def test_answer_0_is_off_by_the_mean_distance_of_two_random_positions():
    task = Drloc(build("vit"))
    task.mlp = Constant(0.0)
    loss = task.distance_loss(torch.zeros(1, 24, 7, 7), every_pair(7))
    assert loss.item() == pytest.approx((7**2 - 1) / (3 * 7), abs=1e-5)


def test_distances_are_rows_and_columns_of_the_chosen_positions():
    task = Drloc(build("vit"))

    class ReadsBack(torch.nn.Module):
        """The map holds its own coordinates, so the true distance can be computed from the pair of vectors."""

        def forward(self, pairs):
            first, second = pairs.chunk(2, dim=2)
            return (first - second).abs()

    rows, cols = torch.meshgrid(torch.arange(3.0), torch.arange(5.0), indexing="ij")
    task.mlp = ReadsBack()
    index = torch.randint(0, 15, (4, 2 * 9))
    coordinates = torch.stack([rows, cols])[None].expand(4, -1, -1, -1)
    assert task.distance_loss(coordinates, index).item() == 0
    task.normalise = True
    shares = coordinates / torch.tensor([3.0, 5.0]).view(1, 2, 1, 1)
    assert task.distance_loss(shares, index).item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(("dim", "heads", "expected"), [(384, 6, 657_410), (192, 3, 460_802)])
def test_network_has_the_parameters_of_the_specification(dim, heads, expected):
    encoder = VisionTransformer(16, 4, embed_dim=dim, depth=1, num_heads=heads)
    assert sum(p.numel() for p in Drloc(encoder).parameters()) == expected


def test_positions_are_uniform_with_replacement_and_new_at_every_step():
    encoder = build("vit")
    task = Drloc(encoder, pairs=500).train()
    batch = Batch(images_for(encoder, 20), indices=torch.arange(20))
    first, second = task.draw(batch, 16), task.draw(batch, 16)
    assert first.shape == (20, 1000)
    shares = torch.bincount(first.flatten(), minlength=16) / first.numel()
    assert (shares - 1 / 16).abs().max() < 0.01
    assert (first == second).float().mean() == pytest.approx(1 / 16, abs=0.01)


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 0.0), (0.1, 0.25), (0.2, 0.5), (1.0, 0.5 * 2 / 2.8)])
def test_published_weight_rises_for_a_fifth_and_then_falls_towards_three_times_the_training(progress, expected):
    task = Drloc(build("vit"), weight=0.5, schedule="drloc")
    task.after_step(build("vit"), progress, 1)
    assert task.factor().item() == pytest.approx(expected, abs=1e-6)


def test_cvt_map_of_14_by_14_is_pooled_to_7_by_7():
    encoder = ConvolutionalVisionTransformer(
        224, strides=(4, 2, 2), dims=(4, 8, 8), depths=(1, 1, 1), num_heads=(1, 1, 1), drop_path=0.0
    ).eval()
    task = Drloc(encoder, pool=True).eval()
    seen = []
    task.distance_loss = lambda final, index: seen.append(final.shape[2:]) or torch.zeros(())
    task(encoder, Batch(torch.randn(1, 3, 224, 224)), False)
    assert seen == [(7, 7)]


def test_a_map_of_one_position_is_refused():
    with pytest.raises(UserError, match="at least 2 x 2 positions"):
        Drloc(VisionTransformer(4, 4, embed_dim=8, depth=1, num_heads=1))


@pytest.mark.parametrize("options", [{"pairs": 0}, {"weight": -1}, {"schedule": "cosine"}])
def test_impossible_values_are_refused(options):
    with pytest.raises(UserError, match=f"ssl.{next(iter(options))}="):
        Drloc(build("vit"), **options)
