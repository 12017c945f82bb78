"""Starts the processes of one run: every run its own process group, also inside a sweep."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.multiprocessing as mp

from src.errors import UserError


def launched_externally() -> bool:
    """Whether torchrun or srun has already started one process per device."""
    started = int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1")))
    return started > 1 and ("TORCHELASTIC_RUN_ID" in os.environ or "SLURM_PROCID" in os.environ)


def is_main_process() -> bool:
    """Whether this is rank 0 of its run: the process that prints and writes."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) == 0


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def _worker(
    rank: int, job: Callable[..., None], args: tuple[Any, ...], processes: int, port: int, mistakes: Any
) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "NODE_RANK": "0",
        "LOCAL_RANK": str(rank),
        "RANK": str(rank),
        "WORLD_SIZE": str(processes),
    }
    try:
        job(*args)
    except UserError as error:
        mistakes.put(str(error))
        sys.exit(1)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def run_processes(job: Callable[..., None], *args: Any, processes: int) -> None:
    """Run `job(*args)` in `processes` fresh processes that form one DDP group; in this one when there is only one.

    The processes are started here and not by Lightning, whose launcher repeats the command line and with it a whole
    Hydra sweep. They end with this process. SIGTERM is passed on to them, so that they save before they stop.

    Raises:
        UserError: as raised in a process.
        ProcessRaisedException, ProcessExitedException: a process crashed.
        SystemExit: 143 after SIGTERM.
    """
    if processes == 1 or launched_externally():
        job(*args)
        return
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    mistakes = mp.get_context("spawn").SimpleQueue()
    context = mp.start_processes(
        _worker, args=(job, args, processes, free_port(), mistakes), nprocs=processes, join=False, start_method="spawn"
    )
    previous = signal.getsignal(signal.SIGTERM)
    stopping = False

    def stop(signum: int, frame: Any) -> None:
        nonlocal stopping
        stopping = True
        for process in context.processes:
            if process.is_alive():
                os.kill(process.pid, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    try:
        while not context.join(timeout=1):
            pass
    except (mp.ProcessExitedException, mp.ProcessRaisedException):
        for process in context.processes:
            process.join()
        if stopping:
            raise SystemExit(128 + signal.SIGTERM) from None
        if not mistakes.empty():
            raise UserError(mistakes.get()) from None
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
    if stopping:
        raise SystemExit(128 + signal.SIGTERM)
