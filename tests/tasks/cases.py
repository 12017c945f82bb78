"""Small SSL tasks for the shared contract suite; a new task adds one line here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from ssat.core.batch import Batch
from ssat.encoders.base import Encoder
from ssat.tasks.base import Task
from ssat.tasks.dino import DINO
from ssat.tasks.drloc import Drloc
from ssat.tasks.guidance import Guidance
from ssat.tasks.latent import LatentReconstruction
from ssat.tasks.reconstruction import Reconstruction
from ssat.tasks.several import Several
from ssat.tasks.simclr import SimCLR
from ssat.tasks.videomae import VideoMAE
from tests.encoders.cases import by_name, images_for  # noqa: F401 - by_name for a line of yours
from tests.tasks.rotation import Rotation

latent = partial(LatentReconstruction, decoder_dim=16, decoder_depth=2, decoder_heads=2)
mae = partial(Reconstruction, decoder_dim=16, decoder_depth=2, decoder_heads=2)

# Name of the encoder case to run on, and the task on it.
CASES: dict[str, tuple[str, Callable[[Encoder], Task]]] = {
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
    "simmim-mixer": ("mixer", mae),
    "latent-mixer": ("mixer", partial(latent, blocks=2)),
    "guidance-mixer": ("mixer", Guidance),
    "rotation": ("vit", Rotation),
    "simmim-and-rotation": ("mixer", lambda encoder: Several({"simmim": mae(encoder), "rotation": Rotation(encoder)})),
    "mae-and-guidance": ("vit", lambda encoder: Several({"mae": mae(encoder), "guidance": Guidance(encoder)})),
    "mae-and-simclr": ("vit", lambda encoder: Several({"mae": mae(encoder), "simclr": SimCLR(encoder)})),
    "videomae": ("videomae", partial(VideoMAE, decoder_dim=16, decoder_depth=2, decoder_heads=2)),
    "videomae-rectangular-grey": ("videomae-rectangular-grey", partial(VideoMAE, mask_ratio=0.5, decoder_depth=1)),
    "videomae-checkpointed": ("videomae-checkpointed", partial(VideoMAE, mean=(0.5,) * 3, std=(0.25,) * 3)),
    "mae-rectangular-grey": ("vit-rectangular-grey", partial(mae, mask_ratio=0.5, decoder_depth=1)),
}


def batch_for(encoder: Encoder, task: Task, batch: int = 4) -> Batch:
    """A batch with as many views as the task wants."""
    images = images_for(encoder, batch)
    return Batch(
        images,
        torch.arange(batch) % 3,
        views=tuple(torch.randn_like(view) for view in task.blank_views(images)),
        indices=torch.arange(batch) * 7,
    )
