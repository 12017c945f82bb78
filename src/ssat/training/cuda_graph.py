"""`trainer.cuda_graph`: forward, backward, clipping and the optimizer's step as one CUDA graph that is replayed.

Only `record_cuda` needs a GPU; what goes into a graph, when, and what does not is plain code.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from ssat.core.batch import Batch
from ssat.core.launch import say
from ssat.training.callbacks.spare import looks_between
from ssat.training.compiled import reason_of
from ssat.training.optim import loader_batch_size
from ssat.training.steps import Losses, Progress, Step

WARM_UP = 3  # steps before the recording: libraries choose their kernels, and the optimizer makes its state
SYNCHRONISES = "synchronizing CUDA operation"  # how torch's debug mode begins its warning: "called a ..."

# From a step that reads and writes fixed tensors to what repeats it.
Record = Callable[[Callable[[], None]], Callable[[], None]]


@dataclass
class Replays:
    """What became of it, for the record of a phase.

    Attributes:
        used: steps are replayed.
        replayed: so many; the others were computed one by one: the first ones, and batches of another size.
        others: so many.
        reason: why there is no graph.
    """

    used: bool = False
    replayed: int = 0
    others: int = 0
    reason: str | None = None


def refusal(
    *,
    device: torch.device,
    processes: int,
    accumulate: int,
    precision: str,
    optimizer: Optimizer,
    reads_gradients: bool,
    callbacks: Sequence[Callback],
) -> str | None:
    """Why the steps of a training cannot be one graph, as the end of a sentence; None where they can.

    Args:
        device: of the training.
        processes: of the training.
        accumulate: batches of a step.
        precision: as `pl.Trainer` has it.
        optimizer: of the training.
        reads_gradients: the weights of the losses follow from their gradients, or the angle between these is logged.
        callbacks: of the training.
    """
    watching = [type(callback).__name__ for callback in callbacks if looks_between(callback)]
    reasons = {
        f"the device is {device.type}, and only CUDA has graphs": device.type != "cuda",
        f"{processes} processes exchange their gradients": processes > 1,
        f"trainer.accumulate={accumulate} makes a step of several batches": accumulate > 1,
        "trainer.precision=16 scales the loss by what the host reads: use bf16": precision.startswith("16"),
        "recipe.optimizer is not adamw": not isinstance(optimizer, AdamW),
        "mode.lam_schedule=balanced and monitor.conflict_every read the gradients within a step": reads_gradients,
        f"the callback {', '.join(dict.fromkeys(watching))} looks into a step": bool(watching),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def move_to_device(optimizer: Optimizer, device: torch.device) -> None:
    """Learning rates and step counts become tensors there, and AdamW its fused form: the host decides nothing.

    A scheduler then fills the tensors in place (`torch.optim.lr_scheduler`).
    """
    for group in optimizer.param_groups:
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32).to(device, copy=True)
        if device.type == "cuda":
            group |= {"fused": True, "foreach": False, "capturable": True}
    for state in optimizer.state.values():
        if "step" in state:
            state["step"] = torch.as_tensor(state["step"], dtype=torch.float32).to(device)


class StaticBatch:
    """Tensors of fixed places, into which batches of one form are copied.

    Args:
        first: a batch of this form.
    """

    def __init__(self, first: Batch) -> None:
        self.batch = _mapped(first, torch.clone)
        self.form = form_of(first)

    def take(self, batch: Batch) -> None:
        """Copy a batch of the same form, without waiting."""
        for own, given in zip(_tensors(self.batch), _tensors(batch), strict=True):
            own.copy_(given, non_blocking=True)


def _tensors(batch: Batch) -> list[Tensor]:
    views, others = batch.views, [*batch._replace(views=())]
    return [value for value in (*others, *views) if isinstance(value, Tensor)]


def _mapped(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    values = {name: change(value) for name, value in batch._asdict().items() if isinstance(value, Tensor)}
    return batch._replace(**values, views=tuple(change(view) for view in batch.views))


def form_of(batch: Batch) -> tuple[Any, ...]:
    """Which parts a batch has, and their shapes, types and places: a graph is of one form."""
    present = tuple(value is not None for value in batch)
    return present, tuple((tuple(value.shape), value.dtype, str(value.device)) for value in _tensors(batch))


def host_randomness() -> tuple[Any, ...]:
    """What changes when random numbers are drawn on the host, which a graph would not repeat."""
    kind, keys, *rest = np.random.get_state()
    return random.getstate(), kind, keys.tobytes(), tuple(rest), torch.get_rng_state().numpy().tobytes()  # type: ignore


def whole_step(losses: Losses, optimizer: Optimizer, clip: float | None, batch: Batch, progress: Progress) -> Step:
    """One optimizer step on a mixed batch: its loss and what `EpochMeans` takes of it, without gradients.

    Args:
        losses: Eq. 1.
        optimizer: of the parameters.
        clip: largest norm of the gradient, None or 0 = any.
        batch: of images and what belongs to them.
        progress: of the training.
    """
    optimizer.zero_grad(set_to_none=True)
    loss, values = losses(batch, progress)
    with torch.autocast(loss.device.type, enabled=False):
        loss.backward()
    if clip:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()
    return loss.detach(), {name: value.detach() for name, value in values.items()}


def record_cuda(step: Callable[[], None]) -> Callable[[], None]:
    """Record what `step` launches as a CUDA graph, without computing it; gives what launches all of it at once.

    Raises:
        RuntimeError: something of it cannot be recorded.
    """
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()  # the graph has memory of its own
    with torch.cuda.graph(graph):
        step()
    return graph.replay


class ReplayedStep:
    """The optimizer steps of a training, replayed where a batch has the usual form and computed one by one elsewhere.

    Args:
        losses: Eq. 1 of a mixed batch.
        optimizer: prepared by `move_to_device`.
        clip: largest norm of the gradient, None or 0 = any.
        images: of a full batch.
        record: how a step is recorded; another one than CUDA's serves tests.
    """

    def __init__(
        self,
        losses: Losses,
        optimizer: Optimizer,
        *,
        clip: float | None,
        images: int,
        record: Record = record_cuda,
    ) -> None:
        self.losses, self.optimizer, self.clip, self.images, self.record = losses, optimizer, clip, images, record
        self.outcome = Replays(used=True)
        self._warm = 0
        self._form: tuple[Any, ...] = ()
        self._static: StaticBatch | None = None
        self._lam: Tensor | None = None
        self._replay: Callable[[], None] = lambda: None
        self._names: list[str] = []
        self._results = torch.empty(0)

    def __call__(self, batch: Batch, progress: Progress) -> Step:
        """One whole step on a mixed batch; gives its loss and values, which later steps leave alone."""
        if not self.outcome.used or len(batch.images) != self.images:
            return self._one_by_one(batch, progress)
        form = form_of(batch)
        if self._static is None:
            if form != self._form:
                self._form, self._warm = form, 0
            if self._warm < WARM_UP:
                return self._warm_up(batch, progress)
            self._begin(batch, progress)
        if self._static is None or form != self._static.form:
            return self._one_by_one(batch, progress)
        self._static.take(batch)
        if self._lam is not None and progress.lam is not None:
            self._lam.copy_(progress.lam)
        self._replay()
        self.outcome.replayed += 1
        loss, *values = self._results.clone().unbind()  # one copy: the next step overwrites them
        return loss, dict(zip(self._names, values, strict=True))

    def _one_by_one(self, batch: Batch, progress: Progress) -> Step:
        self.outcome.others += 1
        return whole_step(self.losses, self.optimizer, self.clip, batch, progress)

    def _warm_up(self, batch: Batch, progress: Progress) -> Step:
        self._warm += 1
        if self._warm < WARM_UP:
            with _side_stream(batch.images.device):
                return self._one_by_one(batch, progress)
        before = host_randomness()
        with _side_stream(batch.images.device), _watching_waits(batch.images.device) as waits:
            step = self._one_by_one(batch, progress)
        if batch.images.device.type == "cuda" and host_randomness() != before:
            self._give_up("the step draws random numbers on the host")
        elif waits:
            self._give_up(f"the step waits for the device at {waits[0]}")
        return step

    def _give_up(self, reason: str) -> None:
        self.outcome.used, self.outcome.reason = False, reason
        say(line(reason))

    def _begin(self, batch: Batch, progress: Progress) -> None:
        """Record the step."""
        static = StaticBatch(batch)
        self._lam = None if progress.lam is None else progress.lam.clone()
        given = progress._replace(lam=self._lam)

        def step() -> None:
            loss, values = whole_step(self.losses, self.optimizer, self.clip, static.batch, given)
            self._names = list(values)
            results = torch.stack([loss.float(), *(value.float() for value in values.values())])
            if self._results.shape == results.shape:
                self._results.copy_(results)
            else:
                self._results = results

        self.optimizer.zero_grad(set_to_none=True)  # so that the gradients lie in the graph's own memory
        try:
            self._replay = self.record(step)
        except RuntimeError as error:
            self._give_up(reason_of(error))
            return
        self._static = static


def line(reason: str) -> str:
    """What a training without a graph says, once."""
    return f"trainer.cuda_graph=true: every step is launched piece by piece, since {reason}"


@contextmanager
def _side_stream(device: torch.device) -> Iterator[None]:
    """CUDA wants the steps before a recording on another stream than the usual one."""
    if device.type != "cuda":
        yield
        return
    usual, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    side.wait_stream(usual)
    with torch.cuda.stream(side):
        yield
    usual.wait_stream(side)


@contextmanager
def _watching_waits(device: torch.device) -> Iterator[list[str]]:
    """Collects the lines of code that wait for the device, of what is computed inside; none elsewhere than on CUDA."""
    seen: list[str] = []
    if device.type != "cuda":
        yield seen
        return
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield seen
        finally:
            torch.cuda.set_sync_debug_mode(before)
    seen += [f"{each.filename}:{each.lineno}" for each in caught if SYNCHRONISES in str(each.message)]


def planned(module: Any, trainer: pl.Trainer) -> tuple[Replays, ReplayedStep | None]:
    """What takes the steps of a `JointModule`'s training that begins; None where `refusal` says why, which is said.

    Raises:
        UserError: the training loader does not tell how large a batch is.
    """
    optimizer = trainer.optimizers[0]
    reason = refusal(
        device=module.device,
        processes=trainer.world_size,
        accumulate=trainer.accumulate_grad_batches,
        precision=str(trainer.precision),
        optimizer=optimizer,
        reads_gradients=module.weighing.reads_gradients,
        callbacks=trainer.callbacks,  # type: ignore[attr-defined]
    )
    if reason:
        say(line(reason))
        return Replays(reason=reason), None
    move_to_device(optimizer, module.device)
    losses = module.losses if module.compiled is None else module.compiled
    step = ReplayedStep(losses, optimizer, clip=trainer.gradient_clip_val, images=loader_batch_size(trainer))
    return step.outcome, step
