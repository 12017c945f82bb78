"""A trained network in Python: `ssat.load(run)` predicts, embeds and explains images, and predicts videos."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from ssat.analysis.attention import upsample
from ssat.analysis.gradcam import class_maps, target_layer
from ssat.analysis.models import pixels
from ssat.core.errors import UserError
from ssat.core.options import check_whole
from ssat.data.image import ImageDataModule
from ssat.data.single import AnyImage, ImageTransform
from ssat.encoders.base import Encoder
from ssat.training.predictor import Predictor, clip_options, device_of
from ssat.training.saved_network import SavedNetwork, find_network

TTA = (None, "flips")
READERS = 4  # threads that decode; more of them gain nothing where the network computes on the same cores


@dataclass(frozen=True)
class Prediction:
    """What a network says of one image or video.

    Attributes:
        classes: names, the most probable first; the `top_k` first ones if so many were asked for.
        probs: of these classes, each from 0 to 1; over all classes they sum to 1, but not those of several labels.
    """

    classes: tuple[str, ...]
    probs: tuple[float, ...]

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[0]

    @property
    def prob(self) -> float:
        """Its probability."""
        return self.probs[0]

    def above(self, threshold: float = 0.5) -> tuple[str, ...]:
        """The labels with a higher probability, where an image may have several (`Model.multi_label`)."""
        return tuple(name for name, prob in zip(self.classes, self.probs, strict=True) if prob > threshold)


class Model:
    """A trained network with its class names and its evaluation transform.

    Args:
        saved: the network, see `load`.
        device: what it computes on.

    Attributes:
        saved: configuration, phase, records and the file of the weights.
        device: that it computes on.
        multi_label: an image may have several of the classes, or none: each has a probability of its own.

    Raises:
        UserError: the weights are of another network.
    """

    def __init__(self, saved: SavedNetwork, *, device: torch.device) -> None:
        self.saved, self.device, self.multi_label = saved, device, saved.config.data.multi_label
        self._predictor = Predictor(saved, device=device)

    def __repr__(self) -> str:
        of = f"{self.saved.config.encoder.name}, {len(self.classes)} {'labels' if self.multi_label else 'classes'}"
        return f"ssat.Model({self.saved.name}: {of}, {self.saved.path.name}, {self.device})"

    @property
    def classes(self) -> list[str]:
        """Names in the order of the labels."""
        return list(self.saved.known.classes)

    @property
    def encoder(self) -> Encoder:
        """A plain module on `device`, in evaluation mode: normalised (B, C, H, W) to features (B, D)."""
        return self._predictor.module.encoder

    @property
    def head(self) -> nn.Module | None:
        """The classifier: features (B, D) to logits (B, K); None of a run that has learned no labels."""
        return self._predictor.module.head

    @cached_property
    def transform(self) -> ImageTransform:
        """A path, a Pillow image or an array to (C, H, W) float32, as the run's evaluation does it.

        Raises:
            UserError: the network is of videos.
        """
        self._check_images("transform")
        return ImageTransform(self._data)

    @cached_property
    def _data(self) -> ImageDataModule:
        return self._predictor.image_data()

    def check(self, *, explain: bool = False) -> None:
        """Refuse early what `predict`, and with `explain` also `explain`, would refuse.

        Raises:
            UserError: the network has learned no labels, or its encoder is no plain ViT.
        """
        self._predictor.check_labels()
        if explain:
            self._check_images("explain")
            target_layer(self.encoder)

    def logits(self, images: Tensor) -> Tensor:
        """(B, K) of normalised images (B, C, H, W) on `device`: float32, with a graph, not calibrated.

        Raises:
            UserError: the network has learned no labels.
        """
        self._predictor.check_labels()
        return self._predictor.module(images)

    def scores(self, images: Tensor, *, tta: str | None = None) -> NDArray[np.float64]:
        """Probabilities (B, K), in the order of `classes`, of transformed images (B, C, H, W).

        Args:
            images: of `transform`.
            tta: `flips` = the mean over the image and its mirror image.

        Raises:
            UserError: `tta` is unknown, the network has learned no labels, or a probability is nan.
        """
        if tta not in TTA:
            raise UserError(f"tta={tta} is not one of flips", key="tta", value=tta)
        temperature = self.saved.temperature or 1.0
        views = [images] if tta is None else [images, images.flip(-1)]
        scaled = [self._predictor.logits(view).cpu().double() / temperature for view in views]
        probs = torch.stack([logits.sigmoid() if self.multi_label else logits.softmax(dim=1) for logits in scaled])
        if probs.isnan().any():
            raise UserError("the network predicts nan: the training has diverged, choose another run or checkpoint")
        return probs.mean(dim=0).numpy()

    def probabilities(
        self, images: AnyImage | Iterable[AnyImage], *, batch_size: int = 0, tta: str | None = None
    ) -> NDArray[np.float64]:
        """Probabilities (N, K) of images, or of video files, in the order of `classes`.

        Args:
            images: one or many: paths, Pillow images or arrays; of a network on videos the paths of videos.
            batch_size: images, or clips, at a time; 0 = that of the training.
            tta: `flips` = the mean over each image and its mirror image.

        Raises:
            UserError: one of them cannot be read, or the network has learned no labels.
        """
        self._predictor.check_labels()
        check_whole("batch_size", batch_size, 0)
        listed = _listed(images)
        if self.saved.config.data.frames is not None:
            return self._of_videos(listed, batch_size, tta)
        none = np.zeros((0, len(self.classes)))
        return np.concatenate([none, *(self.scores(batch, tta=tta) for batch in self._batches(listed, batch_size))])

    def predict(
        self,
        images: AnyImage | Iterable[AnyImage],
        *,
        top_k: int | None = None,
        batch_size: int = 0,
        tta: str | None = None,
    ) -> list[Prediction]:
        """`probabilities` with the names of the classes, the most probable first.

        Args:
            images: as of `probabilities`.
            batch_size: likewise.
            tta: likewise.
            top_k: how many classes each prediction names; None = all.

        Raises:
            UserError: as `probabilities`, or `top_k` is below 1.
        """
        if top_k is not None:
            check_whole("top_k", top_k, 1)
        found = self.probabilities(images, batch_size=batch_size, tta=tta)
        return [ranked(self.classes, probs, top_k) for probs in found]

    def embed(self, images: AnyImage | Iterable[AnyImage], *, batch_size: int = 0) -> NDArray[np.float32]:
        """Features (N, D) of images, those that the head classifies.

        Raises:
            UserError: one of them cannot be read, or the network is of videos.
        """
        self._check_images("embed")
        check_whole("batch_size", batch_size, 0)
        rows = [self.features(batch) for batch in self._batches(_listed(images), batch_size)]
        return np.concatenate(rows) if rows else np.zeros((0, self.encoder.num_features), dtype=np.float32)

    def features(self, images: Tensor) -> NDArray[np.float32]:
        """`embed` of transformed images: (B, C, H, W) to (B, D)."""
        return self._predictor.outputs(images)[0].cpu().numpy()

    def explain(self, image: AnyImage, label: str | int | None = None) -> NDArray[np.float32]:
        """Grad-CAM (H, W) in [0, 1] on the image as the network sees it: how much each place speaks for a class.

        Args:
            image: a path, a Pillow image or an array.
            label: name or number of the class; None = the predicted one.

        Raises:
            UserError: the image cannot be read, there is no such class, or the encoder has no `evidence_layer`.
        """
        self._check_images("explain")
        labels = None if label is None else [self._number(label)]
        return self.explain_batch(self.transform(image).unsqueeze(0), labels)[0]

    def explain_batch(self, images: Tensor, labels: Sequence[int] | None = None) -> NDArray[np.float32]:
        """`explain` of transformed images, (B, C, H, W) to (B, H, W); `labels` are numbers, None = the predicted ones.

        Raises:
            UserError: the encoder has no `evidence_layer`, or the network has learned no labels.
        """
        self._predictor.check_labels()
        targets = torch.zeros(len(images), dtype=torch.int64) if labels is None else torch.tensor(labels)
        with torch.enable_grad():
            _, predicted, chosen = class_maps(self, images.to(self.device), targets.to(self.device))
        maps = upsample(predicted if labels is None else chosen, (images.shape[-2], images.shape[-1]), "bilinear")
        return maps.cpu().numpy()

    def pictures(self, images: Tensor) -> NDArray[np.float32]:
        """Transformed images (B, C, H, W) as what one sees: (B, H, W, 3) in [0, 1]."""
        return pixels(images, self._data)

    def export(self, path: str | Path, format: str = "safetensors", *, force: bool = False) -> Path:
        """Write encoder and head to the folder `path` for other programs, as `python -m src.export` does.

        Args:
            path: new or empty.
            format: safetensors, timm, onnx or torch_export.
            force: replace an earlier export in `path`.

        Raises:
            UserError: the network was not loaded from a run folder, or the export is refused.
        """
        from ssat.export.run import export_run

        if self.saved.run is None:
            raise UserError(f"{self.saved.name} is no run folder, whose records an export needs: load the run")
        stem = self.saved.path.stem
        checkpoint = stem if stem in ("best", "last") else str(self.saved.path)
        export_run(self.saved.run, format, Path(path), checkpoint=checkpoint, force=force)
        return Path(path)

    def _number(self, label: str | int) -> int:
        if isinstance(label, str) and label in self.classes:
            return self.classes.index(label)
        if isinstance(label, int) and 0 <= label < len(self.classes):
            return label
        raise UserError(
            f"label={label!r} is no class of this network: it has {', '.join(self.classes[:20])}", key="label"
        )

    def _check_images(self, what: str) -> None:
        if self.saved.config.data.frames is not None:
            raise UserError(f"{what} is of images, and {self.saved.name} is a network of videos: use predict")

    def _batches(self, images: list[AnyImage], batch_size: int) -> Iterator[Tensor]:
        size = batch_size or self._predictor.batch_size
        transform = self.transform
        with ThreadPoolExecutor(READERS) as pool:
            for first in range(0, len(images), size):
                yield torch.stack(list(pool.map(transform, images[first : first + size])))

    def _of_videos(self, videos: list[AnyImage], batch_size: int, tta: str | None) -> NDArray[np.float64]:
        """The mean over the clips of each video, of its largest face."""
        from ssat.data.video.unseen import place_of, prepared

        if tta is not None:
            raise UserError(f"tta={tta} is of images, and {self.saved.name} is a network of videos", key="tta")
        if bad := [video for video in videos if not isinstance(video, (str, Path))]:
            raise UserError(f"a network of videos reads files, and was given a {type(bad[0]).__name__}: give paths")
        if not videos:
            return np.zeros((0, len(self.classes)))
        paths = [Path(os.path.abspath(video)) for video in videos]  # type: ignore[arg-type]
        folder = Path(os.path.commonpath([path.parent for path in paths]))
        names = [str(path.relative_to(folder)) for path in paths]
        self._predictor.batch_size = batch_size or self.saved.phase.recipe.batch_size
        rows: list[list[float]] = [[] for _ in paths]
        with tempfile.TemporaryDirectory(prefix="ssat-predict-") as made:
            root, options = Path(made), clip_options(self.saved)
            work = prepared(folder, names, root, options, device=self.device.type, workers=0)
            with closing(work):
                for number, unseen in work:
                    if not unseen.faces:
                        raise UserError(f"{paths[number]} cannot be predicted: {unseen.entry.reason}")
                    rows[number] = self._predictor.video(place_of(root, number), unseen.faces[0]).probs
        return np.asarray(rows)


def ranked(classes: Sequence[str], probs: NDArray[np.float64], top_k: int | None = None) -> Prediction:
    """Probabilities (K,) with the names of the classes, the most probable first; of equal ones the lower number."""
    order = np.argsort(-probs, kind="stable")[:top_k].tolist()
    return Prediction(tuple(classes[number] for number in order), tuple(float(probs[number]) for number in order))


def load(source: str | Path, checkpoint: str | Path = "best", device: str | torch.device | None = None) -> Model:
    """A trained network.

    Args:
        source: a run folder, a checkpoint file, which may lie anywhere, or a folder of format=safetensors.
        checkpoint: of a run folder: `best`, `last` or a file.
        device: of torch; None = the GPU if there is one, else the CPU.

    Raises:
        UserError: it is none of these, an export for another program, damaged, or the device is not there.
    """
    return Model(find_network(source, str(checkpoint)), device=device_of(device))


def _listed(images: Any) -> list[AnyImage]:
    """One or many as a list; an array is one image, or (N, H, W, C) many.

    Raises:
        UserError: it is neither.
    """
    if isinstance(images, (str, Path, Image.Image)) or (isinstance(images, np.ndarray) and images.ndim < 4):
        return [images]
    if not isinstance(images, Iterable):
        raise UserError(
            f"images={images!r:.40} is a {type(images).__name__}: give a path, a Pillow image, an array (H, W, C), or"
            " several of them",
            key="images",
        )
    return list(images)
