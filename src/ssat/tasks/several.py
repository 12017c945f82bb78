"""Several self-supervised tasks at once."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.encoders.base import Encoder
from ssat.tasks.base import Task, TaskOutput


class Several(Task):
    """The weighted sum of the losses of several tasks on the same images: L_SSAT = sum of w_i L_i, sum of w_i = 1.

    The classification features come from the first task that makes a full pass anyway. What one of the tasks needs of
    the data or the encoder, the sum needs too.

    Args:
        tasks: by name; at most one of them may need extra views.
        weights: by name, above 0, with sum 1; None = equal ones.

    Raises:
        UserError: weights that do not name the tasks or do not sum to 1; two tasks with extra views.
    """

    def __init__(self, tasks: Mapping[str, Task], weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        names = list(tasks)
        weights = dict(weights) if weights else dict.fromkeys(names, 1 / len(names))
        if set(weights) != set(names):
            raise UserError(
                f"ssl.weights={weights} must name the tasks {', '.join(names)}, each of them once",
                key="ssl.weights",
                value=weights,
            )
        if min(weights.values()) <= 0 or not math.isclose(sum(weights.values()), 1, abs_tol=1e-3):
            raise UserError(
                f"ssl.weights={weights} must be above 0 and sum to 1, not to {sum(weights.values()):g}",
                key="ssl.weights",
                value=weights,
            )
        viewing = [name for name, task in tasks.items() if task.extra_views]
        if len(viewing) > 1:
            raise UserError(
                f"ssl tasks {' and '.join(viewing)} both need extra views of their own: choose one of them",
                key="ssl",
                value=viewing,
            )
        self.tasks, self.weights = nn.ModuleDict(tasks), weights
        self.extra_views = [view for task in tasks.values() for view in task.extra_views]
        self.reads_unmixed = any(task.reads_unmixed for task in tasks.values())
        self.compares_images = any(task.compares_images for task in tasks.values())
        self.min_batch = max(task.min_batch for task in tasks.values())
        self.masked = any(task.masked for task in tasks.values())
        self.full = any(task.full for task in tasks.values())
        self.classifier = next((name for name, task in tasks.items() if task.full), names[0])
        self.some_features = tasks[self.classifier].some_features

    def forward(self, encoder: Encoder, batch: Batch, with_features: bool) -> TaskOutput:
        """The weighted sum, and what each task logs, by its name."""
        losses, features = [], None
        logs: dict[str, Tensor] = {}
        for name, task in self.tasks.items():
            out: TaskOutput = task(encoder, batch, with_features and name == self.classifier)
            losses.append(self.weights[name] * out.loss)
            features = out.features if out.features is not None else features
            logs |= {f"{name}/{key}": value for key, value in out.logs.items()} | {f"{name}/loss": out.loss.detach()}
        return TaskOutput(torch.stack(losses).sum(), features, logs)

    def resize(self, encoder: Encoder) -> None:
        """`resize` of every task."""
        for task in self.tasks.values():
            task.resize(encoder)  # type: ignore[operator]

    def begin(self, encoder: Encoder) -> None:
        """`begin` of every task."""
        for task in self.tasks.values():
            task.begin(encoder)  # type: ignore[operator]

    def after_step(self, encoder: Encoder, progress: float, step: int) -> None:
        """`after_step` of every task."""
        for task in self.tasks.values():
            task.after_step(encoder, progress, step)  # type: ignore[operator]
