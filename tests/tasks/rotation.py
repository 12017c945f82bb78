"""Prediction of rotations (Gidaris et al. 2018): what somebody adds who reads docs/extend.md."""

import torch
import torch.nn.functional as F
from torch import nn

from ssat.core.batch import Batch
from ssat.encoders.base import Encoder
from ssat.tasks.base import RandomTask, TaskOutput


class Rotation(RandomTask):
    """Each image is turned by 0, 90, 180 or 270 degrees; a linear layer predicts which."""

    def __init__(self, encoder: Encoder, *, seed: int = 0) -> None:
        super().__init__(seed)
        self.head = nn.Linear(encoder.num_features, 4)

    def forward(self, encoder: Encoder, batch: Batch, with_features: bool) -> TaskOutput:
        turns = (self.noise(batch, 1)[:, 0] * 4).long()
        every = torch.stack([batch.images.rot90(k, (2, 3)) for k in range(4)])
        logits = self.head(encoder(every[turns, torch.arange(len(turns), device=turns.device)])).float()
        features = encoder(batch.images) if with_features else None
        right = (logits.argmax(1) == turns).float().mean()
        return TaskOutput(F.cross_entropy(logits, turns), features, {"rotations_right": right})
