"""format=onnx: one file for onnxruntime and other engines."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssat.core.errors import UserError
from ssat.export.classifier import Classifier
from ssat.export.parity import Logits
from ssat.export.prepare import answer, start
from ssat.export.program import traced

OPSET = 18  # what PyTorch's exporter writes by itself; LayerNormalization came with 17
LIBRARIES = ("onnx", "onnxscript", "onnxruntime")
QUIET = 3  # onnxruntime: errors only


def check_libraries() -> None:
    """Raises: UserError: one of the libraries is missing."""
    for name in LIBRARIES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(
                f'format=onnx needs the package {name}, which is not installed: pip install "ssat[export]"',
                key="format",
                value="onnx",
            ) from error


def encode(model: Classifier) -> tuple[bytes, dict[str, Any]]:
    """The file's bytes, weights included, with a free batch size.

    Raises:
        UserError: a library is missing, or the encoder cannot be traced.
    """
    check_libraries()
    program = torch.onnx.export(
        traced(model, "onnx"),
        dynamo=True,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes={"images": {0: "batch"}},
        opset_version=OPSET,
        verbose=False,
    )
    assert program is not None
    return program.model_proto.SerializeToString(), {"opset": OPSET}


def decode(path: Path, model: Classifier) -> Logits:
    """The file in onnxruntime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = QUIET
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def logits(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])

    return logits


def usage(facts: dict[str, Any]) -> str:
    """Python lines that run the file."""
    return (
        f"import json\nfrom pathlib import Path\n\nimport onnxruntime\n{start(facts, tensor=False)}"
        'session = onnxruntime.InferenceSession("model.onnx")\n'
        f'(logits,) = session.run(None, {{"images": images}})\n{answer(facts)}'
    )
