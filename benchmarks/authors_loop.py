"""One training epoch as the paper's authors have written it: PIL images through timm's transforms, one by one, two
encoder passes in fp32, the gradient's norm, and every loss read at every step.

The loop of the MAE family, written anew; the network is `benchmarks.reference`.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from timm.optim import param_groups_weight_decay
from torch.utils.data import DataLoader, Dataset

from benchmarks.reference import TwoPass
from benchmarks.step import DECODER
from ssat.config.schema import Run
from ssat.data.image import ImageDataModule
from ssat.data.sets.sources import ImageList
from ssat.data.transforms.timm_transforms import train_transform
from ssat.training.data import build_images


class Pictures(Dataset[Any]):
    """(image, class) of some images of a list, read anew each time."""

    def __init__(self, images: ImageList, chosen: list[int], transform: Any) -> None:
        self.images, self.chosen, self.transform = images, chosen, transform

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, place: int) -> tuple[Any, int]:
        index = self.chosen[place]
        return self.transform(self.images.read(index)), int(self.images.labels[index])


def network(config: Run, num_classes: int) -> TwoPass:
    """The two-pass network of the configuration, with weights of its own."""
    o, ssl = config.encoder.options, next(iter(config.ssl.tasks.values())).options
    return TwoPass(
        config.data.img_size,
        o["patch_size"],
        in_chans=3,
        dim=o["embed_dim"],
        depth=o["depth"],
        num_heads=o["num_heads"],
        num_classes=num_classes,
        decoder_dim=ssl["decoder_dim"] or DECODER["dim"],
        decoder_depth=ssl["decoder_depth"] or DECODER["depth"],
        decoder_heads=ssl["decoder_heads"] or DECODER["num_heads"],
        mlp_ratio=o.get("mlp_ratio", 4.0),
    )


def loader_of(config: Run) -> tuple[DataLoader[Any], int]:
    """The run's training images as the authors load them, and the number of classes."""
    data: ImageDataModule = build_images(config, config.mode.phases[0])
    data.setup()
    transform = train_transform(config.data.img_size, mean=data.mean, std=data.std, augment=data.augment)
    images, indices = data.split("train")
    pictures = Pictures(images, np.asarray(indices).tolist(), transform)
    return DataLoader(pictures, config.recipe.batch_size, shuffle=True, drop_last=True), data.num_classes


def authors_epoch(config: Run) -> dict[str, float]:
    """CPU and wall seconds of an epoch of the run's images."""
    loader, num_classes = loader_of(config)
    model = network(config, num_classes).train()
    optimizer = torch.optim.AdamW(param_groups_weight_decay(model, 0.05), lr=1e-5, betas=(0.9, 0.95))
    length = (config.data.img_size // model.patch_size) ** 2
    read: list[tuple[float, float]] = []
    cpu, wall = time.process_time(), time.perf_counter()
    for step, (images, labels) in enumerate(loader):
        for group in optimizer.param_groups:
            group["lr"] = 1e-5 * step / len(loader)
        loss, reconstruction, _ = model(images, labels, torch.rand(len(images), length))
        read.append((loss.item(), reconstruction.item()))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), float("inf")).item()
        optimizer.step()
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
