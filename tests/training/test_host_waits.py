"""What a training step reads from a GPU or sends there: nothing, for the host must not wait. Tensors without data show
it on any machine.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ssat.core.batch import Batch
from ssat.encoders.vit import VisionTransformer
from ssat.training.cuda_graph import host_randomness
from ssat.training.module import JointModule
from ssat.training.steps import Progress
from ssat.training.weighing import LamSchedule


class Transfers(TorchDispatchMode):
    """Collects copies between devices."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        devices = {tensor.device.type for tensor in tree_leaves((args, out)) if isinstance(tensor, Tensor)}
        if "copy" in str(func) and len(devices) > 1:
            self.seen.append(str(func))
        return out


def on_a_gpu(module: nn.Module) -> None:
    """Replace what the module holds by tensors without data that say they lie on a GPU; within a `FakeTensorMode`."""
    for part in module.modules():
        for held in (part._parameters, part._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
                    held[name] = nn.Parameter(fake, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else fake


def steps(module: JointModule, images: int = 8) -> Transfers:
    """Two steps of forward, losses and running means on a GPU that is not there."""
    with FakeTensorMode(), Transfers() as transfers:
        on_a_gpu(module)
        with torch.device("cuda"):
            shape = (images, 3, 16, 16)
            views = tuple(torch.empty(shape) for _ in (module.ssl.extra_views if module.ssl else ()))
            targets = torch.zeros(images, dtype=torch.int64)
            batch = Batch(torch.empty(shape), targets, views, indices=torch.arange(images))
        transfers.seen.clear()
        for number in range(2):
            _, values = module.joint_step(batch, Progress(number, 0.5))
            module.means.add(values, images)
    return transfers


def module_with(task: dict[str, Any] | None, **options: Any) -> JointModule:
    encoder = VisionTransformer(16, 4, embed_dim=32, depth=2, num_heads=2, drop_path=0.1)
    return JointModule(encoder, num_classes=4, ssl=task, **options)


TASKS = [
    {"kind": "reconstruction"},
    {"kind": "reconstruction", "mask": "block"},
    {"kind": "latent", "blocks": 2},
    {"kind": "simclr"},
    {"kind": "dino"},
    {"kind": "drloc"},
    None,
]


@pytest.mark.sampled
@pytest.mark.parametrize("task", TASKS, ids=str)
def test_a_step_copies_nothing_between_host_and_device(task: dict[str, Any] | None) -> None:
    module, before = module_with(task), host_randomness()
    assert steps(module).seen == []
    assert host_randomness() == before  # nor does it draw where a graph would not


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": LamSchedule("cosine", 0.9)},
        {"partly_labelled": True},
        {"focal_gamma": 2.0, "label_smoothing": 0.0},
    ],
    ids=str,
)
def test_no_option_of_the_losses_makes_the_host_wait(options: dict[str, Any]) -> None:
    assert steps(module_with({"kind": "reconstruction"}, **options)).seen == []


def test_a_step_that_waits_is_found() -> None:
    module = module_with(None)
    module.cls_loss = lambda logits, batch: logits.sum() * float(logits.detach().sum())  # type: ignore[assignment]
    with pytest.raises(DataDependentOutputException):
        steps(module)


def test_the_labelled_images_of_a_batch_are_found_without_waiting() -> None:
    module = module_with({"kind": "reconstruction"}, partly_labelled=True)
    module.labelled_per_batch = 4
    assert module.some_features
    assert steps(module).seen == []
