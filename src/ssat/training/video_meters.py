"""What evaluation measures per video: the mean over the clips of a video is its prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from ssat.core.distributed import world_size
from ssat.core.errors import UserError
from ssat.runs.detection import (
    CLIP,
    average_precision,
    balanced_accuracy,
    binary_log_loss,
    confusion,
    equal_error_rate,
    roc_auc,
)

Average = Literal["probabilities", "logits"]


@dataclass(frozen=True)
class Clips:
    """What is kept of each clip: (N,) video and class, (N, K) logits."""

    videos: NDArray[np.int64]
    targets: NDArray[np.int64]
    logits: NDArray[np.float64]


class VideoMeters:
    """Measures the predictions of videos, as `Meters` does those of images, over all processes.

    Every clip must be counted once (`sampler.eval_batches`). The logits of every clip are kept, so that the result is
    the same to the last bit for any number of processes, whichever clips they have.

    Args:
        num_classes: of the classifier; with two, 0 = real and 1 = fake.
        average: what is averaged over a video's clips: softmax `probabilities`, or `logits`, of which the softmax is
            taken then. The paper (Appendix D.3) does not say which.

    Attributes:
        scores: of the last `take`: number of the video -> its (K,) probabilities and its number of clips.
    """

    def __init__(self, num_classes: int, average: Average = "probabilities") -> None:
        self.num_classes, self.average = num_classes, average
        self.scores: dict[int, tuple[NDArray[np.float64], int]] = {}
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []  # on the device until `take`

    def add(self, logits: Tensor, targets: Tensor, videos: Tensor) -> None:
        """Count clips: logits (B, K), classes (B,) and numbers of their videos (B,)."""
        self._kept.append((videos.detach(), targets.detach(), logits.detach().float()))

    def take(self) -> dict[str, Tensor]:
        """What they say by name, over all processes; starts anew.

        Of videos: `acc1` and `balanced_acc` in percent, `log_loss`, and with two classes `auc`, `ap` and `eer` in
        [0, 1]. Of clips: `loss`, the mean cross-entropy, and with two classes `clip_auc`. A value is left out
        where the videos are all of one class and do not define it. Nothing where no clip was counted.

        Raises:
            UserError: a prediction is nan.
        """
        device = self._kept[0][2].device if self._kept else torch.device("cpu")
        clips = self._gathered()
        if clips is None:
            self.scores = {}
            return {}
        log_probs = _log_softmax(clips.logits)
        if np.isnan(log_probs).any():
            raise UserError("the network predicts nan: the training has diverged, try a lower recipe.base_lr")
        probs, targets = self._per_video(clips, np.exp(log_probs))
        values: dict[str, float | None] = {
            "loss": -log_probs[np.arange(len(clips.targets)), clips.targets].mean(),
            **(_of_two_classes if self.num_classes == 2 else _of_classes)(targets, probs),
        }
        if self.num_classes == 2:
            values["clip_auc"] = roc_auc(clips.targets, np.exp(log_probs[:, 1]))
        return {name: torch.tensor(float(value), device=device) for name, value in values.items() if value is not None}

    def _gathered(self) -> Clips | None:
        """The clips of all processes, in an order that does not tell which process had which; None = there are none."""
        own = [tuple(part.cpu().numpy() for part in batch) for batch in self._kept]
        self._kept = []
        parts: list[Any] = [own]
        if world_size() > 1:
            parts = [None] * world_size()
            dist.all_gather_object(parts, own)
        batches = [batch for part in parts for batch in part]
        if not batches:
            return None
        videos, targets, logits = (np.concatenate(column) for column in zip(*batches, strict=True))
        order = np.lexsort((*logits.T, targets, videos))
        return Clips(videos[order], targets[order], logits[order].astype(np.float64))

    def _per_video(self, clips: Clips, probs: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(V, K) probabilities and (V,) classes, by number of the video; kept as `scores`."""
        videos, first, of, counts = np.unique(clips.videos, return_index=True, return_inverse=True, return_counts=True)
        sums = np.zeros((len(videos), self.num_classes))
        np.add.at(sums, of, probs if self.average == "probabilities" else clips.logits)
        means = sums / counts[:, None]
        if self.average == "logits":
            means = np.exp(_log_softmax(means))
        self.scores = {int(video): (mean, int(count)) for video, mean, count in zip(videos, means, counts, strict=True)}
        return means, clips.targets[first]


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # infinite logits become nan, which `take` refuses
        shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _of_two_classes(targets: NDArray[np.int64], probs: NDArray[np.float64]) -> dict[str, float | None]:
    fake = probs[:, 1]
    table = confusion(targets, fake)
    return {
        "acc1": 100 * (table["real_as_real"] + table["fake_as_fake"]) / len(targets),
        "balanced_acc": balanced_accuracy(targets, fake),
        "auc": roc_auc(targets, fake),
        "ap": average_precision(targets, fake),
        "eer": equal_error_rate(targets, fake),
        "log_loss": binary_log_loss(targets, fake),
    }


def _of_classes(targets: NDArray[np.int64], probs: NDArray[np.float64]) -> dict[str, float | None]:
    right = probs.argmax(axis=1) == targets
    recalls = [right[targets == label].mean() for label in np.unique(targets)]
    true = np.clip(probs[np.arange(len(targets)), targets], CLIP, 1 - CLIP)
    return {
        "acc1": 100 * right.mean(),
        "balanced_acc": 100 * float(np.mean(recalls)),
        "log_loss": -np.log(true).mean(),
    }
