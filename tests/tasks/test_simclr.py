"""NT-Xent against known answers and lightly's; how views are shared with the classification."""

import math

import pytest
import torch
import torch.nn.functional as F

from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.encoders.vit import VisionTransformer
from ssat.tasks.simclr import ProjectionHead, SimCLR, nt_xent
from tests.encoders.cases import build


def test_equal_embeddings_give_the_logarithm_of_the_number_of_others():
    assert nt_xent(torch.ones(64, 8), torch.ones(64, 8), 0.5).item() == pytest.approx(4.844187, abs=1e-6)


def test_perfect_pairs_that_are_orthogonal_to_all_others_give_the_closed_form():
    assert nt_xent(torch.eye(16), torch.eye(16), 0.5).item() == pytest.approx(1.621378, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.1, 0.2, 0.5])
def test_loss_is_the_definition_written_out(temperature):
    first, second = torch.randn(2, 5, 7)
    z = [v / v.norm() for v in torch.cat([first, second])]
    total = 0.0
    for i in range(10):
        others = sum(math.exp(z[i] @ z[j] / temperature) for j in range(10) if j != i)
        total -= math.log(math.exp(z[i] @ z[(i + 5) % 10] / temperature) / others)
    assert nt_xent(first, second, temperature).item() == pytest.approx(total / 10, abs=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_loss_is_that_of_lightly(temperature):
    loss = pytest.importorskip("lightly.loss")
    first, second = torch.randn(2, 16, 32)
    expected = loss.NTXentLoss(temperature=temperature)(first, second)
    assert nt_xent(first, second, temperature).item() == pytest.approx(expected.item(), abs=1e-5)


def test_similarities_are_computed_in_fp32_under_autocast():
    first, second = torch.randn(2, 16, 32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = nt_xent(first, second, 0.1)
    assert torch.equal(loss, nt_xent(first, second, 0.1))


def test_projection_head_has_the_parameters_of_the_specification():
    assert sum(p.numel() for p in ProjectionHead(192, 192, 128).parameters()) == 62_080


class Counting(VisionTransformer):
    """Counts the images that pass."""

    passed = 0

    def forward_features(self, images):
        self.passed += len(images)
        return super().forward_features(images)


@pytest.mark.parametrize(("share", "views", "passed"), [("shared", 1, 8), ("third", 2, 12), ("both_cls", 1, 8)])
def test_sharing_decides_how_many_images_are_encoded(share, views, passed):
    encoder = Counting(12, 3, embed_dim=24, depth=1, num_heads=2)
    task = SimCLR(encoder, share=share)
    assert len(task.extra_views) == views
    assert task.compares_images == (share != "third")
    task(encoder, Batch(torch.randn(4, 3, 12, 12), views=(torch.randn(4, 3, 12, 12),) * views), True)
    assert encoder.passed == passed


def test_both_views_are_classified_on_demand():
    encoder = build("vit")
    task = SimCLR(encoder, share="both_cls")
    images, view = torch.randn(2, 4, 3, 12, 12)
    features = task(encoder, Batch(images, views=(view,)), True).features
    assert torch.allclose(features, encoder.forward_features(torch.cat([images, view])), atol=1e-6)


def test_third_compares_the_extra_views_and_not_the_classification_images():
    encoder = build("vit")
    task = SimCLR(encoder, share="third", temperature=0.3).eval()
    images, first, second = torch.randn(3, 4, 3, 12, 12)
    loss, features, _ = task(encoder, Batch(images, views=(first, second)), True)
    z = task.head(encoder.forward_features(torch.cat([first, second]))).chunk(2)
    assert loss.item() == pytest.approx(nt_xent(*z, 0.3).item(), abs=1e-6)
    assert torch.allclose(features, encoder.forward_features(images), atol=1e-6)


def test_a_batch_without_views_is_refused_with_the_cure():
    encoder = build("vit")
    with pytest.raises(UserError, match=r"needs 1 extra view.*data\.pipeline=batched"):
        SimCLR(encoder)(encoder, Batch(torch.randn(4, 3, 12, 12)), True)


@pytest.mark.parametrize(
    ("options", "sentence"), [({"share": "fourth"}, "share"), ({"temperature": 0}, "temperature=0")]
)
def test_impossible_values_are_refused(options, sentence):
    with pytest.raises(UserError, match=sentence):
        SimCLR(build("vit"), **options)


def test_training_on_the_loss_makes_pairs_alike():
    torch.manual_seed(0)
    head = ProjectionHead(16, 16, 8)
    anchors = torch.randn(32, 16)
    optimizer = torch.optim.Adam(head.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        first, second = (anchors + 0.3 * torch.randn_like(anchors) for _ in range(2))
        loss = nt_xent(*head(torch.cat([first, second])).chunk(2), 0.5)
        optimizer.zero_grad(), loss.backward(), optimizer.step()
        losses.append(loss.item())
    z1, z2 = head(torch.cat([anchors, anchors.roll(1, 0)])).chunk(2)
    assert losses[-1] < losses[0] - 0.3
    assert F.cosine_similarity(z1, z2).mean() < 0.5
