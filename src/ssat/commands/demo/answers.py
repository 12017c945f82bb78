"""What the page says of one image: classes, heat map, reconstruction. It knows nothing of the page."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from numpy.typing import NDArray
from PIL import Image

from ssat.commands.predict.explained import laid_over
from ssat.commands.predict.images import enlarged
from ssat.core.errors import UserError
from ssat.data.image import ImageDataModule
from ssat.model import Model
from ssat.training.data import build_data
from ssat.training.reconstructor import Reconstructor, reconstructor_of

EXAMPLES = 8
SHOWABLE = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")  # by a browser


class Answers:
    """A network, asked about files.

    Args:
        model: on images, with labels.

    Attributes:
        without_heat: why there is no heat map; "" where there is one.
        decoder: None where there is none, as `without_decoder` says.

    Raises:
        UserError: the network is of videos, of images that are no pictures, or has learned no labels.
    """

    def __init__(self, model: Model) -> None:
        config = model.saved.config
        if config.data.frames is not None:
            raise UserError(f"run={model.saved.name} is of videos, and the demo shows images: use predict", key="run")
        if config.data.channels not in (1, 3):
            raise UserError(
                f"run={model.saved.name} is of images with {config.data.channels} channels, and a page shows"
                " pictures in grey or colour: use predict",
                key="run",
            )
        model.check()
        self.model, self.without_heat = model, ""
        try:
            model.check(explain=True)
        except UserError:
            self.without_heat = f"Grad-CAM needs a plain ViT, and this network is {config.encoder.name}"
        found = reconstructor_of(model.saved, model.device)
        self.decoder: Reconstructor | None = None if isinstance(found, str) else found
        self.without_decoder = found if isinstance(found, str) else ""

    def classes(self, path: str) -> dict[str, float]:
        """The probability of each class, as `python -m src.predict` gives it.

        Raises:
            UserError: the file cannot be read as an image.
        """
        (probs,) = self.model.scores(self._read(path))
        return dict(zip(self.model.classes, probs.tolist(), strict=True))

    def heat(self, path: str) -> Image.Image:
        """The image as the network sees it, and laid over it how much each place speaks for the predicted class.

        Raises:
            UserError: the file cannot be read as an image, or `without_heat`.
        """
        images = self._read(path)
        (picture,) = laid_over(self.model.pictures(images), self.model.explain_batch(images))
        return enlarged(picture)

    def reconstruction(self, path: str, ratio: float, draw: int) -> tuple[Image.Image, Image.Image]:
        """The image with the share `ratio` of its patches hidden, and with these predicted; `draw` numbers the mask.

        Raises:
            UserError: the file cannot be read as an image, or there is no decoder.
        """
        if self.decoder is None:
            raise UserError(f"there is no reconstruction: {self.without_decoder}")
        hidden, rebuilt = (self.model.pictures(p)[0] for p in self.decoder.pictures(self._read(path), ratio, draw))
        return enlarged(hidden), enlarged(rebuilt)

    def _read(self, path: str) -> torch.Tensor:
        """(1, C, H, W); the server's own path is not shown."""
        try:
            return self.model.transform(path).unsqueeze(0)
        except UserError as error:
            raise UserError(str(error).replace(str(path), Path(path).name)) from None


def write_examples(model: Model, folder: Path, count: int = EXAMPLES) -> tuple[list[Path], str]:
    """Images of the run's test data, spread over its classes, written to `folder`; or [] and a sentence why not."""
    config, phase = model.saved.config, model.saved.phase
    try:
        data = build_data(config, phase)
        assert isinstance(data, ImageDataModule)
        data.setup("test")
        split = data.test_split
        images, _ = data.split(split)
        return [
            _copied(images.root, images.images[index], folder, number) or _drawn(images.read(index), folder, number)
            for number, index in enumerate(data.spread(split, count), 1)
        ], ""
    except (UserError, OSError) as error:
        return [], f"the run's own images cannot be read ({str(error).splitlines()[0]})"


def _copied(root: Path | None, name: str | bytes | NDArray, folder: Path, number: int) -> Path | None:
    """A copy of the file itself, so that it is read as in the evaluation; None where no browser shows it."""
    if root is None or not str(name).lower().endswith(SHOWABLE):
        return None
    return Path(shutil.copyfile(root / str(name), folder / f"{number}-{Path(str(name)).name}"))


def _drawn(image: object, folder: Path, number: int) -> Path:
    assert isinstance(image, Image.Image)  # channels are 1 or 3
    path = folder / f"{number}.png"
    image.save(path)
    return path
