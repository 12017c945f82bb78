"""Writes joint_step.npz: one joint step (Eq. 1) and one AdamW step, by a slow formula of its own in float64.

    python -m tests.golden.make_golden

Nothing here is shared with `src`: every sample, head, token and patch is a loop step over plain matrices, gradients are
autograd's on those loops. The sizes are chosen to catch what powers of two hide: 25 patches, 4 channels, a kept share
that is not whole, normalised targets. The layout is that of the released checkpoints.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

CONFIG = {
    "img_size": 15,
    "patch_size": 3,
    "in_chans": 4,
    "embed_dim": 20,
    "depth": 2,
    "num_heads": 5,
    "mlp_ratio": 3,
    "decoder_embed_dim": 12,
    "decoder_depth": 2,
    "decoder_num_heads": 3,
    "num_classes": 6,
    "norm_pix_loss": True,
    "label_smoothing": 0.1,
}
MASK_RATIO, LAMBDA = 0.7, 0.1
LR, WEIGHT_DECAY, BETAS, EPS = 1e-3, 0.05, (0.9, 0.999), 1e-8
FIXED = ("pos_embed", "decoder_pos_embed")
# Not the biases of keys, for one: their gradient is zero, and Adam divides it by its own size.
STEPPED = ("cls_token", "mask_token", "blocks.0.mlp.fc1.weight", "norm.weight", "decoder_pred.bias", "head.weight")
State = dict[str, Tensor]


def position_table(dim: int, side: int) -> Tensor:
    """(1 + side^2, dim): zeros for the class token, then sin | cos of the column and of the row."""
    table = torch.zeros(1 + side * side, dim, dtype=torch.float64)
    quarter = dim // 4
    for row in range(side):
        for col in range(side):
            for i in range(quarter):
                omega = 1 / 10000 ** (i / quarter)
                values = (math.sin(col * omega), math.cos(col * omega), math.sin(row * omega), math.cos(row * omega))
                for part, value in enumerate(values):
                    table[1 + row * side + col, part * quarter + i] = value
    return table


def make_state(rng: np.random.Generator) -> State:
    """Weights away from every special value, rounded to fp32 so that the file holds exactly these."""
    c = CONFIG
    side, dim, width = c["img_size"] // c["patch_size"], c["embed_dim"], c["decoder_embed_dim"]
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, dim),
        "mask_token": (1, 1, width),
        "patch_embed.proj.weight": (dim, c["in_chans"], c["patch_size"], c["patch_size"]),
        "patch_embed.proj.bias": (dim,),
    }

    def linear(name: str, out: int, into: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, into), (out,)

    def norm(name: str, size: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (size,), (size,)

    for prefix, size, depth in (("blocks", dim, c["depth"]), ("decoder_blocks", width, c["decoder_depth"])):
        for i in range(depth):
            norm(f"{prefix}.{i}.norm1", size)
            linear(f"{prefix}.{i}.attn.qkv", 3 * size, size)
            linear(f"{prefix}.{i}.attn.proj", size, size)
            norm(f"{prefix}.{i}.norm2", size)
            linear(f"{prefix}.{i}.mlp.fc1", c["mlp_ratio"] * size, size)
            linear(f"{prefix}.{i}.mlp.fc2", size, c["mlp_ratio"] * size)
    norm("norm", dim)
    linear("decoder_embed", width, dim)
    norm("decoder_norm", width)
    linear("decoder_pred", c["patch_size"] ** 2 * c["in_chans"], width)
    linear("head", c["num_classes"], dim)

    state = {}
    for name, shape in shapes.items():
        fan_in = math.prod(shape[1:]) if len(shape) > 1 else 25
        values = rng.normal(size=shape) / math.sqrt(fan_in)
        if "norm" in name and name.endswith("weight"):
            values += 1
        state[name] = torch.tensor(values.astype(np.float32)).double()
    for name, size in (("pos_embed", dim), ("decoder_pos_embed", width)):
        state[name] = position_table(size, side).float().double().unsqueeze(0)
    return state


def layer_norm(x: Tensor, state: State, name: str) -> Tensor:
    rows = []
    for token in x:
        mean = token.sum() / len(token)
        variance = ((token - mean) ** 2).sum() / len(token)
        rows.append((token - mean) / (variance + 1e-6) ** 0.5)
    return torch.stack(rows) * state[f"{name}.weight"] + state[f"{name}.bias"]


def affine(x: Tensor, state: State, name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def block(x: Tensor, state: State, name: str, heads: int) -> Tensor:
    """(N, D) to (N, D)."""
    dim = x.shape[1]
    size = dim // heads
    qkv = affine(layer_norm(x, state, f"{name}.norm1"), state, f"{name}.attn.qkv")
    mixed = []
    for head in range(heads):
        q, k, v = (qkv[:, part * dim + head * size : part * dim + (head + 1) * size] for part in range(3))
        rows = []
        for query in q:
            weights = torch.exp(torch.stack([(query * key).sum() / math.sqrt(size) for key in k]))
            rows.append((weights / weights.sum()) @ v)
        mixed.append(torch.stack(rows))
    x = x + affine(torch.cat(mixed, dim=1), state, f"{name}.attn.proj")
    hidden = affine(layer_norm(x, state, f"{name}.norm2"), state, f"{name}.mlp.fc1")
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return x + affine(hidden, state, f"{name}.mlp.fc2")


def encode(patches: list[Tensor], cells: list[int], state: State) -> Tensor:
    """Latent (1 + len(cells), D) of the patches (C, p, p) at `cells`, in that order."""
    kernel, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    rows = [state["cls_token"][0, 0] + state["pos_embed"][0, 0]]
    for cell in cells:
        embedded = torch.stack([(kernel[d] * patches[cell]).sum() for d in range(len(kernel))]) + bias
        rows.append(embedded + state["pos_embed"][0, 1 + cell])
    x = torch.stack(rows)
    for i in range(CONFIG["depth"]):
        x = block(x, state, f"blocks.{i}", CONFIG["num_heads"])
    return layer_norm(x, state, "norm")


def decode(latent: Tensor, visible: list[int], cells: int, state: State) -> Tensor:
    """Predictions (cells, p * p * C)."""
    embedded = affine(latent, state, "decoder_embed")
    rows = [embedded[0] + state["decoder_pos_embed"][0, 0]]
    for cell in range(cells):
        token = embedded[1 + visible.index(cell)] if cell in visible else state["mask_token"][0, 0]
        rows.append(token + state["decoder_pos_embed"][0, 1 + cell])
    x = torch.stack(rows)
    for i in range(CONFIG["decoder_depth"]):
        x = block(x, state, f"decoder_blocks.{i}", CONFIG["decoder_num_heads"])
    return affine(layer_norm(x, state, "decoder_norm"), state, "decoder_pred")[1:]


def cut(image: Tensor) -> list[Tensor]:
    """Patches (C, p, p) of an image (C, H, W), row by row."""
    p, side = CONFIG["patch_size"], CONFIG["img_size"] // CONFIG["patch_size"]
    return [image[:, r * p : (r + 1) * p, c * p : (c + 1) * p] for r in range(side) for c in range(side)]


def target_of(patch: Tensor) -> Tensor:
    """Pixels with the channel running fastest, normalised with the variance over n - 1."""
    channels, height, width = patch.shape
    pixels = torch.stack([patch[c, y, x] for y in range(height) for x in range(width) for c in range(channels)])
    mean = pixels.sum() / len(pixels)
    variance = ((pixels - mean) ** 2).sum() / (len(pixels) - 1)
    return (pixels - mean) / (variance + 1e-6) ** 0.5


def smoothed_cross_entropy(logits: Tensor, label: int) -> Tensor:
    log_probabilities = logits - torch.log(torch.exp(logits).sum())
    smoothing = CONFIG["label_smoothing"]
    return -(1 - smoothing) * log_probabilities[label] - smoothing * log_probabilities.sum() / len(logits)


def adamw_first_step(value: Tensor, grad: Tensor) -> Tensor:
    """Decay first, then the step; at step 1 the corrected moments are the gradient and its square."""
    decayed = value.ndim > 1
    value = value * (1 - LR * WEIGHT_DECAY) if decayed else value
    first = (1 - BETAS[0]) * grad / (1 - BETAS[0])
    second = (1 - BETAS[1]) * grad**2 / (1 - BETAS[1])
    return value - LR * first / (second**0.5 + EPS)


def main() -> None:
    rng = np.random.default_rng(2026)
    state = make_state(rng)
    batch, cells = 3, (CONFIG["img_size"] // CONFIG["patch_size"]) ** 2
    size = (batch, CONFIG["in_chans"], CONFIG["img_size"], CONFIG["img_size"])
    images = torch.tensor(rng.normal(size=size).astype(np.float32)).double()
    labels = rng.integers(CONFIG["num_classes"], size=batch)
    noise = rng.random((batch, cells)).astype(np.float32)
    kept = math.floor(cells * (1 - MASK_RATIO))
    trained = {name: value.requires_grad_() for name, value in state.items() if name not in FIXED}

    latents, predictions, logits, errors, entropies = [], [], [], [], []
    mask = np.ones((batch, cells), dtype=np.float32)
    for sample in range(batch):
        patches = cut(images[sample])
        visible = sorted(range(cells), key=lambda cell: noise[sample, cell])[:kept]
        mask[sample, visible] = 0
        latents.append(encode(patches, visible, state))
        predictions.append(decode(latents[-1], visible, cells, state))
        for cell in range(cells):
            if cell not in visible:
                errors.append(((predictions[-1][cell] - target_of(patches[cell])) ** 2).mean())
        features = encode(patches, list(range(cells)), state)[0]
        logits.append(affine(features, state, "head"))
        entropies.append(smoothed_cross_entropy(logits[-1], int(labels[sample])))
    reconstruction, classification = torch.stack(errors).mean(), torch.stack(entropies).mean()
    total = LAMBDA * classification + (1 - LAMBDA) * reconstruction
    total.backward()

    arrays = {f"state/{name}": value.detach().numpy().astype(np.float32) for name, value in state.items()}
    for name, value in trained.items():
        arrays[f"grad/{name}"] = value.grad.numpy().astype(np.float32)
    for name in STEPPED:
        stepped = adamw_first_step(trained[name].detach(), trained[name].grad)
        arrays[f"after_step/{name}"] = stepped.numpy().astype(np.float32)
    outputs = {"latent": latents, "pred": predictions, "logits": logits}
    arrays |= {name: torch.stack(values).detach().numpy().astype(np.float32) for name, values in outputs.items()}
    np.savez_compressed(
        Path(__file__).with_name("joint_step.npz"),
        images=images.numpy().astype(np.float32),
        labels=labels,
        noise=noise,
        mask=mask,
        reconstruction_loss=reconstruction.item(),
        classification_loss=classification.item(),
        total_loss=total.item(),
        lambda_weight=LAMBDA,
        mask_ratio=MASK_RATIO,
        config=str(CONFIG),
        **arrays,
    )


if __name__ == "__main__":
    main()
