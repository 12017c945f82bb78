"""The formats by the name that the user gives them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ssat.export import onnx_graph, program, tensors, timm_weights
from ssat.export.classifier import Classifier
from ssat.export.parity import Logits


class Format(NamedTuple):
    """How a network becomes a file, and how that is read again.

    Attributes:
        file: its name.
        encode: the network to its bytes and to facts for model.json.
        decode: the file to a function of images; it gets the network for its sizes alone.
        usage: Python lines for the model card, from what model.json says.
    """

    file: str
    encode: Callable[[Classifier], tuple[bytes, dict[str, Any]]]
    decode: Callable[[Path, Classifier], Logits]
    usage: Callable[[dict[str, Any]], str]


FORMATS = {
    "safetensors": Format("model.safetensors", tensors.encode, tensors.decode, tensors.usage),
    "timm": Format("timm.safetensors", timm_weights.encode, timm_weights.decode, timm_weights.usage),
    "onnx": Format("model.onnx", onnx_graph.encode, onnx_graph.decode, onnx_graph.usage),
    "torch_export": Format("model.pt2", program.encode, program.decode, program.usage),
}
