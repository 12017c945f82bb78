"""Locality guidance (Li et al. 2022): a small convolutional network's maps guide a ViT's tokens (Table 7)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.auxiliary.base import SSLOutput, SSLTask
from src.batch import Batch
from src.encoders.base import Encoder
from src.encoders.resnet_cifar import CifarResNet
from src.errors import UserError

TEACHER_SIDE = 32  # pixels: the teacher sees the student's image at its own size
MODES = ("train", "eval")


class Guidance(SSLTask):
    """Mean squared distance between maps of some student blocks and of the teacher's three stages.

    Each pair is brought to the larger of both sides, bilinearly; the student's tokens pass a 1x1 convolution first.

    Args:
        encoder: a plain ViT; its width, depth and grid are read.
        teacher: gives the weights of a trained `resnet_56` when training begins; None = they stay random, for tests.
        blocks: student blocks, from 0; None = first, middle and last (0, 6, 11 of 12).
        beta: factor of the loss; 2.5 as published.
        teacher_bn: `train` = its batch norms use the batch's statistics, as in the released code, or `eval`.
        seed: unused.

    Raises:
        UserError: an encoder without flat tokens, or a block that it has not.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        teacher: Callable[[], dict[str, Tensor]] | None = None,
        blocks: tuple[int, int, int] | None = None,
        beta: float = 2.5,
        teacher_bn: str = "train",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if encoder.hidden != "dropped":
            raise UserError(
                f"ssl=guidance guides the tokens of a plain ViT, and {type(encoder).__name__} has none of one grid: use"
                " encoder=deit_ti or another plain ViT"
            )
        if teacher_bn not in MODES:
            raise UserError(f"ssl.teacher_bn={teacher_bn!r} is not one of {', '.join(MODES)}")
        depth = max(encoder.layer_ids().values()) - 1
        self.blocks = tuple(blocks) if blocks is not None else (0, depth // 2, depth - 1)
        if len(self.blocks) != 3 or not all(0 <= block < depth for block in self.blocks):
            raise UserError(f"ssl.blocks={list(self.blocks)} are not three of the encoder's blocks 0 to {depth - 1}")
        self.beta, self.teacher_bn = beta, teacher_bn
        self.teacher = CifarResNet(TEACHER_SIDE, in_chans=encoder.in_chans).requires_grad_(False)
        self.load_teacher = teacher
        self.project = nn.ModuleList(nn.Conv2d(encoder.latent_dims[-1], width, 1) for width in (16, 32, 64))

    def begin(self, encoder: Encoder) -> None:
        if self.load_teacher is None:
            return
        weights = self.load_teacher()
        own = self.teacher.state_dict()
        wrong = [n for n in own if n not in weights or weights[n].shape != own[n].shape] + sorted(weights.keys() - own)
        if wrong:
            raise UserError(
                f"ssl.teacher is not a resnet_56 for {self.teacher.in_chans} channels ({wrong[0]} differs, and"
                f" {len(wrong) - 1} more): give a run of encoder=resnet_56 mode=scratch, or its checkpoint"
            )
        self.teacher.load_state_dict(weights)

    def train(self, mode: bool = True) -> Guidance:
        super().train(mode)
        self.teacher.train(mode and self.teacher_bn == "train")
        return self

    def forward(self, encoder: Encoder, batch: Batch, with_features: bool) -> SSLOutput:
        dense = encoder.forward_dense(batch.images)
        with torch.no_grad():
            small = F.interpolate(batch.images.float(), TEACHER_SIDE, mode="bilinear", align_corners=False)
            targets = self.teacher.stage_maps(small)
        grid = (encoder.mask_grid[-2], encoder.mask_grid[-1])
        losses = []
        for target, block, project in zip(targets, self.blocks, self.project, strict=True):
            tokens = dense.blocks[block][:, encoder.num_prefix :]
            losses.append(distance(project(tokens.transpose(1, 2).unflatten(2, grid)), target))
        loss = self.beta * torch.stack(losses).sum()
        return SSLOutput(loss, dense.features if with_features else None, {})


def distance(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared difference of two maps (B, C, h, w) at the larger of their sizes, bilinear."""
    size = [max(a, b) for a, b in zip(first.shape[2:], second.shape[2:], strict=True)]
    resized = [F.interpolate(image.float(), size, mode="bilinear", align_corners=False) for image in (first, second)]
    return (resized[0] - resized[1]).square().mean()
