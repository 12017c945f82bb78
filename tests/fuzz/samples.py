"""Small files that are as they should be, one or more for each reader: what is damaged afterwards."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import save

from tests.data.video.synthetic import write_video
from tests.fuzz.readers import FOLDER


def _picture(kind: str, mode: str = "RGB", **options: object) -> bytes:
    y, x = np.mgrid[:24, :30]
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "I;16": 1, "P": 1}[mode]
    values = np.stack([(7 * x + 11 * y + 40 * channel) % 256 for channel in range(channels)], -1).astype(np.uint8)
    if mode == "I;16":
        image = Image.fromarray(values[..., 0].astype(np.uint16) * 250)
    else:
        image = Image.fromarray(values[..., 0] if channels == 1 else values, mode)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _array(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays) if len(arrays) > 1 else np.save(file, *arrays.values())
    return file.getvalue()


def _checkpoint() -> bytes:
    file = io.BytesIO()
    weights = {"head.weight": torch.arange(12.0).reshape(3, 4), "head.bias": torch.zeros(3, dtype=torch.bfloat16)}
    torch.save({"state_dict": weights, "epoch": 3, "global_step": 40, "callbacks": {"History": {"rows": []}}}, file)
    return file.getvalue()


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"images/{number}.png", _picture("PNG"))
    return file.getvalue()


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for number in range(3):
            member = tarfile.TarInfo(f"images/{number}.png")
            member.size = len(_picture("PNG"))
            archive.addfile(member, io.BytesIO(_picture("PNG")))
    return file.getvalue()


def _video() -> bytes:
    path = FOLDER / "sample.mp4"
    y, x = np.mgrid[:32, :32]
    write_video(path, [np.stack([(8 * x + 9 * t) % 256, (8 * y) % 256, 0 * x], -1).astype(np.uint8) for t in range(8)])
    return path.read_bytes()


RECORD = {"schema": 1, "name": "a", "hash": "0a1b2c3d", "encoder": "vit_t", "data": "digits", "mode": "ssat", "seed": 0}
RECORD |= {
    "status": "finished",
    "metrics": {"test": {"acc1": {"last": 91.5, "best": 92.0, "best_epoch": 3}}},
    "epochs": 5,
}
RECORD |= {
    "config": {"data": {"img_size": 32}},
    "phases": [{"name": "joint", "history": [{"epoch": 0, "test/acc1": 90.1}]}],
}
SHEET = "file,label,split\n" + "".join(f"images/{n}.png,{'cat' if n % 2 else 'dog'},train\n" for n in range(9))
IMAGES: list[Callable[[], bytes]] = [
    lambda: _picture("JPEG"),
    lambda: _picture("JPEG", "L", quality=30),
    lambda: _picture("JPEG", "CMYK"),
    lambda: _picture("PNG"),
    lambda: _picture("PNG", "RGBA"),
    lambda: _picture("PNG", "I;16"),
    lambda: _picture("GIF", "P"),
    lambda: _picture("WEBP"),
    lambda: _picture("BMP"),
    lambda: _picture("TIFF", compression="tiff_lzw"),
    lambda: _picture("TIFF", "I;16"),
    lambda: _picture("PPM"),
    lambda: _array(values=np.arange(600, dtype=np.uint8).reshape(20, 30)),
]
SAMPLES: dict[str, list[Callable[[], bytes]]] = {
    "json": [lambda: json.dumps(RECORD).encode()],
    "yaml": [lambda: yaml.safe_dump(RECORD).encode()],
    "record": [lambda: json.dumps(RECORD).encode()],
    "records": [lambda: json.dumps(RECORD).encode()],
    "checkpoint": [_checkpoint],
    "safetensors": [lambda: save({"head.weight": torch.arange(12.0).reshape(3, 4)})],
    "image": IMAGES,
    "image_tensor": IMAGES,
    "archive": [_zip, _tar],
    "video": [_video],
    "table": [lambda: SHEET.encode(), lambda: b"\xef\xbb\xbf" + SHEET.replace(",", ";").encode()],
    "predictions": [
        lambda: _array(hash=np.array("0a1b2c3d"), index=np.arange(9), target=np.arange(9), predicted=np.zeros(9, int))
    ],
}


def sample_files(folder: Path) -> dict[str, Path]:
    """A folder with one file for each sample, as a corpus to begin with."""
    found = {}
    for reader, makers in SAMPLES.items():
        (folder / reader).mkdir(parents=True, exist_ok=True)
        for number, make in enumerate(makers):
            found[f"{reader}_{number}"] = folder / reader / str(number)
            found[f"{reader}_{number}"].write_bytes(make())
    return found
