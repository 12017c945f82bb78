"""`trainer.compile`: forward and losses of a training step by torch.compile, as far as that is possible."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from ssat.core.batch import Batch
from ssat.core.launch import say
from ssat.training.steps import Losses, Progress, Step

How = Literal["one graph", "pieces", "eager"]

START = Progress(0, 0.0)  # nothing compiled reads it: numbers that move come as tensors


@dataclass
class Compilation:
    """What became of it, for the record.

    Attributes:
        how: `one graph`; `pieces` = several graphs with Python between them; `eager` = nothing was compiled; None = no
            step was taken.
        graphs: how many there are.
        reason: why it is not one graph.
    """

    how: How | None = None
    graphs: int = 0
    reason: str | None = None


class CompiledLosses:
    """`losses` compiled for batches of one size; smaller ones, the last of an epoch, run as they are.

    What cannot be traced as a whole is compiled in pieces, and what cannot be compiled at all stays eager: one line
    says so. Random numbers are those of the eager step.

    Args:
        losses: of a mixed batch; see `JointModule.losses`.
        module: whose buffers `losses` changes; `draws` of a task, for example.
        moves: the weight of L_cls is another one at every step.
        backend: of torch.compile.
    """

    def __init__(self, losses: Losses, module: nn.Module, *, moves: bool = False, backend: str = "inductor") -> None:
        self.losses, self.module, self.moves, self.backend = losses, module, moves, backend
        self.outcome = Compilation()
        torch.compiler.reset()  # what earlier runs of a sweep compiled counts towards the limit of this one
        self._compiled = self._compile(fullgraph=True)
        self._images = 0  # of the batches that it was compiled for

    def _compile(self, *, fullgraph: bool) -> Callable[..., Step]:
        # Inductor's own random numbers would make another training of it.
        options: Any = {"fallback_random": True} if self.backend == "inductor" else None
        compiled: Callable[..., Step] = torch.compile(
            self.losses, fullgraph=fullgraph, dynamic=False, backend=self.backend, options=options
        )
        return compiled

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledLosses:
        """Of a copied module: compiled code knows the first one only."""
        losses, module = copy.deepcopy(self.losses, memo), copy.deepcopy(self.module, memo)
        return CompiledLosses(losses, module, moves=self.moves, backend=self.backend)

    def __call__(self, batch: Batch, progress: Progress) -> Step:
        """The joint loss and its parts; where lam moves, `progress.lam` is its tensor."""
        if self.outcome.how == "eager" or len(batch.images) < self._images:
            return self.losses(batch, progress)
        before = self.outcome
        known = before.how is not None and len(batch.images) == self._images
        step = (self._try(batch, progress) if known else None) or self._settle(batch, progress)
        if self.outcome is not before:
            say(_line(self.outcome))
        return step

    def _settle(self, batch: Batch, progress: Progress) -> Step:
        """The first step of its size, compiled as far as that is possible."""
        if not self._images and self.backend == "inductor":
            say("trainer.compile=true: compiling the training step, which takes one or two minutes")
        self._images = len(batch.images)
        while self.outcome.how != "eager":
            graphs = _graphs()
            with _kept(self.module) as restore:
                if step := self._try(batch, progress):
                    self.outcome.how = self.outcome.how or "one graph"
                    self.outcome.graphs += _graphs() - graphs
                    return step
                restore()
        return self.losses(batch, progress)

    def _try(self, batch: Batch, progress: Progress) -> Step | None:
        """The compiled step; None where compiling fails, and then the next call tries less."""
        given = START._replace(lam=progress.lam) if self.moves else START
        try:
            with _backward_too():
                return self._compiled(batch, given)
        except compile_errors() as error:
            traced = is_about_tracing(error) and self.outcome.how != "pieces"
            self.outcome = Compilation("pieces" if traced else "eager", 0, reason_of(error))
            self._compiled = self._compile(fullgraph=False)
            return None


@contextmanager
def _backward_too() -> Iterator[None]:
    """Compile the backward graph with the forward one: in the backward pass a failure would end the training."""
    from torch._functorch import config

    if not hasattr(config, "force_non_lazy_backward_lowering"):  # older versions
        yield
        return
    with config.patch(force_non_lazy_backward_lowering=True):
        yield


def _line(outcome: Compilation) -> str:
    left = (
        "is compiled in pieces, which is slower than as one graph"
        if outcome.how == "pieces"
        else "cannot be compiled and runs as without it"
    )
    return f"trainer.compile=true: the training step {left}: {outcome.reason}"


def compile_errors() -> tuple[type[Exception], ...]:
    """What torch.compile raises where it cannot compile."""
    from torch._dynamo import exc
    from torch._inductor import exc as inductor

    return (
        exc.TorchDynamoException,
        exc.FailOnRecompileLimitHit,
        inductor.InvalidCxxCompiler,
        inductor.CppCompileError,
        inductor.OperatorIssue,
    )


def is_about_tracing(error: Exception) -> bool:
    """Whether the code cannot be traced, and not what was traced be compiled."""
    from torch._dynamo import exc

    return isinstance(error, (exc.TorchDynamoException, exc.FailOnRecompileLimitHit)) and not isinstance(
        error, (exc.BackendCompilerFailed, exc.ShortenTraceback, exc.InvalidBackend)
    )


def reason_of(error: BaseException) -> str:
    """An error's first line that says something, for a sentence."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.endswith("raised:")]
    return f"{type(error).__name__}: {lines[0].strip():.200}" if lines else type(error).__name__


def _graphs() -> int:
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


@contextmanager
def _kept(module: nn.Module) -> Iterator[Callable[[], None]]:
    """What puts buffers and generators back: of a step in pieces, some have run when one cannot be compiled."""
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    devices = list({buffer.device.index for buffer in buffers.values() if buffer.device.type == "cuda"})
    generators = torch.get_rng_state(), [torch.cuda.get_rng_state(device) for device in devices]

    def restore() -> None:
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                buffer.copy_(buffers[name])
        torch.set_rng_state(generators[0])
        for device, state in zip(devices, generators[1], strict=True):
            torch.cuda.set_rng_state(state, device)

    yield restore
