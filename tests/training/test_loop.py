"""What is spared around a step: hooks that do nothing, batches that are in place, attributes that are words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback, LambdaCallback
from torch import nn

from ssat.core.batch import Batch
from ssat.data.image import ImageDataModule
from ssat.data.sets.sources import digits
from ssat.training.callbacks.history import History
from ssat.training.callbacks.meter import Meter
from ssat.training.callbacks.safety import FiniteGuard, Stamp
from ssat.training.callbacks.spare import STEP_HOOKS, has_hook, spare
from tests.training.test_compiled import batch_at, module_with


def test_lightning_calls_only_the_hooks_that_a_callback_has() -> None:
    callable_hooks = {
        kind: [hook for hook in STEP_HOOKS if callable(getattr(kind, hook))]
        for kind in (History, FiniteGuard, Meter, Stamp)
    }
    assert callable_hooks == {
        **{History: ["on_train_batch_end"], FiniteGuard: ["on_train_batch_end"]},
        **{Meter: [], Stamp: []},
    }


def test_a_hook_that_is_written_or_inherited_stays() -> None:
    class Parent(Callback):
        def on_after_backward(self, *args: Any) -> None:
            pass

    @spare
    class Child(Parent):
        def on_train_batch_start(self, *args: Any) -> None:
            pass

    assert [hook for hook in STEP_HOOKS if has_hook(Child(), hook)] == ["on_train_batch_start", "on_after_backward"]


def test_a_hook_that_is_set_later_counts() -> None:
    module, callback = module_with(), LambdaCallback(on_after_backward=lambda *_: None)
    assert [hook for hook in STEP_HOOKS if has_hook(callback, hook)] == ["on_after_backward"]
    assert [hook for hook in STEP_HOOKS if has_hook(module, hook)] == ["on_train_batch_start"]
    module.on_after_backward = lambda: None  # type: ignore[method-assign]
    assert has_hook(module, "on_after_backward")


def test_a_batch_that_is_on_the_device_stays_and_another_moves() -> None:
    data, batch = ImageDataModule(digits(), img_size=16), batch_at(0)
    assert data.transfer_batch_to_device(batch, torch.device("cpu"), 0) is batch
    mixed = Batch(batch.images, batch.targets, views=(batch.images.to("meta"),))
    for given in (batch, mixed):
        moved = data.transfer_batch_to_device(given, torch.device("meta"), 0)
        assert {moved.images.device.type, *(view.device.type for view in moved.views)} == {"meta"}


def test_attributes_are_those_of_any_module() -> None:
    module = module_with()
    module.eval_split = "test"
    module.eval_split = None  # type: ignore[assignment]
    assert module.eval_split is None
    assert "eval_split" in vars(module)
    module.compiled = nn.Linear(2, 2)  # type: ignore[assignment]
    assert module.compiled is module._modules["compiled"]
    module.compiled = None
    assert module.compiled is None
    with pytest.raises(TypeError, match="cannot assign"):
        module.encoder = "vit"  # type: ignore[assignment]
