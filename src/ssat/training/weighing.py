"""How Eq. 1 weighs the two losses in the course of a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ssat.core.errors import UserError
from ssat.core.schedules import cosine
from ssat.encoders.base import Encoder
from ssat.training.gradients import LossGradients
from ssat.training.steps import Progress

LAM = 0.1  # section 5
SCHEDULES = ("constant", "linear", "cosine", "balanced")
BALANCE_MEMORY = 0.9  # of the moving average of the gradients' ratio


@dataclass(frozen=True)
class LamSchedule:
    """How the weight of L_cls moves in the course of a training.

    Attributes:
        kind: `constant`; `linear` or `cosine` from the first lam to `end`; `balanced` = constant, L_SSAT being scaled
            so that both losses' gradients on the encoder are equally long before lam weighs them.
        end: lam at the end of `linear` and `cosine`.
        every: steps between two measurements of the gradients for `balanced`.

    Raises:
        UserError: an unknown kind, or `linear` or `cosine` without an end.
    """

    kind: str = "constant"
    end: float | None = None
    every: int = 10

    def __post_init__(self) -> None:
        if self.kind not in SCHEDULES:
            raise UserError(f"LamSchedule(kind={self.kind!r}) is not possible: it is one of {', '.join(SCHEDULES)}")
        if self.kind in ("linear", "cosine") and self.end is None:
            raise UserError(f"LamSchedule(kind={self.kind!r}) has no end: give the last lam, end=...")

    def lam(self, start: float, progress: float) -> float:
        """lam when the share `progress` of the training's steps is done."""
        end = start if self.end is None else self.end
        if self.kind == "linear":
            return start + (end - start) * progress
        return cosine(start, end, progress) if self.kind == "cosine" else start


def lam_of(lam: float | None, ssl: Any, num_classes: int | None) -> float:
    """The weight of L_cls: `lam`, or where it is None 0.1 with a task `ssl` and 1 without.

    Raises:
        UserError: a weight for a loss that cannot be computed.
    """
    if lam is None:
        lam = 1.0 if ssl is None else LAM
    if not 0 <= lam <= 1:
        raise UserError(f"lam={lam:g} is outside [0, 1]: it is the weight of the classification loss")
    if lam < 1 and ssl is None:
        raise UserError(f"lam={lam:g} weighs a self-supervised task with {1 - lam:g}, and there is none: give ssl=...")
    if lam > 0 and not num_classes:
        raise UserError(f"lam={lam:g} needs labels: give num_classes=..., or set lam=0 to learn without any")
    return lam


class Weights(NamedTuple):
    """Of one step.

    Attributes:
        lam: of L_cls; L_SSAT has 1 - lam.
        scale: of L_SSAT, before 1 - lam weighs it.
        logs: what moves, and `conflict/<layer>`, the cosines of the losses' gradients, with `conflict_count` at a step
            at which they are watched.
    """

    lam: float | Tensor
    scale: float | Tensor
    logs: dict[str, Tensor]


class Weighing:
    """The weights of both losses at every step.

    Args:
        encoder: whose gradients are measured where something asks for them.
        lam: the first weight of L_cls; 1 or 0 = there is only one loss.
        schedule: of lam; None = constant.
        watch_every: steps between two measurements of the angle between the losses' gradients; 0 = none.
        state: the module whose buffer `balance`, in every checkpoint, is the moving ratio of the gradients' lengths.

    Raises:
        UserError: a schedule with one loss only.
    """

    def __init__(
        self, encoder: Encoder, lam: float, schedule: LamSchedule | None, *, watch_every: int, state: nn.Module
    ) -> None:
        schedule = schedule or LamSchedule()
        self.encoder, self.lam, self.schedule = encoder, lam, schedule
        self.watch_every, self.state = watch_every, state
        if schedule.kind != "constant" and not 0 < lam < 1:
            raise UserError(
                f"a {schedule.kind} schedule of lam needs both losses: set lam between 0 and 1, not {lam:g}"
            )
        if schedule.kind == "balanced":
            state.register_buffer("balance", torch.zeros(()))

    @property
    def moves(self) -> bool:
        """Whether lam is another one at every step."""
        return self.schedule.kind in ("linear", "cosine") and 0 < self.lam < 1

    @property
    def reads_gradients(self) -> bool:
        """Whether a step's gradients are read more than once."""
        return 0 < self.lam < 1 and (self.schedule.kind == "balanced" or self.watch_every > 0)

    def lam_at(self, progress: Progress) -> float:
        """The weight of L_cls at this step."""
        return self.schedule.lam(self.lam, progress.share) if self.moves else self.lam

    def at(self, progress: Progress, cls_loss: Tensor, ssl_loss: Tensor) -> Weights:
        """The weights at this step; the gradients of the losses (scalars) are measured only if something reads them."""
        if not 0 < self.lam < 1:
            return Weights(self.lam, 1.0, {})
        gradients = LossGradients(self.encoder, cls_loss, ssl_loss)
        logs: dict[str, Tensor] = {}
        if _due(progress, self.watch_every):
            logs = {f"conflict/{layer}": cosine for layer, cosine in gradients.cosines().items()}
            logs["conflict_count"] = cls_loss.new_ones(())
        if self.schedule.kind == "constant":
            return Weights(self.lam, 1.0, logs)
        if self.schedule.kind == "balanced":
            balance = self._balance(gradients, progress)
            return Weights(self.lam, balance, logs | {"balance": balance})
        lam = self.lam_at(progress) if progress.lam is None else progress.lam
        logged = lam.clone() if isinstance(lam, Tensor) else cls_loss.new_full((), lam)
        return Weights(lam, 1.0, logs | {"lam": logged})

    def _balance(self, gradients: LossGradients, progress: Progress) -> Tensor:
        balance = self.state.get_buffer("balance")
        if _due(progress, self.schedule.every):
            ratio = gradients.ratio()
            moved = balance.lerp(ratio, 1 - BALANCE_MEMORY)
            balance.copy_(torch.where(balance == 0, ratio, moved))
        return balance


def _due(progress: Progress, every: int) -> bool:
    return every > 0 and progress.batches % every == 0
