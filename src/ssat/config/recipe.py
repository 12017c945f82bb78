"""The keys of a recipe; `row N` = docs/recipes.md: the paper against its code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ssat.config.augmentation import Augment, ClipAugment
from ssat.config.fields import key


@dataclass(frozen=True)
class DecoderSize:
    """Of the reconstruction's transformer decoder."""

    dim: int = key(128, "Table 11", low=1)
    depth: int = key(2, "Table 10", low=1)
    num_heads: int = key(16, "Table 12", low=1)


DECODERS = {
    "default": {"dim": 128, "depth": 2, "num_heads": 16},
    "vit_b": {"dim": 512, "depth": 8, "num_heads": 16},
}


@dataclass(frozen=True)
class Recipe:
    """How it is trained; the defaults are what the released code does when run by its README on one GPU."""

    name: str = key("official")
    batch_size: int = key(64, "per device (Table 14; row 8: 64 x 8 devices on ImageNet-1K)", low=1)
    drop_last: bool | None = key(
        None,
        "leave out images or clips that do not fill a batch; null = as the authors with official data, else keep them",
    )
    base_lr: float = key(1e-3, "row 5", above=0)
    lr_rule: Literal["linear", "sqrt", "absolute"] = key(
        "linear",
        "row 5: lr = base_lr x global batch / 256 (2.5e-4 at 64) | x its square root, for AdamW | lr = base_lr",
    )
    min_lr: float = key(1e-6, "Table 14", low=0)
    warmup_epochs: float = key(5, "Table 14", low=0)
    warmup_lr: float = key(0.0, "row 6: linear from 0, the very first step has lr 0", low=0)
    max_warmup_share: float = key(0.25, "a short schedule warms up for at most this share of it", low=0, high=1)
    optimizer: Literal["adamw", "sgd"] = key("adamw", "Table 14 | sgd: with Nesterov's momentum")
    betas: tuple[float, float] = key((0.9, 0.999), "Table 14; of adamw")
    momentum: float = key(0.9, "of sgd", low=0, high=1)
    eps: float = key(1e-8, above=0)
    weight_decay: float = key(0.05, "Table 14; not on 1-D parameters; class and mask tokens are decayed", low=0)
    decay_all: bool = key(False, "decay every parameter")
    no_decay: tuple[str, ...] = key((), "names of further parameters without weight decay, e.g. [cls_token]")
    layer_decay: float = key(1.0, "row 3: parsed by the released code, never used", above=0, high=1)
    clip_grad: float | None = key(None, "row 15: largest norm of the gradients", above=0)
    ema_decay: float | None = key(
        None, "row 15: moving average of the weights, evaluated in their place; below 1", low=0, high=1
    )
    drop_path: float = key(0.0, "row 4: the code's 0.1 never reaches the model", low=0, high=1)
    patch_dropout: float = key(
        0.0, "share of the patches left out of the classification view in training, below 1; plain ViTs", low=0, high=1
    )
    sizes: tuple[int, ...] = key(
        (), "progressive resolution, e.g. [16,24]: pixels of the training images in equal parts of the epochs", low=1
    )
    label_smoothing: float = key(0.1, "row 2", low=0, high=1)
    mixup: float = key(0.0, "row 1 (alpha; 0 = off)", low=0)
    cutmix: float = key(0.0, "row 1 (alpha; 0 = off)", low=0)
    mix_prob: float = key(1.0, "share of the batches that are mixed", low=0, high=1)
    mix_switch_prob: float = key(0.5, "of those, share mixed by CutMix", low=0, high=1)
    mix_mode: Literal["batch", "pair", "elem"] = key("batch", "one amount per batch, pair or image")
    augment: Augment | None = key({}, "null = none: resized only")
    clip_augment: ClipAugment | None = key({}, "of videos, in place of augment; null = none: resized only")
    clips_per_video: int = key(1, "of each training video in an epoch", low=1, high=1000)
    balance: bool = key(
        False, "an epoch shows as many of each class as the smallest has, drawn anew; not together with weights"
    )
    w: float | Literal["auto"] | None = key(
        None,
        "Eq. 3: weight of real videos, 1 - w that of fake ones | auto = classes weigh alike | null = no weights",
        above=0,
        high=1,
    )
    class_weights: Literal["balanced"] | tuple[float, ...] | None = key(
        None,
        "weights of any number of classes in L_cls, in place of w: balanced = n / (K n_k), as scikit-learn"
        " | [1,2.9]: in the order of the class names",
        above=0,
    )
    focal_gamma: float = key(
        0.0, "focal loss (Lin et al. 2017): 2 = their value, 0 = cross-entropy; needs label_smoothing=0", low=0
    )
    normalise_w: bool = key(True, "divide by the sum of the weights, so that lambda keeps its meaning | false = Eq. 3")
    eval_crop_pct: float = key(
        0.875, "row 10: resize to S / 0.875, centre crop, also at 32 px; 1 = plain resize", above=0, high=1
    )
    statistics: Literal["official", "own", "imagenet"] = key("official", "row 9: which mean and deviation")
    norm_pix: bool = key(False, "row 7: true = normalised pixels of each patch are the target")
    scratch_pos_embed: Literal["sincos", "learnable"] = key("sincos", "row 17: learnable = Table 1's parameter counts")
    lam: float = key(  # a phase has its own, which is part of the identity
        0.1, "weight of L_cls in mode=ssat, unless mode.lam names one (section 5: 0.1)", low=0, high=1, identity=False
    )
    decoder: Mapping[str, DecoderSize] = key(DECODERS, "row 12, by encoder")
    report: Literal["last", "max"] = key("last", "row 16: which test accuracy is THE number; both are recorded")
