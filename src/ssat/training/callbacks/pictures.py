"""Pictures of reconstructions of a fixed batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from ssat.core.batch import Batch
from ssat.core.files import replacing
from ssat.core.visible import visible
from ssat.tasks.masked import MaskedPrediction
from ssat.training.callbacks.spare import spare

CLIPS, FRAMES = 3, 6  # of a batch and of each clip, in a film strip
GAP = 12  # pixels between two film strips
ROWS = ("original", "masked", "reconstructed")
MARGIN, LETTERS = 100, 13  # pixels of the names at the left, and of their letters


def parts_with_pictures(task: nn.Module | None) -> Iterator[MaskedPrediction]:
    """The tasks within `task` that reconstruct pixels, so that there is a picture to show."""
    for part in () if task is None else task.modules():
        if isinstance(part, MaskedPrediction) and part.has_pictures:
            yield part


@spare
class Reconstructions(Callback):
    """Original | masked | reconstructed, for a fixed batch with fixed masks, as a PNG every few epochs.

    Of images each row shows one kind, of clips each clip is a film strip: three rows, with frames over time.
    """

    def __init__(self, folder: Path, batch: Batch, mean: list[float], std: list[float], every: int) -> None:
        self._folder, self._batch, self._every = folder, batch, every
        self._mean, self._std = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the picture at the epochs at which it is due."""
        epoch = trainer.current_epoch + 1
        if not trainer.is_global_zero or (epoch % self._every and epoch != trainer.max_epochs):
            return
        is_of_clips = self._batch.images.ndim == 5
        picture = labelled(self.picture(pl_module), min(CLIPS, len(self._batch.images)) if is_of_clips else 1)
        self._folder.mkdir(parents=True, exist_ok=True)
        write_png(picture, self._folder / f"epoch_{epoch:04d}.png")
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image("reconstructions", [picture.permute(1, 2, 0).numpy()], step=trainer.global_step)
            elif isinstance(logger, pl.loggers.TensorBoardLogger):
                logger.experiment.add_image("reconstructions", picture, trainer.global_step)

    @torch.no_grad()
    def picture(self, pl_module: Any) -> Tensor:
        """(3, H, W) uint8: three rows, a column per image; of clips three rows each, a column per frame."""
        images, indices = self._batch.images.to(pl_module.device), self._batch.indices
        assert indices is not None
        was_training = pl_module.training
        pl_module.eval()
        task = next(parts_with_pictures(pl_module.ssl))
        mask = task.fixed_mask(indices).to(pl_module.device)
        rebuilt = task.reconstruct(pl_module.encoder, images, mask)
        hidden = task.hide(images, mask)
        pl_module.train(was_training)
        rows = torch.stack([images, hidden, rebuilt]).float().cpu()  # (3, B, C, H, W), of clips (3, B, C, T, H, W)
        if rows.ndim == 5:
            return _grid(self._denormalise(rows))
        first, *others = (_grid(self._denormalise(clip)) for clip in film_strips(rows))
        return torch.cat([first, *(nn.functional.pad(strip, (0, 0, GAP, 0), value=255) for strip in others)], dim=1)

    def _denormalise(self, rows: Tensor) -> Tensor:
        return torch.stack([visible(row) for row in (rows * self._std + self._mean).clamp(0, 1)])


def film_strips(rows: Tensor) -> Tensor:
    """Of clips (R, B, C, T, H, W) CLIPS over the batch, of each FRAMES over time: (CLIPS, R, FRAMES, C, H, W).

    The batch is in the order of the classes: the first and the last of them are seen.
    """
    clips, frames = (_spread(rows.shape[axis], most) for axis, most in ((1, CLIPS), (3, FRAMES)))
    return rows[:, clips][:, :, :, frames].permute(1, 0, 3, 2, 4, 5)


def _spread(count: int, most: int) -> Tensor:
    return torch.linspace(0, count - 1, min(most, count)).round().long()


def _grid(rows: Tensor, gap: int = 2, shortest: int = 64) -> Tensor:
    """(R, N, 3, h, w) in [0, 1] as one (3, H, W) uint8 picture, small images enlarged without smoothing."""
    scale = max(1, shortest // rows.shape[-1])
    rows = rows.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    padded = torch.nn.functional.pad(rows, (gap, gap, gap, gap), value=1.0)
    count, columns, channels, height, width = padded.shape
    picture = padded.permute(2, 0, 3, 1, 4).reshape(channels, count * height, columns * width)
    return (picture * 255).round().to(torch.uint8)


def labelled(picture: Tensor, strips: int) -> Tensor:
    """The picture with the name of each row at its left.

    Args:
        picture: (3, H, W) uint8 of `Reconstructions.picture`.
        strips: how many times the three rows stand in it, GAP pixels apart.
    """
    from PIL import Image, ImageDraw, ImageFont

    height = picture.shape[1]
    row = (height - (strips - 1) * GAP) / (strips * len(ROWS))
    margin = Image.new("RGB", (MARGIN, height), "white")
    draw, font = ImageDraw.Draw(margin), ImageFont.load_default(LETTERS)
    for index in range(strips * len(ROWS)):
        middle = index // len(ROWS) * GAP + (index + 0.5) * row
        draw.text((MARGIN - 6, middle), ROWS[index % len(ROWS)], fill="black", font=font, anchor="rm")
    return torch.cat([torch.from_numpy(np.array(margin)).permute(2, 0, 1), picture], dim=2)


def write_png(picture: Tensor, path: Path) -> None:
    """Writes (3, H, W) uint8 atomically."""
    from PIL import Image

    with replacing(path) as partial:
        Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(partial, format="PNG")
