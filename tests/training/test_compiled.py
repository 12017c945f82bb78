"""trainer.compile: one graph where there can be one, the numbers of the eager step, and what it says where not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_compiler, nop
from torch._dynamo.backends.common import aot_autograd
from torch._inductor import config as inductor
from torch._inductor.exc import CppCompileError

from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.encoders.base import Encoder
from ssat.encoders.vit import VisionTransformer
from ssat.tasks.base import RandomTask, TaskOutput
from ssat.training.compiled import CompiledLosses
from ssat.training.module import JointModule
from ssat.training.optim import adamw, parameter_groups, warmup_cosine
from ssat.training.steps import Progress, seed_step
from ssat.training.weighing import LamSchedule
from tests.helpers import config, record_of, train


@pytest.fixture(autouse=True)
def _forget_graphs() -> None:
    torch._dynamo.reset()


class Breaking(RandomTask):
    """Reads a number of the step on the host, after it has drawn."""

    def __init__(self) -> None:
        super().__init__(seed=0)

    def forward(self, encoder: Encoder, batch: Batch, with_features: bool) -> TaskOutput:
        features = encoder.forward_features(batch.images)
        loss = features.square().mean() * self.noise(batch, 4).mean()
        return TaskOutput(loss * (2 if float(loss.detach()) > 0 else 1), features, {})


def module_with(task: Any = None, *, depth: int = 2, patch_dropout: float = 0.0, **options: Any) -> JointModule:
    torch.manual_seed(0)
    encoder = VisionTransformer(16, 4, embed_dim=16, depth=depth, num_heads=2, drop_path=0.2)
    encoder.patch_dropout = patch_dropout
    task = task or {"kind": "reconstruction", "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}
    return JointModule(encoder, num_classes=3, ssl=task, lam=0.3, **options)


def batch_at(step: int, images: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(step)
    pictures = torch.randn(images, 3, 16, 16, generator=generator)
    return Batch(pictures, torch.arange(images) % 3, indices=torch.arange(images) + images * step)


def compiled(module: JointModule, backend: Any = "aot_eager") -> JointModule:
    module.compiled = CompiledLosses(module.losses, module, moves=module.weighing.moves, backend=backend)
    return module


def losses_of(module: JointModule, steps: int) -> list[float]:
    """A training with warm-up, cosine and a short batch at the end of every epoch of five."""
    groups = parameter_groups(module.named_parameters(), weight_decay=0.05, no_decay=set(), layer_ids={})
    optimizer = adamw(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-8)
    schedule = warmup_cosine(optimizer, lr=1e-3, min_lr=0, warmup_lr=1e-6, warmup_steps=4, total_steps=steps)
    found = []
    for step in range(steps):
        seed_step(0, step, 0)
        optimizer.zero_grad()
        loss, _ = module.joint_step(batch_at(step, 2 if step % 5 == 4 else 4), Progress(step, step / steps))
        loss.backward()
        optimizer.step()
        schedule.step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize(
    "backend",
    ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)],
)
def test_a_compiled_training_is_one_graph_and_has_the_losses_of_the_eager_one(backend: str) -> None:
    # lam is another number at every step, and no reason to compile again; other patches are left out at every step
    options: dict[str, Any] = {"schedule": LamSchedule("cosine", 0.9), "patch_dropout": 0.25}
    eager = losses_of(module_with(**options), 20)
    module = compiled(module_with(**options), backend)
    assert losses_of(module, 20) == pytest.approx(eager, abs=1e-5)
    assert module.compiled is not None
    assert vars(module.compiled.outcome) == {"how": "one graph", "graphs": 1, "reason": None}


@pytest.mark.slow
def test_a_larger_batch_compiles_anew_and_a_smaller_one_never() -> None:
    module = compiled(module_with())
    assert module.compiled is not None
    for images, graphs in ((2, 1), (4, 2), (3, 2), (2, 2), (1, 2), (4, 2)):
        module.joint_step(batch_at(0, images), Progress(0, 0.0))
        assert module.compiled.outcome.graphs == graphs


@pytest.mark.slow
def test_a_task_that_reads_the_host_is_compiled_in_pieces_and_says_so_once(capsys: Any) -> None:
    eager, module = module_with(Breaking(), depth=1), compiled(module_with(Breaking(), depth=1))
    assert losses_of(module, 3) == pytest.approx(losses_of(eager, 3), abs=1e-5)
    assert module.compiled is not None
    assert module.compiled.outcome.how == "pieces"
    assert module.compiled.outcome.graphs > 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("trainer.compile=true: the training step is compiled in pieces")


@pytest.mark.slow
def test_without_a_compiler_the_step_stays_eager_and_counts_every_draw_once(capsys: Any) -> None:
    eager, module = module_with(depth=1), compiled(module_with(depth=1), "inductor")
    with inductor.patch({"cpp.cxx": ("/nowhere/g++",)}):
        assert losses_of(module, 3) == losses_of(eager, 3)
    assert module.compiled is not None
    assert module.compiled.outcome.how == "eager"
    begun, line = capsys.readouterr().out.splitlines()
    assert begun.startswith("trainer.compile=true: compiling the training step")
    assert "cannot be compiled and runs as without it" in line


@pytest.mark.slow
def test_a_backward_pass_that_cannot_be_compiled_leaves_the_step_eager(capsys: Any) -> None:
    def killed(graph: Any, inputs: Any) -> Any:
        raise CppCompileError(["g++"], "killed")

    backend = aot_autograd(fw_compiler=make_boxed_compiler(nop), bw_compiler=killed)
    eager, module = module_with(depth=1), compiled(module_with(depth=1), backend)
    assert losses_of(module, 3) == losses_of(eager, 3)
    assert module.compiled is not None
    assert module.compiled.outcome.how == "eager"
    assert "cannot be compiled and runs as without it" in capsys.readouterr().out


def test_a_copy_of_the_module_computes_with_its_own_weights() -> None:
    module = compiled(module_with())
    twin = copy.deepcopy(module)  # as the moving average of the weights makes one
    assert twin.compiled is not None
    assert twin.compiled.module is twin
    assert twin.compiled.losses.__self__ is twin  # type: ignore[attr-defined]


@pytest.mark.parametrize("key", ["trainer.compile", "trainer.cuda_graph"])
@pytest.mark.parametrize("word", ["maybe", "reduce-overhead", "2", "[]"])
def test_a_word_that_is_neither_true_nor_false_is_refused(key: str, word: str) -> None:
    with pytest.raises(UserError, match=rf"^{key}=.* is not possible: it must be true or false"):
        config(f"{key}={word}")


@pytest.mark.slow
def test_the_record_says_what_was_compiled_and_why_nothing_was_replayed(tmp_path: Any, capsys: Any) -> None:
    settings = ["trainer.compile=true", "trainer.cuda_graph=true", "trainer.max_steps=2"]
    (phase,) = record_of(train(*settings, runs=tmp_path))["phases"]
    assert phase["compiled"] == {"how": "one graph", "graphs": 1, "reason": None}
    assert phase["cuda_graph"]["used"] is False
    assert "the device is cpu" in phase["cuda_graph"]["reason"]
    assert capsys.readouterr().out.count("trainer.cuda_graph=true: ") == 1
