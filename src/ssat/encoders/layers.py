"""Attention, blocks and embeddings that the plain ViTs share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import _has_any_global_hook
from torch.utils.checkpoint import checkpoint

from ssat.core.errors import UserError
from ssat.encoders import recompute


def sincos_table(dim: int, grid: tuple[int, int]) -> Tensor:
    """Fixed 2-D sine-cosine table (rows * cols, dim), row-major.

    The first half of the channels encodes the column, the second the row; each half is dim/4 sines, then dim/4 cosines
    of position * 10000^(-i / (dim/4)) (He et al. 2022).

    Raises:
        UserError: `dim` is not divisible by 4.
    """
    if dim % 4:
        raise UserError(f"a sine-cosine position table needs a width divisible by 4, not {dim}")
    omega = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
    rows, cols = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in grid), indexing="ij")

    def encode(position: Tensor) -> Tensor:
        angles = position.reshape(-1, 1) * omega
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    return torch.cat([encode(cols), encode(rows)], dim=1).float()


def table_at(table: Tensor, own: tuple[int, ...], grid: tuple[int, ...], *, prefix: int = 1) -> Tensor:
    """Positions (1, prefix + N, D) of a class token and of `own` patches, resampled to another `grid` as DINO does."""
    if grid == own:
        return table
    return resample_abs_pos_embed(table, new_size=list(grid), old_size=list(own), num_prefix_tokens=prefix)


def with_own_table(weights: dict[str, Tensor], own: Tensor, grid: tuple[int, ...], *, prefix: int) -> dict[str, Tensor]:
    """A file's `weights` whose position table `pos_embed` (1, prefix + N, D) of another square grid is made to fit.

    A learnable table is resampled to `grid`; a fixed one follows from the image size and stays `own`. Any other table
    is left as it is, to be refused with its shape.
    """
    given = weights.get("pos_embed")
    if given is None or given.shape == own.shape or given.ndim != 3 or given.shape[::2] != own.shape[::2]:
        return weights
    if not own.requires_grad:
        return weights | {"pos_embed": own.detach()}
    cells = given.shape[1] - prefix
    if cells < 1 or math.isqrt(cells) ** 2 != cells:
        return weights
    table = resample_abs_pos_embed(given, new_size=list(grid), num_prefix_tokens=prefix)
    return weights | {"pos_embed": table}


def sincos_sequence(length: int, dim: int) -> Tensor:
    """Fixed 1-D sine-cosine table (length, dim): even channels are sines, odd ones cosines (Vaswani et al. 2017, 3.5).

    Channel j of position p encodes p / 10000^(2 (j // 2) / dim).
    """
    channel = torch.arange(dim)
    rate = 10000.0 ** (-2 * (channel // 2).double() / dim)
    angles = torch.arange(length, dtype=torch.float64).unsqueeze(1) * rate
    return torch.where(channel % 2 == 0, angles.sin(), angles.cos()).float()


def up(visible: Tensor, side: tuple[int, int]) -> Tensor:
    """(B, 1, g, g) repeated to (B, 1, *side), whole pixels per cell."""
    return visible.repeat_interleave(side[0] // visible.shape[2], 2).repeat_interleave(side[1] // visible.shape[3], 3)


def only_visible(x: Tensor, visible: Tensor | None) -> Tensor:
    """A map (B, D, H, W) with 0 at the hidden cells of `visible` (B, 1, g, g); None = none is hidden."""
    return x if visible is None else x * up(visible, (x.shape[2], x.shape[3]))


LONG, LONG_OF_NARROW = 512, 32  # keys, and keys a channel of a head: the weights of longer rows are not kept


@torch.compiler.assume_constant_result
def multiplies_bf16() -> bool:
    """Whether this processor has instructions for products of bf16."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention of (B, H, N, d).

    The fused kernel for bf16 on a CPU is the slowest way: there it is two products with a softmax between, or fp32. The
    weights of long rows are computed again in the backward pass.
    """
    if q.device.type != "cpu" or q.dtype in (torch.float32, torch.float64):
        return F.scaled_dot_product_attention(q, k, v)
    with torch.autocast("cpu", enabled=False):
        if q.dtype == torch.bfloat16 and multiplies_bf16():
            if k.shape[-2] > min(LONG, LONG_OF_NARROW * q.shape[-1]) and recompute.possible(q):
                return _apart(recompute.Attention.apply, q, k, v)
            if k.shape[-2] <= LONG:
                return _apart(recompute.two_products, q, k, v)
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float()).to(q.dtype)


def _apart(attention: Callable[..., Any], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`attention` of tensors (B, N, d), where B counts samples and heads, on tensors (B, H, N, d)."""
    return cast(Tensor, attention(*(x.flatten(0, 1) for x in (q, k, v)))).unflatten(0, q.shape[:2])


class Attention(nn.Module):
    """Multi-head self-attention.

    Args:
        dim: width D.
        num_heads: attention heads H; divides `dim`.
        qkv_bias: whether the query, key and value projections have a bias.

    Raises:
        UserError: `num_heads` does not divide `dim`.
    """

    def __init__(self, dim: int, num_heads: int, *, qkv_bias: bool = True) -> None:
        super().__init__()
        if dim % num_heads:
            raise UserError(f"width {dim} is not divisible by num_heads={num_heads}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def heads(self, x: Tensor) -> Tensor:
        """(B, N, D) as (B, H, N, D / H)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of heads: (B, H, Q, d)."""
        return attend(q, k, v)

    def bias(self) -> Tensor | None:
        """Of queries, keys and values (3D,), if they have one."""
        return self.qkv.bias

    def project(self, x: Tensor) -> Tensor:
        """Queries, keys and values (..., 3D) of tokens (..., D)."""
        return F.linear(x, self.qkv.weight, self.bias())

    def mix(self, qkv: Tensor) -> Tensor:
        """Attention of projected tokens (B, N, 3D), before the output projection: (B, N, D)."""
        q, k, v = (self.heads(part) for part in qkv.chunk(3, dim=-1))
        return self.attend(q, k, v).transpose(1, 2).flatten(2)

    def forward(self, x: Tensor, queries: int | None = None) -> Tensor:
        """(B, N, D) to (B, N, D), or to (B, queries, D): only the first `queries` tokens ask."""
        if queries is None:
            return self.proj(self.mix(self.project(x)))
        dim = x.shape[-1]
        bias = self.bias()
        q = F.linear(x[:, :queries], self.qkv.weight[:dim], None if bias is None else bias[:dim])
        k, v = F.linear(x, self.qkv.weight[dim:], None if bias is None else bias[dim:]).chunk(2, dim=-1)
        return self.proj(self.attend(self.heads(q), self.heads(k), self.heads(v)).transpose(1, 2).flatten(2))


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), an approximation of GELU."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, elementwise."""
        return x * torch.sigmoid(1.702 * x)


class Mlp(nn.Module):
    """Two linear layers with an activation, GELU by default, between them."""

    def __init__(self, dim: int, hidden_dim: int, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.activation = activation or nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        hidden = self.fc1(x)
        if not self._keeps_less(hidden):
            return self.fc2(self.activation(hidden))
        activated = recompute.ActivatedLinear.apply(self.activation.forward, hidden, self.fc2.weight, self.fc2.bias)
        return cast(Tensor, activated)

    def _keeps_less(self, hidden: Tensor) -> bool:
        """Whether to compute the activation again in the backward pass; in bf16 it would cost time."""
        if not (recompute.possible(hidden) and hidden.requires_grad):
            return False
        known = type(self.activation) in (nn.GELU, QuickGELU) and type(self.fc2) is nn.Linear
        whole = hidden.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
        watched = _has_any_global_hook() or any(map(is_watched, (self.activation, self.fc2)))
        return known and self.fc2.bias is not None and whole and not watched


def is_watched(module: nn.Module) -> bool:
    """Whether someone wants to be called when `module` is: by a hook, or a `forward` of this instance."""
    hooks = (module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks)
    return any(hooks) or "forward" in vars(module)


def drop_path(branch: Tensor, rate: float) -> Tensor:
    """`branch` (B, ...) with the share `rate` of its samples set to 0 at random and the others scaled up.

    This is stochastic depth (Huang et al. 2016).
    """
    if rate == 0.0:
        return branch
    stays = torch.rand(len(branch), *[1] * (branch.ndim - 1), device=branch.device) >= rate
    return branch * stays.to(branch.dtype) / (1 - rate)


class Block(nn.Module):
    """Pre-norm transformer block with stochastic depth.

    Args:
        dim: width D.
        num_heads: attention heads; divides `dim`.
        mlp_ratio: hidden width of the MLP over `dim`.
        qkv_bias: whether the query, key and value projections have a bias.
        drop_path: share of the samples for which a branch is dropped in training.
        norm_eps: epsilon of both LayerNorms.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path: float = 0.0,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads, qkv_bias=qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path_rate = drop_path

    def drop_path(self, branch: Tensor, samples: list[tuple[int, int]]) -> Tensor:
        """`branch` (T, D) or (B, N, D) with whole samples dropped; `samples` lists its views as (samples, tokens)."""
        if not self.training or self.drop_path_rate == 0.0:
            return branch
        keep = 1 - self.drop_path_rate
        draws = [
            (torch.rand(count, 1, device=branch.device) < keep).expand(count, tokens).reshape(-1)
            for count, tokens in samples
        ]
        return branch * (torch.cat(draws).to(branch.dtype) / keep).view(*branch.shape[:-1], 1)

    def forward(self, x: Tensor, queries: int | None = None) -> Tensor:
        """(B, N, D) to (B, N, D), or to (B, queries, D): the other tokens are then keys and values only."""
        branch = self.attn(self.norm1(x), queries)
        x = x if queries is None else x[:, :queries]
        samples = [(x.shape[0], x.shape[1])]
        x = x + self.drop_path(branch, samples)
        return x + self.drop_path(self.mlp(self.norm2(x)), samples)

    def forward_packed(self, x: Tensor, samples: list[tuple[int, int]]) -> Tensor:
        """The same on several views in one flat (T, D): linear layers see all tokens, attention each view apart."""
        qkv = self.attn.project(self.norm1(x))
        views = qkv.split([count * tokens for count, tokens in samples])
        mixed = [
            self.attn.mix(view.view(count, tokens, -1)).flatten(0, 1)
            for view, (count, tokens) in zip(views, samples, strict=True)
        ]
        x = x + self.drop_path(self.attn.proj(torch.cat(mixed)), samples)
        return x + self.drop_path(self.mlp(self.norm2(x)), samples)


def through(block: Callable[..., Any], *args: Any, checkpointed: bool, **options: Any) -> Tensor:
    """`block(*args, **options)`; `checkpointed` keeps only the inputs; the backward pass computes the rest again.

    Batch norms count a batch in their running statistics once.
    """
    if not (checkpointed and torch.is_grad_enabled()):
        return cast(Tensor, block(*args, **options))
    norms = [each for each in block.modules() if isinstance(each, _BatchNorm)] if isinstance(block, nn.Module) else []
    if norms:  # not for all blocks: torch.compile knows no other contexts
        options["context_fn"] = lambda: (nullcontext(), _uncounted(norms))
    return cast(Tensor, checkpoint(block, *args, use_reentrant=False, **options))


@contextmanager
def _uncounted(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Batch norms that count what they see in copies of their running statistics."""
    before = [dict(norm._buffers) for norm in norms]
    for norm in norms:
        norm._buffers.update({name: None if value is None else value.clone() for name, value in norm._buffers.items()})
    try:
        yield
    finally:
        for norm, own in zip(norms, before, strict=True):
            norm._buffers.update(own)


def init_linear(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases, the authors' and MAE's initialisation (qkv as one matrix)."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class PatchEmbed(nn.Module):
    """Linear embedding of patches; holds a convolution so that weights keep the field's layout.

    Args:
        patch_size: pixels per side.
        in_chans: channels C of the images.
        embed_dim: width D.
    """

    patches_disjoint = True  # a patch holds no pixel of another one

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_chans, embed_dim, patch_size, patch_size)
        nn.init.xavier_uniform_(self.proj.weight.view(embed_dim, -1))

    @staticmethod
    def cut(images: Tensor, patch_size: int) -> Tensor:
        """(B, C, H, W) as raw patches (B, N, C * p * p), channels first, the order the convolution's weight has."""
        b, c, h, w = images.shape
        p = patch_size
        return images.view(b, c, h // p, p, w // p, p).permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * p * p)

    def patches(self, images: Tensor) -> Tensor:
        """`cut` to this module's patches."""
        return self.cut(images, self.patch_size)

    def forward(self, patches: Tensor) -> Tensor:
        """Raw patches (..., C * p * p) to (..., D)."""
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)
