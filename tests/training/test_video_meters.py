"""Measuring per video: means by hand, and two real processes against one."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.data.sampler import eval_batches
from ssat.runs.detection import VideoScore, detection_metrics
from ssat.training.classification import ClassLoss
from ssat.training.video_meters import VideoMeters
from tests.helpers import on_two_ranks

CLIPS = (1, 5, 2, 9, 3, 1, 4)  # of each video
LABELS = (0, 1, 1, 0, 1, 0, 1)


def clips(num_classes: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, classes and videos of 25 clips of 7 videos."""
    videos = torch.arange(len(CLIPS)).repeat_interleave(torch.tensor(CLIPS))
    targets = torch.tensor(LABELS)[videos] if num_classes == 2 else videos % num_classes
    logits = 2 * torch.randn(len(videos), num_classes, generator=torch.Generator().manual_seed(1))
    logits[torch.arange(len(videos)), targets] += 0.5
    return logits, targets, videos


def measured(meters: VideoMeters, rank: int = 0, world: int = 1, num_classes: int = 2) -> dict[str, float]:
    parts = clips(num_classes)
    for batch in eval_batches(np.arange(len(parts[0])), batch_size=4, rank=rank, world=world):
        chosen = [index for _, index in batch]
        meters.add(*(part[chosen] for part in parts))
    return {name: value.item() for name, value in meters.take().items()}


def test_a_case_by_hand() -> None:
    probs = torch.tensor([0.9, 0.2, 0.4, 0.3])  # of being fake: video 7 has the mean 0.5, 8 has 0.4, 9 has 0.3
    logits = torch.stack([(1 - probs).log(), probs.log()], 1)
    meters = VideoMeters(2)
    meters.add(logits[[3, 0]], torch.tensor([0, 1]), torch.tensor([9, 7]))
    meters.add(logits[[1, 2]], torch.tensor([1, 1]), torch.tensor([7, 8]))
    found = {name: value.item() for name, value in meters.take().items()}
    assert found["log_loss"] == pytest.approx(-np.log([0.55, 0.4, 0.7]).mean(), rel=1e-6)
    assert found["acc1"] == pytest.approx(200 / 3) and found["balanced_acc"] == pytest.approx(75)
    assert found["auc"] == 1 and found["ap"] == 1 and found["eer"] == 0
    assert found["clip_auc"] == pytest.approx(2 / 3)  # 0.9 and 0.4 above 0.3, 0.2 below
    assert found["loss"] == pytest.approx(-np.log([0.9, 0.2, 0.4, 0.7]).mean(), rel=1e-6)
    assert {video: n for video, (_, n) in meters.scores.items()} == {7: 2, 8: 1, 9: 1}
    assert meters.scores[7][0] == pytest.approx([0.45, 0.55])


def test_logits_can_be_averaged_instead() -> None:
    meters = VideoMeters(2, average="logits")
    meters.add(torch.tensor([[0.0, 3.0], [0.0, -1.0]]), torch.tensor([1, 1]), torch.tensor([0, 0]))
    meters.take()
    assert meters.scores[0][0][1] == pytest.approx(1 / (1 + math.exp(-1)))


def test_scores_give_the_same_metrics_again() -> None:
    meters = VideoMeters(2)
    found = measured(meters)
    again = detection_metrics(
        [VideoScore(str(v), LABELS[v], "m", float(prob[1]), n) for v, (prob, n) in meters.scores.items()]
    )
    pairs = {"acc1": "accuracy", "balanced_acc": "balanced_accuracy", "auc": "auc", "ap": "ap", "eer": "eer"}
    for ours, theirs in (pairs | {"log_loss": "log_loss"}).items():
        assert found[ours] == pytest.approx(again[theirs], rel=1e-6)
    assert [n for _, n in meters.scores.values()] == list(CLIPS)


def test_taking_starts_anew() -> None:
    meters = VideoMeters(2)
    first = measured(meters)
    assert meters.add(*clips()) is None and measured(VideoMeters(2)) == first
    meters.take()
    assert meters.take() == {} and meters.scores == {}


def test_several_classes() -> None:
    logits, targets, videos = clips(3)
    found = measured(VideoMeters(3), num_classes=3)
    assert found.keys() == {"loss", "acc1", "balanced_acc", "log_loss"}
    means = torch.stack([logits[videos == v].softmax(1).mean(0) for v in range(len(CLIPS))])
    labels = torch.arange(len(CLIPS)) % 3
    right = means.argmax(1) == labels
    assert found["acc1"] == pytest.approx(100 * right.float().mean().item())
    recall = torch.stack([right[labels == label].float().mean() for label in range(3)])
    assert found["balanced_acc"] == pytest.approx(100 * recall.mean().item())
    assert found["log_loss"] == pytest.approx(-means[torch.arange(7), labels].log().mean().item(), rel=1e-5)
    assert found["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, targets).item(), rel=1e-5)


def test_one_class_alone_is_not_defined_rather_than_wrong() -> None:
    meters = VideoMeters(2)
    meters.add(torch.randn(3, 2), torch.ones(3, dtype=torch.int64), torch.arange(3))
    assert meters.take().keys() == {"acc1", "log_loss", "loss"}


def test_nan_is_refused() -> None:
    meters = VideoMeters(2)
    meters.add(torch.tensor([[0.0, float("nan")]]), torch.tensor([1]), torch.tensor([0]))
    with pytest.raises(UserError, match="predicts nan"):
        meters.take()


def measure_a_rank(folder: Path, rank: int, world: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    kept = {}
    for num_classes in (2, 3):
        meters = VideoMeters(num_classes)
        kept[num_classes] = measured(meters, rank, world, num_classes), meters.scores
    logits, targets, _ = clips()
    for normalize in ("weights", "none"):
        loss = ClassLoss(0.1, partly_labelled=True, class_weights=torch.tensor([0.7, 0.3]), normalize=normalize)
        own = slice(rank, 24, world)
        kept[normalize] = loss(logits[own], Batch(torch.zeros(12), targets[own])).item()
    torch.save(kept, folder / f"{rank}.pt")
    dist.barrier()


def test_two_processes_measure_and_weigh_what_one_does(tmp_path: Path) -> None:
    first, second = on_two_ranks(measure_a_rank, tmp_path)
    for num_classes in (2, 3):
        meters = VideoMeters(num_classes)
        alone = measured(meters, num_classes=num_classes)
        for found, scores in (first[num_classes], second[num_classes]):
            assert found == alone  # to the last bit
            assert scores.keys() == meters.scores.keys()
            assert all((scores[v][0] == prob).all() and scores[v][1] == n for v, (prob, n) in meters.scores.items())
    logits, targets, _ = clips()
    for normalize in ("weights", "none"):
        loss = ClassLoss(0.1, partly_labelled=True, class_weights=torch.tensor([0.7, 0.3]), normalize=normalize)
        whole = loss(logits[:24], Batch(torch.zeros(24), targets[:24])).item()
        assert (first[normalize] + second[normalize]) / 2 == pytest.approx(whole, rel=1e-5)  # as DDP averages
