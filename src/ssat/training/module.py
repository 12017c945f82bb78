"""The joint training step: one encoder, a classifier and a self-supervised task, and Eq. 1 between them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from ssat.config.schema import Recipe
from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.data.loaders import LoaderModule
from ssat.encoders.base import Encoder
from ssat.tasks.base import Task, TaskOutput
from ssat.training.batches import as_batch, labelled_alone
from ssat.training.classification import ClassLoss, Normalize, head_from
from ssat.training.compiled import CompiledLosses
from ssat.training.cuda_graph import ReplayedStep, Replays, planned
from ssat.training.freezing import freeze, freeze_unread
from ssat.training.hyperparameters import Named, encoder_from, plain_values, rebuilt, task_from
from ssat.training.label_loss import LabelLoss
from ssat.training.label_meters import LabelMeters
from ssat.training.means import EpochMeans, show, to_log, watched, write
from ssat.training.meters import Meters
from ssat.training.mixing import Mix, Mixing
from ssat.training.optim import Optimization, follow_schedule, optimizer_and_schedule
from ssat.training.resolution import at_size, check_sizes, size_at
from ssat.training.steps import Progress, Step, batches_before, progress_at, seed_step, share_done, window_scale
from ssat.training.video_meters import Average, VideoMeters
from ssat.training.weighing import LamSchedule, Weighing, lam_of


class JointModule(pl.LightningModule):
    """Trains `encoder` + `head` on L_cls with weight lam and on the loss of `ssl` with weight 1 - lam (Eq. 1).

    Serves the commands, and alone a `Trainer` of your own: tests/training/test_alone.py. Loaders give a `Batch`, or
    normalised images with their targets. Evaluation logs `val/...` and `test/...`.

    Args:
        encoder: any encoder of the contract, or {"kind": its short name, its options}.
        num_classes: of the data; lam = 0 needs none.
        ssl: the self-supervised task, or {"kind": its short name, its options}, or None.
        lam: weight of L_cls: 1 uses no `ssl`, 0 no `head`; None = 0.1 with a task and 1 without.
        head: the classifier of features (B, num_features); None = a linear one.
        optimization: schedule and optimizer; None = the official recipe's, as long as the trainer's epochs.
        label_smoothing: of the cross-entropy in training.
        schedule: of lam; None = constant.
        conflict_every: steps between two measurements of the angle between the losses' gradients; 0 = none.
        mixing: mixup and CutMix; None = neither.
        frozen: the encoder stays as it is, in evaluation mode; only the head learns.
        partly_labelled: training targets may be NO_LABEL; L_cls is the mean over the labelled images of a batch.
        seed: of the per-step randomness, and of a task that is given by name.
        log_every: batches between two logged values; a logger gets each of them once, whatever `log_every_n_steps` is.
        class_weights: of L_cls, one for each class (Eq. 3: [w, 1 - w]); None = equal ones. With `multi_label` the
            weights of the images that have a label (`pos_weight`).
        normalise_weights: divide L_cls by the sum of the batch's weights.
        focal_gamma: of the focal loss in L_cls; 0 = cross-entropy. It needs label_smoothing=0 and no mixing.
        multi_label: targets are labels (B, K) of 0 and 1, L_cls is binary cross-entropy (`LabelLoss`).
        sizes: pixels of the training images in equal parts of the epochs, before the encoder's own (`at_size`).
        average: evaluation measures videos and not clips: what is averaged over those of one (`Batch.videos`).

    Raises:
        UserError: values that do not fit each other.
    """

    def __init__(
        self,
        encoder: Encoder | Named,
        *,
        num_classes: int | None = None,
        ssl: Task | Named | None = None,
        lam: float | None = None,
        head: nn.Module | None = None,
        optimization: Optimization | None = None,
        label_smoothing: float = Recipe.label_smoothing,
        schedule: LamSchedule | None = None,
        conflict_every: int = 0,
        mixing: Mixing | None = None,
        frozen: bool = False,
        partly_labelled: bool = False,
        seed: int = 0,
        log_every: int = 50,
        class_weights: Sequence[float] | None = None,
        normalise_weights: bool = True,
        focal_gamma: float = 0.0,
        average: Average | None = None,
        multi_label: bool = False,
        sizes: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.save_hyperparameters(plain_values(locals()), logger=False)
        self.lam, self.seed, self.log_every = lam_of(lam, ssl, num_classes), seed, log_every
        self.encoder = encoder_from(encoder)
        self.head = head_from(head, self.encoder.num_features, num_classes) if self.lam > 0 else None
        self.ssl = task_from(ssl, self.encoder, seed) if self.lam < 1 else None
        self.frozen = freeze(self.encoder) if frozen else []
        freeze_unread(self.encoder, self.head, self.ssl)
        classes = num_classes if self.lam > 0 else None
        self.mix = Mix(mixing, classes, label_smoothing, self.ssl, multi_label=multi_label)
        weights = None if class_weights is None else torch.tensor(class_weights)
        options: dict[str, Any] = {"partly_labelled": partly_labelled, "focal_gamma": focal_gamma}
        self.multi_label, self.sizes = multi_label, tuple(sizes)
        check_sizes(self.encoder, self.ssl, self.sizes)
        self.cls_loss: ClassLoss | LabelLoss
        if multi_label:
            self.cls_loss = LabelLoss(label_smoothing, pos_weight=weights, **options)
        else:
            size: Normalize = "weights" if normalise_weights else "none"
            self.cls_loss = ClassLoss(label_smoothing, class_weights=weights, normalize=size, **options)
        self.weighing = Weighing(self.encoder, self.lam, schedule, watch_every=conflict_every, state=self)
        self.optimization, self.means = optimization or Optimization(), EpochMeans()
        self.meters: Any = VideoMeters(classes, average) if average and classes else Meters(classes)
        if multi_label and classes:
            self.meters = LabelMeters()
        self.compiled: CompiledLosses | None = None  # of `losses`; set by trainer.compile
        self.cuda_graph = False  # the steps of a training are to be one; set by trainer.cuda_graph
        self.replay: ReplayedStep | None = None  # what takes them then
        self.replays: Replays | None = None  # what became of it
        self.some_features = partly_labelled and self.encoder.separate and bool(self.ssl and self.ssl.some_features)
        self.labelled_per_batch: int | None = None  # at most; None = as they come
        self.stamp: dict[str, Any] = {}  # what every checkpoint says of its run
        self.eval_split = "val"  # what validation logs begins with; the commands set the split that is evaluated

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; words that are attributes already take no search among parameters, buffers and modules.

        Lightning notes on the module which hook it is in, forty times a step.
        """
        if (value is None or type(value) is str) and name in self.__dict__:
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The joint loss of a batch; its parts are logged."""
        progress = progress_at(self.trainer, batch_idx, self.optimization.epochs)
        batch = as_batch(batch, progress.batches)
        if self.replay is None:
            with at_size(self.encoder, self.ssl, batch, self.present_size()) as shown:
                loss, values = self.joint_step(shown, progress)
        else:
            loss, values = self.replay(self.mix(batch), self.with_lam(progress))  # the optimizer's step, too
        self.means.add(values, batch.images.shape[0])
        due = batch_idx % self.log_every == 0  # logging every step would cost more than a small step itself
        logged = to_log(values, self.trainer) if due else watched(values)
        show(logged, self.trainer)
        write(logged, self.trainer)
        scale = window_scale(self.trainer, batch_idx)
        return loss if scale == 1 else loss * scale

    def present_size(self) -> int | None:
        """Pixels of the training images in the present epoch; None = the encoder's own."""
        epochs = self.optimization.epochs or self.trainer.max_epochs or 0
        return size_at(self.sizes, self.trainer.current_epoch, epochs)

    def joint_step(self, batch: Batch, progress: Progress) -> Step:
        """Eq. 1 on one batch: the loss, and what `EpochMeans` takes of it."""
        mixed = self.mix(batch)  # mixup or CutMix; the batch itself by default
        given = progress if self.compiled is None else self.with_lam(progress)
        loss, values = (self.compiled or self.losses)(mixed, given)
        return loss, {name: value.detach() for name, value in values.items()}

    def with_lam(self, progress: Progress) -> Progress:
        """`progress` with lam as a tensor of the device, where it moves."""
        if not self.weighing.moves:
            return progress
        return progress._replace(lam=torch.full((), self.weighing.lam_at(progress), device=self.device))

    def losses(self, batch: Batch, progress: Progress) -> Step:
        """`joint_step` of a batch that is mixed already.

        Nothing is detached here: inductor gives equal results as one tensor, and a detached one has no gradient.
        """
        batch = self.with_classified(batch)
        out = self.run_tasks(batch)  # features and L_SSAT: one call
        logits = None if self.head is None else self.head(out.features).float()
        cls = self.cls_loss(logits, batch)  # smoothed | soft | partly labelled
        w = self.weighing.at(progress, cls, out.loss)  # constant | ramp | balanced
        loss = w.lam * cls + (1 - w.lam) * (w.scale * out.loss)  # Eq. 1
        values = {"loss": loss} | self.cls_loss.values(cls, logits, batch) | out.logs | w.logs
        return loss, values

    def with_classified(self, batch: Batch) -> Batch:
        """The batch, and that it is classified without the images without labels, where an encoder can leave them out.

        On a GPU that is known where the data limit their number: counting them would make the host wait.
        """
        if not self.some_features or batch.targets is None:
            return batch
        if self.labelled_per_batch is None and (self.compiled is not None or batch.targets.device.type != "cpu"):
            return batch
        return labelled_alone(batch, self.labelled_per_batch)

    def run_tasks(self, batch: Batch) -> TaskOutput:
        """L_SSAT, 0 without a task, and the features (B, num_features) to classify, None without a head."""
        if self.ssl is None:
            return TaskOutput(batch.images.new_zeros(()), self.encoder.forward_features(batch.images), {})
        out = self.ssl(self.encoder, batch, self.head is not None)
        return out._replace(logs={"loss_ssl": out.loss, **out.logs})

    def epoch_means(self) -> dict[str, float]:
        """Means of the training values since the last call, over all processes; starts the next sums."""
        return self.means.take(self.trainer.strategy)

    def on_train_epoch_end(self) -> None:
        """Log the means of the epoch as `epoch/train/...`, unless a callback has taken them already."""
        self.log_dict({f"epoch/{name}": mean for name, mean in self.epoch_means().items()}, sync_dist=True)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Measure loss and accuracy of a batch, or the task's loss where nothing is classified."""
        batch = as_batch(batch, batch_idx)
        if self.head is None:
            self.meters.add_loss(self.run_tasks(batch).loss, len(batch.images))
        else:
            of = batch.indices if batch.videos is None else batch.videos
            self.meters.add(self(batch.images).float(), batch.targets, of)

    def on_validation_epoch_end(self) -> None:
        """Log what was measured under the name of the split."""
        split = "test" if self.trainer.testing else self.eval_split
        for name, value in self.meters.take().items():
            self.log(f"{split}/{name}", value, sync_dist=True)  # equal on all processes already

    test_step, on_test_epoch_end = validation_step, on_validation_epoch_end

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Probabilities (B, classes) of a batch, which needs no targets."""
        logits = self(as_batch(batch, batch_idx).images).float()
        return logits.sigmoid() if self.multi_label else logits.softmax(dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, C, H, W): all that inference needs."""
        if self.head is None:
            raise UserError("a module with lam=0 has learned no labels, so it predicts none: fine-tune its encoder")
        return self.head(self.encoder.forward_features(images))

    def train(self, mode: bool = True) -> JointModule:
        """Switch between training and evaluation; a frozen encoder stays in evaluation."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def configure_optimizers(self) -> Any:
        """AdamW or SGD with a learning rate that warms up and falls along a cosine, step by step."""
        return optimizer_and_schedule(self, self.encoder, self.optimization, self.trainer)

    def on_train_start(self) -> None:
        """The task begins once, before the first step; not when a training is continued."""
        if self.ssl is not None and self.global_step == 0 and batches_before(self.trainer, 0) == 0:
            self.ssl.begin(self.encoder)
        data = getattr(self.trainer, "datamodule", None)
        labelled = data.labelled_batches() if isinstance(data, LoaderModule) else None
        self.labelled_per_batch = labelled.per_batch if labelled else None
        if self.optimization.warmup_of is not None:
            follow_schedule(self.lr_schedulers())  # type: ignore[arg-type]  # LambdaLR
        if self.cuda_graph:
            self.replays, self.replay = planned(self, self.trainer)

    def on_train_end(self) -> None:
        """A recorded step keeps its memory until it goes."""
        self.replay = None

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Dropout, drop path and mixing follow from seed, step and rank alone."""
        seed_step(self.seed, batches_before(self.trainer, batch_idx), self.global_rank)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Gradients, unless the whole step has been taken already."""
        if self.replay is None:
            super().backward(loss, *args, **kwargs)

    def optimizer_zero_grad(self, *args: Any, **kwargs: Any) -> None:
        """Forget the last gradients, unless the whole step has been taken already."""
        if self.replay is None:
            super().optimizer_zero_grad(*args, **kwargs)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip gradients, where that is asked for."""
        if gradient_clip_val is not None:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None, **kwargs: Any
    ) -> None:
        """The optimizer's step, then what the task does after it."""
        if self.replay is None:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure, **kwargs)
        else:
            optimizer_closure()  # `training_step` takes all of it
        if self.ssl is not None:
            step = self.trainer.global_step + 1  # Lightning counts it when this hook has returned
            self.ssl.after_step(self.encoder, share_done(self.trainer, step, self.optimization.epochs), step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The running sums are part of a checkpoint, which may be written within an epoch, and so is the stamp."""
        checkpoint |= {"epoch_sums": self.means.state(self.trainer.strategy), **self.stamp}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The counterpart of `on_save_checkpoint`."""
        self.means.load(checkpoint.get("epoch_sums", {}), first=self.global_rank == 0)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | Path, map_location: Any = None, *, strict: bool = True, **given: Any
    ) -> JointModule:
        """The module of a checkpoint; `given` replaces arguments of the constructor.

        What was an object then is given again: load_from_checkpoint(path, encoder=..., ssl=...).

        Raises:
            UserError: the file is no such checkpoint, or does not hold an argument that is not given.
        """
        return rebuilt(cls, checkpoint_path, given, strict=strict).to(map_location or "cpu")
