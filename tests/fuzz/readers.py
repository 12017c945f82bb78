"""The readers of strangers' files, each as a function of bytes that returns or refuses in the package's own words."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from ssat.core.checkpoints import load_checkpoint, read_safetensors
from ssat.core.errors import UserError
from ssat.core.read import plain_yaml, read_json
from ssat.data.decode import read_rgb, read_tensor
from ssat.data.sets.download import unpack
from ssat.data.sets.table import read_table
from ssat.data.video.decode import frames
from ssat.runs.folder import read_record
from ssat.runs.predictions import right_images
from ssat.runs.record import Record, read_records

RIGHT = {"hash": "0a1b2c3d", "metrics": {"test": {"acc1": {"last": 11.1}}}, "phases": []}
FOLDER = Path(tempfile.mkdtemp(prefix="ssat-fuzz-"))


def on_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], None]:
    """`read` of a file called `name` with the given bytes."""

    def run(data: bytes) -> None:
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        read(path)

    return run


def _records(path: Path) -> object:
    return read_records(path.parent)


def _right(path: Path) -> object:
    return right_images(Record(path.parents[1] / "result.json", "", RIGHT))


def _unpacked(path: Path) -> object:
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        return unpack(path, Path(folder), "images")


# By name: the reader, and what it may answer beside UserError, as its docstring says.
READERS: dict[str, tuple[Callable[[bytes], object], tuple[type[Exception], ...]]] = {
    "json": (on_file("a.json", read_json), (OSError, ValueError)),
    "yaml": (on_file("a.yaml", plain_yaml), (OSError, ValueError)),
    "record": (on_file("r/result.json", lambda path: read_record(path, "move it away")), ()),
    "records": (on_file("several/result.json", _records), ()),
    "checkpoint": (on_file("a.ckpt", load_checkpoint), ()),
    "safetensors": (on_file("a.safetensors", read_safetensors), ()),
    "image": (lambda data: read_rgb(BytesIO(data)), ()),
    "image_tensor": (on_file("a.img", read_tensor), ()),
    "archive": (on_file("a.zip", _unpacked), ()),
    "video": (on_file("a.mp4", lambda path: [*frames(path, max_frames=64)]), ()),
    "table": (on_file("a.csv", read_table), (ValueError,)),
    "predictions": (on_file("run/evaluations/last-test-clean.npz", _right), ()),
}


def refused(name: str, data: bytes) -> str | None:
    """What the reader `name` says of `data`, None where it takes it; any other exception is a fault and gets out."""
    read, allowed = READERS[name]
    try:
        read(data)
    except (UserError, *allowed) as error:
        return str(error)
    return None
