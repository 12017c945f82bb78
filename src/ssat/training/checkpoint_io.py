"""How Lightning writes checkpoints here: whole or not at all, and with a checksum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.plugins.io import TorchCheckpointIO

from ssat.core.checkpoints import write_checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its final name and renames it when it is complete.

    Lightning's own writer moves it from the temporary folder, which on another file system is a copy: a full disk or a
    kill in the middle of it leaves a cut file in place of the last good one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write `checkpoint` to `path`, whole or not at all."""
        write_checkpoint(checkpoint, Path(path))
