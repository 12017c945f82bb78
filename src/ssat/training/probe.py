"""What an encoder's features are worth as they are: k nearest neighbours and a linear classifier on them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from ssat.core.batch import NO_LABEL, Batch
from ssat.encoders.base import Encoder
from ssat.training.data import AnyData

NEIGHBOURS, TEMPERATURE = 20, 0.07  # Wu et al. 2018; DINO's k
CHUNK = 1024  # queries at a time
ITERATIONS = 200  # of L-BFGS


def knn_scores(
    queries: Tensor,
    features: Tensor,
    labels: Tensor,
    classes: int,
    *,
    k: int = NEIGHBOURS,
    t: float = TEMPERATURE,
    leave_one_out: bool = False,
) -> Tensor:
    """Scores (Q, classes): each of a query's k nearest `features` votes for its label with exp(cosine / t).

    Args:
        queries: (Q, D).
        features: (N, D); all of them vote where N < k.
        labels: (N,) int64.
        classes: number of them.
        k: neighbours.
        t: temperature of the votes.
        leave_one_out: the queries are the features themselves, and none votes for itself.
    """
    features = F.normalize(features.float(), dim=1)
    k, scores = min(k, len(features) - leave_one_out), []
    for number, chunk in enumerate(F.normalize(queries.float(), dim=1).split(CHUNK)):
        cosines = chunk @ features.T
        if leave_one_out:
            own = torch.arange(len(chunk), device=chunk.device)
            cosines[own, own + number * CHUNK] = -torch.inf
        similarity, index = cosines.topk(k, dim=1)
        votes = similarity.new_zeros(len(chunk), classes)
        scores.append(votes.scatter_add_(1, labels[index], (similarity / t).exp()))
    return torch.cat(scores)


@torch.no_grad()
def evaluated_features(encoder: Encoder, batches: Iterable[Batch], device: torch.device) -> tuple[Tensor, Tensor]:
    """Features (N, num_features), in fp32, and targets (N, ...) of all images, over all processes, on the CPU.

    They are seen as in evaluation; the encoder is left in the mode in which it was.
    """
    was_training = encoder.training
    encoder.eval()
    features, labels = [], []
    for batch in batches:
        assert batch.targets is not None
        features.append(encoder.forward_features(batch.images.to(device)).float().cpu())
        labels.append(batch.targets.cpu())
    encoder.train(was_training)
    mine = torch.cat(features), torch.cat(labels)
    everyone = [mine]
    if dist.is_available() and dist.is_initialized():
        everyone = [mine] * dist.get_world_size()
        dist.all_gather_object(everyone, mine)
    together, targets = (torch.cat(parts) for parts in zip(*everyone, strict=True))
    return together, targets


def features_of(encoder: Encoder, batches: Iterable[Batch], device: torch.device) -> tuple[Tensor, Tensor]:
    """Those of the images with a label: features (N, num_features) and labels (N,) int64."""
    features, targets = evaluated_features(encoder, batches, device)
    return features[targets != NO_LABEL], targets[targets != NO_LABEL]


def linear_scores(queries: Tensor, features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Scores (Q, classes) of a logistic regression on standardised `features` (N, D) with `labels` (N,)."""
    from sklearn.exceptions import ConvergenceWarning  # a second that only this probe is worth
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features.numpy())
    model = LogisticRegression(max_iter=ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a probe of so many iterations, as it stands
        model.fit(scaler.transform(features.numpy()), labels.numpy())
    found = torch.from_numpy(model.predict_log_proba(scaler.transform(queries.numpy()))).float()
    return torch.full((len(queries), classes), -torch.inf).index_copy(1, torch.from_numpy(model.classes_), found)


PROBES = {"knn": knn_scores, "linear": linear_scores}


def probe(encoder: Encoder, data: AnyData, split: str, device: torch.device, names: Sequence[str]) -> dict[str, float]:
    """Accuracies in percent on `split` of the probes `names`, which learn from the labelled training images.

    Both are seen as in evaluation, without augmentation.
    """
    known, labels = features_of(encoder, data.eval_loader("train"), device)
    queries, targets = features_of(encoder, data.eval_loader(split), device)
    values: dict[str, float] = {}
    for name in names:
        order = PROBES[name](queries, known, labels, data.num_classes).argsort(dim=1, descending=True, stable=True)
        right = order == targets[:, None]
        values |= {
            f"{name}_acc{n}": float(right[:, :n].any(1).float().mean() * 100) for n in (1, 5) if n < len(right[0])
        }
    return values


def is_due(trainer: pl.Trainer, every: int) -> bool:
    """Whether what is measured every `every` epochs, and after the last one, is measured at this evaluation."""
    epoch = trainer.current_epoch + 1
    return trainer.state.fn == TrainerFn.FITTING and (epoch % every == 0 or epoch == trainer.max_epochs)


class ProbeMonitor(Callback):
    """A probe's accuracy at every `every`-th epoch's evaluation; the only accuracy of a phase without labels."""

    def __init__(self, name: str, every: int, data: AnyData) -> None:
        self._name, self._every, self._data = name, every, data

    @property
    def state_key(self) -> str:
        """One state for each probe."""
        return f"{type(self).__name__}-{self._name}"

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Measure the features at the epochs at which it is due."""
        if is_due(trainer, self._every):
            split = pl_module.eval_split
            values = probe(pl_module.encoder, self._data, split, pl_module.device, [self._name])
            # Equal on all ranks already.
            pl_module.log_dict({f"{split}/{name}": value for name, value in values.items()}, sync_dist=True)
