"""Any plain ViT of timm behind the contract."""

from __future__ import annotations

import difflib
from typing import Any

import timm
import torch
from timm.models.vision_transformer import Block as TimmBlock
from timm.models.vision_transformer import VisionTransformer as TimmViT
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from ssat.core.errors import UserError
from ssat.encoders.base import (
    Dense,
    Encoder,
    Latent,
    both_sides,
    gather_tokens,
    kept_patches,
    split_mask,
    timm_names,
    tokens_to_map,
)
from ssat.encoders.layers import through


class TimmVisionTransformer(Encoder):
    """A model of timm's VisionTransformer class: with or without class token, registers, layer scale, pooling.

    The full pass is timm's own. The masked pass embeds all patches, adds positions and keeps the visible ones, as MAE.

    Args:
        model: timm's name, e.g. vit_tiny_patch16_224; a pretrained tag after a point is allowed.
        img_size: pixels, a number or (height, width).
        patch_size: pixels per side; None = the model's own.
        in_chans: channels of the images.
        drop_path: stochastic depth, rising linearly from 0.
        checkpoint_blocks: keep only the inputs of the blocks for the backward pass and compute the rest again.

    Raises:
        UserError: a name that timm does not know, or a model that is not a plain ViT; sizes that do not fit.
    """

    mask_style = "dropped"
    separate = True
    flat_tokens = True
    patch_dropout = 0.0
    stem = "model.patch_embed.proj.weight"

    def __init__(
        self,
        model: str,
        img_size: int | tuple[int, int] = 224,
        *,
        patch_size: int | None = None,
        in_chans: int = 3,
        drop_path: float = 0.0,
        checkpoint_blocks: bool = False,
    ) -> None:
        super().__init__()
        if not timm.is_model(model):
            near = difflib.get_close_matches(model, timm.list_models("*vit*"), 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UserError(
                f"encoder.name={model!r} is not a model of timm{hint}: timm.list_models('vit_*') lists them",
                key="encoder.name",
                value=model,
            )
        size = both_sides(img_size)
        sizes: dict[str, Any] = {"img_size": size} | ({} if patch_size is None else {"patch_size": patch_size})
        refusal = (
            f"encoder.name={model} is not a plain ViT, whose hidden patches can be left out: use a model of timm's"
            " VisionTransformer class, such as vit_small_patch16_224, or encoder=swin_t, cvt_13, resnet_50"
        )
        self.model: Any
        try:
            self.model = timm.create_model(model, num_classes=0, in_chans=in_chans, drop_path_rate=drop_path, **sizes)
        except TypeError as error:  # an argument that other architectures do not know
            raise UserError(refusal, key="encoder.name", value=model) from error
        if type(self.model) is not TimmViT or type(self.model.patch_embed) is not timm.layers.PatchEmbed:
            raise UserError(refusal, key="encoder.name", value=model)
        unit = self.model.patch_embed.patch_size
        for side in size:
            if unit[0] != unit[1] or side % unit[0]:
                raise UserError(
                    f"img_size={side} is not a multiple of the patch size {unit[0]} of {model}:"
                    " set data.img_size or encoder.patch_size",
                    key="data.img_size",
                    value=side,
                )
        self.timm_name, self.checkpoint_blocks = model, checkpoint_blocks
        self.img_size, self.in_chans, self.num_features = size, in_chans, self.model.head_hidden_size
        self.mask_grid, self.mask_cell_px = self.model.patch_embed.grid_size, unit[0]
        self.latent_dims, self.latent_scales = (self.model.embed_dim,), (unit[0],)
        self.num_prefix, self.depth = self.model.num_prefix_tokens, len(self.model.blocks)

    def embed(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to positioned tokens (B, prefix + N, D)."""
        self.check_images(images)
        return self.model._pos_embed(self.model.patch_embed(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """timm's features before its classifier, pooled as the model has it."""
        if self.training and (self.patch_dropout or self.checkpoint_blocks):
            tokens = self.embed(images)
            tokens = self._without_some(tokens, self.patch_dropout) if self.patch_dropout else tokens
            return self.model.forward_head(self.model.norm(self._through(tokens)), pre_logits=True)
        self.check_images(images)
        return self.model.forward_head(self.model.forward_features(images), pre_logits=True)

    def _without_some(self, tokens: Tensor, dropout: float) -> Tensor:
        """Tokens (B, prefix + N, D) after patch dropout."""
        patches = self.image_tokens(tokens)
        kept = kept_patches(len(patches), patches.shape[1], dropout, patches.device)
        return torch.cat([tokens[:, : self.num_prefix], gather_tokens(patches, kept)], dim=1)

    def _through(self, tokens: Tensor, each: list[Tensor] | None = None) -> Tensor:
        """Tokens (B, N, D) after all blocks; those after each block are appended to `each`."""
        tokens = self.model.norm_pre(tokens)
        for block in self.model.blocks:
            tokens = through(block, tokens, checkpointed=self.checkpoint_blocks and self.training)
            if each is not None:
                each.append(tokens)
        return tokens

    def forward_masked(self, images: Tensor, mask: Tensor, *, num_visible: int | None = None) -> Latent:
        """As MAE: every patch is embedded and gets its position, then the hidden ones are left out."""
        visible, _ = split_mask(mask, num_visible)
        x = self.embed(images)
        x = torch.cat([x[:, : self.num_prefix], gather_tokens(x[:, self.num_prefix :], visible)], dim=1)
        x = self._normed(self._through(x))
        cls = x[:, 0] if self.model.cls_token is not None else None
        return Latent(maps=[x[:, self.num_prefix :]], cls=cls, visible_only=True)

    def forward_blocks(self, images: Tensor) -> list[Tensor]:
        """Tokens (B, prefix + N, D) after each block."""
        outputs: list[Tensor] = []
        self._through(self.embed(images), outputs)
        return outputs

    def forward_dense(self, images: Tensor) -> Dense:
        """Pooled features, patch tokens as a map, and all tokens of each block, in one pass."""
        blocks = self.forward_blocks(images)
        final = tokens_to_map(self.image_tokens(blocks[-1]), self.mask_grid)
        return Dense(self.model.forward_head(self.model.norm(blocks[-1]), pre_logits=True), final, blocks)

    def forward_map(self, images: Tensor) -> Tensor:
        """Normalised patch tokens as a map (B, D, rows, cols)."""
        return tokens_to_map(self.image_tokens(self._normed(self.forward_blocks(images)[-1])), self.mask_grid)

    def _normed(self, x: Tensor) -> Tensor:
        """Models that average tokens have their norm after the average: one of the two norms is an identity."""
        return self.model.fc_norm(self.model.norm(x))

    def residual_blocks(self) -> list[nn.Module]:
        """timm's plain blocks; none if the model has blocks of another kind."""
        blocks: list[nn.Module] = list(self.model.blocks)
        return blocks if all(type(block) is TimmBlock for block in blocks) else []

    def adapt_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """timm's own conversion: patches and the position table are resampled."""
        plain = {name.removeprefix("model."): value for name, value in weights.items()}
        return timm_names(checkpoint_filter_fn(plain, self.model))

    def only_full(self) -> set[str]:
        """An attention pooling, if the model has one."""
        return {name for name, _ in self.named_parameters() if name.startswith("model.attn_pool.")}

    def no_weight_decay(self) -> set[str]:
        """What timm exempts: tables and tokens."""
        names = {f"model.{name}" for name in self.model.no_weight_decay()}
        return names & {name for name, _ in self.named_parameters()}

    def layer_ids(self) -> dict[str, int]:
        """As for our ViT: embedding, tables and tokens are layer 0, each block is one layer, the rest comes last."""
        return {name: self._layer_id(name) for name, _ in self.named_parameters()}

    def _layer_id(self, name: str) -> int:
        if name.startswith("model.blocks."):
            return int(name.split(".")[2]) + 1
        first = ("model.patch_embed.", "model.cls_token", "model.reg_token", "model.pos_embed", "model.norm_pre.")
        return 0 if name.startswith(first) else len(self.model.blocks) + 1
