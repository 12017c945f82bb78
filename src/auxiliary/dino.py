"""DINO (Caron et al. 2021) as auxiliary task (Table 4)."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.auxiliary.base import SSLOutput, SSLTask, check_views
from src.auxiliary.gather import mean_over_processes
from src.auxiliary.teacher import cosine, follow
from src.batch import Batch
from src.encoders.base import Encoder
from src.errors import UserError

SHARES = ("shared", "third")


def dino_loss(student: list[Tensor], teacher: list[Tensor], *, student_temp: float) -> Tensor:
    """Mean cross-entropy over the pairs of one teacher's and one student's view that are not the same view.

    Args:
        student: logits (B, K) of every view, the teacher's views first.
        teacher: probabilities (B, K) of the global views.
    """
    logs = [F.log_softmax(logits.float() / student_temp, dim=1) for logits in student]
    pairs = [-(t * s).sum(1).mean() for i, t in enumerate(teacher) for j, s in enumerate(logs) if i != j]
    return torch.stack(pairs).mean()


class DINOHead(nn.Module):
    """Three linear layers with GELU, then cosine similarities to K prototypes; thrown away at inference."""

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
        """Features (B, D) to logits (B, K); the gradient of the prototypes is multiplied by `learn` ()."""
        prototypes = F.normalize(self.prototypes, dim=1)
        if learn is not None:
            # Of zero and not none, for which DDP would wait; and the host need not know the value.
            fixed = prototypes.detach()
            prototypes = fixed + learn * (prototypes - fixed)
        return F.linear(F.normalize(self.mlp(x), dim=1), prototypes)


class DINO(SSLTask):
    """The student is to give every view the distribution that its moving average gives to the other global views.

    Args:
        encoder: the teacher starts as a copy of it.
        hidden_dim, bottleneck_dim, out_dim: of the head; K = `out_dim`.
        local_views: small crops that only the student sees.
        local_size: their side in pixels.
        share: `shared` = the classification images are the first global view; `third` = both are extra views.
        student_temp: temperature of the student.
        teacher_temp: of the teacher, at the start and after `warmup_share` of the training, in between linear.
        momentum: of the teacher's moving average at the start; it rises to 1 along a cosine.
        center_momentum: of the moving average of the teacher's logits that is subtracted from them.
        frozen_share: of the training at whose start the prototypes stay as they are.
        seed: unused, the views carry the randomness.

    Raises:
        UserError: an unknown `share`, a temperature that is not above 0, or local crops that the encoder cannot hold.
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
        local_size: int = 0,
        share: str = "shared",
        student_temp: float = 0.1,
        teacher_temp: tuple[float, float] = (0.04, 0.04),
        warmup_share: float = 0.1,
        momentum: float = 0.996,
        center_momentum: float = 0.9,
        frozen_share: float = 0.01,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if share not in SHARES:
            raise UserError(f"ssl.share={share!r} is not one of {', '.join(SHARES)}")
        for name, value in (("student_temp", student_temp), ("teacher_temp", min(teacher_temp))):
            if value <= 0:
                raise UserError(f"ssl.{name}={value} is not above 0")
        if local_views < 0:
            raise UserError(f"ssl.local_views={local_views} is not possible: it must be at least 0")
        self.share, self.views = share, local_views + (2 if share == "third" else 1)
        self.local_views, self.local_size = local_views, local_size
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

    def blank_views(self, images: Tensor) -> tuple[Tensor, ...]:
        whole = super().blank_views(images)[: self.views - self.local_views]
        return whole + (images.new_zeros(*images.shape[:2], self.local_size, self.local_size),) * self.local_views

    def begin(self, encoder: Encoder) -> None:
        self.teacher.load_state_dict(encoder.state_dict())

    def train(self, mode: bool = True) -> DINO:
        # The teacher has neither drop path nor running statistics of its own.
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, encoder: Encoder, batch: Batch, with_features: bool) -> SSLOutput:
        check_views(batch, self.views)
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
        # Collapse shows in the teacher: the same answer for all images, or no answer at all.
        each = torch.cat(teacher)
        entropy = -(each * each.clamp_min(1e-12).log()).sum(1).mean()
        logs = {"teacher_entropy": entropy, "kl": loss.detach() - entropy}
        classified = None
        if with_features:
            classified = features[0] if shared else encoder.forward_features(batch.images)
        return SSLOutput(loss, classified, logs)

    @torch.no_grad()
    def update_center(self, logits: Tensor) -> None:
        """Towards the mean of the teacher's `logits` (V * B, K) over the views and the batches of all processes."""
        self.center.lerp_(mean_over_processes(logits.mean(0, keepdim=True)), 1 - self.center_momentum)

    def temperature(self) -> Tensor:
        """The teacher's at this point of the training."""
        start, end = self.teacher_temp
        return start + (end - start) * (self.progress / max(self.warmup_share, 1e-9)).clamp_max(1)

    def after_step(self, encoder: Encoder, progress: float) -> None:
        keep = cosine(self.momentum, 1.0, progress)
        follow(self.teacher, encoder, keep)
        follow(self.teacher_head, self.head, keep)
        self.progress.fill_(progress)
