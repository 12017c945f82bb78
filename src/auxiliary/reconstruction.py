"""Reconstruction of hidden patches: masking + decoder + loss, three independent parts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from src.auxiliary.base import SSLOutput, SSLTask
from src.auxiliary.decoders import Decoder, build_decoder
from src.auxiliary.masking import mask_from_noise, num_visible, sample_noise
from src.auxiliary.patches import normalise_patches, patchify, unpatchify
from src.batch import Batch
from src.encoders.base import Encoder, gather_tokens, split_mask
from src.errors import UserError

FIXED_DRAW = -1
DISTANCES = {"mse": torch.square, "l1": torch.abs}


class Reconstruction(SSLTask):
    """Masked image modelling: predict the pixels of the hidden patches (section 4, L_SSAT).

    Args:
        encoder: only its sizes are read.
        mask_ratio: share of patches hidden.
        norm_pix: predict patches normalised one by one instead of the normalised image.
        loss: `mse`, or `l1` as SimMIM.
        decoder: one of `decoders.READS`, None = the one that fits the encoder; or a decoder itself, with the two calls
            `forward` and `forward_all`.
        decoder_dim, decoder_depth, decoder_heads, decoder_mlp_ratio: of the decoder's blocks.
        fuse: how the decoder reads maps, see `FusedDecoder`.
        seed: of the masks.

    Raises:
        UserError: a mask ratio that leaves nothing to see or to predict; a decoder that cannot read the encoder.
    """

    views = 0
    masked, full = True, False
    draws: Tensor
    decoder: Decoder

    def __init__(
        self,
        encoder: Encoder,
        *,
        mask_ratio: float = 0.75,
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
        super().__init__()
        if loss not in DISTANCES:
            raise UserError(f"ssl.loss={loss!r} is not one of {', '.join(DISTANCES)}")
        if decoder is None or isinstance(decoder, str):
            decoder = build_decoder(
                encoder,
                decoder,
                fuse=fuse,
                dim=decoder_dim,
                depth=decoder_depth,
                num_heads=decoder_heads,
                mlp_ratio=decoder_mlp_ratio,
            )
        self.decoder = decoder
        self.mask_ratio, self.norm_pix, self.seed = mask_ratio, norm_pix, seed
        self.distance = DISTANCES[loss]
        self.grid, self.patch_size = encoder.mask_grid, encoder.unit_px
        self.length = math.prod(self.grid)
        self.num_visible = num_visible(self.length, mask_ratio)
        # Training batches seen: part of the state, so that a resumed run draws the next masks and not the first again.
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))

    def draw_mask(self, batch: Batch) -> Tensor:
        """Mask (B, L) of the batch's samples: the next draw in training, always the same one in evaluation."""
        indices = batch.indices
        if indices is None:
            indices = torch.arange(len(batch.images), device=batch.images.device)
        draw = self.draws.clone() if self.training else FIXED_DRAW
        if self.training:
            self.draws += 1
        return mask_from_noise(sample_noise(indices, self.length, seed=self.seed, draw=draw), self.mask_ratio)

    def forward(self, encoder: Encoder, batch: Batch, with_features: bool, mask: Tensor | None = None) -> SSLOutput:
        """Loss on the hidden patches of `batch.images`; `mask` (B, L) fixes what is hidden."""
        known = self.num_visible if mask is None else None
        if mask is None:
            mask = self.draw_mask(batch)
        features = None
        if with_features:
            features, latent = encoder.forward_joint(batch.images, mask, num_visible=known)
        else:
            latent = encoder.forward_masked(batch.images, mask, num_visible=known)
        prediction = self.decoder(latent, mask, num_visible=known)
        _, hidden = split_mask(mask, known)
        target = gather_tokens(self.target(batch.images), hidden)
        # Every row hides the same number of patches, so the mean over them is sum(mask * loss) / sum(mask).
        return SSLOutput(self.distance(prediction.float() - target).mean(), features, {})

    def target(self, images: Tensor) -> Tensor:
        """What is predicted for every patch: (B, L, p * p * C), fp32."""
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
        noise = sample_noise(indices, self.length, seed=self.seed, draw=FIXED_DRAW)
        return mask_from_noise(noise, self.mask_ratio)

    def forward_reference(self, encoder: Encoder, images: Tensor, mask: Tensor) -> Tensor:
        """The loss by the plain formulation: all patches predicted in raster order, then masked; for tests and MACs."""
        prediction = self.decoder.forward_all(encoder.forward_masked_plain(images, mask), mask).float()
        per_patch = self.distance(prediction - self.target(images)).mean(dim=-1)
        return (per_patch * mask).sum() / mask.sum()
