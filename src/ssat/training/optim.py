"""Learning rate, parameter groups and the optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ssat.config.schema import Recipe
from ssat.core.errors import UserError
from ssat.encoders.base import Encoder
from ssat.training.steps import batches_per_epoch, check_accumulation, total_steps

# Learning rate over `base_lr`, of a step with so many times 256 images. `sqrt` is for AdamW (Malladi et al. 2022, who
# scale betas and eps as well), `linear` for SGD (Goyal et al. 2017) and in the authors' code.
LR_RULES: dict[str, Callable[[float], float]] = {
    "linear": lambda share: share,
    "sqrt": math.sqrt,
    "absolute": lambda share: 1.0,
}


@dataclass(frozen=True)
class Optimization:
    """The part of a recipe that the optimizer reads; the defaults are the recipe's (conf/recipe/official.yaml).

    Attributes:
        base_lr: learning rate for 256 images, where `lr_rule` is `absolute` for any number.
        lr_rule: `linear` = base_lr x global batch / 256; `sqrt` = base_lr x (global batch / 256)^0.5; `absolute` =
            base_lr.
        batch_size: images of one process for `linear`; None = the training loader's.
        min_lr: at the end of the schedule.
        warmup_epochs: of the linear warm-up.
        warmup_lr: at its beginning.
        betas, eps: of AdamW.
        weight_decay: of matrices.
        layer_decay: factor of the learning rate from each layer to the one before it.
        epochs: of the schedule; None = the trainer's.
        decay_all: decay every parameter.
        no_decay: names of further parameters of the encoder that are not decayed.
        optimizer: `adamw`, or `sgd` with Nesterov's momentum.
        momentum: of SGD.
        max_warmup_share: the warm-up takes at most this share of the schedule.
        warmup_of: epochs that the warm-up was planned for, where the training is extended to `epochs`; None = those.

    Raises:
        UserError: an unknown optimizer or rule.
    """

    base_lr: float = Recipe.base_lr
    lr_rule: str = Recipe.lr_rule
    batch_size: int | None = None
    min_lr: float = Recipe.min_lr
    warmup_epochs: float = Recipe.warmup_epochs
    warmup_lr: float = Recipe.warmup_lr
    betas: tuple[float, float] = Recipe.betas
    eps: float = Recipe.eps
    weight_decay: float = Recipe.weight_decay
    layer_decay: float = Recipe.layer_decay
    epochs: int | None = None
    decay_all: bool = Recipe.decay_all
    no_decay: tuple[str, ...] = Recipe.no_decay
    optimizer: str = Recipe.optimizer
    momentum: float = Recipe.momentum
    max_warmup_share: float = Recipe.max_warmup_share
    warmup_of: int | None = None

    def __post_init__(self) -> None:
        for name, choices in (("optimizer", ("adamw", "sgd")), ("lr_rule", tuple(LR_RULES))):
            if getattr(self, name) not in choices:
                raise UserError(
                    f"Optimization({name}={getattr(self, name)!r}) is not possible: it is one of {', '.join(choices)}"
                )


def optimizer_and_schedule(
    module: nn.Module, encoder: Encoder, optimization: Optimization, trainer: pl.Trainer
) -> dict[str, Any]:
    """What `configure_optimizers` returns for a module that holds `encoder` under that name; lr moves every step.

    Raises:
        UserError: the trainer does not say where the schedule ends, or no loader how large a batch is, or a step has
            more batches than an epoch.
    """
    o = optimization
    check_accumulation(trainer)
    images = (o.batch_size or loader_batch_size(trainer)) * trainer.world_size * trainer.accumulate_grad_batches
    lr = effective_lr(o.base_lr, o.lr_rule, images)
    groups = module_groups(
        module,
        encoder,
        weight_decay=o.weight_decay,
        layer_decay=o.layer_decay,
        decay_all=o.decay_all,
        no_decay=o.no_decay,
    )
    optimizer: Optimizer
    if o.optimizer == "sgd":
        optimizer = sgd(groups, lr=lr, momentum=o.momentum)
    else:
        optimizer = adamw(groups, lr=lr, betas=o.betas, eps=o.eps)
    schedule = warmup_cosine(
        optimizer,
        lr=lr,
        min_lr=o.min_lr,
        warmup_lr=o.warmup_lr,
        warmup_steps=warmup_steps(trainer, o),
        total_steps=total_steps(trainer, o.epochs),
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def warmup_steps(trainer: pl.Trainer, optimization: Optimization) -> float:
    """Steps of the warm-up, which need not be whole: `warmup_epochs`, shorter in a short schedule."""
    o, steps = optimization, total_steps(trainer, optimization.epochs)
    epochs = o.epochs or steps / math.ceil(batches_per_epoch(trainer) / trainer.accumulate_grad_batches)
    planned = o.warmup_of or epochs
    return min(o.warmup_epochs, o.max_warmup_share * planned) * steps / epochs if epochs else 0.0


def follow_schedule(schedule: LambdaLR) -> None:
    """Set the learning rates of the step that comes to those of the schedule, where another one has led there."""
    rates = zip(schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True)
    for group, base, factor in rates:
        rate = base * factor(schedule.last_epoch)
        group["lr"] = group["lr"].fill_(rate) if isinstance(group["lr"], Tensor) else rate


def loader_batch_size(trainer: pl.Trainer) -> int:
    """Images in a batch of the training loader.

    Raises:
        UserError: it does not tell.
    """
    batches_per_epoch(trainer)  # sets it up
    loader = trainer.train_dataloader
    for owner in (loader, getattr(loader, "batch_sampler", None), getattr(trainer, "datamodule", None)):
        size = getattr(owner, "batch_size", None)
        if isinstance(size, int):
            return size
    raise UserError(
        "the training loader does not tell how large a batch is, and the learning rate is base_lr x batch / 256: give"
        " optimization=Optimization(batch_size=...)"
    )


def effective_lr(base_lr: float, rule: str, global_batch: int) -> float:
    """`base_lr` scaled by one of `LR_RULES` to a step of `global_batch` images."""
    return base_lr * LR_RULES[rule](global_batch / 256)


def lr_at(step: int, *, lr: float, min_lr: float, warmup_lr: float, warmup_steps: float, total_steps: int) -> float:
    """Learning rate of optimizer step `step`, from 0: linear `warmup_lr` to `lr`, then half a cosine to `min_lr`."""
    if step < warmup_steps:
        return warmup_lr + (lr - warmup_lr) * step / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1.0, total_steps - warmup_steps))
    return min_lr + (lr - min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def parameter_groups(
    parameters: Iterable[tuple[str, Tensor]],
    *,
    weight_decay: float,
    no_decay: set[str],
    layer_ids: dict[str, int],
    layer_decay: float = 1.0,
    decay_all: bool = False,
) -> list[dict]:
    """Groups for the optimizer, each with its `lr_scale`.

    One-dimensional parameters, biases and `no_decay` are not decayed unless `decay_all`. A parameter of layer i out of
    n is trained at `layer_decay` ** (n - i) of the learning rate; what has no layer (head, decoder) at the whole of it.
    """
    last = max(layer_ids.values(), default=0)
    groups: dict[tuple[bool, int], dict] = {}
    for name, parameter in parameters:
        if not parameter.requires_grad:
            continue
        decayed = decay_all or (parameter.ndim > 1 and not name.endswith(".bias") and name not in no_decay)
        layer = layer_ids.get(name, last) if layer_decay != 1.0 else last
        key = (decayed, layer)
        if key not in groups:
            groups[key] = {
                "params": [],
                "weight_decay": weight_decay if decayed else 0.0,
                "lr_scale": layer_decay ** (last - layer),
            }
        groups[key]["params"].append(parameter)
    return list(groups.values())


def module_groups(
    module: nn.Module,
    encoder: Encoder,
    *,
    weight_decay: float,
    layer_decay: float,
    decay_all: bool = False,
    no_decay: Iterable[str] = (),
) -> list[dict]:
    """`parameter_groups` of a module that holds `encoder` under the name 'encoder'.

    Args:
        no_decay: names of the encoder's parameters that are not decayed, besides those that it says itself.
    """
    return parameter_groups(
        module.named_parameters(),
        weight_decay=weight_decay,
        no_decay={f"encoder.{name}" for name in encoder.no_weight_decay() | set(no_decay)},
        layer_ids={f"encoder.{name}": layer for name, layer in encoder.layer_ids().items()},
        layer_decay=layer_decay,
        decay_all=decay_all,
    )


def adamw(groups: list[dict], *, lr: float, betas: tuple[float, float], eps: float) -> AdamW:
    """AdamW whose groups start at `lr` x `lr_scale`; the weight decay is each group's own.

    On a CPU all its arithmetic is one pass over each parameter: a third of the time of PyTorch's default there.
    """
    for group in groups:
        # Of the group: of the whole optimizer, Lightning would refuse clip_grad under bf16.
        if all(parameter.device.type == "cpu" for parameter in group["params"]):
            group |= {"fused": True, "foreach": False}
    optimizer = AdamW(_scaled(groups, lr), lr=lr, betas=betas, eps=eps, weight_decay=0.0)
    _search_no_gpu(optimizer)
    return optimizer


def sgd(groups: list[dict], *, lr: float, momentum: float) -> SGD:
    """SGD with Nesterov's momentum whose groups start at `lr` x `lr_scale`; the weight decay is each group's own."""
    optimizer = SGD(_scaled(groups, lr), lr=lr, momentum=momentum, nesterov=momentum > 0, weight_decay=0.0)
    _search_no_gpu(optimizer)
    return optimizer


def _search_no_gpu(optimizer: Optimizer) -> None:
    """Of weights on a CPU: PyTorch else looks for a GPU's library at every step, to ask whether a graph is recorded."""
    if all(parameter.device.type == "cpu" for group in optimizer.param_groups for parameter in group["params"]):
        optimizer._accelerator_graph_capture_health_check = lambda: None  # type: ignore[method-assign]


def _scaled(groups: list[dict], lr: float) -> list[dict]:
    for group in groups:
        group["lr"] = lr * group["lr_scale"]
    return groups


def warmup_cosine(
    optimizer: Optimizer, *, lr: float, min_lr: float, warmup_lr: float, warmup_steps: float, total_steps: int
) -> LambdaLR:
    """`lr_at` as a scheduler to be stepped after every optimizer step; layer scales multiply it, as in MAE."""

    def factor(step: int) -> float:
        return (
            lr_at(
                step,
                lr=lr,
                min_lr=min_lr,
                warmup_lr=warmup_lr,
                warmup_steps=warmup_steps,
                total_steps=total_steps,
            )
            / lr
        )

    return LambdaLR(optimizer, factor)
