"""format=safetensors: the tensors of encoder and head, for `ssat.load`."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from ssat.core.tensors import fill
from ssat.export.classifier import Classifier
from ssat.export.parity import Logits


def encode(model: Classifier) -> tuple[bytes, dict[str, Any]]:
    """The file's bytes; its tensors are named `encoder.*` and `head.*`, as in a checkpoint."""
    from safetensors.torch import save

    return save({name: value.contiguous() for name, value in model.state_dict().items()}, {"format": "pt"}), {}


def decode(path: Path, model: Classifier) -> Logits:
    """The network with the file's tensors alone: those of `model` are overwritten before."""
    from safetensors.torch import load_file

    fresh = copy.deepcopy(model)
    for value in fresh.state_dict().values():
        value.fill_(torch.nan if value.is_floating_point() else 0)
    fill(fresh, load_file(path), f"{path} does not hold the exported network", "export the run again")
    return fresh


def usage(facts: dict[str, Any]) -> str:
    """Python lines that load the file's folder."""
    return 'import ssat\n\nmodel = ssat.load(".")  # this folder\nprint(model.predict("photo.jpg"))'
