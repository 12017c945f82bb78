"""Images that belong to no set, one by one: read and transformed as the evaluation does it."""

from __future__ import annotations

import os
import threading
import warnings
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ssat.core.errors import UserError
from ssat.data.bands import channels_last
from ssat.data.decode import LEAVE_OUT, MODES, to_rgb
from ssat.data.image import ImageDataModule
from ssat.data.memory import LARGEST_SIDE, DecodedDataset
from ssat.data.pixels import Pixels, Stored, TooLarge, largest_of, to_8_bit
from ssat.data.sets.sources import ImageList
from ssat.data.stored import opened
from ssat.data.transforms.augment import EvalTransform, Normalise

AnyImage: TypeAlias = "str | Path | Image.Image | NDArray[Any]"
READS_HEADERS = threading.Lock()  # Python's filters of warnings are of the whole process
LARGEST = 89_478_485  # pixels of one image, Pillow's limit: 268 MB as 8-bit colours


class ImageTransform:
    """The evaluation transform of a data module: a path, a Pillow image or an array to (C, H, W) float32.

    A large picture of a stranger's would take all memory: more than `LARGEST` pixels are refused before they are read.

    Args:
        data: the module; its `setup` is not needed.
    """

    def __init__(self, data: ImageDataModule) -> None:
        self._data = data
        self._pixels = Pixels(data.source.train.pixels.channels, data.value_range)
        self._normalise = Normalise(data.mean, data.std)
        self._small = EvalTransform(data.img_size, mean=data.mean, std=data.std, crop_pct=data.eval_crop_pct)

    def __call__(self, image: AnyImage) -> Tensor:
        """(C, H, W) of a file, or of pixels as Pillow or NumPy hold them: (H, W), (H, W, C) uint8, or more bits.

        Raises:
            TooLarge: it has more than `LARGEST` pixels.
            UserError: it cannot be read as an image.
        """
        try:
            return self._transformed(self._listed(image))
        except TooLarge as error:  # no key helps here
            what = f" {image}" if isinstance(image, (str, Path)) else ""
            raise TooLarge(
                f"cannot read the image{what}: its {error.pixels:,} pixels are too many at once, at most {LARGEST:,};"
                " make it smaller",
                error.pixels,
            ) from None
        except UserError as error:
            raise UserError(str(error).removesuffix(LEAVE_OUT), key=error.key) from None  # that is for a training

    def _transformed(self, one: ImageList) -> Tensor:
        if self._data.pipeline == "timm":
            return self._data.eval_transform(one.read(0))
        # As the batched pipeline does it: small images are cropped by other code, and 1 pixel in 200 differs by 1/255.
        pixels = one.read_tensor(0)
        if max(pixels.shape[1:]) <= LARGEST_SIDE:
            return self._small(pixels.unsqueeze(0))[0]
        cropping = DecodedDataset(one, self._data.img_size, crop_pct=self._data.eval_crop_pct)
        return self._normalise(cropping.__getitems__([(0, 0)]).crops[0])[0]

    def _listed(self, image: AnyImage) -> ImageList:
        """A list of one image."""
        label = np.zeros(1, dtype=np.int64)
        if isinstance(image, (str, Path)):
            path = Path(image)
            if reason := why_no_file(path):
                raise UserError(f"cannot read the image {path}: {reason}")
            check_size(path)
            return ImageList([path.name], label, path.parent, self._pixels)
        try:
            values = self._values(image)
        except (ValueError, TypeError, OSError) as error:
            raise UserError(f"the image cannot be used: {str(error).splitlines()[0]}") from error
        return ImageList(values[None], label, pixels=Pixels(self._pixels.channels))

    def _values(self, image: Image.Image | NDArray[Any]) -> NDArray[np.uint8]:
        channels, value_range = self._pixels.channels, self._pixels.value_range
        shape = image.size[::-1] if isinstance(image, Image.Image) else getattr(image, "shape", ())
        if 0 in shape:
            raise ValueError(f"it has the shape {tuple(shape)}, and so no pixels")
        if isinstance(image, Image.Image):
            if channels == 3:
                return np.asarray(to_rgb(image, value_range))
            image = np.atleast_3d(np.asarray(image))
        if not isinstance(image, np.ndarray):
            raise TypeError(f"it is a {type(image).__name__}: give a path, a Pillow image or an array (H, W, C)")
        if channels != 3:
            image = channels_last(image, channels)
        elif image.ndim == 3 and image.shape[2] == 1:
            image = image[..., 0]
        if image.ndim != 2 and (image.ndim != 3 or (channels == 3 and image.shape[2] not in MODES)):
            raise ValueError(f"it has the shape {image.shape}: give (H, W), (H, W, 3) or (H, W, 4)")
        values = to_8_bit(Stored(image, largest_of(image.dtype)), value_range)
        return values if channels != 3 else np.asarray(to_rgb(Image.fromarray(values)))


def why_no_file(path: Path) -> str:
    """Why nothing can be read at `path`, as the end of a sentence; empty where a file is."""
    if os.path.isfile(path):  # False of a name that no file can have, too
        return ""
    if os.path.isdir(path):
        return "it is a folder, give the files in it"
    if os.path.exists(path):
        return "it is a pipe, a socket or a device, and no file"
    return "it is a link that leads nowhere, or to itself" if os.path.islink(path) else "there is no such file"


def check_size(path: Path) -> None:
    """Refuse a picture that Pillow calls too large; what is no picture is left to those who read it.

    Raises:
        TooLarge: says its number of pixels.
    """
    try:
        with READS_HEADERS, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # which is refused here
            with opened(path, LARGEST):
                return  # only the header was read
    except TooLarge:
        raise
    except Exception:  # Pillow answers damaged bytes with many kinds of exceptions
        return
