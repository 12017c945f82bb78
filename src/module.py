"""The joint training step: one encoder, a classifier and a self-supervised task, and Eq. 1 between them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from timm.data.mixup import Mixup
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from src.auxiliary.base import SSLTask
from src.auxiliary.gather import mean_over_processes, world_size
from src.auxiliary.teacher import cosine
from src.batch import NO_LABEL, Batch
from src.encoders.base import Encoder
from src.errors import UserError
from src.gradients import layer_cosines, length, shared_gradients
from src.optim import adamw, effective_lr, module_groups, seed_step, sgd, warmup_cosine


@dataclass(frozen=True)
class Optimization:
    """The part of a recipe that the optimizer reads; see conf/recipe/official.yaml for each value's source."""

    base_lr: float
    lr_rule: str
    batch_size: int
    min_lr: float
    warmup_epochs: float
    warmup_lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    layer_decay: float
    epochs: int
    decay_all: bool = False
    no_decay: tuple[str, ...] = ()
    optimizer: str = "adamw"
    momentum: float = 0.9


def joint_loss(lam: float, cls_loss: Tensor | None, ssl_loss: Tensor | None) -> Tensor:
    """L = lam * L_cls + (1 - lam) * L_SSAT (Eq. 1); a loss that was not computed has weight 0."""
    if ssl_loss is None:
        assert cls_loss is not None
        return cls_loss
    if cls_loss is None:
        return ssl_loss
    return lam * cls_loss + (1 - lam) * ssl_loss


SCHEDULES = ("constant", "linear", "cosine", "balanced")
BALANCE_MEMORY = 0.9  # of the moving average of the gradients' ratio


@dataclass(frozen=True)
class LamSchedule:
    """How the weight of L_cls moves in the course of a phase.

    Attributes:
        kind: `constant`; `linear` or `cosine` from the phase's lam to `end`; `balanced` = constant, L_SSAT being scaled
            so that both losses' gradients on the encoder are equally long before lam weighs them.
        end: lam at the end.
        every: steps between two measurements of the gradients for `balanced`.
    """

    kind: str = "constant"
    end: float | None = None
    every: int = 10

    def lam(self, start: float, progress: float) -> float:
        """lam when the share `progress` of the phase's steps is done."""
        end = start if self.end is None else self.end
        if self.kind == "linear":
            return start + (end - start) * progress
        return cosine(start, end, progress) if self.kind == "cosine" else start


def freeze_unread(encoder: Encoder, head: nn.Module | None, ssl: SSLTask | None) -> None:
    """Freeze what no pass of this phase reads; DDP waits for the gradient of every trainable parameter."""
    unread: set[str] = set()
    if ssl is None or not ssl.masked:
        unread |= encoder.only_masked()
    if head is None and ssl is not None and not ssl.full:
        unread |= encoder.only_full()
    for name, parameter in encoder.named_parameters():
        if name in unread:
            parameter.requires_grad_(False)


