"""DINO (Caron et al. 2021) as auxiliary task (Table 4)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssat.core.batch import Batch
from ssat.core.choices import check_choice
from ssat.core.distributed import mean_over_processes
from ssat.core.errors import UserError
from ssat.core.schedules import cosine, warmed_up
from ssat.core.views import View, ViewAugment, default_local_size, dino_views, pair_of_views
from ssat.encoders.base import Encoder
from ssat.tasks.base import Task, TaskOutput, check_views
from ssat.tasks.teacher import follow

Share = Literal["shared", "third"]


def dino_loss(student: list[Tensor], teacher: list[Tensor], *, student_temp: float) -> Tensor:
    """Mean cross-entropy over all pairs of a teacher's view and another view of the student.

    Args:
        student: logits (B, K) of every view, the teacher's views first.
        teacher: probabilities (B, K) of the global views.
        student_temp: the student's logits are divided by it.

    Source: Caron et al. 2021, Eq. 3.
    """
    logs = [F.log_softmax(logits.float() / student_temp, dim=1) for logits in student]
    pairs = [-(t * s).sum(1).mean() for i, t in enumerate(teacher) for j, s in enumerate(logs) if i != j]
    return torch.stack(pairs).mean()


class DINOHead(nn.Module):
    """Three linear layers with GELU, then cosine similarities to K prototypes; thrown away at inference.

    Args:
        dim: width of the features.
        hidden_dim: width between the layers.
        bottleneck_dim: width of the prototypes.
        out_dim: number K of prototypes.
    """

    def __init__(self, dim: int, hidden_dim: int, bottleneck_dim: int, out_dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, bottleneck_dim),
        )
        self.prototypes = nn.Parameter(torch.empty(out_dim, bottleneck_dim))
        for module in self.mlp:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.prototypes, std=0.02)

    def forward(self, x: Tensor, learn: Tensor | None = None) -> Tensor:
        """Features (B, D) to logits (B, K); the gradient of the prototypes is multiplied by the scalar `learn`."""
        prototypes = F.normalize(self.prototypes, dim=1)
        if learn is not None:
            # A gradient of zero and not a missing one, for which DDP would wait; the host need not know the value.
            fixed = prototypes.detach()
            prototypes = fixed + learn * (prototypes - fixed)
        return F.linear(F.normalize(self.mlp(x), dim=1), prototypes)


class DINO(Task):
    """The student predicts, from each view, the distribution that its moving average gives to another global view.

    Args:
        encoder: the teacher starts as a copy of it.
        hidden_dim: of the head.
        bottleneck_dim: width of the prototypes.
        out_dim: number K of prototypes.
        local_views: number of small crops, which only the student sees.
        local_size: their side, pixels; None = `core.views.default_local_size` of the encoder's images.
        share: `shared` = the classification images are the first global view; `third` = both are extra views.
        view_augment: how the extra views are made; local views need `dino`.
        student_temp: temperature of the student.
        teacher_temp: temperature of the teacher at the start and after `warmup_share` of the training; linear between.
        warmup_share: share of the training.
        momentum: of the teacher's moving average; it rises to 1 along a cosine, and warms up (`schedules.warmed_up`).
        center_momentum: of the moving average of the teacher's logits, which is subtracted from them.
        frozen_share: share of the training for which the prototypes keep their first values.

    Raises:
        UserError: an unknown `share` or `view_augment`, a temperature that is not above 0, or local crops that the
            encoder cannot read.
    """

    progress: Tensor
    center: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden_dim: int = 512,
        bottleneck_dim: int = 256,
        out_dim: int = 1024,
        local_views: int = 0,
        local_size: int | None = None,
        share: Share = "shared",
        view_augment: ViewAugment = "dino",
        student_temp: float = 0.1,
        teacher_temp: tuple[float, float] = (0.04, 0.04),
        warmup_share: float = 0.1,
        momentum: float = 0.996,
        center_momentum: float = 0.9,
        frozen_share: float = 0.01,
    ) -> None:
        super().__init__()
        check_choice("ssl.share", share, get_args(Share))
        for name, value in (("student_temp", student_temp), ("teacher_temp", min(teacher_temp))):
            if value <= 0:
                raise UserError(f"ssl.{name}={value} is not above 0", key=f"ssl.{name}", value=value)
        local_size = local_size or default_local_size(encoder.img_size[0])
        self.share, self.compares_images = share, share != "third"
        self.extra_views = self.needed_views(
            {"share": share, "view_augment": view_augment, "local_views": local_views, "local_size": local_size},
            img_size=encoder.img_size[0],
        )
        self.student_temp, self.teacher_temp, self.warmup_share = student_temp, teacher_temp, warmup_share
        self.momentum, self.center_momentum, self.frozen_share = momentum, center_momentum, frozen_share
        self.head = DINOHead(encoder.num_features, hidden_dim, bottleneck_dim, out_dim)
        self.teacher = copy.deepcopy(encoder).requires_grad_(False)
        self.teacher_head = copy.deepcopy(self.head).requires_grad_(False)
        if local_views:
            with torch.no_grad():
                self.teacher.eval().forward_crop(torch.zeros(1, encoder.in_chans, local_size, local_size))
        self.register_buffer("center", torch.zeros(1, out_dim))
        self.register_buffer("progress", torch.zeros(()))

    @classmethod
    def needed_views(cls, options: Mapping[str, Any], *, img_size: int) -> list[View | str]:
        """The local views, after both global ones with `share=third`, else after the second one.

        Raises:
            UserError: local views that are not made as DINO's.
        """
        augment, local_views = options["view_augment"], options["local_views"]
        if local_views < 0:
            raise UserError(
                f"ssl.local_views={local_views} is not possible: it must be at least 0",
                key="ssl.local_views",
                value=local_views,
            )
        if augment != "dino" and local_views:
            raise UserError(
                f"ssl.local_views={local_views} needs ssl.view_augment=dino", key="ssl.view_augment", value=augment
            )
        views = pair_of_views(augment, img_size)
        if local_views:
            views = [*dino_views(img_size, local_views, options["local_size"])]
        return views if options["share"] == "third" else views[1:]

    @classmethod
    def alone(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Without a classification there is no image to share: both global views are extra."""
        return dict(options) | ({"share": "third"} if options.get("share") in get_args(Share) else {})

    def begin(self, encoder: Encoder) -> None:
        """The teacher starts as the encoder is."""
        self.teacher.load_state_dict(encoder.state_dict())

    def train(self, mode: bool = True) -> DINO:
        """The teacher stays in evaluation mode: it has neither drop path nor running statistics of its own."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, encoder: Encoder, batch: Batch, with_features: bool) -> TaskOutput:
        """DINO's loss, and the teacher's mean entropy and the divergence from it, which show a collapse."""
        check_views(batch, len(self.extra_views))
        shared = self.share == "shared"
        views = [batch.images, *batch.views] if shared else list(batch.views)
        whole, parts = views[:2], views[2:]
        features = [*encoder.forward_features(torch.cat(whole)).chunk(2)]
        if parts:
            features += [*encoder.forward_crop(torch.cat(parts)).chunk(len(parts))]
        learn = (self.progress >= self.frozen_share).float()
        student = [self.head(view, learn) for view in features]
        with torch.no_grad():
            seen = self.teacher.forward_features(torch.cat(whole))
            logits = self.teacher_head(seen).float()
            teacher = [((view - self.center) / self.temperature()).softmax(1) for view in logits.chunk(2)]
            if self.training:
                self.update_center(logits)
        loss = dino_loss(student, teacher, student_temp=self.student_temp)
        # A collapsed teacher gives all images the same distribution (kl 0), or the uniform one (entropy ln K).
        each = torch.cat(teacher)
        entropy = -(each * each.clamp_min(1e-12).log()).sum(1).mean()
        logs = {"teacher_entropy": entropy, "kl": loss.detach() - entropy}
        classified = None
        if with_features:
            classified = features[0] if shared else encoder.forward_features(batch.images)
        return TaskOutput(loss, classified, logs)

    @torch.no_grad()
    def update_center(self, logits: Tensor) -> None:
        """Move the centre towards the mean of the teacher's `logits` (V * B, K) over the batches of all processes."""
        self.center.lerp_(mean_over_processes(logits.mean(0, keepdim=True)), 1 - self.center_momentum)

    def temperature(self) -> Tensor:
        """The teacher's temperature, a scalar, at this point of the training."""
        start, end = self.teacher_temp
        return start + (end - start) * (self.progress / max(self.warmup_share, 1e-9)).clamp_max(1)

    def after_step(self, encoder: Encoder, progress: float, step: int) -> None:
        """The teacher follows the encoder, and its head the student's head."""
        keep = warmed_up(cosine(self.momentum, 1.0, progress), step)
        follow(self.teacher, encoder, keep)
        follow(self.teacher_head, self.head, keep)
        self.progress.fill_(progress)
