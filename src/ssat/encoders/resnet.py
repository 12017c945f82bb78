"""ResNet (He et al. 2016), timm's: the convolutional baseline of Table 1. It has no masked pass."""

from __future__ import annotations

from typing import Any, Literal, get_args

from timm.models.resnet import Bottleneck
from timm.models.resnet import ResNet as TimmResNet
from torch import Tensor, nn

from ssat.core.choices import check_choice
from ssat.encoders.base import Dense, Encoder, both_sides, timm_names
from ssat.encoders.layers import through

Stem = Literal["imagenet", "cifar"]


def use_small_stem(model: Any, in_chans: int) -> None:
    """Replace the 7x7 stem by a 3x3 one with stride 1, and drop the pooling after it."""
    model.conv1 = nn.Conv2d(in_chans, 64, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()


class ResNet(Encoder):
    """timm's ResNet with bottlenecks; ResNet-50 by default.

    It has no masked pass, so reconstruction is refused: a convolution reads hidden pixels like all others. A visible
    cell's features would depend on where the holes are, and every batch norm's statistics would shift.

    Args:
        img_size: pixels, a number or (height, width).
        in_chans: channels of the images.
        stem: `imagenet` = 7x7 with stride 2 and max pooling; `cifar` = 3x3 with stride 1, no pooling.
        depths: blocks of the four stages.
        drop_path: stochastic depth, rising linearly from 0.
        checkpoint_blocks: keep only the inputs of the blocks for the backward pass and compute the rest again.

    Raises:
        UserError: an unknown stem.
    """

    mask_style = None
    stem = "model.conv1.weight"
    timm_name = "resnet50"

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        *,
        in_chans: int = 3,
        stem: Stem = "imagenet",
        depths: tuple[int, int, int, int] = (3, 4, 6, 3),
        drop_path: float = 0.0,
        checkpoint_blocks: bool = False,
    ) -> None:
        super().__init__()
        check_choice("encoder.stem", stem, get_args(Stem))
        self.img_size, self.depth, self.checkpoint_blocks = both_sides(img_size), sum(depths), checkpoint_blocks
        block: Any = Bottleneck
        self.model: Any = TimmResNet(block, tuple(depths), num_classes=0, in_chans=in_chans, drop_path_rate=drop_path)
        if stem == "cifar":
            use_small_stem(self.model, in_chans)
        total = 32 if stem == "imagenet" else 8
        self.in_chans, self.num_features, self.mask_cell_px = in_chans, self.model.num_features, total
        self.mask_grid = (-(-self.img_size[0] // total), -(-self.img_size[1] // total))
        self.latent_dims, self.latent_scales = (self.num_features,), (total,)

    def forward_features(self, images: Tensor) -> Tensor:
        """The mean of the final map (B, num_features)."""
        return self.model.forward_head(self.forward_map(images), pre_logits=True)

    def forward_map(self, images: Tensor) -> Tensor:
        """The final map (B, num_features, h, w)."""
        return self._through(images)

    def _through(self, images: Tensor, each: list[Tensor] | None = None) -> Tensor:
        """The map (B, D, h, w) after all stages; that of each block is appended to `each` as tokens (B, N, D)."""
        self.check_images(images)
        model = self.model
        x = model.maxpool(model.act1(model.bn1(model.conv1(images))))
        for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
            for block in stage:
                x = through(block, x, checkpointed=self.checkpoint_blocks and self.training)
                if each is not None:
                    each.append(x.flatten(2).transpose(1, 2))
        return x

    def evidence_layer(self) -> nn.Module:
        """The last block, whose map the classifier averages."""
        return self.model.layer4[-1]

    def evidence_map(self, output: Tensor) -> Tensor:
        """It is one already."""
        return output

    def forward_blocks(self, images: Tensor) -> list[Tensor]:
        """The map after each block of all stages, its positions as tokens (B, N, D)."""
        return self.forward_dense(images).blocks

    def forward_dense(self, images: Tensor) -> Dense:
        """Features, the final map, and the map after each block as tokens, in one pass."""
        outputs: list[Tensor] = []
        x = self._through(images, outputs)
        return Dense(self.model.forward_head(x, pre_logits=True), x, outputs)

    def adapt_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """timm's names, under which this encoder holds timm's network."""
        return timm_names(weights)

    def layer_ids(self) -> dict[str, int]:
        """Each block is one layer; the stem is layer 0."""
        return {name: self._layer_id(name) for name, _ in self.named_parameters()}

    def _layer_id(self, name: str) -> int:
        model = self.model
        if not name.startswith("model.layer"):
            return 0
        stages = [len(stage) for stage in (model.layer1, model.layer2, model.layer3, model.layer4)]
        _, stage, block, *_ = name.split(".")
        return sum(stages[: int(stage[-1]) - 1]) + int(block) + 1
