"""ResNet (He et al. 2016), timm's: the convolutional baseline of Table 1. It has no masked pass."""

from __future__ import annotations

from typing import Any

from timm.models.resnet import Bottleneck
from timm.models.resnet import ResNet as TimmResNet
from torch import Tensor, nn

from src.encoders.base import Dense, Encoder, timm_names
from src.errors import UserError

STEMS = ("imagenet", "cifar")


def use_small_stem(model: Any, in_chans: int) -> None:
    """Replace the 7x7 stem by a 3x3 one with stride 1, and drop the pooling after it."""
    model.conv1 = nn.Conv2d(in_chans, 64, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()


class ResNet(Encoder):
    """timm's ResNet with bottlenecks; ResNet-50 by default.

    A convolution slides over hidden pixels as over any others, so hiding patches leaves a visible cell's features
    dependent on where the holes are and shifts every batch norm: `hidden` is None, and reconstruction is refused.

    Args:
        img_size: pixels, a number or (height, width).
        in_chans: channels of the images.
        stem: `imagenet` = 7x7 with stride 2 and max pooling; `cifar` = 3x3 with stride 1, no pooling.
        depths: blocks of the four stages.
        drop_path: stochastic depth, rising linearly from 0.

    Raises:
        UserError: an unknown stem.
    """

    hidden = None
    stem = "model.conv1.weight"
    timm_name = "resnet50"

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        *,
        in_chans: int = 3,
        stem: str = "imagenet",
        depths: tuple[int, ...] = (3, 4, 6, 3),
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if stem not in STEMS:
            raise UserError(f"encoder.stem={stem!r} is not one of {', '.join(STEMS)}")
        self.img_size = (img_size, img_size) if isinstance(img_size, int) else (img_size[0], img_size[1])
        block: Any = Bottleneck
        self.model: Any = TimmResNet(block, tuple(depths), num_classes=0, in_chans=in_chans, drop_path_rate=drop_path)
        if stem == "cifar":
            use_small_stem(self.model, in_chans)
        total = 32 if stem == "imagenet" else 8
        self.in_chans, self.num_features, self.unit_px = in_chans, self.model.num_features, total
        self.mask_grid = (-(-self.img_size[0] // total), -(-self.img_size[1] // total))
        self.latent_dims, self.latent_scales = (self.num_features,), (total,)

    def forward_features(self, images: Tensor) -> Tensor:
        return self.model.forward_head(self.forward_map(images), pre_logits=True)

    def forward_map(self, images: Tensor) -> Tensor:
        self.check_images(images)
        return self.model.forward_features(images)

    def forward_blocks(self, images: Tensor) -> list[Tensor]:
        return self.forward_dense(images).blocks

    def forward_dense(self, images: Tensor) -> Dense:
        self.check_images(images)
        model = self.model
        x = model.maxpool(model.act1(model.bn1(model.conv1(images))))
        outputs = []
        for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
            for block in stage:
                x = block(x)
                outputs.append(x.flatten(2).transpose(1, 2))
        return Dense(model.forward_head(x, pre_logits=True), x, outputs)

    def adapt_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return timm_names(weights)

    def layer_ids(self) -> dict[str, int]:
        """One layer a block."""
        return {name: self._layer_id(name) for name, _ in self.named_parameters()}

    def _layer_id(self, name: str) -> int:
        model = self.model
        if not name.startswith("model.layer"):
            return 0
        stages = [len(stage) for stage in (model.layer1, model.layer2, model.layer3, model.layer4)]
        _, stage, block, *_ = name.split(".")
        return sum(stages[: int(stage[-1]) - 1]) + int(block) + 1
