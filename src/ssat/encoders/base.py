"""The contract every encoder keeps (tested by tests/encoders/test_contract.py)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ssat.core.errors import UserError

MaskStyle = Literal["dropped", "zeroed", "replaced"]


class Latent(NamedTuple):
    """What the masked pass hands to a decoder.

    Attributes:
        maps: one tensor per latent scale: (B, V, D) visible tokens in raster order when `visible_only`,
            else (B, D, h, w) maps.
        cls: (B, D) class token of the masked view, or None for an encoder without one.
        visible_only: whether `maps` hold only the visible positions.
    """

    maps: list[Tensor]
    cls: Tensor | None
    visible_only: bool


class Dense(NamedTuple):
    """Everything that one full pass gives.

    Attributes:
        features: (B, num_features), those of `forward_features`.
        map: (B, F, h, w) output of the last block, before any final norm.
        blocks: (B, N, D) tokens after each block.
    """

    features: Tensor
    map: Tensor
    blocks: list[Tensor]


class Encoder(nn.Module):
    """An encoder of images; one with a masked pass can also look at a partly hidden image.

    An encoder of clips states an `img_size` of three sides. Where this page says images (B, C, H, W), it takes clips
    (B, C, T, H, W), its mask grid has time slots, and its maps are (B, D, t, h, w).

    Training on labels alone needs `num_features`, `img_size`, `in_chans` and `forward_features`. The masked pass needs
    `mask_style`, `mask_grid`, `mask_cell_px`, `latent_dims`, `latent_scales` and `forward_masked` as well. Everything
    else has a default. `encoders.contract.check_contract` says what a class lacks.

    Attributes:
        num_features: width of the feature vector of `forward_features`.
        img_size: (height, width) of the images, pixels; of clips (frames, height, width).
        in_chans: channels of the images.
        mask_style: what the masked pass makes of hidden cells: `dropped` (it computes the visible tokens only, as a
            plain ViT can), `zeroed` (its maps are 0 there), `replaced` (a mask token stands for them); None = the
            encoder has no masked pass.
        mask_grid: (rows, cols) of the mask; L = rows * cols cells; of clips (slots, rows, cols).
        mask_cell_px: pixels per mask cell and side.
        latent_dims: channels of each map in `Latent.maps`; the last one is that of `forward_map` too.
        latent_scales: pixels per position of each map, per side.
        depth: number of blocks, those of `forward_blocks`.
        flat_tokens: whether each block gives one flat token grid: `num_prefix` tokens, then one token per mask cell in
            raster order, as in a plain ViT or an MLP-Mixer.
        num_prefix: tokens of `forward_blocks` before those of the image, such as a class token.
        patch_dropout: share of the patches that the full pass leaves out in training, drawn anew for each image
            (`kept_patches`; Liu et al. 2023); None = the encoder computes all of them.
        separate: whether no image of a batch changes the features of another one, as batch norm does; `forward_joint`
            then takes `rows`.
        stem: name of the weight that reads the channels, if it can be fitted to other channels.
        timm_name: timm's name of this architecture, if it has one.
    """

    num_features: int
    img_size: tuple[int, ...]
    in_chans: int
    mask_style: MaskStyle | None = None
    mask_grid: tuple[int, ...]
    mask_cell_px: int
    latent_dims: tuple[int, ...]
    latent_scales: tuple[int, ...]
    depth: int = 0
    flat_tokens: bool = False
    num_prefix: int = 0
    patch_dropout: float | None = None
    separate: bool = False
    stem: str | None = None
    timm_name: str | None = None

    def forward(self, images: Tensor) -> Tensor:
        """`forward_features`: (B, C, H, W) to (B, num_features)."""
        return self.forward_features(images)

    def forward_features(self, images: Tensor) -> Tensor:
        """Features (B, num_features) of the full images (B, C, H, W): the standard network, free of any mask."""
        raise NotImplementedError(f"{type(self).__name__} has no forward_features")

    def forward_features_plain(self, images: Tensor) -> Tensor:
        """`forward_features` in its plainest form, without shortcuts: what MAC counts compare with."""
        return self.forward_features(images)

    def forward_masked(self, images: Tensor, mask: Tensor, *, num_visible: int | None = None) -> Latent:
        """Latent of the visible part of `images`.

        Args:
            images: (B, C, H, W).
            mask: (B, L) bool, True = removed, the same number in every row.
            num_visible: visible cells per row when the caller knows it; spares a device synchronisation.

        Raises:
            NotImplementedError: the encoder has no masked pass (`mask_style` is None).
            ValueError: the rows of the mask hide different numbers of cells (checked when `num_visible` is None).
        """
        raise NotImplementedError(f"{type(self).__name__} has no masked pass")

    @property
    def takes_clips(self) -> bool:
        """Whether it takes clips (B, C, T, H, W) and not images."""
        return len(self.img_size) == 3

    def forward_masked_plain(self, images: Tensor, mask: Tensor, *, num_visible: int | None = None) -> Latent:
        """`forward_masked` in its plainest form, without shortcuts: what tests and MAC counts compare with."""
        return self.forward_masked(images, mask, num_visible=num_visible)

    def forward_joint(
        self, images: Tensor, mask: Tensor, *, num_visible: int | None = None, rows: Tensor | None = None
    ) -> tuple[Tensor, Latent]:
        """Both passes at once: (features (R, num_features), latent); an encoder may share work between them.

        Args:
            images: (B, C, H, W).
            mask: (B, L) bool, as in `forward_masked`.
            num_visible: as in `forward_masked`.
            rows: (R,) the images whose features are asked for, of a `separate` encoder; None = all of them.
        """
        features = self.forward_features(images if rows is None else images[rows])
        return features, self.forward_masked(images, mask, num_visible=num_visible)

    def forward_blocks(self, images: Tensor) -> list[Tensor]:
        """Output tokens (B, N, D) after each of the `depth` blocks on the full images."""
        raise NotImplementedError(f"{type(self).__name__} has no forward_blocks")

    def forward_map(self, images: Tensor) -> Tensor:
        """Final spatial features (B, F, h, w) of the full images, for dense losses and analyses.

        The default is the last block's token grid; an encoder without `flat_tokens` must override it.
        """
        return self._final_map(self.forward_blocks(images))

    def forward_tokens(self, images: Tensor) -> Tensor:
        """Features of each token (B, N, num_features), whose mean is `forward_features` of the full images.

        Only an encoder that averages its tokens has them: a linear classifier then says what each token speaks for.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward_tokens")

    def forward_dense(self, images: Tensor) -> Dense:
        """Features, final map and every block's tokens of the full images, in one pass.

        The default takes two passes; an encoder without `flat_tokens` must override it.
        """
        blocks = self.forward_blocks(images)
        return Dense(self.forward_features(images), self._final_map(blocks), blocks)

    def _final_map(self, blocks: list[Tensor]) -> Tensor:
        if not self.flat_tokens:
            raise NotImplementedError(f"{type(self).__name__} has no forward_map or forward_dense")
        return tokens_to_map(self.image_tokens(blocks[-1]), self.mask_grid)

    def forward_crop(self, images: Tensor) -> Tensor:
        """`forward_features` of images (B, C, h, w) of another size, such as DINO's local crops.

        Raises:
            UserError: the encoder's sizes are fixed.
        """
        if tuple(images.shape[2:]) != tuple(self.img_size):
            raise UserError(
                f"{type(self).__name__} takes images of {tuple(self.img_size)} only, not of {tuple(images.shape[2:])}:"
                " set ssl.local_views=0, or choose a plain ViT or CvT",
                key="ssl.local_views",
            )
        return self.forward_features(images)

    def resize(self, img_size: tuple[int, int]) -> None:
        """Take images of `img_size` (height, width) from now on; the weights stay.

        Raises:
            UserError: the encoder's sizes are fixed, or do not fit this one.
        """
        raise UserError(
            f"recipe.sizes trains on smaller images first, and {type(self).__name__} has one size: use encoder=vit_t,"
            " or another of ours with patches of one size, or leave it out",
            key="recipe.sizes",
        )

    def implements(self, method: str) -> bool:
        """Whether the encoder has `method`: its class overrides it, or the default has what it needs."""
        if getattr(type(self), method) is not getattr(Encoder, method):
            return True
        return method in ("forward_map", "forward_dense") and self.flat_tokens and self.implements("forward_blocks")

    def check_images(self, images: Tensor) -> None:
        """Raises: UserError: images of another size or channel count than the encoder was built for."""
        expected = (self.in_chans, *self.img_size)
        if tuple(images.shape[1:]) == expected:
            return
        what, sides, cure = "images", "height, width", "take encoder=videomae_s for videos"
        if self.takes_clips:
            what, sides, cure = "clips", "frames, height, width", "choose data of videos, or encoder=vit_t for images"
        problem = f"{what} are {tuple(images.shape[1:])}, the encoder takes {expected} (channels, {sides})"
        raise UserError(problem if images.ndim == len(expected) + 1 else f"{problem}: {cure}")

    def image_tokens(self, tokens: Tensor) -> Tensor:
        """A block's `tokens` (B, N, D) without class token and registers."""
        return tokens[:, self.num_prefix :]

    def residual_blocks(self) -> list[nn.Module]:
        """The blocks in their order if each is x + a(norm1(x)), then x + b(norm2(x)); else none.

        The analyses hook `norm1` and `norm2`, and `attn` where a block has attention.
        """
        return []

    def evidence_layer(self) -> nn.Module | None:
        """Where Grad-CAM reads what each place says of a class; `evidence_map` lays its output out. None = nowhere.

        The default is norm1 of the last residual block. What comes later is read at the class token alone in many
        encoders, and patches have no gradient there.
        """
        blocks = self.residual_blocks()
        layer = blocks[-1].norm1 if blocks else None
        assert layer is None or isinstance(layer, nn.Module)
        return layer

    def evidence_map(self, output: Tensor) -> Tensor:
        """The output of `evidence_layer` as a map (B, D, rows, cols)."""
        return tokens_to_map(self.image_tokens(output), self.mask_grid[-2:])

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that are exempt from weight decay besides the one-dimensional ones."""
        return set()

    def layer_ids(self) -> dict[str, int]:
        """Depth of each parameter for layer-wise lr decay: 0 = embedding, 1..depth = blocks, depth + 1 = the rest.

        By default all parameters are in one layer, so that layer decay makes no difference between them.
        """
        return {name: 0 for name, _ in self.named_parameters()}

    def adapt_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """A checkpoint's tensors under this encoder's names, tables resampled to its grid where that is sound."""
        return weights

    def only_masked(self) -> set[str]:
        """Names of parameters that the masked pass alone reads, such as a mask token; no part of the classifier."""
        return set()

    def only_full(self) -> set[str]:
        """Names of parameters that the masked pass does not read, such as a norm before the classifier."""
        return set()


def both_sides(img_size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of an image size given as a number or as both."""
    return (img_size, img_size) if isinstance(img_size, int) else (img_size[0], img_size[1])


