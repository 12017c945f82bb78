"""Small encoders for the shared contract suites; a new encoder adds one line here and is tested by all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ssat.config.create import load
from ssat.encoders.base import Encoder
from ssat.encoders.cct import CompactTransformer
from ssat.encoders.cvt import ConvolutionalVisionTransformer
from ssat.encoders.resnet import ResNet
from ssat.encoders.resnet_cifar import CifarResNet
from ssat.encoders.sl_vit import sl_vit
from ssat.encoders.swin import SwinTransformer
from ssat.encoders.timm_vit import TimmVisionTransformer
from ssat.encoders.videomae import VideoTransformer
from ssat.encoders.vit import VisionTransformer
from ssat.tasks.masking import random_mask
from tests.encoders.mixer import Mixer


def by_name(path: str) -> Any:
    """The class `module:Class`, so that a case needs no import of its own."""
    return load({}, path, "case")


small_cvt = partial(
    ConvolutionalVisionTransformer,
    img_size=16,
    strides=(1, 2, 2),
    dims=(8, 16, 24),
    depths=(1, 2, 2),
    num_heads=(1, 2, 3),
    drop_path=0.0,
)
small_swin = partial(
    SwinTransformer,
    img_size=32,
    patch_size=2,
    window_size=4,
    mask_unit=4,
    embed_dim=12,
    depths=(2, 2, 2, 1),
    num_heads=(1, 2, 2, 4),
    drop_path=0.0,
)
small_cct = partial(
    CompactTransformer, img_size=16, embed_dim=24, depth=2, num_heads=3, convs=2, attn_drop=0.0, drop_path=0.0
)
small_sl_vit = partial(sl_vit, img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, drop_path=0.0)
small_video = partial(VideoTransformer, 4, 8, 4, embed_dim=24, depth=2, num_heads=2)
small_vit = partial(VisionTransformer, 12, 3, embed_dim=24, depth=3, num_heads=2)


class Least(Encoder):
    """No more than training on labels alone needs."""

    def __init__(self) -> None:
        super().__init__()
        self.img_size, self.in_chans, self.num_features = (4, 4), 3, 5
        self.layer = nn.Linear(48, 5)

    def forward_features(self, images: Tensor) -> Tensor:
        self.check_images(images)
        return self.layer(images.flatten(1))


CASES: dict[str, Callable[[], Encoder]] = {
    "vit": small_vit,
    "vit-learnable": partial(small_vit, pos_embed="learnable"),
    "vit-checkpointed": partial(small_vit, checkpoint_blocks=True),
    "vit-rectangular-grey": partial(VisionTransformer, (8, 20), 4, in_chans=1, embed_dim=16, depth=2, num_heads=4),
    "cvt": small_cvt,
    "cvt-rectangular-grey": partial(small_cvt, img_size=(16, 24), in_chans=1, strides=(2, 2, 2)),
    "swin": small_swin,
    "swin-rectangular-grey": partial(small_swin, img_size=(16, 32), window_size=2, in_chans=1),
    "swin-padded-merging": partial(small_swin, img_size=28, patch_size=1, window_size=7),
    "resnet": partial(ResNet, 32, stem="cifar", depths=(1, 1, 1, 1)),
    "resnet-grey": partial(ResNet, (64, 32), in_chans=1, depths=(1, 1, 1, 1)),
    "resnet-cifar": partial(CifarResNet, 16, blocks=1),
    "resnet-cifar-rectangular-grey": partial(CifarResNet, (8, 16), in_chans=1, blocks=2),
    "cct": small_cct,
    "cct-one-convolution": partial(small_cct, img_size=8, convs=1, pos_embed="sincos"),
    "cct-rectangular-grey": partial(
        small_cct, img_size=(16, 32), kernel=7, convs=1, in_chans=1, checkpoint_blocks=True
    ),
    "sl-vit": small_sl_vit,
    "sl-vit-rectangular-grey": partial(small_sl_vit, img_size=(8, 16), patch_size=2, in_chans=1, pos_embed="sincos"),
    "timm": partial(TimmVisionTransformer, "test_vit", 32, patch_size=8),
    "timm-registers-average": partial(TimmVisionTransformer, "test_vit2", 32, patch_size=8, in_chans=1),
    "timm-no-class-token": partial(TimmVisionTransformer, "test_vit3", 32, patch_size=8),
    "videomae": small_video,
    "videomae-rectangular-grey": partial(
        VideoTransformer, 6, (4, 8), 4, tubelet_size=3, in_chans=1, embed_dim=16, depth=1, num_heads=1
    ),
    "videomae-checkpointed": partial(small_video, checkpoint_blocks=True),
    "mixer": partial(Mixer, 16, embed_dim=24, depth=2),
    "mixer-rectangular-grey": partial(Mixer, (8, 16), in_chans=1, embed_dim=16, depth=1),
    "least": Least,
    "vit-no-qkv-bias-one-block": partial(VisionTransformer, 10, 2, embed_dim=20, depth=1, num_heads=5, qkv_bias=False),
}


def build(case: str) -> Encoder:
    """The encoder in evaluation mode with every trainable tensor moved off its initial zeros and ones."""
    torch.manual_seed(0)
    encoder = CASES[case]()
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return encoder.eval()


def images_for(encoder: Encoder, batch: int = 3) -> Tensor:
    """Noise of the size the encoder takes."""
    return torch.randn(batch, encoder.in_chans, *encoder.img_size)


def mask_for(encoder: Encoder, batch: int = 3, ratio: float = 0.6) -> Tensor:
    return random_mask(batch, encoder.mask_grid, ratio)


def hidden_pixels(encoder: Encoder, mask: Tensor) -> Tensor:
    """`mask` (B, L) as pixels (B, 1, H, W), of clips (B, 1, T, H, W)."""
    pixels = mask.view(len(mask), 1, *encoder.mask_grid)
    for dim, (size, cells) in enumerate(zip(encoder.img_size, encoder.mask_grid, strict=True), 2):
        pixels = pixels.repeat_interleave(size // cells, dim=dim)
    return pixels
