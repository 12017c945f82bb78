"""Batches that loader processes hand over where shared memory is small."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from ssat.core.errors import UserError
from ssat.data.sampler import EpochLoader
from ssat.data.shared import Shared, telling
from tests.commands.test_read_only import mounted, needs_mounts
from tests.helpers import ROOT, TINY

SMALL = "mount -t tmpfs -o size=200k none /dev/shm"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)"),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's"),
        OSError(28, "No space left on device"),
    ],
    ids=["reserved", "written", "semaphore"],
)
def test_full_shared_memory_is_a_sentence_with_two_cures(error):
    with pytest.raises(UserError, match=r"data.num_workers=0, or enlarge it \(docker run --shm-size=8g"), telling():
        raise error


def test_other_errors_stay_what_they_are():
    for error in (RuntimeError("worker exited unexpectedly"), OSError(5, "Input/output error")):
        with pytest.raises(type(error), match=str(error.args[-1])), telling():
            raise error


def test_batches_are_shared_by_loader_processes_alone_and_the_same():
    rows = [(torch.full((3,), float(index)), index) for index in range(4)]
    collate = Shared(lambda samples: (torch.stack([row for row, _ in samples]), [number for _, number in samples]))
    here, numbers = collate(rows)
    assert not here.is_shared() and numbers == [0, 1, 2, 3]
    for loader in (EpochLoader, DataLoader):
        ((there, again),) = loader(rows, batch_size=4, num_workers=1, collate_fn=collate)
        assert there.is_shared() and torch.equal(there, here) and again == numbers


@needs_mounts
@pytest.mark.slow
def test_a_training_with_little_shared_memory_ends_in_one_sentence(tmp_path: Path):
    words = ["mode=scratch", "data.num_workers=2", "data.img_size=96", "recipe.batch_size=128", "epochs=1"]
    line = " ".join([sys.executable, "-m", "src.train", *TINY, *words, f"runs_dir={tmp_path}"])
    done = subprocess.run(mounted(SMALL, f"exec {line}"), cwd=ROOT, capture_output=True, text=True, timeout=300)
    (said,) = done.stderr.splitlines()
    assert done.returncode == 2 and "set data.num_workers=0, or enlarge it" in said
