"""Reconstruction of hidden patches (section 4, L_SSAT): masking, decoder and loss are three independent parts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ssat.core.batch import Batch
from ssat.core.choices import check_choice
from ssat.core.errors import UserError
from ssat.core.views import View, weak_view
from ssat.encoders.base import Encoder
from ssat.tasks.base import check_views
from ssat.tasks.decoders import Decoder, DecoderKind, Fusion, MAEDecoder, build_decoder
from ssat.tasks.hog import hog, hog_dim
from ssat.tasks.masked import MaskedPrediction
from ssat.tasks.masking import MaskKind, mask_from_noise, mask_scores, num_visible
from ssat.tasks.patches import normalise_patches, patchify, unpatchify

Target = Literal["pixels", "hog"]
Source = Literal["mixed", "unmixed", "weak"]
DISTANCES = {"mse": torch.square, "l1": torch.abs}


class Reconstruction(MaskedPrediction):
    """Masked image modelling: predict the pixels of the hidden patches (section 4, L_SSAT).

    Args:
        encoder: only its sizes are read.
        mask_ratio: share of patches hidden.
        mask: which patches are hidden, see `masking.mask_scores`.
        mask_block: side of the blocks of `mask=block` and `mask=grid`, patches.
        target: `pixels`, or `hog` = their histograms of oriented gradients.
        source: the images to hide and predict. `mixed` = those that are classified; `unmixed` = the same before mixup
            and cutmix; `weak` = an extra view that is only cropped and flipped.
        norm_pix: predict each patch with mean 0 and variance 1 in place of the normalised image.
        loss: `mse`, or `l1` as SimMIM.
        decoder: see `decoders.READS`; None = the first one that fits the encoder.
        decoder_dim: width of the decoder's blocks.
        decoder_depth: number of its blocks.
        decoder_heads: attention heads of its blocks.
        decoder_mlp_ratio: hidden width of its MLPs over `decoder_dim`.
        fuse: how the decoder reads maps, see `FusedDecoder`.
        seed: of the masks.

    Raises:
        UserError: a mask ratio that leaves nothing to see or to predict; a decoder that cannot read the encoder; an
            unknown mask, target or source.

    Example:
        >>> encoder = VisionTransformer(32, 2)
        >>> task = Reconstruction(encoder)
        >>> loss, features, logs = task(encoder, Batch(torch.randn(8, 3, 32, 32)), True)
    """

    decoder: Decoder

    def __init__(
        self,
        encoder: Encoder,
        *,
        mask_ratio: float = 0.75,
        mask: MaskKind = "random",
        mask_block: int = 2,
        target: Target = "pixels",
        source: Source = "mixed",
        norm_pix: bool = False,
        loss: Literal["mse", "l1"] = "mse",
        decoder: DecoderKind | None = None,
        decoder_dim: int = 128,
        decoder_depth: int = 2,
        decoder_heads: int = 16,
        decoder_mlp_ratio: float = 4.0,
        fuse: Fusion = "pool",
        seed: int = 0,
    ) -> None:
        super().__init__(seed)
        self.check_encoder(encoder)
        check_choice("ssl.loss", loss, DISTANCES)
        check_choice("ssl.target", target, get_args(Target))
        check_choice("ssl.source", source, get_args(Source))
        self.target_kind, self.source = target, source
        self.extra_views = self.needed_views({"source": source}, img_size=encoder.img_size[0])
        self.reads_unmixed = source == "unmixed"
        self.decoder = build_decoder(
            encoder,
            decoder,
            fuse=fuse,
            out_dim=self.target_dim(encoder),
            dim=decoder_dim,
            depth=decoder_depth,
            num_heads=decoder_heads,
            mlp_ratio=decoder_mlp_ratio,
        )
        if norm_pix and target == "pixels" and encoder.mask_cell_px == 1:
            raise UserError(
                "norm_pix normalises the pixels of each patch, and a patch of encoder.patch_size=1 has only one: set"
                " recipe.norm_pix=false, or larger patches",
                key="recipe.norm_pix",
                value=True,
            )
        self.mask_ratio, self.norm_pix = mask_ratio, norm_pix
        self.distance = DISTANCES[loss]
        self.patch_size = encoder.mask_cell_px
        if mask_block < 1:
            raise UserError(f"ssl.mask_block={mask_block} is not at least 1", key="ssl.mask_block", value=mask_block)
        self.mask_kind, self.mask_block = mask, mask_block
        self._fit_grid(encoder)
        self.fixed_mask(torch.zeros(1, dtype=torch.int64))  # refuses an unknown kind

    def resize(self, encoder: Encoder) -> None:
        """Masks and predictions of the encoder's present grid."""
        self._fit_grid(encoder)
        if isinstance(self.decoder, MAEDecoder):
            self.decoder.grid = (self.grid[-2], self.grid[-1])

    def _fit_grid(self, encoder: Encoder) -> None:
        self.grid, ratio, block = encoder.mask_grid, self.mask_ratio, self.mask_block
        self.length = self.noise_length = math.prod(self.grid)
        self.num_visible = num_visible(self.length, ratio)
        shown = block**2 * self.num_visible / self.length
        if self.mask_kind == "grid" and (not shown.is_integer() or any(side % block for side in self.grid[-2:])):
            raise UserError(
                f"ssl.mask=grid needs equally many visible cells in every {block} x {block} block, and"
                f" ssl.mask_ratio={ratio} of {' x '.join(map(str, self.grid))} cells cannot give that: change the"
                " ratio (0.75 leaves one of four visible) or ssl.mask_block, or use ssl.mask=random",
                key="ssl.mask_ratio",
                value=ratio,
            )

    @classmethod
    def needed_views(cls, options: Mapping[str, Any], *, img_size: int) -> list[View | str]:
        """A weak view for `source=weak`."""
        return [weak_view(img_size)] if options["source"] == "weak" else []

    @classmethod
    def alone(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """A phase that classifies nothing augments its images for the reconstruction alone: `weak` means `mixed`."""
        return dict(options) | ({"source": "mixed"} if options.get("source") == "weak" else {})

    def mask_of(self, noise: Tensor) -> Tensor:
        """Mask (B, L) of uniform `noise` (B, L)."""
        return mask_from_noise(mask_scores(noise, self.grid, self.mask_kind, self.mask_block), self.mask_ratio)

    def target_dim(self, encoder: Encoder) -> int | None:
        """Numbers to predict per patch; None = its pixels."""
        return None if self.target_kind == "pixels" else hog_dim(encoder.mask_cell_px, encoder.in_chans)

    @property
    def has_pictures(self) -> bool:
        """Whether the predictions can be shown."""
        return self.target_kind == "pixels"

    def source_of(self, batch: Batch) -> Tensor:
        """The images that `source` names."""
        if self.source == "unmixed" and batch.unmixed is not None:
            return batch.unmixed
        if self.source == "weak":
            check_views(batch, 1)
            return batch.views[0]
        return batch.images

    def target(self, images: Tensor) -> Tensor:
        """What is predicted for every patch: (B, L, out_dim), fp32."""
        if self.target_kind == "hog":
            return hog(images, self.patch_size)
        patches = patchify(images.float(), self.patch_size)
        return normalise_patches(patches)[0] if self.norm_pix else patches

    @torch.no_grad()
    def reconstruct(self, encoder: Encoder, images: Tensor, mask: Tensor) -> Tensor:
        """`images` (B, C, H, W) with the hidden patches predicted, in the same normalised units.

        With `norm_pix` a prediction has no brightness of its own, so it gets the true patch's mean and deviation.
        """
        patches = patchify(images.float(), self.patch_size)
        prediction = self.decoder.forward_all(encoder.forward_masked(images, mask), mask).float()
        if self.norm_pix:
            _, mean, std = normalise_patches(patches)
            prediction = prediction * std + mean
        return unpatchify(torch.where(mask.unsqueeze(-1), prediction, patches), self.patch_size, self.grid)

    def hide(self, images: Tensor, mask: Tensor) -> Tensor:
        """`images` (B, C, H, W) with the hidden patches set to 0, the mean colour."""
        patches = patchify(images, self.patch_size)
        return unpatchify(patches * ~mask.unsqueeze(-1), self.patch_size, self.grid)

    def forward_reference(
        self, encoder: Encoder, images: Tensor, mask: Tensor, *, num_visible: int | None = None
    ) -> Tensor:
        """The loss in the plain formulation: all patches predicted in raster order, then masked; for tests and MACs."""
        latent = encoder.forward_masked_plain(images, mask, num_visible=num_visible)
        prediction = self.decoder.forward_all(latent, mask, num_visible=num_visible).float()
        per_patch = self.distance(prediction - self.target(images)).mean(dim=-1)
        return (per_patch * mask).sum() / mask.sum()
