"""ResNet for 32-pixel images (He et al. 2016, section 4.2): the teacher of locality guidance."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ssat.encoders.base import Dense, Encoder, both_sides
from ssat.encoders.layers import through


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; a 1x1 convolution as the shortcut where the shape changes."""

    def __init__(self, in_dim: int, dim: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_dim, dim, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(dim)
        self.conv2 = nn.Conv2d(dim, dim, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(dim)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_dim != dim:
            self.shortcut = nn.Sequential(nn.Conv2d(in_dim, dim, 1, stride, bias=False), nn.BatchNorm2d(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_dim, h, w) to (B, dim, h / stride, w / stride)."""
        branch = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(branch + self.shortcut(x))


class CifarResNet(Encoder):
    """Three stages of basic blocks on 16, 32 and 64 channels at the image's side, its half and its quarter.

    Args:
        img_size: pixels, a number or (height, width).
        in_chans: channels of the images.
        blocks: per stage; 9 = ResNet-56.
        checkpoint_blocks: keep only the inputs of the blocks for the backward pass and compute the rest again.
    """

    mask_style = None
    stem = "conv1.weight"

    def __init__(
        self,
        img_size: int | tuple[int, int] = 32,
        *,
        in_chans: int = 3,
        blocks: int = 9,
        checkpoint_blocks: bool = False,
    ) -> None:
        super().__init__()
        self.img_size, self.depth, self.checkpoint_blocks = both_sides(img_size), 3 * blocks, checkpoint_blocks
        self.in_chans, self.num_features, self.mask_cell_px = in_chans, 64, 4
        self.mask_grid = (-(-self.img_size[0] // 4), -(-self.img_size[1] // 4))
        self.latent_dims, self.latent_scales = (64,), (4,)
        self.conv1 = nn.Conv2d(in_chans, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.stages = nn.ModuleList(
            nn.Sequential(BasicBlock(before, width, stride), *(BasicBlock(width, width, 1) for _ in range(blocks - 1)))
            for before, width, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stage_maps(self, images: Tensor, each: list[Tensor] | None = None) -> list[Tensor]:
        """Maps (B, C, h, w) after each of the three stages, of images of any size.

        The map after each block is appended to `each` as tokens (B, N, D).
        """
        x, maps = F.relu(self.bn1(self.conv1(images))), []
        for stage in self.stages:
            for block in stage:  # type: ignore[attr-defined]
                x = through(block, x, checkpointed=self.checkpoint_blocks and self.training)
                if each is not None:
                    each.append(x.flatten(2).transpose(1, 2))
            maps.append(x)
        return maps

    def forward_features(self, images: Tensor) -> Tensor:
        """The mean of the final map (B, 64)."""
        return self.forward_map(images).mean((2, 3))

    def forward_map(self, images: Tensor) -> Tensor:
        """The last stage's map (B, 64, h / 4, w / 4)."""
        self.check_images(images)
        return self.stage_maps(images)[-1]

    def evidence_layer(self) -> nn.Module:
        """The last block, whose map the classifier averages."""
        return self.stages[-1][-1]  # type: ignore[index]

    def evidence_map(self, output: Tensor) -> Tensor:
        """It is one already."""
        return output

    def forward_blocks(self, images: Tensor) -> list[Tensor]:
        """The map after each block of all stages, its positions as tokens (B, N, D)."""
        return self.forward_dense(images).blocks

    def forward_dense(self, images: Tensor) -> Dense:
        """Features, the final map, and the map after each block as tokens, in one pass."""
        self.check_images(images)
        outputs: list[Tensor] = []
        x = self.stage_maps(images, outputs)[-1]
        return Dense(x.mean((2, 3)), x, outputs)

    def layer_ids(self) -> dict[str, int]:
        """Each block is one layer; the stem is layer 0."""
        return {name: self._layer_id(name) for name, _ in self.named_parameters()}

    def _layer_id(self, name: str) -> int:
        if not name.startswith("stages."):
            return 0
        _, stage, block, *_ = name.split(".")
        return int(stage) * len(self.stages[0]) + int(block) + 1  # type: ignore[arg-type]
