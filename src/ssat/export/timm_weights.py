"""format=timm: a state dict for `timm.create_model`, of the plain ViTs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ssat.core.errors import UserError
from ssat.core.tensors import fill
from ssat.encoders.layers import Attention, PatchEmbed
from ssat.encoders.timm_vit import TimmVisionTransformer
from ssat.encoders.vit import VisionTransformer
from ssat.export.classifier import Classifier
from ssat.export.parity import Logits
from ssat.export.prepare import answer, start

# timm's names by width; every size is given as well, so that any of them would do.
NAMES = {192: "vit_tiny_patch16_224", 384: "vit_small_patch16_224", 768: "vit_base_patch16_224"}
TIMM_EPS = 1e-6  # of timm's LayerNorms


class Call(NamedTuple):
    """A call of `timm.create_model`.

    Attributes:
        name: of the architecture.
        arguments: plain values.
        norm_eps: of every LayerNorm where it is not timm's own, else None.
    """

    name: str
    arguments: dict[str, Any]
    norm_eps: float | None = None

    def __str__(self) -> str:
        values = [f"{key}={value!r}" for key, value in self.arguments.items()]
        if self.norm_eps is not None:
            values.append(f"norm_layer=functools.partial(torch.nn.LayerNorm, eps={self.norm_eps!r})")
        return f"timm.create_model({', '.join([repr(self.name), *values])})"

    def build(self) -> nn.Module:
        """timm's network with random weights, in evaluation mode."""
        import functools

        import timm

        norm: dict[str, Any] = (
            {} if self.norm_eps is None else {"norm_layer": functools.partial(nn.LayerNorm, eps=self.norm_eps)}
        )
        return timm.create_model(self.name, **self.arguments, **norm).eval()


def create_call(model: Classifier) -> Call:
    """The call that builds timm's equal of the network.

    Raises:
        UserError: timm has none.
    """
    encoder = model.encoder
    sizes: dict[str, Any] = {"num_classes": _linear(model.head).out_features, "img_size": tuple(encoder.img_size)}
    if isinstance(encoder, TimmVisionTransformer):
        assert encoder.timm_name is not None
        sizes |= {"patch_size": encoder.mask_cell_px, "in_chans": encoder.in_chans}
        return Call(encoder.timm_name, sizes)
    if not _is_plain(encoder):
        raise UserError(
            f"format=timm is for the plain ViTs (vit_t, vit_s ..., deit_ti, timm), and encoder={model.name} is none:"
            " take format=safetensors, onnx or torch_export",
            key="format",
            value="timm",
        )
    assert isinstance(encoder, VisionTransformer)
    block, width = encoder.blocks[0], encoder.num_features
    sizes |= {
        "patch_size": encoder.mask_cell_px,
        "in_chans": encoder.in_chans,
        "embed_dim": width,
        "depth": encoder.depth,
        "num_heads": block.attn.num_heads,  # type: ignore[union-attr]
        "mlp_ratio": block.mlp.fc1.out_features / width,  # type: ignore[union-attr,operator]
        "qkv_bias": block.attn.qkv.bias is not None,  # type: ignore[union-attr]
        "class_token": True,
        "global_pool": "token",
    }
    eps = float(encoder.norm.eps)
    return Call(NAMES.get(width, NAMES[192]), sizes, None if eps == TIMM_EPS else eps)


def _is_plain(encoder: nn.Module) -> bool:
    return (
        type(encoder) is VisionTransformer
        and type(encoder.patch_embed) is PatchEmbed
        and all(type(block.attn) is Attention for block in encoder.blocks)
    )


def _linear(head: nn.Module) -> nn.Linear:
    last = head[-1] if isinstance(head, nn.Sequential) else head
    if not isinstance(last, nn.Linear):
        raise UserError("format=timm is not possible: the head is not a linear layer; take format=onnx or torch_export")
    return last


def _folded(head: nn.Module) -> dict[str, Tensor]:
    """The head as one linear layer: a batch norm before it (mode=linear) is a scale and a shift of its input."""
    linear = _linear(head)
    weight, bias = linear.weight.double(), linear.bias.double()
    if isinstance(head, nn.Sequential):
        norm = head[0]
        assert isinstance(norm, nn.BatchNorm1d) and norm.running_mean is not None and norm.running_var is not None
        weight = weight * (norm.running_var.double() + norm.eps).rsqrt()
        bias = bias - weight @ norm.running_mean.double()
    return {"head.weight": weight.float(), "head.bias": bias.float()}


def state_dict(model: Classifier) -> dict[str, Tensor]:
    """The network's tensors under timm's names."""
    encoder = {name.removeprefix("model."): value for name, value in model.encoder.state_dict().items()}
    return {name: value.contiguous() for name, value in (encoder | _folded(model.head)).items()}


def encode(model: Classifier) -> tuple[bytes, dict[str, Any]]:
    """The file's bytes, and the call that builds the network.

    Raises:
        UserError: timm has no equal of it.
    """
    from safetensors.torch import save

    call = create_call(model)
    facts = {"call": str(call), "name": call.name, "arguments": call.arguments, "norm_eps": call.norm_eps}
    return save(state_dict(model), {"format": "pt"}), {"timm": facts}


def decode(path: Path, model: Classifier) -> Logits:
    """timm's own network with the file's tensors, all of them."""
    from safetensors.torch import load_file

    network = create_call(model).build()
    fill(network, load_file(path), f"{path} does not hold timm's network", "export the run again")
    return torch.no_grad()(network)


def usage(facts: dict[str, Any]) -> str:
    """Python lines that build timm's network and load the file."""
    call = facts["timm"]["call"]
    return (
        f"{'import functools' + chr(10) if 'functools' in call else ''}import json\nfrom pathlib import Path\n\n"
        "import timm, torch\n"
        f"from safetensors.torch import load_file\n{start(facts, tensor=True)}"
        f'model = {call}\nmodel.load_state_dict(load_file("timm.safetensors"))\n'
        f"logits = model.eval()(images)\n{answer(facts)}"
    )
