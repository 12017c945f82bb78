"""Measuring images after an epoch: against scikit-learn, and two real processes against one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss, roc_auc_score

from ssat.core.errors import UserError
from ssat.data.sampler import eval_batches
from ssat.training.meters import RANKED, Meters
from tests.helpers import on_two_ranks

IMAGES = 143


def images(classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and classes: the last class has no image, and the one before it a single one."""
    generator = torch.Generator().manual_seed(classes)
    targets = torch.randint(0, classes - 2, (IMAGES,), generator=generator)
    targets[5] = classes - 2
    return torch.randn(IMAGES, classes, generator=generator), targets


def measured(meters: Meters, classes: int, rank: int = 0, world: int = 1) -> dict[str, float]:
    logits, targets = images(classes)
    for batch in eval_batches(np.arange(IMAGES), batch_size=10, rank=rank, world=world):
        chosen = torch.tensor([index for _, index in batch])
        meters.add(logits[chosen], targets[chosen], chosen)
    return {name: value.item() for name, value in meters.take().items()}


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("classes", [4, RANKED, RANKED + 5])
def test_the_numbers_are_those_of_scikit_learn(classes: int) -> None:
    logits, targets = images(classes)
    found, called, probs = measured(Meters(classes), classes), logits.argmax(1), logits.double().softmax(1)
    assert found["acc1"] == pytest.approx(100 * accuracy_score(targets, called), abs=1e-4)
    assert found["balanced_acc"] == pytest.approx(100 * balanced_accuracy_score(targets, called), rel=1e-6)
    assert found["macro_f1"] == pytest.approx(100 * f1_score(targets, called, average="macro"), rel=1e-6)
    assert found["loss"] == pytest.approx(log_loss(targets, probs, labels=range(classes)), rel=1e-6)
    areas = [roc_auc_score(targets == label, probs[:, label]) for label in targets.unique()]
    assert found.get("auroc") == (pytest.approx(np.mean(areas), abs=1e-6) if classes <= RANKED else None)


def test_of_many_classes_the_ranking_can_be_asked_for() -> None:
    meters, classes = Meters(RANKED + 1), RANKED + 1
    assert "auroc" not in measured(meters, classes) and meters.kept.logits is None
    meters.keep_logits()
    assert "auroc" not in measured(meters, classes) and meters.kept.logits.shape == (IMAGES, classes)
    meters.rank()
    assert 0 < measured(meters, classes)["auroc"] < 1


def test_taking_starts_anew_and_every_prediction_is_kept() -> None:
    meters = Meters(4)
    first = measured(meters, 4)
    logits, targets = images(4)
    assert (meters.kept.logits == logits.numpy()).all() and (meters.kept.targets == targets.numpy()).all()
    assert measured(meters, 4) == first
    assert meters.take() == {} and meters.kept is None
    meters.add(logits[:1], targets[:1], torch.tensor([9]))  # a single image
    assert meters.take().keys() == {"loss", "acc1", "balanced_acc", "macro_f1"}
    assert meters.kept.indices.tolist() == [9]


def test_nothing_of_it_is_in_a_checkpoint() -> None:
    meters = Meters(4)
    meters.add(*images(4))
    assert meters.state_dict() == {}


def test_nan_is_refused() -> None:
    meters = Meters(3)
    meters.add(torch.tensor([[0.0, float("nan"), 0.0]]), torch.tensor([1]))
    with pytest.raises(UserError, match="predicts nan"):
        meters.take()


def measure_a_rank(folder: Path, rank: int, world: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    kept = {}
    for classes in (4, RANKED + 5):
        meters = Meters(classes)
        kept[classes] = measured(meters, classes, rank, world), meters.kept
    torch.save(kept, folder / f"{rank}.pt")
    dist.barrier()


def test_two_processes_measure_what_one_does(tmp_path: Path) -> None:
    for there in on_two_ranks(measure_a_rank, tmp_path):
        for classes in (4, RANKED + 5):
            meters = Meters(classes)
            alone, (found, kept) = measured(meters, classes), there[classes]
            assert found.keys() == alone.keys()
            for name in ("balanced_acc", "macro_f1", "auroc", "acc1", "acc5"):
                assert found.get(name) == alone.get(name)  # to the last bit
            assert found["loss"] == pytest.approx(alone["loss"], rel=1e-6)
            assert (kept.indices == meters.kept.indices).all() and (kept.predicted == meters.kept.predicted).all()
