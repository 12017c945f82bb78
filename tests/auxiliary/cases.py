"""Small SSL tasks for the shared contract suite; a new task adds one line here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from src.auxiliary.base import SSLTask
from src.auxiliary.dino import DINO
from src.auxiliary.drloc import Drloc
from src.auxiliary.guidance import Guidance
from src.auxiliary.latent import LatentReconstruction
from src.auxiliary.reconstruction import Reconstruction
from src.auxiliary.several import Several
from src.auxiliary.simclr import SimCLR
from src.batch import Batch
from src.encoders.base import Encoder
from tests.encoders.cases import images_for

latent = partial(LatentReconstruction, decoder_dim=16, decoder_depth=2, decoder_heads=2)
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
    "mae-hog": ("vit", partial(mae, target="hog")),
    "mae-blocks": ("vit", partial(mae, mask="block")),
    "mae-weak-view": ("vit", partial(mae, source="weak")),
    "convmae-hog": ("cvt", partial(mae, target="hog")),
    "swin-light-grid": ("swin", partial(mae, decoder="swin_light", fuse="last", mask="grid", target="hog")),
    "latent": ("vit", partial(latent, blocks=2)),
    "latent-timm": ("timm-registers-average", partial(latent, blocks=1, loss="l1", mask="block")),
    "simclr": ("vit", SimCLR),
    "simclr-third": ("swin", partial(SimCLR, share="third")),
    "simclr-convolutions": ("resnet", SimCLR),
    "dino": ("vit", partial(DINO, out_dim=32, frozen_share=0.0)),
    "dino-third": ("cvt", partial(DINO, out_dim=32, frozen_share=0.0, share="third")),
    "dino-crops": ("vit", partial(DINO, out_dim=32, frozen_share=0.0, local_views=2, local_size=6)),
    "dino-crops-cvt": ("cvt", partial(DINO, out_dim=32, frozen_share=0.0, local_views=1, local_size=8)),
    "drloc": ("vit", Drloc),
    "drloc-cvt": ("cvt-rectangular-grey", partial(Drloc, normalise=True)),
    "drloc-swin": ("swin", partial(Drloc, weight=0.5)),
    "drloc-resnet": ("resnet", Drloc),
    "guidance": ("vit", partial(Guidance, teacher_bn="eval")),
    "guidance-timm": ("timm-registers-average", Guidance),
    "mae-and-guidance": ("vit", lambda encoder: Several({"mae": mae(encoder), "guidance": Guidance(encoder)})),
    "mae-and-simclr": ("vit", lambda encoder: Several({"mae": mae(encoder), "simclr": SimCLR(encoder)})),
    "mae-rectangular-grey": ("vit-rectangular-grey", partial(mae, mask_ratio=0.5, decoder_depth=1)),
}


def batch_for(encoder: Encoder, task: SSLTask, batch: int = 4) -> Batch:
    """A batch with as many views as the task wants."""
    images = images_for(encoder, batch)
    return Batch(
        images,
        torch.arange(batch) % 3,
        views=tuple(torch.randn_like(view) for view in task.blank_views(images)),
        indices=torch.arange(batch) * 7,
    )
