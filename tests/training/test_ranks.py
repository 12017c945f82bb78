"""Every number of test samples over two and three real processes: what one process measures, each sample once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from ssat.core.errors import UserError
from ssat.data.sampler import eval_batches
from ssat.training.label_meters import LabelMeters
from ssat.training.means import EpochMeans
from ssat.training.meters import Meters
from ssat.training.video_meters import VideoMeters
from tests.helpers import on_ranks

SIZES, CLASSES, BATCH = range(1, 10), 6, 2


def logits(n: int, k: int) -> torch.Tensor:
    """(n, k), other ones for every n."""
    return torch.randn(n, k, generator=torch.Generator().manual_seed(n))


def measured(kind: str, n: int, rank: int = 0, world: int = 1) -> tuple[dict[str, float], list[int]]:
    """What a rank says after it has counted its share of n samples, and the samples that were counted."""
    meters: Any = {"images": Meters(CLASSES), "labels": LabelMeters(), "videos": VideoMeters(2)}[kind]
    scores, several = logits(n, CLASSES), (logits(n + 20, CLASSES) > 0)[:n].float()
    for batch in eval_batches(np.arange(n), batch_size=BATCH, rank=rank, world=world):
        chosen = torch.tensor([index for _, index in batch])
        if kind == "images":
            meters.add(scores[chosen], chosen % CLASSES, chosen)
        elif kind == "labels":
            meters.add(scores[chosen], several[chosen], chosen)
        else:  # two clips of each video but the last
            meters.add(scores[chosen, :2], chosen // 2 % 2, chosen // 2)
    values = {name: value.item() for name, value in meters.take().items()}
    if kind == "videos":
        return values, [video for video, (_, clips) in sorted(meters.scores.items()) for _ in range(clips)]
    return values, meters.kept.indices.tolist()


def measure_every_size(folder: Path, rank: int, world: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    found = {(kind, n): measured(kind, n, rank, world) for kind in NAMES for n in SIZES if n >= world}
    torch.save(found, folder / f"{rank}.pt")
    dist.barrier()


NAMES = {
    "images": {"loss", "acc1", "acc5", "balanced_acc", "macro_f1", "auroc"},
    "labels": {"loss", "map", "auroc", "macro_f1", "micro_f1", "exact_match", "hamming_acc"},
    "videos": {"loss", "acc1", "balanced_acc", "log_loss", "auc", "ap", "eer", "clip_auc"},
}


@pytest.mark.parametrize("world", [2, 3])
def test_every_number_of_samples_is_measured_as_by_one_process(tmp_path, world):
    alone = {(kind, n): measured(kind, n) for kind in NAMES for n in SIZES}
    for kind, names in NAMES.items():
        assert alone[kind, 9][0].keys() == names
    ranks = on_ranks(measure_every_size, tmp_path, world)
    assert [len(found) for found in ranks] == [len(NAMES) * (len(SIZES) - world + 1)] * world
    for found in ranks:
        for (kind, n), (values, counted) in found.items():
            assert counted == ([clip // 2 for clip in range(n)] if kind == "videos" else list(range(n)))
            assert values == pytest.approx(alone[kind, n][0], rel=1e-6), (kind, n)


@pytest.mark.parametrize("world", [2, 3])
def test_fewer_samples_than_processes_are_refused(world):
    for n in range(1, world):
        with pytest.raises(UserError, match=f"{n} evaluation images cannot be shared by {world} processes"):
            eval_batches(np.arange(n), batch_size=BATCH, rank=0, world=world)


def go_on_within_an_epoch(folder: Path, rank: int, world: int) -> None:
    """Two steps of a rank's own, a checkpoint of the first rank that all go on from, and a third step."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)

    def summed(values: torch.Tensor, reduce_op: str) -> torch.Tensor:
        dist.all_reduce(values)
        return values

    strategy, means = SimpleNamespace(reduce=summed, root_device=torch.device("cpu")), EpochMeans()
    for step in range(2):
        means.add({"loss": torch.tensor(10.0 * rank + step)}, 4 + rank)
    state = [means.state(strategy)]
    dist.broadcast_object_list(state)
    again = EpochMeans()
    again.load(state[0], first=rank == 0)
    for each in (means, again):
        each.add({"loss": torch.tensor(100.0 * rank)}, 4)
    torch.save((means.take(strategy), again.take(strategy)), folder / f"{rank}.pt")
    dist.barrier()


def test_the_means_of_an_epoch_that_goes_on_from_a_checkpoint_are_over_all_ranks(tmp_path: Path) -> None:
    images = 2 * 4 + 2 * 5 + 2 * 4
    loss = (4 * (0 + 1) + 5 * (10 + 11) + 4 * 100) / images
    for whole, continued in on_ranks(go_on_within_an_epoch, tmp_path, 2):
        assert whole == continued == {"train/loss": pytest.approx(loss)}
