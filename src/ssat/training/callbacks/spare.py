"""Lightning calls every hook of every callback at every step; a hook that does nothing need not be one."""

from __future__ import annotations

from typing import TypeVar

from lightning.pytorch.callbacks import Callback

STEP_HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
Kind = TypeVar("Kind", bound=type[Callback])


def has_hook(callback: Callback, hook: str) -> bool:
    """Whether a callback does something at this hook."""
    return getattr(type(callback), hook) not in (None, getattr(Callback, hook))


def spare(kind: Kind) -> Kind:
    """None for the hooks of a step that a class does not have: Lightning passes over what it cannot call."""
    for hook in STEP_HOOKS:
        if getattr(kind, hook) is getattr(Callback, hook):
            setattr(kind, hook, None)
    return kind
