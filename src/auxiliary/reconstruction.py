"""Reconstruction of hidden patches: masking + decoder + loss, three independent parts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from src.auxiliary.base import RandomTask, SSLOutput, check_views
from src.auxiliary.decoders import Decoder, build_decoder
from src.auxiliary.hog import hog, hog_dim
from src.auxiliary.masking import arrange, mask_from_noise, num_visible, sample_noise
from src.auxiliary.patches import normalise_patches, patchify, unpatchify
from src.batch import Batch
from src.encoders.base import Encoder, gather_tokens, split_mask
from src.errors import UserError

TARGETS, SOURCES = ("pixels", "hog"), ("mixed", "unmixed", "weak")
DISTANCES = {"mse": torch.square, "l1": torch.abs}


class Reconstruction(RandomTask):
    """Masked image modelling: predict the pixels of the hidden patches (section 4, L_SSAT).

    Args:
        encoder: only its sizes are read.
        mask_ratio: share of patches hidden.
        target: `pixels`, or `hog` = their histograms of oriented gradients.
        mask: which patches are hidden: `random`, `block` or `grid`, see `masking.arrange`.
        mask_block: side in patches of the blocks of the latter two.
        source: the images to hide and predict: `mixed` = those that are classified; `unmixed` = before mixup; `weak` =
            an extra view that is only cropped and flipped.
        norm_pix: predict patches normalised one by one instead of the normalised image.
        loss: `mse`, or `l1` as SimMIM.
        decoder: one of `decoders.READS`, None = the one that fits the encoder; or a decoder itself, with the two calls
            `forward` and `forward_all`.
        decoder_dim, decoder_depth, decoder_heads, decoder_mlp_ratio: of the decoder's blocks.
        fuse: how the decoder reads maps, see `FusedDecoder`.
        seed: of the masks.

    Raises:
        UserError: a mask ratio that leaves nothing to see or to predict; a decoder that cannot read the encoder; an
            unknown mask, target or source.
    """

    views = 0
    masked, full = True, False
    decoder: Decoder

    def __init__(
        self,
        encoder: Encoder,
        *,
        mask_ratio: float = 0.75,
        mask: str = "random",
        mask_block: int = 2,
        target: str = "pixels",
        source: str = "mixed",
        norm_pix: bool = False,
        loss: str = "mse",
        decoder: str | Decoder | None = None,
        decoder_dim: int = 128,
        decoder_depth: int = 2,
        decoder_heads: int = 16,
        decoder_mlp_ratio: float = 4.0,
        fuse: str = "pool",
        seed: int = 0,
    ) -> None:
        super().__init__(seed)
        if loss not in DISTANCES:
            raise UserError(f"ssl.loss={loss!r} is not one of {', '.join(DISTANCES)}")
        if target not in TARGETS:
            raise UserError(f"ssl.target={target!r} is not one of {', '.join(TARGETS)}")
        if source not in SOURCES:
            raise UserError(f"ssl.source={source!r} is not one of {', '.join(SOURCES)}")
        self.target_kind, self.source = target, source
        self.views = int(source == "weak")
        if decoder is None or isinstance(decoder, str):
            decoder = build_decoder(
                encoder,
                decoder,
                fuse=fuse,
                out_dim=self.target_dim(encoder),
                dim=decoder_dim,
                depth=decoder_depth,
                num_heads=decoder_heads,
                mlp_ratio=decoder_mlp_ratio,
            )
        self.decoder = decoder
        self.mask_ratio, self.norm_pix = mask_ratio, norm_pix
        self.distance = DISTANCES[loss]
        self.grid, self.patch_size = encoder.mask_grid, encoder.unit_px
        self.length = math.prod(self.grid)
        self.num_visible = num_visible(self.length, mask_ratio)
        if mask_block < 1:
            raise UserError(f"ssl.mask_block={mask_block} is not at least 1")
        shown = mask_block**2 * self.num_visible / self.length
        if mask == "grid" and (not shown.is_integer() or any(side % mask_block for side in self.grid[-2:])):
            raise UserError(
                f"ssl.mask=grid shows equally many cells of every {mask_block} x {mask_block} block, and"
                f" ssl.mask_ratio={mask_ratio} of {' x '.join(map(str, self.grid))} cells does not: change the ratio"
                f" (0.75 shows one of four) or ssl.mask_block, or use ssl.mask=random"
            )
        self.kind, self.mask_block = mask, mask_block
        self.fixed_mask(torch.zeros(1, dtype=torch.int64))  # refuses an unknown kind

    def draw_mask(self, batch: Batch) -> Tensor:
        """Mask (B, L) of the batch's samples: the next draw in training, always the same one in evaluation."""
        return self._mask(self.noise(batch, self.length))

    def _mask(self, noise: Tensor) -> Tensor:
        return mask_from_noise(arrange(noise, self.grid, self.kind, self.mask_block), self.mask_ratio)

    def target_dim(self, encoder: Encoder) -> int | None:
        """Numbers to predict per patch; None = its pixels."""
        return None if self.target_kind == "pixels" else hog_dim(encoder.unit_px, encoder.in_chans)

    @property
    def has_pictures(self) -> bool:
        """Whether the predictions can be shown."""
        return self.target_kind == "pixels"

    def forward(self, encoder: Encoder, batch: Batch, with_features: bool, mask: Tensor | None = None) -> SSLOutput:
        """Loss on the hidden patches of the source; `mask` (B, L) fixes what is hidden."""
        images = self._source(batch)
        known = self.num_visible if mask is None else None
        if mask is None:
            mask = self.draw_mask(batch)
        features = None
        if with_features and images is batch.images:
            features, latent = encoder.forward_joint(images, mask, num_visible=known)
        else:
            features = encoder.forward_features(batch.images) if with_features else None
            latent = encoder.forward_masked(images, mask, num_visible=known)
        prediction = self.decoder(latent, mask, num_visible=known)
        _, hidden = split_mask(mask, known)
        targets = self.target(images)
        loss = self.distance(prediction.float() - gather_tokens(targets, hidden)).mean()
        # Every row hides the same number of patches, so the mean over them is sum(mask * loss) / sum(mask).
        return SSLOutput(loss, features, self.monitors(targets))

    def monitors(self, targets: Tensor) -> dict[str, Tensor]:
        """What to log of the targets (B, L, out_dim)."""
        return {}

    def _source(self, batch: Batch) -> Tensor:
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

        With `norm_pix` a prediction has no brightness of its own; it is given the true patch's mean and deviation.
        """
        patches = patchify(images.float(), self.patch_size)
        prediction = self.decoder.forward_all(encoder.forward_masked(images, mask), mask).float()
        if self.norm_pix:
            _, mean, std = normalise_patches(patches)
            prediction = prediction * std + mean
        return unpatchify(torch.where(mask.unsqueeze(-1), prediction, patches), self.patch_size, self.grid)

    def hide(self, images: Tensor, mask: Tensor) -> Tensor:
        """`images` with the hidden patches set to 0, the mean colour."""
        patches = patchify(images, self.patch_size)
        return unpatchify(patches * ~mask.unsqueeze(-1), self.patch_size, self.grid)

    def fixed_mask(self, indices: Tensor) -> Tensor:
        """The mask (B, L) that evaluation and pictures use for the samples `indices`."""
        return self._mask(sample_noise(indices, self.length, seed=self.seed, draw=self.FIXED_DRAW))

    def forward_reference(self, encoder: Encoder, images: Tensor, mask: Tensor) -> Tensor:
        """The loss by the plain formulation: all patches predicted in raster order, then masked; for tests and MACs."""
        prediction = self.decoder.forward_all(encoder.forward_masked_plain(images, mask), mask).float()
        per_patch = self.distance(prediction - self.target(images)).mean(dim=-1)
        return (per_patch * mask).sum() / mask.sum()
