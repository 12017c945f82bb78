"""W&B's own process, beside the ones that train."""

from __future__ import annotations

import os
from contextlib import suppress

import psutil


def end_service() -> None:
    """End W&B's own process, which may hang, and forget it: the next run starts another."""
    import wandb

    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if child.name().startswith("wandb-core"):
                child.kill()
    with suppress(Exception, SystemExit):  # it says farewell to a process that is not there
        wandb.teardown()
    os.environ.pop("WANDB_SERVICE", None)
