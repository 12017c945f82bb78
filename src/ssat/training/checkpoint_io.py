"""How Lightning writes checkpoints here: whole or not at all, and with a checksum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.plugins.io import TorchCheckpointIO

from ssat.core.checkpoints import write_checkpoint
from ssat.training.earlier import keep_earlier


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its final name and renames it when it is complete.

    Lightning's own writer moves it from the temporary folder, which on another file system is a copy: a full disk or a
    kill in the middle of it leaves a cut file in place of the last good one.

    Args:
        keep: so many checkpoints of one name, the new one included.
    """

    def __init__(self, keep: int = 1) -> None:
        super().__init__()
        self._keep = keep

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write `checkpoint` to `path`, whole or not at all."""
        path = Path(path)
        write_checkpoint(checkpoint, path, before=lambda: keep_earlier(path, self._keep))
