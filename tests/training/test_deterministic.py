"""trainer.deterministic: cuBLAS is told before the GPU is used, and what it has not is a sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ssat.core.errors import UserError
from tests.helpers import largest_difference, train, weights

LACKING = """\
import lightning.pytorch as pl


class Lacking(pl.Callback):
    '''Raises what PyTorch does for a kernel that it has in one form only.'''

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        import torch

        place, value = torch.tensor([0]), torch.tensor([1.0])
        torch.zeros(4, device=pl_module.device).put_(place.to(pl_module.device), value.to(pl_module.device))
"""


def test_cublas_is_told_before_a_training_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    train("mode=scratch", "epochs=1", "trainer.deterministic=true", "trainer.max_steps=1", runs=tmp_path)
    assert os.environ.pop("CUBLAS_WORKSPACE_CONFIG") == ":4096:8"


@pytest.mark.gpu
def test_two_runs_on_a_gpu_are_equal_to_the_last_bit(tmp_path: Path) -> None:
    words = ["mode=ssat", "epochs=2", "trainer=gpu", "trainer.deterministic=true"]
    first, second = (train(*words, f"run_dir={tmp_path / name}", runs=tmp_path) for name in ("a", "b"))
    assert largest_difference(weights(first), weights(second)) == 0


@pytest.mark.parametrize(
    ("device", "cure"),
    [("cpu", "set it to false$"), pytest.param("gpu", "set it to false, or use trainer=cpu$", marks=pytest.mark.gpu)],
)
def test_a_kernel_that_is_not_there_is_named(
    device: str, cure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lacking_callback.py").write_text(LACKING)
    monkeypatch.syspath_prepend(str(tmp_path))
    words = [
        "mode=scratch",
        f"trainer={device}",
        "trainer.deterministic=true",
        "callbacks=[{kind: 'lacking_callback:Lacking'}]",
    ]
    sentence = rf"trainer\.deterministic=true: PyTorch has no deterministic put_ here: {cure}"
    with pytest.raises(UserError, match=sentence):
        train(*words, runs=tmp_path)
