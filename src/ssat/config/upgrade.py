"""Configurations of earlier versions in today's form; a newer version's is refused."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from ssat.core.errors import UserError

# Of the form of config.yaml. Raise it when a key changes its name or meaning, with an entry below, and when the hash of
# a run changes, so that the runs of before are still found by what they compute (3: paths are hashed in one spelling).
VERSION = 3

# Version 1 named classes by the path that they had then; the paths are only compared, never imported.
_KINDS = {
    "src.encoders.vit.VisionTransformer": "vit",
    "src.encoders.cvt.ConvolutionalVisionTransformer": "cvt",
    "src.encoders.swin.SwinTransformer": "swin",
    "src.encoders.resnet.ResNet": "resnet",
    "src.encoders.resnet_cifar.CifarResNet": "resnet_cifar",
    "src.encoders.sl_vit.sl_vit": "sl_vit",
    "src.encoders.timm_vit.TimmVisionTransformer": "timm",
    "src.auxiliary.reconstruction.Reconstruction": "reconstruction",
    "src.auxiliary.latent.LatentReconstruction": "latent",
    "src.auxiliary.simclr.SimCLR": "simclr",
    "src.auxiliary.dino.DINO": "dino",
    "src.auxiliary.drloc.Drloc": "drloc",
    "src.auxiliary.guidance.Guidance": "guidance",
    "src.data.sources.digits": "digits",
    "src.data.readers.cifar10": "cifar10",
    "src.data.readers.cifar100": "cifar100",
    "src.data.readers.svhn": "svhn",
    "src.data.readers.pmnist": "pmnist",
    "src.data.lists.flowers": "flowers",
    "src.data.lists.imagenet": "imagenet",
    "src.data.lists.domainnet": "domainnet",
    "src.data.lists.chaoyang": "chaoyang",
    "src.data.folder.image_folder": "image_folder",
    "src.data.hub.hf": "hf",
}


def upgrade(values: Mapping[str, Any], where: str = "the configuration") -> dict[str, Any]:
    """`values` in today's form; what they lack keeps its default in the schema.

    Raises:
        UserError: a newer version has written them.
    """
    version = values.get("version", 1)
    if not isinstance(version, int) or version > VERSION:
        raise UserError(
            f"{where} has the form {version!r}, and this version of the framework reads up to {VERSION}: update it",
            key="version",
            value=version,
        )
    upgraded: dict[str, Any] = copy.deepcopy(dict(values))
    if version == 1:
        upgraded = _named(upgraded)
        if isinstance(upgraded.get("trainer"), dict) and isinstance(upgraded["trainer"].get("precision"), int):
            upgraded["trainer"]["precision"] = str(upgraded["trainer"]["precision"])
        upgraded.pop("input", None)  # an empty trace of the group of that name
    return upgraded | {"version": VERSION}


def _named(node: Any) -> Any:
    """Class paths as kinds; a path that is not ours stays where it is, and the schema refuses it."""
    if isinstance(node, list):
        return [_named(item) for item in node]
    if not isinstance(node, dict):
        return node
    named = {key: _named(value) for key, value in node.items()}
    path = named.get("_target_")
    if isinstance(path, str) and path in _KINDS:
        del named["_target_"]
        return {"kind": _KINDS[path]} | named
    return named