def patch_grid(img_size: tuple[int, int], patch_size: int) -> tuple[int, int]:
    """(rows, cols) of the patches of an image.

    Raises:
        UserError: the patches do not divide the image.
    """
    for side in img_size:
        if patch_size < 1 or side < patch_size or side % patch_size:
            below = max(patch_size, side // patch_size * patch_size)
            raise UserError(
                f"img_size={side} is not a multiple of patch_size={patch_size}: "
                f"use data.img_size={below} or {below + patch_size}, or another encoder.patch_size",
                key="data.img_size",
                value=side,
            )
    return img_size[0] // patch_size, img_size[1] // patch_size


def split_mask(mask: Tensor, num_visible: int | None = None) -> tuple[Tensor, Tensor]:
    """Indices of the visible (B, V) and of the hidden cells (B, L - V) of `mask` (B, L), both in raster order.

    Raises:
        ValueError: the rows hide different numbers of cells (only checked when `num_visible` is not given).
    """
    if num_visible is None:
        counts = (~mask).sum(1)
        num_visible = int(counts[0])
        if not bool((counts == num_visible).all()):
            raise ValueError("every row of a mask must hide the same number of cells")
    ids = mask.to(dtype=torch.uint8).argsort(dim=1, stable=True)
    return ids[:, :num_visible], ids[:, num_visible:]


def kept_patches(batch: int, length: int, dropout: float, device: torch.device) -> Tensor:
    """Indices (B, K) of the patches that patch dropout keeps: K = int(L * (1 - dropout)) of L, at random, in any order.

    Raises:
        UserError: none would be kept.
    """
    kept = int(length * (1 - dropout))
    if kept < 1:
        raise UserError(
            f"recipe.patch_dropout={dropout:g} leaves none of the {length} patches of an image: set a smaller share",
            key="recipe.patch_dropout",
            value=dropout,
        )
    return torch.rand(batch, length, device=device).argsort(dim=1)[:, :kept]


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """`tokens` (B, N, D) at `index` (B, V): (B, V, D)."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def tokens_to_map(tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
    """`tokens` (B, rows * cols, D) in raster order as a map (B, D, rows, cols); of clips (B, D, slots, rows, cols)."""
    return tokens.transpose(1, 2).unflatten(2, grid)


def timm_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of an encoder that holds timm's network as `model`."""
    return {f"model.{name.removeprefix('model.')}": value for name, value in weights.items()}
