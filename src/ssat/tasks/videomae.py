"""Reconstruction of hidden tubes of clips (VideoMAE, Tong et al. 2022), L_SSAT of the paper's section 5.4."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ssat.core.errors import UserError
from ssat.encoders.base import Encoder, Latent, gather_tokens, split_mask
from ssat.encoders.layers import init_linear, sincos_sequence
from ssat.encoders.videomae import VideoBlock
from ssat.tasks.decoders import check_sizes
from ssat.tasks.masked import MaskedPrediction
from ssat.tasks.masking import num_visible_in_tubes, tube_mask
from ssat.tasks.patches import clips_of, normalise_tubelets, tubelets_of

HEAD_DIM = 64  # of VideoMAE's decoders
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TubeDecoder(nn.Module):
    """A few transformer blocks over visible and mask tokens with fixed positions (Tong et al. 2022).

    Args:
        length: tokens of a whole clip.
        encoder_dim: width of the latent.
        dim: width of the decoder.
        depth: number of blocks.
        num_heads: attention heads.
        mlp_ratio: hidden width of the MLP over `dim`.
        out_dim: numbers to predict per token.
    """

    pos_embed: Tensor

    def __init__(
        self, length: int, *, encoder_dim: int, dim: int, depth: int, num_heads: int, mlp_ratio: float, out_dim: int
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(encoder_dim, dim, bias=False)
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim).normal_(std=0.02))
        self.register_buffer("pos_embed", sincos_sequence(length, dim).unsqueeze(0), persistent=False)
        self.blocks = nn.ModuleList(VideoBlock(dim, num_heads, mlp_ratio=mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, out_dim)
        self.apply(init_linear)

    def forward(self, latent: Latent, mask: Tensor, *, num_visible: int | None = None) -> Tensor:
        """Predictions (B, M, out_dim) of the hidden tokens; the last block answers their queries alone."""
        masked, shown = self._tokens(latent, mask, num_visible)
        x = torch.cat([masked, shown], dim=1)
        for block in self.blocks[:-1]:
            x = block(x)
        return self.head(self.norm(self.blocks[-1](x, queries=masked.shape[1])))

    def forward_plain(self, latent: Latent, mask: Tensor, *, num_visible: int | None = None) -> Tensor:
        """The same as VideoMAE writes it: visible tokens first, every token through every block."""
        masked, shown = self._tokens(latent, mask, num_visible)
        x = torch.cat([shown, masked], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, shown.shape[1] :]))

    def _tokens(self, latent: Latent, mask: Tensor, num_visible: int | None) -> tuple[Tensor, Tensor]:
        """Hidden (B, M, dim) and visible tokens (B, V, dim), each in raster order, with their positions."""
        visible, hidden = split_mask(mask, num_visible)
        positions = self.pos_embed.expand(len(mask), -1, -1)
        shown = self.embed(latent.maps[-1]) + gather_tokens(positions, visible)
        return (self.mask_token + gather_tokens(positions, hidden)).to(shown.dtype), shown


class VideoMAE(MaskedPrediction):
    """Predict the pixels of hidden tubes; a tube is one patch position over all frames (Tong et al. 2022).

    Clips are brought back to [0, 1]; then each channel of each tubelet is normalised over its own pixels, and the loss
    is the mean squared error of the hidden tubelets. This target does not depend on `mean`, and on `std` only beside
    the 1e-6 that is added to the deviation.

    Args:
        encoder: one of clips; only its sizes are read.
        mask_ratio: share of tubes hidden; of 196 tubes 0.75, 0.9 and 0.95 hide 147, 176 and 186.
        mean: (C,) with which the clips were normalised, on [0, 1]; None = ImageNet's.
        std: (C,) by which they were divided; None = ImageNet's.
        decoder_dim: width of the decoder's blocks; None = half the encoder's.
        decoder_depth: number of its blocks.
        decoder_heads: attention heads of its blocks; None = one for each 64 channels.
        decoder_mlp_ratio: hidden width of its MLPs over `decoder_dim`.
        seed: of the masks.

    Raises:
        UserError: an encoder of images or without a masked pass; a ratio that leaves nothing to see or to predict;
            a mean or std of another number of channels.

    Example:
        >>> encoder = VideoTransformer(16, 64, embed_dim=64, depth=2, num_heads=2)
        >>> task = VideoMAE(encoder, mask_ratio=0.75)
        >>> loss, features, logs = task(encoder, Batch(torch.randn(2, 3, 16, 64, 64)), True)
    """

    clips = True
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        mask_ratio: float = 0.75,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        decoder_dim: int | None = None,
        decoder_depth: int = 4,
        decoder_heads: int | None = None,
        decoder_mlp_ratio: float = 4.0,
        seed: int = 0,
    ) -> None:
        super().__init__(seed)
        self.check_encoder(encoder)
        self.grid, self.size = encoder.mask_grid, (encoder.img_size[0] // encoder.mask_grid[0], encoder.mask_cell_px)
        self.mask_ratio, self.distance = mask_ratio, torch.square
        self.noise_length = math.prod(self.grid[1:])
        self.num_visible = self.grid[0] * num_visible_in_tubes(self.noise_length, mask_ratio)
        for name, given, default in (("mean", mean, IMAGENET_MEAN), ("std", std, IMAGENET_STD)):
            self.register_buffer(name, _channels(name, given, default, encoder.in_chans), persistent=False)
        dim = decoder_dim or encoder.latent_dims[-1] // 2
        heads = decoder_heads or max(1, dim // HEAD_DIM)
        check_sizes(dim, decoder_depth, heads)
        self.decoder = TubeDecoder(
            math.prod(self.grid),
            encoder_dim=encoder.latent_dims[-1],
            dim=dim,
            depth=decoder_depth,
            num_heads=heads,
            mlp_ratio=decoder_mlp_ratio,
            out_dim=self.size[0] * self.size[1] ** 2 * encoder.in_chans,
        )

    def mask_of(self, noise: Tensor) -> Tensor:
        """Mask (B, L) of uniform `noise` (B, tubes)."""
        return tube_mask(noise, self.mask_ratio, self.grid[0])

    def target(self, images: Tensor) -> Tensor:
        """Normalised pixels of every tubelet of the clips: (B, L, t * p * p * C), fp32."""
        return normalise_tubelets(self._tubelets(images))[0].flatten(2)

    def hide(self, images: Tensor, mask: Tensor) -> Tensor:
        """Clips (B, C, T, H, W) with the hidden tubes set to 0, the mean colour."""
        shown = tubelets_of(images, self.size) * ~mask[..., None, None]
        return clips_of(shown, self.size, self.grid)

    @torch.no_grad()
    def reconstruct(self, encoder: Encoder, images: Tensor, mask: Tensor) -> Tensor:
        """Clips (B, C, T, H, W) with the hidden tubes predicted, in the same normalised units.

        A prediction has no colour of its own, so each channel gets the true tubelet's mean and deviation.
        """
        tubelets = self._tubelets(images)
        _, mean, std = normalise_tubelets(tubelets)
        predicted = self.decoder(encoder.forward_masked(images, mask), mask).float()
        _, hidden = split_mask(mask)
        index = hidden.unsqueeze(2).expand_as(predicted)
        pixels = tubelets.flatten(2).scatter(1, index, predicted).view_as(tubelets)
        rebuilt = torch.where(mask[..., None, None], pixels * std + mean, tubelets)
        return (clips_of(rebuilt, self.size, self.grid) - self.mean) / self.std

    def forward_reference(
        self, encoder: Encoder, images: Tensor, mask: Tensor, *, num_visible: int | None = None
    ) -> Tensor:
        """The loss as VideoMAE computes it: every tubelet embedded, every token through every block."""
        latent = encoder.forward_masked_plain(images, mask, num_visible=num_visible)
        prediction = self.decoder.forward_plain(latent, mask, num_visible=num_visible).float()
        _, hidden = split_mask(mask, num_visible)
        return (prediction - gather_tokens(self.target(images), hidden)).square().mean()

    def _tubelets(self, clips: Tensor) -> Tensor:
        """(B, L, t * p * p, C) of normalised clips, on [0, 1]."""
        return tubelets_of(clips.float() * self.std + self.mean, self.size)


def _channels(name: str, given: tuple[float, ...] | None, default: tuple[float, ...], channels: int) -> Tensor:
    """The given values as (C, 1, 1, 1); of a grey clip the default is its first.

    Raises:
        UserError: their number is not that of the channels.
    """
    values = given or default[: 1 if channels == 1 else None]
    if len(values) != channels:
        raise UserError(
            f"ssl.{name}={list(values)} has {len(values)} values, and the clips have {channels} channels: give as many",
            key=f"ssl.{name}",
            value=list(values),
        )
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)
