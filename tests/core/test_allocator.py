"""Memory that a process has freed: kept, unless the user chose otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from ssat.core.allocator import CHOSEN, keep_freed_memory
from tests.helpers import ROOT

SCRIPT = """
import resource, torch
from ssat.core.allocator import keep_freed_memory
kept = {keep} and keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    tensors = [torch.ones(count, 2**18) for count in (8, 24, 16, 40)]
for _ in range(8):
    step()
before = faults()
for _ in range(4):
    step()
print(kept, faults() - before)
"""


def faults(keep: bool, **variables: str) -> tuple[str, int]:
    """What `keep_freed_memory` returned, and the page faults of steps that allocate 352 MiB."""
    environment = {key: value for key, value in os.environ.items() if key not in CHOSEN}
    environment |= {"PYTHONPATH": str(ROOT / "src"), "THP_MEM_ALLOC_ENABLE": "0", **variables}
    script = SCRIPT.format(keep=keep)
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True)
    kept, count = done.stdout.split()
    return kept, int(count)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_tensors_are_used_again_without_the_system() -> None:
    kept, few = faults(True)
    assert kept == "True"
    assert few < faults(False)[1] / 10


def test_a_user_who_has_set_up_the_allocator_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert not keep_freed_memory()
