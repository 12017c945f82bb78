"""Dense relative localisation (Liu et al. 2021), the comparison of Table 6, as auxiliary task."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssat.core.batch import Batch
from ssat.core.choices import check_choice
from ssat.core.errors import UserError
from ssat.encoders.base import Encoder
from ssat.tasks.base import RandomTask, TaskOutput

Schedule = Literal["constant", "drloc"]


class Drloc(RandomTask):
    """A small network predicts how far two positions of the final map are apart, in rows and in columns.

    Args:
        encoder: only the width and the grid of its final map are read.
        pairs: pairs of positions per image, drawn with replacement (64 in the released commands).
        hidden_dim: of the network.
        normalise: distances as shares of the grid's sides, as in the paper; else positions, as in the released code.
        pool: average the map to half its side first, as the code does for CvT at 224 px (14 x 14 to 7 x 7).
        weight: factor of the loss.
        schedule: `constant`, or `drloc` = the factor rises linearly over `warmup_share` of the training and then falls
            linearly towards 0 at `total_share`.
        warmup_share: share of the training.
        total_share: in lengths of the training; 3, since the released loop stops after a third of its plan.
        seed: of the pairs.

    Raises:
        UserError: a map of a single position, or an unknown schedule.
    """

    reads = ("forward_dense",)
    progress: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        pairs: int = 64,
        hidden_dim: int = 512,
        normalise: bool = False,
        pool: bool = False,
        weight: float = 1.0,
        schedule: Schedule = "constant",
        warmup_share: float = 0.2,
        total_share: float = 3.0,
        seed: int = 0,
    ) -> None:
        super().__init__(seed)
        self.check_encoder(encoder)
        check_choice("ssl.schedule", schedule, get_args(Schedule))
        if pairs < 1 or weight <= 0:
            name, value = ("pairs", pairs) if pairs < 1 else ("weight", weight)
            raise UserError(f"ssl.{name}={value} is not possible: it must be above 0", key=f"ssl.{name}", value=value)
        scale = encoder.latent_scales[-1]
        rows, cols = (-(-side // scale) for side in encoder.img_size[-2:])
        if pool:
            rows, cols = (rows + 1) // 2, (cols + 1) // 2
        if min(rows, cols) < 2:
            raise UserError(
                f"ssl=drloc needs a final map of at least 2 x 2 positions, and {type(encoder).__name__} gives"
                f" {rows} x {cols}: enlarge data.img_size, or use smaller patches or strides",
                key="data.img_size",
            )
        self.pairs, self.normalise, self.pool = pairs, normalise, pool
        self.weight, self.schedule = weight, schedule
        self.warmup_share, self.total_share = warmup_share, total_share
        dim = encoder.num_features
        self.mlp = nn.Sequential(
            nn.Linear(2 * dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, 2),
        )
        self.register_buffer("progress", torch.zeros(()))

    def forward(self, encoder: Encoder, batch: Batch, with_features: bool) -> TaskOutput:
        """The mean absolute error of the distances times `factor`; the error itself is logged."""
        dense = encoder.forward_dense(batch.images)
        final = F.avg_pool2d(dense.map, 3, 2, 1) if self.pool else dense.map
        loss = self.distance_loss(final, self.draw(batch, final.shape[2] * final.shape[3]))
        scaled = loss * self.factor()
        return TaskOutput(scaled, dense.features if with_features else None, {"drloc": loss.detach()})

    def draw(self, batch: Batch, positions: int) -> Tensor:
        """Pairs of positions (B, 2 * pairs) of the batch's samples; always the same in evaluation."""
        noise = self.noise(batch, 2 * self.pairs)
        return (noise * positions).long().clamp_max(positions - 1)

    def distance_loss(self, final: Tensor, index: Tensor) -> Tensor:
        """Mean absolute error of the predicted distances between positions `index` (B, 2m) of `final` (B, D, h, w)."""
        rows, cols = final.shape[2:]
        tokens = final.flatten(2).transpose(1, 2)
        chosen = tokens.gather(1, index.unsqueeze(2).expand(-1, -1, tokens.shape[2]))
        first, second = index.chunk(2, dim=1)
        truth = torch.stack([first // cols - second // cols, first % cols - second % cols], 2).abs().float()
        if self.normalise:
            truth = truth / torch.tensor([rows, cols], device=truth.device)
        return F.l1_loss(self.mlp(torch.cat(chosen.chunk(2, dim=1), 2)).float(), truth)

    def factor(self) -> Tensor:
        """Weight of the loss, a scalar, at this point of the training."""
        if self.schedule == "constant":
            return torch.full_like(self.progress, self.weight)
        rise = self.progress / self.warmup_share
        fall = (self.total_share - self.progress) / (self.total_share - self.warmup_share)
        return self.weight * torch.minimum(rise, fall).clamp_min(0)

    def after_step(self, encoder: Encoder, progress: float, step: int) -> None:
        """Moves the schedule on."""
        self.progress.fill_(progress)
