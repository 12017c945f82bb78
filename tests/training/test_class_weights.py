"""The weighted cross-entropy of Eq. 3 and the focal loss by hand, and what weighing must not change."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn

from ssat.config.identity import config_hash
from ssat.config.resolve import resolve
from ssat.config.schema import Run
from ssat.config.words import CONF
from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.encoders.base import Encoder
from ssat.tasks.base import Task, TaskOutput
from ssat.training.build import build_module
from ssat.training.classification import ClassLoss, class_weights, weights_of_classes
from ssat.training.data import build_images
from ssat.training.module import JointModule
from ssat.training.steps import Progress
from tests.encoders.cases import build, images_for


def real_and_fake(w: float) -> Tensor:
    return class_weights(w, {"real": 1, "fake": 3})


def loss_of(logits: Tensor, targets: Tensor, w: float | None, normalize: str = "weights", **options: float) -> float:
    weights = None if w is None else real_and_fake(w)
    loss = ClassLoss(options.pop("smoothing", 0.0), class_weights=weights, normalize=normalize, **options)
    return loss(logits, Batch(torch.zeros(len(targets)), targets)).item()


P_FAKE = torch.tensor([0.2, 0.6, 0.9])
LOGITS = torch.stack([(1 - P_FAKE).log(), P_FAKE.log()], 1)
LABELS = torch.tensor([0, 1, 1])  # real, fake, fake


def test_equation_3_by_hand() -> None:
    terms = [-0.75 * math.log(0.8), -0.25 * math.log(0.6), -0.25 * math.log(0.9)]
    assert loss_of(LOGITS, LABELS, 0.75, "none") == pytest.approx(sum(terms) / 3)
    assert loss_of(LOGITS, LABELS, 0.75) == pytest.approx(sum(terms) / (0.75 + 0.25 + 0.25))


def test_w_belongs_to_the_real_class() -> None:
    assert torch.equal(real_and_fake(0.82), torch.tensor([0.82, 1 - 0.82]))
    real, fake = LABELS.new_zeros(3), LABELS.new_ones(3)
    assert loss_of(LOGITS, real, 0.8, "none") == pytest.approx(0.8 * F.cross_entropy(LOGITS, real).item())
    assert loss_of(LOGITS, fake, 0.8, "none") == pytest.approx(0.2 * F.cross_entropy(LOGITS, fake).item())


def test_equal_weights_are_no_weights() -> None:
    plain = loss_of(LOGITS, LABELS, None)
    assert loss_of(LOGITS, LABELS, 0.5) == pytest.approx(plain)
    assert loss_of(LOGITS, LABELS, 0.5, "none") == pytest.approx(plain / 2)


def test_the_automatic_weight_gives_both_classes_the_same_influence() -> None:
    labels = torch.tensor([1] * 82 + [0] * 18)
    w, rest = class_weights("auto", {"real": 18, "fake": 82}).tolist()
    assert (w, rest) == (pytest.approx(0.82), pytest.approx(0.18))
    logits = torch.zeros(100, 2, requires_grad=True)
    loss = ClassLoss(0.0, class_weights=real_and_fake(w))(logits, Batch(torch.zeros(100), labels))
    loss.backward()
    assert logits.grad is not None and logits.grad.sum(0).abs().max() < 1e-6  # no push to either class
    literal = loss_of(logits.detach(), labels, w, "none")
    assert literal / loss.item() == pytest.approx(2 * 0.82 * 0.18)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_smoothing_and_missing_labels_together(smoothing: float) -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(6, 3), torch.tensor([0, -1, 2, 1, -1, 2])
    weights = torch.tensor([0.5, 0.3, 0.2])
    total = 0.0
    for row, target in zip(logits.log_softmax(1), targets.tolist(), strict=True):
        if target >= 0:
            smooth = torch.full((3,), smoothing / 3)
            smooth[target] += 1 - smoothing
            total -= (weights * smooth * row).sum().item()
    for normalize, size in (("weights", 0.5 + 0.2 + 0.3 + 0.2), ("none", 4)):
        loss = ClassLoss(smoothing, partly_labelled=True, class_weights=weights, normalize=normalize)
        found = loss(logits, Batch(torch.zeros(6), targets))
        assert found.item() == pytest.approx(total / size, rel=1e-5)
    expected = F.cross_entropy(logits, targets, weights, ignore_index=-1, label_smoothing=smoothing)
    assert total / 1.2 == pytest.approx(expected.item(), rel=1e-5)  # "weights" is PyTorch's mean


def test_mixed_targets_are_weighed_as_their_parts() -> None:
    hard = F.one_hot(LABELS, 2).float()
    for normalize in ("weights", "none"):
        assert loss_of(LOGITS, hard, 0.75, normalize) == pytest.approx(loss_of(LOGITS, LABELS, 0.75, normalize))
    mixed = torch.tensor([[0.3, 0.7]])
    expected = -(0.75 * 0.3 * math.log(0.8) + 0.25 * 0.7 * math.log(0.2))
    assert loss_of(LOGITS[:1], mixed, 0.75, "none") == pytest.approx(expected)
    assert loss_of(LOGITS[:1], mixed, 0.75) == pytest.approx(expected / (0.75 * 0.3 + 0.25 * 0.7))


def test_a_batch_without_labels_has_a_loss_of_0_with_a_gradient() -> None:
    logits = torch.randn(4, 2, requires_grad=True)
    loss = ClassLoss(0.1, partly_labelled=True, class_weights=real_and_fake(0.8))
    found = loss(logits, Batch(torch.zeros(4), torch.full((4,), -1)))
    found.backward()
    assert found.item() == 0 and logits.grad is not None and not logits.grad.any()


def test_half_precision_is_computed_in_fp32() -> None:
    loss = ClassLoss(0.0, class_weights=real_and_fake(0.8).half())
    found = loss(LOGITS.bfloat16(), Batch(torch.zeros(3), LABELS))
    assert found.dtype == torch.float32


class Squares(Task):
    def forward(self, encoder: Encoder, batch: Batch, with_features: bool) -> TaskOutput:
        features = encoder.forward_features(batch.images)
        return TaskOutput(features.square().mean(), features if with_features else None, {})


@pytest.mark.parametrize("lam", [1.0, 0.1, 0.0])
def test_equation_1_holds_with_the_weighted_loss(lam: float) -> None:
    encoder: nn.Module = build("vit")
    images = images_for(encoder)
    batch = Batch(images, torch.arange(len(images)) % 2, indices=torch.arange(len(images)))
    module = JointModule(encoder, num_classes=2, ssl=Squares() if lam < 1 else None, lam=lam).eval()
    module.cls_loss = ClassLoss(0.0, class_weights=real_and_fake(0.75))
    found, _ = module.joint_step(batch, Progress(0, 0.0))
    features = encoder.forward_features(images)
    squares = features.square().mean()
    if lam == 0:
        expected = squares
    else:
        weighted = F.cross_entropy(module.head(features), batch.targets, torch.tensor([0.75, 0.25]))
        expected = lam * weighted + (1 - lam) * squares
    torch.testing.assert_close(found, expected)


def test_more_classes_weigh_alike_too() -> None:
    weights = class_weights("auto", {"a": 10, "b": 20, "c": 40})
    assert (weights * torch.tensor([10, 20, 40])).tolist() == pytest.approx([40 / 7] * 3)


@pytest.mark.parametrize("counts", [{"real": 0, "fake": 2}, {"real": 1, "fake": 0}, {"a": 1, "b": 0, "c": 3}])
def test_what_cannot_be_balanced_is_refused(counts: dict[str, int]) -> None:
    with pytest.raises(UserError, match="the training data have none of"):
        class_weights("auto", counts)


@pytest.mark.parametrize("w", [0.0, 1.0, -1.0, float("nan")])
def test_a_weight_out_of_range_is_refused(w: float) -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        real_and_fake(w)


def test_a_number_is_of_two_classes() -> None:
    with pytest.raises(UserError, match="one class of two; the data have 3"):
        class_weights(0.5, {"a": 1, "b": 2, "c": 3})


def test_balanced_weights_are_scikit_learns() -> None:
    labels = np.repeat(["a", "b", "c"], [10, 20, 47])
    expected = compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    assert weights_of_classes("balanced", Counter(labels)).tolist() == pytest.approx(expected, rel=1e-6)


def test_balanced_is_the_automatic_weight_wherever_weights_are_normalised() -> None:
    logits, targets = torch.randn(9, 3), torch.arange(9) % 3
    counts = {"a": 5, "b": 2, "c": 11}
    batch = Batch(torch.zeros(9), targets)
    both = [
        ClassLoss(0.1, class_weights=weights)(logits, batch)
        for weights in (weights_of_classes("balanced", counts), class_weights("auto", counts))
    ]
    torch.testing.assert_close(*both)


def test_listed_weights_are_torchs() -> None:
    logits, targets = torch.randn(9, 3), torch.arange(9) % 3
    weights = weights_of_classes([1, 2.5, 4], {"a": 1, "b": 1, "c": 1})
    found = ClassLoss(0.1, class_weights=weights)(logits, Batch(torch.zeros(9), targets))
    torch.testing.assert_close(found, F.cross_entropy(logits, targets, weights, label_smoothing=0.1))


def test_as_many_weights_as_classes_are_needed() -> None:
    with pytest.raises(UserError, match=r"has 2 weights, and the data have 3 classes: .* in the order a, b, c, or"):
        weights_of_classes([1, 2], {"a": 1, "b": 1, "c": 1})
    with pytest.raises(UserError, match=r"recipe.class_weights=balanced weighs the classes, .* none of b: add some"):
        weights_of_classes("balanced", {"a": 1, "b": 0})


def test_the_focal_loss_by_hand() -> None:
    """Lin et al. 2017, Eq. 4: -(1 - p)^gamma log p; their example: p = 0.9 and gamma = 2 weigh 100 times less."""
    loss = ClassLoss(0.0, focal_gamma=2.0)(LOGITS, Batch(torch.zeros(3), LABELS)).item()
    terms = [-(0.2**2) * math.log(0.8), -(0.4**2) * math.log(0.6), -(0.1**2) * math.log(0.9)]
    assert loss == pytest.approx(sum(terms) / 3)
    easy = Batch(torch.zeros(1), LABELS[2:])
    plain, focal = ClassLoss(0.0)(LOGITS[2:], easy), ClassLoss(0.0, focal_gamma=2.0)(LOGITS[2:], easy)
    assert (plain / focal).item() == pytest.approx(100, rel=1e-4)


def test_the_focal_loss_takes_weights_and_unlabelled_images() -> None:
    targets, weights = torch.tensor([0, 1, -1]), torch.tensor([0.75, 0.25])
    loss = ClassLoss(0.0, partly_labelled=True, class_weights=weights, focal_gamma=1.0)
    found = loss(LOGITS, Batch(torch.zeros(3), targets)).item()
    assert found == pytest.approx(-0.75 * 0.2 * math.log(0.8) - 0.25 * 0.4 * math.log(0.6))
    unweighted = ClassLoss(0.0, partly_labelled=True, focal_gamma=1.0)(LOGITS, Batch(torch.zeros(3), targets)).item()
    assert unweighted == pytest.approx((-0.2 * math.log(0.8) - 0.4 * math.log(0.6)) / 2)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_the_focal_loss_has_finite_gradients_where_all_is_right(gamma: float) -> None:
    logits = torch.tensor([[80.0, -80.0], [-80.0, 80.0]], requires_grad=True)
    ClassLoss(0.0, focal_gamma=gamma)(logits, Batch(torch.zeros(2), torch.tensor([0, 0]))).backward()
    assert logits.grad is not None and logits.grad.isfinite().all() and logits.grad[1].abs().sum() > 0


def test_the_focal_loss_has_one_right_class() -> None:
    with pytest.raises(UserError, match="focal_gamma=2 is a loss of one right class: set label_smoothing=0"):
        ClassLoss(0.1, focal_gamma=2.0)
    with pytest.raises(UserError, match="the focal loss has no mixed labels"):
        ClassLoss(0.0, focal_gamma=2.0)(LOGITS, Batch(torch.zeros(3), LOGITS.softmax(1)))


def configured(*words: str) -> Run:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolve(compose("train", overrides=["encoder=vit_micro", "data=digits", *words]))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            "recipe.w=auto recipe.class_weights=balanced",
            "recipe.w=auto and recipe.class_weights both weigh the classes",
        ),
        ("recipe.balance=true recipe.class_weights=[1,2]", "recipe.balance=true and recipe.class_weights=[1,2] both"),
        ("recipe.balance=true recipe.w=auto", "set one of them (recipe.w=null)"),
        ("recipe.balance=true data.label_fraction=0.5", "data.label_fraction=0.5 takes labels away"),
        ("recipe.focal_gamma=2", "recipe.label_smoothing=0.1 spreads the label over several: add recipe.label_smooth"),
        (
            "recipe.focal_gamma=2 recipe.mixup=0.8",
            "recipe.mixup=0.8 spread the label over several: add recipe.label_smoothing=0 recipe.mixup=0",
        ),
        ("recipe.clips_per_video=2", "recipe.clips_per_video=2 is of videos"),
        ("data.fold=1", "data.fold=1 is one of several parts: say of how many, such as data.folds=5"),
        ("data.folds=3", "data.fold=0 to 2, or all of them with -m data.folds=3 data.fold=0,1,2"),
        ("data.folds=3 data.fold=3", "data.folds=3 has no part 3"),
        ("data.folds=3 data.fold=0 data.test_fraction=0.2", "both name the test images"),
    ],
)
def test_what_excludes_each_other_is_one_sentence(words: str, says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        configured(*words.split())


def test_a_key_with_its_default_changes_no_hash_and_another_value_does() -> None:
    plain = configured()
    defaults = ["recipe.class_weights=null", "recipe.focal_gamma=0", "data.folds=null", "data.fold=null"]
    assert config_hash(configured(*defaults, "data.max_test=null", "data.test_fraction=0")) == config_hash(plain)
    others = ["recipe.class_weights=balanced", "recipe.balance=true", "data.max_test=50", "data.test_fraction=0.2"]
    assert len({config_hash(run) for run in (plain, *map(configured, others))}) == 5


def test_weights_of_the_recipe_reach_the_loss_and_labels_alone_do_not_shape_pre_training() -> None:
    run = configured("mode=ssl_ft", "recipe.focal_gamma=2", "recipe.label_smoothing=0", "recipe.class_weights=balanced")
    counts = {str(digit): 10 + digit for digit in range(10)}
    pretraining, fine_tuning = (build_module(run, phase, 10, counts) for phase in run.mode.phases)
    assert fine_tuning.cls_loss.focal_gamma == 2 and pretraining.cls_loss.focal_gamma == 0
    torch.testing.assert_close(fine_tuning.cls_loss.class_weights, weights_of_classes("balanced", counts))
    balanced = configured("mode=ssl_ft", "recipe.balance=true")
    assert [build_images(balanced, phase).balance for phase in balanced.mode.phases] == [False, True]
