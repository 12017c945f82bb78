"""Pictures of reconstructions: of images one grid, of clips a film strip each."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssat.core.batch import Batch
from ssat.encoders.videomae import VideoTransformer
from ssat.encoders.vit import VisionTransformer
from ssat.tasks.base import Task
from ssat.tasks.reconstruction import Reconstruction
from ssat.tasks.videomae import IMAGENET_MEAN, IMAGENET_STD, VideoMAE
from ssat.training.callbacks.pictures import MARGIN, ROWS, Reconstructions, film_strips, labelled, write_png

MEAN, STD = (torch.tensor(values).view(3, 1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
GAP = 2
BETWEEN = 12  # two film strips


def moving_squares(clips: int, *, frames: int = 16, size: int = 64) -> Tensor:
    """On [0, 1]: a bright square that goes to the right, another one in each clip, on a colour that does not change."""
    rows, cols = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    made = torch.empty(clips, 3, frames, size, size)
    for clip in range(clips):
        made[clip] = torch.tensor([0.2, 0.4, 0.2 + 0.2 * clip]).view(3, 1, 1, 1) + 0.2 * rows / size
        for frame in range(frames):
            inside = ((rows - 16 - 8 * clip).abs() < 8) & ((cols - 8 - 3 * frame).abs() < 8)
            made[clip, :, frame][:, inside] = torch.tensor([1.0, 0.9, 0.1]).view(3, 1)
    return made


def shown(encoder: torch.nn.Module, task: Task, images: Tensor, folder: Path) -> np.ndarray:
    """The picture as it is read back from its file."""
    module = SimpleNamespace(
        device="cpu", ssl=task, encoder=encoder, training=False, train=lambda mode: None, eval=lambda: None
    )
    batch = Batch(images, indices=torch.arange(len(images)))
    callback = Reconstructions(folder, batch, list(IMAGENET_MEAN), list(IMAGENET_STD), every=1)
    write_png(callback.picture(module), folder / "picture.png")
    return np.array(Image.open(folder / "picture.png"))


def test_a_clip_is_a_film_strip_of_original_masked_and_reconstructed_frames(tmp_path: Path) -> None:
    encoder = VideoTransformer(16, 64, 16, embed_dim=32, depth=1, num_heads=1).eval()
    task = VideoMAE(encoder, decoder_depth=1).eval()
    pixels = moving_squares(4)
    picture = shown(encoder, task, (pixels - MEAN) / STD, tmp_path)
    cell = 64 + 2 * GAP
    strip = 3 * cell + BETWEEN
    assert picture.shape == (3 * strip - BETWEEN, 6 * cell, 3)  # three of the four clips, six of the 16 frames

    def at(place: int, row: int, column: int) -> Tensor:
        top = place * strip + row * cell
        part = picture[top + GAP : top + cell - GAP, column * cell + GAP : (column + 1) * cell - GAP]
        return torch.from_numpy(part).permute(2, 0, 1) / 255

    mask = task.fixed_mask(torch.arange(4)).view(4, 8, 4, 4)
    for place, clip in enumerate((0, 2, 3)):  # of the first and of the last class, as the batch is in their order
        for column, frame in enumerate((0, 3, 6, 9, 12, 15)):
            hidden = mask[clip, frame // 2].repeat_interleave(16, 0).repeat_interleave(16, 1)
            true = pixels[clip, :, frame]
            assert torch.allclose(at(place, 0, column), true, atol=0.003)
            assert torch.allclose(at(place, 1, column), torch.where(hidden, MEAN[:, 0], true), atol=0.003)
            assert torch.allclose(at(place, 2, column)[:, ~hidden], true[:, ~hidden], atol=0.003)


def test_a_clip_of_few_frames_shows_each_once() -> None:
    rows = torch.arange(4.0).view(1, 1, 1, 4, 1, 1).expand(3, 2, 3, 4, 5, 5)
    strips = film_strips(rows)
    assert strips.shape == (2, 3, 4, 3, 5, 5)
    assert strips[0, 0, :, 0, 0, 0].tolist() == [0, 1, 2, 3]


def test_images_stay_one_grid_with_a_column_for_each(tmp_path: Path) -> None:
    encoder = VisionTransformer(16, 4, embed_dim=24, depth=1, num_heads=2).eval()
    task = Reconstruction(encoder, decoder_dim=16, decoder_heads=2).eval()
    picture = shown(encoder, task, torch.randn(5, 3, 16, 16), tmp_path)
    assert picture.shape == (3 * 68, 5 * 68, 3)


def test_each_row_has_its_name_at_its_own_height_and_the_picture_is_unchanged() -> None:
    for strips, row in ((1, 68), (3, 40)):
        height = strips * len(ROWS) * row + (strips - 1) * BETWEEN
        picture = torch.randint(0, 256, (3, height, 50), dtype=torch.uint8)
        made = labelled(picture, strips)
        assert torch.equal(made[:, :, MARGIN:], picture)
        dark = (made[:, :, :MARGIN] < 128).all(0)
        for index in range(strips * len(ROWS)):
            top = index * row + index // len(ROWS) * BETWEEN
            inked = dark[top : top + row].any(1).nonzero().flatten()
            assert len(inked) and abs(inked.float().mean() - row / 2) < 6, (strips, index)
