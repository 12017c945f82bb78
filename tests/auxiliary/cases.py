"""Small SSL tasks for the shared contract suite; a new task adds one line here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from src.auxiliary.base import SSLTask
from src.auxiliary.reconstruction import Reconstruction
from src.batch import Batch
from src.encoders.base import Encoder
from tests.encoders.cases import images_for

mae = partial(Reconstruction, decoder_dim=16, decoder_depth=2, decoder_heads=2)

# Name of the encoder case to run on, and the task on it.
CASES: dict[str, tuple[str, Callable[[Encoder], SSLTask]]] = {
    "mae": ("vit", mae),
    "mae-norm-pix": ("vit", partial(mae, norm_pix=True)),
    "convmae": ("cvt", mae),
    "convmae-conv-fusion": ("cvt-rectangular-grey", partial(mae, fuse="conv", decoder_depth=1)),
    "convmae-last-map": ("cvt", partial(mae, fuse="last", norm_pix=True)),
    "convmae-own-fusion": ("cvt", partial(mae, fuse="convmae")),
    "simmim": ("swin", partial(mae, decoder="simmim")),
    "simmim-l1-padded": ("swin-padded-merging", partial(mae, decoder="simmim", loss="l1")),
    "swin-light": ("swin-rectangular-grey", partial(mae, decoder="swin_light", fuse="last", norm_pix=True)),
    "swin-light-padded": ("swin-padded-merging", partial(mae, decoder="swin_light", fuse="last")),
    "mae-sl-vit": ("sl-vit", mae),
    "mae-timm": ("timm", mae),
    "mae-timm-no-class-token": ("timm-no-class-token", mae),
    "mae-rectangular-grey": ("vit-rectangular-grey", partial(mae, mask_ratio=0.5, decoder_depth=1)),
}


def batch_for(encoder: Encoder, task: SSLTask, batch: int = 4) -> Batch:
    """A batch with as many views as the task wants."""
    images = images_for(encoder, batch)
    return Batch(
        images,
        torch.arange(batch) % 3,
        views=tuple(torch.randn_like(images) for _ in range(task.views)),
        indices=torch.arange(batch) * 7,
    )
