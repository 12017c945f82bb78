"""Lightning calls every hook of every callback at every step; a hook that does nothing need not be one."""

from __future__ import annotations

from typing import Any, TypeVar

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

BETWEEN_HOOKS = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")
STEP_HOOKS = ("on_train_batch_start", *BETWEEN_HOOKS, "on_train_batch_end")
Kind = TypeVar("Kind", bound=type[Callback])


def has_hook(owner: Any, hook: str) -> bool:
    """Whether a callback or a module does something at this hook, by its class or as it is."""
    own, base = getattr(owner, hook), Callback if isinstance(owner, Callback) else pl.LightningModule
    return own is not None and getattr(own, "__func__", own) is not getattr(base, hook)


def looks_between(owner: Any) -> bool:
    """Whether a callback or a module looks between two parts of a step."""
    return any(has_hook(owner, hook) for hook in BETWEEN_HOOKS)


def spare(kind: Kind) -> Kind:
    """None for the hooks of a step that a class does not have: Lightning passes over what it cannot call."""
    for hook in STEP_HOOKS:
        if getattr(kind, hook) is getattr(Callback, hook):
            setattr(kind, hook, None)
    return kind
