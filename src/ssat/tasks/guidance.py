"""Locality guidance (Li et al. 2022): a small convolutional network's maps guide a ViT's tokens (Table 7)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssat.core.batch import Batch
from ssat.core.checkpoints import checkpoint_of, encoder_weights
from ssat.core.choices import check_choice
from ssat.core.errors import UserError
from ssat.core.tensors import compare
from ssat.encoders.base import Encoder, tokens_to_map
from ssat.encoders.resnet_cifar import CifarResNet
from ssat.tasks.base import Task, TaskOutput

TEACHER_SIDE = 32  # pixels: the teacher sees the student's image at its own size
BatchNorms = Literal["train", "eval"]


class Guidance(Task):
    """Mean squared distance between the maps of three student blocks and those of the teacher's three stages.

    The student's tokens pass a 1x1 convolution first. Both maps of a pair are then resized to the larger of their
    sizes, bilinearly.

    Args:
        encoder: one with flat tokens; its width, depth and grid are read.
        teacher: run folder or checkpoint of a trained `encoder=resnet_56`, whose weights are read when training begins.
        blocks: three student blocks, counted from 0; None = first, middle and last (0, 6, 11 of 12).
        beta: factor of the loss; 2.5 as published.
        teacher_bn: `train` = its batch norms use the batch's statistics, as in the released code, or `eval`.

    Raises:
        UserError: an encoder without one flat token grid, or blocks that it does not have.
    """

    flat_tokens = True
    reads = ("forward_dense",)

    def __init__(
        self,
        encoder: Encoder,
        *,
        teacher: str | None = None,
        blocks: tuple[int, int, int] | None = None,
        beta: float = 2.5,
        teacher_bn: BatchNorms = "train",
    ) -> None:
        super().__init__()
        self.check_encoder(encoder)
        check_choice("ssl.teacher_bn", teacher_bn, get_args(BatchNorms))
        depth = encoder.depth
        self.blocks = tuple(blocks) if blocks is not None else (0, depth // 2, depth - 1)
        if len(self.blocks) != 3 or not all(0 <= block < depth for block in self.blocks):
            raise UserError(
                f"ssl.blocks={list(self.blocks)} are not three of the encoder's blocks 0 to {depth - 1}",
                key="ssl.blocks",
                value=self.blocks,
            )
        self.beta, self.teacher_bn = beta, teacher_bn
        self.teacher = CifarResNet(TEACHER_SIDE, in_chans=encoder.in_chans).requires_grad_(False)
        self.teacher_path = teacher
        self.project = nn.ModuleList(nn.Conv2d(encoder.latent_dims[-1], width, 1) for width in (16, 32, 64))

    def begin(self, encoder: Encoder) -> None:
        """Reads the teacher's weights.

        Raises:
            UserError: there is no teacher, or its weights are of another network.
        """
        if not self.teacher_path:
            raise UserError(
                "ssl=guidance needs a teacher: ssl.teacher=<run of encoder=resnet_56, or its checkpoint>",
                key="ssl.teacher",
            )
        weights = encoder_weights(checkpoint_of(Path(self.teacher_path), key="ssl.teacher"), self.teacher.state_dict())
        if found := compare(self.teacher, weights):
            raise UserError(
                f"ssl.teacher={self.teacher_path} is not a resnet_56 for {self.teacher.in_chans} channels: {found};"
                " give a run of encoder=resnet_56 mode=scratch, or its file",
                key="ssl.teacher",
                value=self.teacher_path,
            )
        self.teacher.load_state_dict(weights)

    def train(self, mode: bool = True) -> Guidance:
        """The teacher's batch norms follow `teacher_bn`."""
        super().train(mode)
        self.teacher.train(mode and self.teacher_bn == "train")
        return self

    def forward(self, encoder: Encoder, batch: Batch, with_features: bool) -> TaskOutput:
        """`beta` times the sum of the three distances."""
        dense = encoder.forward_dense(batch.images)
        with torch.no_grad():
            small = F.interpolate(batch.images.float(), TEACHER_SIDE, mode="bilinear", align_corners=False)
            targets = self.teacher.stage_maps(small)
        grid = (encoder.mask_grid[-2], encoder.mask_grid[-1])
        losses = []
        for target, block, project in zip(targets, self.blocks, self.project, strict=True):
            student = tokens_to_map(encoder.image_tokens(dense.blocks[block]), grid)
            losses.append(distance(project(student), target))
        loss = self.beta * torch.stack(losses).sum()
        return TaskOutput(loss, dense.features if with_features else None, {})


def distance(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared difference of two maps (B, C, h, w), both resized bilinearly to the larger of their sizes."""
    size = [max(a, b) for a, b in zip(first.shape[2:], second.shape[2:], strict=True)]
    resized = [F.interpolate(image.float(), size, mode="bilinear", align_corners=False) for image in (first, second)]
    return (resized[0] - resized[1]).square().mean()
