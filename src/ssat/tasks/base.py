"""The contract every self-supervised task keeps (tested by tests/tasks/test_contract.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.core.noise import sample_noise
from ssat.core.views import View
from ssat.encoders.base import Encoder


class TaskOutput(NamedTuple):
    """What one forward of a task gives.

    Attributes:
        loss: scalar, fp32.
        features: (B, num_features) of the full classification images, or None when they were not asked for.
        logs: scalar tensors without a gradient, to be logged by name.
    """

    loss: Tensor
    features: Tensor | None
    logs: dict[str, Tensor]


class Task(nn.Module):
    """A self-supervised task; owns its decoder, head or teacher, all of it dropped at inference.

    A task needs a constructor whose first argument is `encoder` and the method `forward`. `seed` is passed to a
    constructor that has this parameter. Everything else has a default. The class states what it needs of the encoder,
    since that is checked before a task is built; the constructor may set what depends on the options.

    Attributes:
        masked: whether it reads the encoder's masked pass (class).
        flat_tokens: whether it needs an encoder with `flat_tokens` (class).
        clips: whether it serves encoders of clips, and not those of images (class).
        reads: further methods of the encoder that it calls, such as `forward_dense` (class).
        full: whether it reads the encoder's full pass also where no features are asked for.
        extra_views: the views of each image that it reads from `Batch.views`, in this order.
        reads_unmixed: whether it reads `Batch.unmixed`, the images before mixup and cutmix.
        compares_images: whether it compares the classification images with a view of them, so that mixup and cutmix
            must not change them.
        some_features: whether it gives the features of `Batch.classified` alone, where the batch has that.
        min_batch: images that it must see at once, over all processes.
    """

    masked: bool = False
    flat_tokens: bool = False
    clips: bool = False
    reads: tuple[str, ...] = ()
    full: bool = True
    extra_views: Sequence[View | str] = ()
    reads_unmixed: bool = False
    compares_images: bool = False
    some_features: bool = False
    min_batch: int = 1

    def forward(self, encoder: Encoder, batch: Batch, with_features: bool) -> TaskOutput:
        """One pass of `encoder` over `batch`: the SSL loss and, if `with_features`, the features to classify.

        The features may be those of v views of the images, one view after the other: (v * B, num_features). A task with
        `some_features` gives those of the images `batch.classified` (R,) where there is that: (R, num_features).
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    @classmethod
    def needed_views(cls, options: Mapping[str, Any], *, img_size: int) -> list[View | str]:
        """The `extra_views` of a task with these options; the data are built before the task is.

        Args:
            options: all arguments of the constructor but `encoder` and `seed`.
            img_size: side of the classification images, pixels.
        """
        return list(cls.extra_views)

    @classmethod
    def alone(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """`options` as they are in a phase that classifies nothing (lam = 0), for a task that shares images with it."""
        return dict(options)

    @classmethod
    def check_encoder(cls, encoder: Encoder, name: str | None = None) -> None:
        """Refuse an encoder that lacks what the task reads.

        Args:
            encoder: the encoder to be trained.
            name: of the task, as the user types it after `ssl=`.

        Raises:
            UserError: says what the encoder lacks.
        """
        task, other = (f"ssl={name}" if name else cls.__name__), type(encoder).__name__
        if cls.masked and encoder.mask_style is None:
            raise UserError(
                f"{other} has no masked pass, and {task} hides patches: use mode=scratch or mode=finetune, or"
                " ssl=simclr, dino or drloc, or choose a transformer as the encoder",
                key="ssl",
                value=name,
            )
        if cls.clips != encoder.takes_clips:
            problem = (
                f"{task} hides tubes of clips, and {other} takes images: use encoder=videomae_s or videomae_b, or"
                " another task, such as ssl=mae"
                if cls.clips
                else f"{task} reads images, and {other} takes clips: use ssl=videomae"
            )
            raise UserError(problem, key="ssl", value=name)
        if cls.flat_tokens and not encoder.flat_tokens:
            raise UserError(
                f"{task} reads one flat grid of tokens, and {other} does not produce one: use encoder=vit_t, deit_ti or"
                " another plain ViT, or choose another task",
                key="ssl",
                value=name,
            )
        for method in cls.reads:
            if not encoder.implements(method):
                raise UserError(
                    f"{task} calls {method}, which {other} does not have: give the encoder this method, or choose"
                    " another task",
                    key="ssl",
                    value=name,
                )

    def blank_views(self, images: Tensor) -> tuple[Tensor, ...]:
        """Zeros in the shapes of the extra views of `images` (B, C, H, W)."""
        sizes = [images.shape[2:] if isinstance(view, str) else (view.size, view.size) for view in self.extra_views]
        return tuple(images.new_zeros(*images.shape[:2], *size) for size in sizes)

    def resize(self, encoder: Encoder) -> None:
        """Follow an encoder that takes images of another size from now on (`Encoder.resize`).

        Raises:
            UserError: the task's sizes are fixed, or do not fit this one.
        """
        raise UserError(
            f"recipe.sizes trains on smaller images first, and {type(self).__name__} has one size: use ssl=mae or"
            " another reconstruction, or mode=scratch, or leave it out",
            key="recipe.sizes",
        )

    def begin(self, encoder: Encoder) -> None:
        """Called once before the first step of a phase, when the encoder has the weights that it starts from."""

    def after_step(self, encoder: Encoder, progress: float, step: int) -> None:
        """Called after each optimizer step with the share of training done, in [0, 1], and the number of this step."""


class RandomTask(Task):
    """A task that draws random numbers of its own, a function of (seed, sample, training batches seen) alone."""

    FIXED_DRAW = -1
    draws: Tensor

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        # Training batches seen: part of the state, so that a resumed run draws the next numbers, not the first again.
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))

    def noise(self, batch: Batch, length: int) -> Tensor:
        """Uniform numbers (B, length) of the batch's samples: the next draw in training, a fixed one in evaluation."""
        indices = batch.indices
        if indices is None:
            indices = torch.arange(len(batch.images), device=batch.images.device)
        draw = self.draws.clone() if self.training else self.FIXED_DRAW
        if self.training:
            self.draws += 1
        return sample_noise(indices, length, seed=self.seed, draw=draw)


def check_views(batch: Batch, needed: int) -> None:
    """Raises: UserError: the batch has fewer extra views than the task needs."""
    if len(batch.views) < needed:
        raise UserError(
            f"the SSL task needs {needed} extra view(s) of each image and the batch has {len(batch.views)}:"
            " use data.pipeline=batched, which makes them",
            key="data.pipeline",
        )
