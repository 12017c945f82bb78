"""One thread, fixed seeds, no network and no accounts for every test and for the commands that a test starts."""

import gc
import os
import signal
import socket
import tempfile
from binascii import crc32
from collections import Counter

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is first imported, here and in child processes
os.environ["WANDB_MODE"] = "offline"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="ssat-cache-")

import pytest
import torch
from lightning.pytorch import seed_everything

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in `make test &`; the commands under test would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
gc.set_threshold(50_000, 20, 20)  # so many objects live in the libraries that looking through them took 6 % of the time
LOCAL = ("127.", "::1", "localhost", "0.0.0.0")


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Python, NumPy and torch start from the same state in every test, in whatever order the tests run."""
    seed_everything(0, verbose=False)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to another machine fails at once and says where it was going."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address):
        if self.family != socket.AF_UNIX and not str(address[0]).startswith(LOCAL):
            raise RuntimeError(f"a test tried to reach {address}: tests use no network")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.hookimpl(tryfirst=True)  # before `-m "not slow"` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    sampled = [(item, item.nodeid.partition("[")[0]) for item in items if item.get_closest_marker("sampled")]
    cases, seen = Counter(name for _, name in sampled), Counter[str]()
    for item, name in sampled:
        first = crc32(name.encode()) % min(3, cases[name])  # not the same cases of every test
        if seen[name] % 3 != first:
            item.add_marker(pytest.mark.slow)
        seen[name] += 1
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
