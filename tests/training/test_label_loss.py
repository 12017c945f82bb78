"""L_cls of several labels of an image: against PyTorch's and torchvision's losses, and mixed by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from ssat.core.batch import NO_LABEL, Batch
from ssat.core.errors import UserError
from ssat.training.classification import ClassLoss
from ssat.training.label_loss import LabelLoss, pos_weights
from ssat.training.mixing import Mix, Mixing

N, K = 6, 3


def batch(**parts: torch.Tensor) -> Batch:
    generator = torch.Generator().manual_seed(1)
    targets = torch.randint(0, 2, (N, K), generator=generator).float()
    return Batch(torch.randn(N, 3, 4, 4, generator=generator), targets, indices=torch.arange(N))._replace(**parts)


@pytest.fixture
def logits() -> torch.Tensor:
    return 3 * torch.randn(N, K, generator=torch.Generator().manual_seed(0))


def test_it_is_the_mean_binary_cross_entropy(logits: torch.Tensor) -> None:
    own = batch()
    assert LabelLoss(0.0)(logits, own).item() == pytest.approx(
        F.binary_cross_entropy(logits.sigmoid(), own.targets).item(), rel=1e-6
    )
    doubled = LabelLoss(0.0)(torch.cat([logits, logits]), own)  # two views of each image
    assert doubled.item() == pytest.approx(LabelLoss(0.0)(logits, own).item(), rel=1e-6)
    assert LabelLoss(0.0)(None, own).item() == 0


def test_smoothing_moves_each_label_towards_one_half() -> None:
    one = Batch(torch.zeros(1, 3, 4, 4), torch.tensor([[1.0, 0.0]]))
    # y = 0.95 and 0.05 at logit 2: -0.95 log p - 0.05 log(1 - p), and the other way round
    p = torch.tensor(2.0).sigmoid().double()
    expected = (-(0.95 * p.log() + 0.05 * (1 - p).log()) - (0.05 * p.log() + 0.95 * (1 - p).log())) / 2
    assert LabelLoss(0.1)(torch.tensor([[2.0, 2.0]]), one).item() == pytest.approx(expected.item(), rel=1e-6)


def test_balanced_weights_are_negatives_by_positives_and_torch_s_pos_weight(logits: torch.Tensor) -> None:
    weights = pos_weights("balanced", {"rare": 2, "half": 10, "usual": 16}, 20)
    assert weights.tolist() == [9, 1, 0.25]
    expected = torch.nn.BCEWithLogitsLoss(pos_weight=weights)(logits, batch().targets)
    assert LabelLoss(0.0, pos_weight=weights)(logits, batch()).item() == pytest.approx(expected.item(), rel=1e-6)
    assert pos_weights([1, 2, 3], {"a": 1, "b": 1, "c": 1}, 3).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("given", "counts", "says"),
    [
        ("balanced", {"a": 0, "b": 2}, "none has the label 'a'"),
        ("balanced", {"a": 3, "b": 2}, "all have the label 'a'"),
        ([1.0], {"a": 1, "b": 2}, "has 1 weights, and the data have 2 labels: give one for each, in the order a, b"),
    ],
)
def test_weights_that_are_not_possible_are_one_sentence(given: object, counts: dict[str, int], says: str) -> None:
    with pytest.raises(UserError, match=says):
        pos_weights(given, counts, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_the_focal_loss_is_torchvision_s(logits: torch.Tensor, gamma: float) -> None:
    expected = sigmoid_focal_loss(logits, batch().targets, alpha=-1, gamma=gamma, reduction="mean")
    assert LabelLoss(0.0, focal_gamma=gamma)(logits, batch()).item() == pytest.approx(expected.item(), rel=1e-5)
    sure = torch.full((N, K), 200.0).requires_grad_()
    LabelLoss(0.0, focal_gamma=gamma)(sure, batch(targets=torch.ones(N, K))).backward()
    assert sure.grad is not None and sure.grad.isfinite().all()
    with pytest.raises(UserError, match="set label_smoothing=0"):
        LabelLoss(0.1, focal_gamma=gamma)


def test_images_whose_labels_are_not_used_count_for_nothing(logits: torch.Tensor) -> None:
    hidden = batch()
    hidden.targets[::2] = NO_LABEL
    known = Batch(hidden.images[1::2], hidden.targets[1::2])
    partly = LabelLoss(0.1, partly_labelled=True)
    assert partly(logits, hidden).item() == pytest.approx(LabelLoss(0.1)(logits[1::2], known).item(), rel=1e-6)
    none = batch(targets=torch.full((N, K), float(NO_LABEL)))
    assert partly(logits, none).item() == 0


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_labels_have_the_shares_of_the_mixed_pixels(mode: str, kind: str) -> None:
    """Images whose pixels are their number: the mean of a mixed one tells the share of each."""
    torch.manual_seed(0)
    numbers = torch.arange(float(N)).view(N, 1, 1, 1).expand(N, 3, 8, 8).clone()
    labels = torch.eye(N)
    mix = Mix(Mixing(**{kind: 1.0, "mode": mode}), N, 0.1, multi_label=True)
    mixed = mix(Batch(numbers, labels))
    assert mixed.targets is not None and not torch.equal(mixed.targets, labels)
    assert torch.allclose(mixed.targets.sum(1), torch.ones(N))
    means = mixed.images.mean(dim=(1, 2, 3))
    assert torch.allclose(mixed.targets @ torch.arange(float(N)), means, atol=1e-4)
    assert torch.equal(numbers[:, 0, 0, 0], torch.arange(float(N)))  # the loader's own tensors are as they were


def test_one_class_for_each_image_is_untouched() -> None:
    """The same random numbers give the same mixed batch, with soft classes (B, K) that mixing has smoothed."""
    import numpy as np

    own = batch(targets=torch.tensor([0, 1, 2, 0, 1, 2]))
    np.random.seed(3)
    mixed = Mix(Mixing(mixup=1.0), K, 0.1)(own)
    assert mixed.targets is not None and torch.allclose(mixed.targets.sum(1), torch.ones(N))
    assert mixed.targets.min() >= 0.1 / K - 1e-6
    assert ClassLoss(0.1)(torch.zeros(N, K), mixed).item() == pytest.approx(np.log(K), rel=1e-5)
