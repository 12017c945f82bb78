"""How this process asks the system for memory.

A step allocates tensors of several MB and frees them again. By default the C library returns them to the system, which
hands them out again page by page: two in a hundred to one in five parts of a step on a CPU (docs/benchmarks.md).
"""

from __future__ import annotations

import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
NEVER, LARGE, LARGE_BEFORE_2_35 = 2**31 - 1, 1 << 30, 32 << 20
# With one of them the user has chosen.
CHOSEN = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"


def use_huge_pages() -> None:
    """Let PyTorch ask for pages of 2 MB on Linux; it looks once, so before its import."""
    os.environ.setdefault(HUGE_PAGES, "1")


def keep_freed_memory() -> bool:
    """From now on freed memory stays with this process; returns whether the C library can do so and was not set up."""
    import ctypes  # not above: the command line imports this file before it can take a signal
    import platform

    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in CHOSEN):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    kept = mallopt(M_MMAP_THRESHOLD, LARGE) or mallopt(M_MMAP_THRESHOLD, LARGE_BEFORE_2_35)
    return bool(kept and mallopt(M_TRIM_THRESHOLD, NEVER))


def give_back_freed_memory() -> None:
    """Return to the system what `keep_freed_memory` has kept, once."""
    import ctypes
    import platform

    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
