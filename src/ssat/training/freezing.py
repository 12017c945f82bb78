"""Which parameters do not learn."""

from __future__ import annotations

from torch import nn

from ssat.encoders.base import Encoder
from ssat.tasks.base import Task


def freeze(encoder: Encoder) -> list[nn.Parameter]:
    """Stop the whole encoder from learning; returns the parameters that did learn."""
    learning = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    return learning


def freeze_unread(encoder: Encoder, head: nn.Module | None, ssl: Task | None) -> None:
    """Freeze what no pass of this training reads; DDP waits for the gradient of every trainable parameter."""
    unread: set[str] = set()
    if ssl is None or not ssl.masked:
        unread |= encoder.only_masked()
    if head is None and ssl is not None and not ssl.full:
        unread |= encoder.only_full()
    for name, parameter in encoder.named_parameters():
        if name in unread:
            parameter.requires_grad_(False)
