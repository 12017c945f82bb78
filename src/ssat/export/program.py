"""format=torch_export: a graph of PyTorch's operators, which needs none of our code."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from ssat.core.errors import UserError
from ssat.export.classifier import Classifier
from ssat.export.parity import Logits
from ssat.export.prepare import answer, start


def traced(model: Classifier, name: str) -> ExportedProgram:
    """The network's graph for any batch size, for the format `name`.

    Raises:
        UserError: the encoder does something that a graph cannot hold.
    """
    try:
        with torch.no_grad():
            # An example of one image would make a constant of the batch size.
            shapes = {"images": {0: Dim("batch", min=1)}}
            return torch.export.export(model, (model.example(2),), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch.export raises many kinds, most of them about the encoder's code
        raise UserError(
            f"format={name} is not possible for encoder={model.name}: torch.export answers {_first_line(error)}; take"
            " format=safetensors",
            key="format",
            value=name,
        ) from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]:.200}"


def encode(model: Classifier) -> tuple[bytes, dict[str, Any]]:
    """The file's bytes.

    Raises:
        UserError: the encoder cannot be traced.
    """
    buffer = io.BytesIO()
    torch.export.save(traced(model, "torch_export"), buffer)
    return buffer.getvalue(), {}


def decode(path: Path, model: Classifier) -> Logits:
    """The network in the file."""
    return torch.export.load(path).module()


def usage(facts: dict[str, Any]) -> str:
    """Python lines that run the file."""
    return (
        f"import json\nfrom pathlib import Path\n\nimport torch\n{start(facts, tensor=True)}"
        'model = torch.export.load("model.pt2").module()\n'
        f"logits = model(images)\n{answer(facts)}"
    )
