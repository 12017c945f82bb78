"""Train a vision transformer on little data: jointly on labels and on a self-supervised auxiliary task."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from ssat.model import Model

__version__ = "0.2.0"


def load(source: str | Path, checkpoint: str | Path = "best", device: str | torch.device | None = None) -> Model:
    """A trained network that predicts, embeds and explains: see docs/python.md.

    Args:
        source: a run folder, a checkpoint file, which may lie anywhere, or a folder that `export` has written.
        checkpoint: of a run folder: `best`, `last` or a file.
        device: of torch; None = the GPU if there is one, else the CPU.

    Raises:
        UserError: it is none of these, is damaged, or the device is not there.
    """
    from ssat import model  # PyTorch takes seconds to import

    return model.load(source, checkpoint, device)
