"""What training sees: some images under both pipelines, and the images of each class, as one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir

from ssat.config.identity import config_hash
from ssat.config.resolve import resolve
from ssat.config.schema import Run
from ssat.config.words import CONF
from ssat.core.errors import UserError
from ssat.core.visible import pixels, visible
from ssat.data.image import ImageDataModule
from ssat.data.options import CHOICES
from ssat.data.sets.sources import ImageList
from ssat.results.text import shorten
from ssat.training.data import build_images

IMAGES, EPOCHS = 8, 4  # rows of the sheet, columns of each pipeline
LETTERS = 20  # of a row's class and file
NAMED = 40  # classes at most whose names are written below their bars


def show(overrides: list[str], out: Path | None = None) -> Path:
    """Draw the contact sheet of the data of a training command.

    Args:
        overrides: as on the command line of src.train: data=<name>, data.root=..., recipe.augment.*=...
        out: of the PNG; None = runs/contact_sheets/<data>-<hash of the run that would be trained>.png.

    Raises:
        UserError: as for training.
    """
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = resolve(compose("train", overrides=overrides))
    sheets: dict[str, ImageDataModule | str] = {}
    for pipeline in CHOICES["pipeline"]:
        try:
            sheets[pipeline] = _data(config, pipeline)
        except UserError as error:
            if "data.pipeline=timm" not in str(error):
                raise
            sheets[pipeline] = str(error)  # what only PIL can do is said in the picture
    out = out or Path(config.runs_dir) / "contact_sheets" / f"{config.data.name}-{config_hash(config)}.png"
    out.parent.mkdir(parents=True, exist_ok=True)
    _draw(sheets, out)
    return out


def _data(config: Run, pipeline: Any) -> ImageDataModule:
    changed = replace(config, data=replace(config.data, pipeline=pipeline))
    data = build_images(changed, config.mode.phases[-1])
    data.batch_size = 1  # a picture needs no whole batch of training images
    data.setup()
    return data


def _draw(sheets: dict[str, Any], out: Path) -> None:
    from matplotlib.figure import Figure

    reference: ImageDataModule = sheets["timm"]
    chosen = reference.spread("train", IMAGES)
    figure = Figure(figsize=(14, 12), dpi=100, layout="constrained")
    top, bottom = cast(Any, figure.subfigures(2, 1, height_ratios=[4, 1]))
    axes = top.subplots(len(chosen), 1 + len(sheets) * EPOCHS, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    source, _ = reference.split("train")
    for row, index in enumerate(chosen):
        axes[row, 0].imshow(visible(source.read_tensor(index).unsqueeze(0))[0].permute(1, 2, 0))
        label = row_label(source, index, reference.class_names)
        axes[row, 0].text(-0.08, 0.5, label, transform=axes[row, 0].transAxes, ha="right", va="center", fontsize=8)
    axes[0, 0].set_title("original", fontsize=9, loc="left")
    for place, (pipeline, data) in enumerate(sheets.items()):
        first = 1 + place * EPOCHS
        axes[0, first].set_title(f"data.pipeline={pipeline}\nepoch 1", fontsize=9, loc="left")
        if isinstance(data, str):
            axes[0, first].text(0, 0, data, wrap=True, fontsize=8)
            continue
        for epoch in range(EPOCHS):
            if epoch:
                axes[0, first + epoch].set_title(f"epoch {epoch + 1}", fontsize=9, loc="left")
            pictures = pixels(data.training_images(chosen, epoch).images, data.mean, data.std)
            for row, picture in enumerate(pictures):
                axes[row, first + epoch].imshow(picture)
    _draw_counts(bottom.subplots(), reference)
    figure.savefig(out)


def row_label(source: ImageList, index: int, classes: Sequence[str]) -> str:
    """The class of an image, and below it the end of its file's name where it has one."""
    name = str(source.images[index]) if source.root is not None else ""
    end = name if len(name) <= LETTERS else "…" + name[1 - LETTERS :]
    lines = filter(None, (shorten(classes[source.labels[index]], LETTERS), end))
    return "\n".join(lines).replace("$", r"\$")  # matplotlib reads what stands between two dollars as a formula


def _draw_counts(axis: Any, data: ImageDataModule) -> None:
    names = data.class_names
    for split in data.sizes:
        counts = list(data.class_counts(split).values())
        label = f"{split}: {sum(counts):,} images, {min(counts):,} to {max(counts):,} per class"
        axis.plot(range(len(names)), counts, "o-" if len(names) <= NAMED else "-", markersize=4, label=label)
    axis.set_ylim(bottom=0)
    axis.set_ylabel("images")
    axis.set_xlabel(f"{len(names)} classes")
    if len(names) <= NAMED:
        axis.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)
    axis.legend(fontsize=8)