class JointModule(pl.LightningModule):
    """Trains `encoder` + `head` with weight `lam` and `ssl` with weight 1 - `lam`.

    Args:
        encoder: any encoder of the contract.
        lam: weight of the classification loss; 1 needs no `ssl`, 0 needs no `head`.
        head: Linear(num_features, classes), or None.
        ssl: the self-supervised task, or None.
        num_classes: classes of the data; the metrics need it.
        optimization: schedule and optimizer values.
        label_smoothing: of the cross-entropy.
        schedule: of lam.
        conflict_every: steps between two measurements of the angle between the losses' gradients; 0 = none.
        mixup: timm's Mixup (it smooths the labels itself), or None.
        frozen: the encoder stays as it is, in evaluation mode; only the head learns.
        partly_labelled: the data hold images without a label; L_cls is then the mean over the labelled ones of a batch.
        seed: of the per-step randomness.
        log_every: steps between two logged values.
    """

    balance: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        lam: float,
        head: nn.Module | None,
        ssl: SSLTask | None,
        num_classes: int,
        optimization: Optimization,
        label_smoothing: float = 0.0,
        schedule: LamSchedule | None = None,
        conflict_every: int = 0,
        mixup: Mixup | None = None,
        frozen: bool = False,
        partly_labelled: bool = False,
        seed: int = 0,
        log_every: int = 50,
    ) -> None:
        super().__init__()
        self.encoder, self.head, self.ssl = encoder, head, ssl
        self.frozen = [p for p in encoder.parameters() if p.requires_grad] if frozen else []
        for parameter in self.frozen:
            parameter.requires_grad_(False)
        freeze_unread(encoder, head, ssl)
        self.lam = lam
        self.optimization = optimization
        self.label_smoothing, self.mixup = label_smoothing, mixup
        self.partly_labelled = partly_labelled
        self.schedule, self.conflict_every = schedule or LamSchedule(), conflict_every
        if self.schedule.kind == "balanced":
            self.register_buffer("balance", torch.zeros(()))
        # timm mixes in place.
        self.reads_unmixed = ssl is not None and any(getattr(m, "source", "") == "unmixed" for m in ssl.modules())
        self.seed, self.log_every = seed, log_every
        self.eval_split = "test"
        self.sums: dict[str, Tensor] = {}
        meters: dict[str, nn.Module] = {"loss": MeanMetric()}
        if head is None:
            meters = {"loss_ssl": MeanMetric()}
        else:
            meters |= {
                f"acc{k}": MulticlassAccuracy(num_classes, top_k=k, average="micro") for k in (1, 5) if k < num_classes
            }
        self.meters = nn.ModuleDict(meters)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, C, H, W): all that inference needs."""
        assert self.head is not None, "this phase learns no labels"
        return self.head(self.encoder.forward_features(images))

    def train(self, mode: bool = True) -> JointModule:
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def on_train_start(self) -> None:
        if self.ssl is not None and self.global_step == 0 and self.batches_before(0) == 0:
            self.ssl.begin(self.encoder)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        seed_step(self.seed, self.batches_before(batch_idx), self.global_rank)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        labels = batch.targets
        if self.mixup is not None and self.head is not None:
            if len(batch.images) % 2:
                raise UserError(
                    f"mixup pairs images, and a batch has {len(batch.images)} of them: set recipe.mixup=0 and cutmix=0,"
                    " or choose another batch size or number of labels"
                )
            original = batch.images.clone() if self.reads_unmixed else None
            images, mixed = self.mixup(batch.images, labels)
            batch = batch._replace(images=images, targets=mixed, unmixed=original)
        ssl_loss, features, logs = None, None, {}
        if self.ssl is None:
            features = self.encoder.forward_features(batch.images)
        else:
            ssl_loss, features, logs = self.ssl(self.encoder, batch, self.head is not None)
        cls_loss = None
        if self.head is not None:
            assert batch.targets is not None and labels is not None and features is not None
            logits = self.head(features).float()
            views = len(logits) // len(labels)
            cls_loss = self.criterion(logits, torch.cat([batch.targets] * views))
            if self.mixup is None:
                right, labelled = logits[: len(labels)].argmax(1) == labels, labels != NO_LABEL
                if self.partly_labelled:
                    self._add({"acc1": right.sum() * 100.0, "acc1_count": labelled.sum().float()})
                else:
                    logs = logs | {"acc1": right.float().mean() * 100}
        loss, weights = self._weigh(cls_loss, ssl_loss, batch_idx)
        losses = {"loss": loss, "loss_cls": cls_loss, "loss_ssl": ssl_loss} | logs | weights
        self._record({name: value.detach() for name, value in losses.items() if value is not None}, batch_idx)
        return loss

    def _weigh(
        self, cls_loss: Tensor | None, ssl_loss: Tensor | None, batch_idx: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 1 with lam as its schedule has it at this step, and what moves with it, to be logged."""
        if cls_loss is None or ssl_loss is None:
            return joint_loss(self.lam, cls_loss, ssl_loss), {}
        self._measure_gradients(cls_loss, ssl_loss, batch_idx)
        if self.schedule.kind == "constant":
            return joint_loss(self.lam, cls_loss, ssl_loss), {}
        if self.schedule.kind == "balanced":
            return joint_loss(self.lam, cls_loss, self.balance * ssl_loss), {"balance": self.balance}
        lam = self.schedule.lam(self.lam, self.trainer.global_step / self.total_steps)
        return joint_loss(lam, cls_loss, ssl_loss), {"lam": torch.full((), lam, device=self.device)}

    def _measure_gradients(self, cls_loss: Tensor, ssl_loss: Tensor, batch_idx: int) -> None:
        """The two losses' gradients on the encoder, at the steps at which somebody asks for them."""
        if not self.conflict_every and self.schedule.kind != "balanced":
            return
        step = self.batches_before(batch_idx)
        watched = self.conflict_every and step % self.conflict_every == 0
        balanced = self.schedule.kind == "balanced" and step % self.schedule.every == 0
        if not watched and not balanced:
            return
        of_cls, of_ssl = shared_gradients(self.encoder, cls_loss, ssl_loss)
        if balanced:
            ratio = length(of_cls) / length(of_ssl).clamp_min(1e-30)
            moved = self.balance.lerp(ratio, 1 - BALANCE_MEMORY)
            self.balance.copy_(torch.where(self.balance == 0, ratio, moved))
        if watched:
            cosines = {f"conflict/{key}": value for key, value in layer_cosines(self.encoder, of_cls, of_ssl).items()}
            self.log_dict({f"train/{name}": value for name, value in cosines.items()}, on_step=True, on_epoch=False)
            self._add(cosines | {"conflict_count": torch.ones((), device=self.device)})

    def criterion(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Smoothed cross-entropy on class indices, soft cross-entropy on mixed targets."""
        if targets.is_floating_point():
            return SoftTargetCrossEntropy()(logits, targets)
        if self.partly_labelled:
            options: dict[str, Any] = {"label_smoothing": self.label_smoothing, "ignore_index": NO_LABEL}
            total = F.cross_entropy(logits, targets, reduction="sum", **options)
            # Over all processes: one with few labels then weighs as much as its labels do.
            labelled = mean_over_processes((targets != NO_LABEL).sum().float())
            return total / labelled.clamp_min(1 / world_size())
        return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)

    def _record(self, values: dict[str, Tensor], batch_idx: int) -> None:
        # Sums stay on the device; logging every step would cost more than a small step itself.
        self._add(values | {"steps": torch.ones((), device=self.device)})
        if batch_idx % self.log_every == 0:
            named = {f"train/{name}": value for name, value in values.items()}
            self.log_dict(named, prog_bar=False, on_step=True, on_epoch=False)
            self.log("lr", self.trainer.optimizers[0].param_groups[-1]["lr"], on_step=True, on_epoch=False)

    def _add(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums[name].to(value.device) + value if name in self.sums else value.clone()

    def epoch_means(self) -> dict[str, float]:
        """Means of the training values since the last call, over all ranks; starts the next sums."""
        if not self.sums:
            return {}
        stacked = self.trainer.strategy.reduce(torch.stack(list(self.sums.values())), reduce_op="sum")
        totals = dict(zip(self.sums, stacked.tolist(), strict=True))
        self.sums = {}
        # What is not measured at every step, or not of every image, has a count of its own.
        counts = {name: totals.pop(name) for name in list(totals) if name.endswith("_count")}
        steps = totals.pop("steps")
        divisors = {name: counts.get(f"{name.partition('/')[0]}_count", steps) for name in totals}
        return {f"train/{name}": total / max(divisors[name], 1.0) for name, total in totals.items()}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.ssl is not None:
            # Lightning counts the step when this hook has returned.
            self.ssl.after_step(self.encoder, (self.trainer.global_step + 1) / self.total_steps)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["epoch_sums"] = {name: float(value) for name, value in self.sums.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Of rank 0; it only makes the means of an epoch that was interrupted.
        self.sums = {name: torch.tensor(value) for name, value in checkpoint.get("epoch_sums", {}).items()}

    def meter(self, name: str) -> Metric:
        return cast("Metric", self.meters[name])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        if self.head is None:
            assert self.ssl is not None
            self.meter("loss_ssl").update(self.ssl(self.encoder, batch, False).loss, weight=len(batch.images))
            return
        assert batch.targets is not None
        logits = self(batch.images).float()
        self.meter("loss").update(F.cross_entropy(logits, batch.targets), weight=len(logits))
        for name in self.meters:
            if name.startswith("acc"):
                self.meter(name).update(logits, batch.targets)

    def on_validation_epoch_end(self) -> None:
        for name in self.meters:
            meter = self.meter(name)
            value = meter.compute() * (100 if name.startswith("acc") else 1)
            self.log(f"{self.eval_split}/{name}", value, sync_dist=True)  # equal on all ranks already
            meter.reset()

    def batches_before(self, batch_idx: int) -> int:
        """Batches that this rank has seen when batch `batch_idx` of the current epoch begins."""
        return self.trainer.current_epoch * int(self.trainer.num_training_batches) + batch_idx

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole schedule; a run that is stopped early keeps the schedule of all epochs."""
        self.trainer.estimated_stepping_batches  # noqa: B018  (makes Lightning build the loader, whose length is needed)
        steps_per_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        return steps_per_epoch * self.optimization.epochs

    def configure_optimizers(self) -> Any:
        o = self.optimization
        lr = effective_lr(
            o.base_lr, o.lr_rule, o.batch_size * self.trainer.world_size * self.trainer.accumulate_grad_batches
        )
        groups = module_groups(
            self,
            self.encoder,
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
            warmup_steps=o.warmup_epochs * self.total_steps / o.epochs,
            total_steps=self.total_steps,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
