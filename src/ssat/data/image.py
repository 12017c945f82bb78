"""Labelled images to batches: subsets, splits, transforms and loaders of one phase."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from ssat.core.batch import NO_LABEL, Batch
from ssat.core.errors import UserError
from ssat.core.views import View
from ssat.data.choose import STRICT_FRACTION, Choice, Indices, refuse_unevaluated
from ssat.data.dataset import ImageDataset, collate
from ssat.data.groups import grouped, refuse_shared
from ssat.data.loaders import EVALUATIONS, LoaderModule
from ssat.data.memory import IndexDataset, Memory, Prepare, identity_collate, load
from ssat.data.options import (
    COLOURS,
    check_choices,
    check_names,
    check_range,
    check_test,
    check_values,
    check_views,
)
from ssat.data.overview import counts_by_class
from ssat.data.pipelines import Batched
from ssat.data.pixels import MOST_PIXELS, Pixels
from ssat.data.sampler import EpochLoader, Labelled, labelled_in_batches
from ssat.data.sets.sources import ImageList, Source
from ssat.data.splits import SplitImages
from ssat.data.subsets import balanced, balanced_size
from ssat.data.survey import refuse_unused_range
from ssat.data.transforms.timm_transforms import eval_transform, train_transform

logger = logging.getLogger(__name__)


class ImageDataModule(SplitImages, LoaderModule):
    """Training, validation and test batches of a `source`.

    The order and the augmentation are functions of (seed, epoch, index): the same for any number of workers and ranks,
    and after a resume. Batch.indices count in the whole training (or test) set, whatever subset is used.

    Serves the commands, and alone a `Trainer` of your own: `ImageDataModule(digits(), img_size=16)`; a folder of yours
    is `ssat.data.sets.folder.image_folder(root)`. Without a validation split `val_dataloader` serves the test images.

    Args:
        source: the images.
        img_size: side in pixels of the square images in a batch.
        channels: 3, 1 for grey, or 2 to 16 where every image has as many.
        mean: (channels,) of the normalisation, on [0, 1]; None = ImageNet's.
        std: likewise.
        own_statistics: measure them on the training images instead, see `ImageList.moments`.
        augment: see `train_transform`; None = the evaluation transform.
        eval_crop_pct: share of the resized image that the evaluation's centre crop keeps, see `eval_transform`.
        batch_size: of one rank.
        num_workers: worker processes of each loader.
        fraction: stratified share of the training images to use; or
        samples_per_class: as many of each class.
        label_fraction: stratified share of those whose labels are used.
        unlabelled: what becomes of the others: `drop` them, or `keep` them with the target -1.
        labelled_share: of each training batch that has labels, where others are kept; None = as they come.
        epoch_size: training images of an epoch, see `EpochSampler`; None = all of them once.
        val_fraction: stratified share of those to keep apart for validation.
        seed: of subsets, split, order and augmentation.
        on_bad_image: `error` = stop at a file that cannot be read; `skip` = decode every file once beforehand, leave
            those out and list them in `skipped`.
        drop_last: drop the last, incomplete training batch; else it is kept (`sampler.images_per_rank`).
        pin_memory: for a faster copy to a GPU.
        subset: how `fraction` chooses: `stratified`, or `official` = as the authors for Figure 5.
        protocol: `paper` = official validation images are trained on where the paper does, and the test images are
            evaluated after every epoch; `strict` = validation images select (a tenth of the training images where there
            is no official split and no `val_fraction`), and the test images are evaluated once.
        pipeline: `timm` = PIL, image by image, the reference; `batched` = the same operations on whole batches, on the
            device of the training.
        memory_gb: the most that a split may take to be held in memory (`batched`; `timm` holds those of evaluations).
        views: extra views of each training image, in `Batch.views` (`batched`); `views.AGAIN` = as the image itself.
        eval_views: make them of the evaluation images too, for a phase that has no other loss.
        value_range: the values of the image files that are black and white, between them linear; None = 0 and the
            largest of their type, refused where they hold negative or floating-point values or use a part of it.
        max_pixels: the largest image file that is decoded; a larger one counts as unreadable.
        balance: an epoch shows as many images of each class, those of the larger ones drawn anew in every epoch.
        test_fraction: stratified share of the training images to keep apart as the test, of a source without one; or
        folds: how many stratified parts it has, drawn by `seed`, and
        fold: which of them is the test, from 0.
        use_test: False = no split of test images, also where the source has some: nothing can be chosen by them.
        max_test: test on a stratified part of so many images, the same for every seed; None = on all.
        group: which images are never on two sides of a split, a subset or a label budget, see `groups.grouped`.

    Raises:
        UserError: a value that is not possible; `setup` and the loaders raise it for what the data do not allow.
    """

    def __init__(
        self,
        source: Source,
        *,
        img_size: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        augment: dict[str, Any] | None = None,
        channels: int = 3,
        eval_crop_pct: float = 0.875,
        batch_size: int = 64,
        num_workers: int = 0,
        val_fraction: float = 0.0,
        fraction: float = 1.0,
        label_fraction: float = 1.0,
        unlabelled: str = "drop",
        labelled_share: float | None = None,
        epoch_size: int | None = None,
        samples_per_class: int | None = None,
        seed: int = 0,
        on_bad_image: str = "error",
        drop_last: bool = False,
        pin_memory: bool = False,
        subset: str = "stratified",
        protocol: str = "paper",
        pipeline: str = "timm",
        memory_gb: float = 4.0,
        views: Sequence[View | str] = (),
        eval_views: bool = False,
        value_range: tuple[float, float] | None = None,
        max_pixels: int = MOST_PIXELS,
        own_statistics: bool = False,
        group: int | str | None = None,
        balance: bool = False,
        test_fraction: float = 0.0,
        max_test: int | None = None,
        use_test: bool = True,
        folds: int | None = None,
        fold: int | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size, num_workers=num_workers, seed=seed, drop_last=drop_last, pin_memory=pin_memory
        )
        source = grouped(source, group)
        if protocol == "paper" and source.trains_on_val and source.val is not None:
            source = replace(source, train=source.train + source.val, val=None)
        elif protocol == "strict" and source.val is None and not val_fraction:
            val_fraction = STRICT_FRACTION
        if own_statistics:  # until `setup` has measured them
            mean, std = (0.5,) * channels, (0.5,) * channels
        given = 1 if channels == 1 else None  # ImageNet's are of colours: of other channels they say nothing
        mean = IMAGENET_DEFAULT_MEAN[:given] if mean is None else mean
        std = IMAGENET_DEFAULT_STD[:given] if std is None else std
        check_values(channels, mean, std, img_size, batch_size, eval_crop_pct)
        check_choices(fraction, samples_per_class, val_fraction, label_fraction, on_bad_image)
        check_test(test_fraction, max_test, folds, fold)
        check_names(pipeline=pipeline, subset=subset, protocol=protocol)
        check_range(value_range)
        # Grey images are read as colours and become grey after the augmentation.
        self._stored = source
        self.source = source.read_as(Pixels(3 if channels in COLOURS else channels, value_range, max_pixels))
        self.img_size, self.channels, self.value_range = img_size, channels, value_range
        self.mean, self.std, self.own_statistics = tuple(mean), tuple(std), own_statistics
        self.choice = Choice(
            fraction=fraction,
            samples_per_class=samples_per_class,
            val_fraction=val_fraction,
            label_fraction=label_fraction,
            unlabelled=unlabelled,
            subset=subset,
            seed=seed,
            on_bad_image=on_bad_image,
            test_fraction=test_fraction,
            max_test=max_test,
            use_test=use_test,
            folds=folds,
            fold=fold,
        )
        self.balance, self.labelled_share, self.epoch_size = balance, labelled_share, epoch_size
        self.pipeline, self.memory_gb, self.views, self.eval_views = pipeline, memory_gb, tuple(views), eval_views
        check_views(self.views, pipeline, augmented=augment is not None)
        self.augment, self.eval_crop_pct = augment, eval_crop_pct
        self._make_transforms()
        self._memory: dict[str, Memory | None] = {}
        self._crops: dict[str, dict[int, Any]] = {}
        self.class_names = list(source.classes)
        self.num_classes = len(self.class_names)
        if source.multi_label:
            self.decides = "map"
        self._splits: dict[str, tuple[ImageList, Indices]] = {}
        self._chosen: dict[str, tuple[ImageList, Indices]] = {}  # before some lose their labels
        self._fingerprint: dict[str, Any] = {}

    def _make_transforms(self) -> None:
        normal: dict[str, Any] = {"mean": self.mean, "std": self.std, "channels": self.channels}
        normal["crop_pct"] = self.eval_crop_pct
        self.eval_transform = eval_transform(self.img_size, **normal)
        if self.pipeline == "timm":
            self.train_transform = train_transform(self.img_size, augment=self.augment, **normal)
        elif self.augment is not None:
            self._batched.train(crop=True)  # refuses what it cannot do
        for number, view in enumerate(self.views):
            self._batched.view(view, number, crop=True)

    def _measure(self) -> None:
        images, indices = self._chosen["train"]
        self.mean, self.std = images.moments(indices, self.channels)
        if min(self.std) == 0:
            raise UserError(
                f"channel {self.std.index(0)} (from 0) has the same value in all training images of {self.source.name},"
                " so recipe.statistics=own cannot normalise it: give data.statistics.own, or other files",
                key="recipe.statistics",
            )
        self._make_transforms()

    def setup(self, stage: str | None = None) -> None:
        """Choose the images of every split; the first call does the work."""
        if self._splits:
            return
        if self.value_range is None:
            refuse_unused_range((one for images in self.source.lists for one in images.extremes()), self.source.name)
        splits, self.skipped = self.choice.splits(self.source)
        refuse_unevaluated(splits, self.source.name)
        refuse_shared(splits)
        self._chosen = dict(splits)
        splits["train"] = self.choice.labelled(*splits["train"], self.class_names)
        if stage not in EVALUATIONS:
            shown = self._shown(*splits["train"])
            self._check_batch(self.epoch_size or shown, 1)
        if self.channels not in COLOURS:
            splits["train"][0].read(int(splits["train"][1][0]))  # other files are refused before anything is written
        if self.own_statistics:
            self._measure()
        self._splits = splits
        self.labelled_batches()  # refused before anything is written
        if self.skipped:
            logger.info("left out %d unreadable images, the first: %s", len(self.skipped), self.skipped[0])

    def samples(self, split: str) -> int:
        """Images that a pass over a split shows; of training, before those are dropped that do not fill a batch."""
        return self._shown(*self._splits[split]) if split == "train" else super().samples(split)

    def _shown(self, images: ImageList, indices: Indices) -> int:
        """The training images of an epoch."""
        if not self.balance:
            return len(indices)
        if shown := balanced_size(images.labels[indices], self.num_classes):
            return shown
        counts = counts_by_class(images, indices, self.class_names)
        raise UserError(
            f"recipe.balance=true shows as many images of each class, and {self.source.name} has no training image of"
            f" class {min(counts, key=lambda name: counts[name])!r}: add some, or leave it out",
            key="recipe.balance",
            value=True,
        )

    def _are_few(self, samples: int, world: int) -> bool:
        """Whether they are labelled images that do not fill a batch: they are one of their own."""
        return self.choice.label_fraction < 1 and samples < self.batch_size * world

    def fixed_batch(self, n: int, split: str | None = None) -> Batch:
        """n images spread evenly over the classes of `split`, with the evaluation transform; None = test, else val."""
        split = split or self.test_split
        dataset = ImageDataset(self._splits[split][0], self.eval_transform)
        return collate(dataset.__getitems__([(0, index) for index in self.spread(split, n)]))

    def _of_epochs(self) -> Indices | Callable[[int], Indices]:
        images, indices = self._splits["train"]
        if not self.balance:
            return indices
        labels, classes, seed = images.labels[indices], self.num_classes, self.seed
        return lambda epoch: indices[balanced(labels, classes, seed, epoch)]

    def labelled_batches(self) -> Labelled | None:
        """How many images of a training batch have labels; None = as they come."""
        if self.labelled_share is None:
            return None
        images, indices = self._splits["train"]
        known = indices[images.labels[indices] != NO_LABEL]
        return labelled_in_batches(known, len(indices), self.labelled_share, self.batch_size)

    def _train_samples(self, **options: Any) -> EpochLoader:
        if self.pipeline == "timm":
            dataset = ImageDataset(self._splits["train"][0], self.train_transform, seed=self.seed)
            return self._loader(dataset, collate, **options)
        return self._batched_loader("train", evaluate=False, **options)

    def eval_loader(self, split: str, perturb: Callable[[Image.Image, int], Image.Image] | None = None) -> EpochLoader:
        """Every image of `split` once, perturbed after the evaluation's crop (always with PIL) if asked for.

        Raises:
            UserError: there is no such split.
        """
        self.setup()
        if split not in self._splits:
            raise UserError(f"{self.source.name} has no {split} images, only {', '.join(self._splits)}")
        if perturb is not None and self.channels not in COLOURS:
            raise UserError(
                f"data.perturb changes pictures in colour or grey, and this run has data.channels={self.channels}:"
                " leave it out",
                key="data.perturb",
            )
        images, indices = self._splits[split]
        batches = self._eval_batches(indices)
        if self.pipeline == "timm" or perturb is not None:
            kept = self._kept_crops(split, len(indices)) if perturb is None else None
            dataset = ImageDataset(images, self.eval_transform, perturb=perturb, kept=kept)
            return self._loader(dataset, collate, batch_sampler=batches)
        return self._batched_loader(split, evaluate=True, batch_sampler=batches)

    def release(self) -> None:
        """Let go of the trainer, and of images held in memory; what asks for them next reads them again."""
        super().release()
        self._memory.clear()
        self._crops.clear()

    def _kept_crops(self, split: str, images: int) -> dict[int, Any] | None:
        """Where a training keeps a split's images between its evaluations, if they are 8-bit and not too many."""
        size = images * 4 * self.img_size**2  # bytes: Pillow has 4 of a pixel in colour
        if self.trainer is None or self.channels not in COLOURS or size > self.memory_gb * 2**30:
            return None
        return self._crops.setdefault(split, {})

    @property
    def _batched(self) -> Batched:
        return Batched(self.img_size, self.mean, self.std, self.augment, self.seed, self.eval_crop_pct, self.views)

    def _batched_parts(self, split: str, *, evaluate: bool) -> tuple[IndexDataset, Prepare]:
        images, indices = self._splits[split]
        if split not in self._memory:
            self._memory[split] = load(images, indices, self.memory_gb * 2**30)
        views = () if evaluate and not self.eval_views else self.views
        return self._batched.parts(images, self._memory[split], self._device, evaluate=evaluate, views=views)

    def _batched_loader(self, split: str, *, evaluate: bool, **kwargs: Any) -> EpochLoader:
        dataset, prepare = self._batched_parts(split, evaluate=evaluate)
        together = prepare.together(self.batch_size, self.img_size)
        # Images in memory leave nothing to do for workers.
        workers = 0 if prepare.memory is not None else None
        kwargs |= {"prepare": prepare, "together": together, "device": prepare.device}
        return self._loader(dataset, identity_collate, num_workers=workers, **kwargs)

    def training_images(self, indices: Sequence[int], epoch: int) -> Batch:
        """These training images as they are in `epoch`."""
        keys = [(epoch, index) for index in indices]
        if self.pipeline == "timm":
            dataset = ImageDataset(self._splits["train"][0], self.train_transform, seed=self.seed)
            return collate(dataset.__getitems__(keys))
        raw_dataset, prepare = self._batched_parts("train", evaluate=False)
        (batch,) = prepare([raw_dataset.__getitems__(keys)])
        return batch
