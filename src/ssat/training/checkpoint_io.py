"""How Lightning writes checkpoints here: whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ssat.core.files import replacing


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its final name and renames it when it is complete.

    Lightning's own writer moves it from the temporary folder, which on another file system is a copy: a full disk or a
    kill in the middle of it leaves a cut file in place of the last good one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write `checkpoint` to `path`, whole or not at all."""
        try:
            with replacing(Path(path)) as partial, open(partial, "wb") as file:
                torch.save(checkpoint, file)
        except RuntimeError as error:
            # On a full disk or after a signal torch.save stumbles over its own cut file, which hides the reason.
            if isinstance(error.__context__, (OSError, KeyboardInterrupt, SystemExit)):
                raise error.__context__ from None
            raise
