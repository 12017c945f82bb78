"""The export of a finished run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ssat.config.schema import Moments, Phase, Run
from ssat.core.errors import UserError
from ssat.export.classifier import Classifier
from ssat.export.facts import finished_record, gather, phase_record
from ssat.export.folder import refuse_filled, write_export
from ssat.export.formats import FORMATS
from ssat.runs.saved import saved_configuration
from ssat.training.data import build_data
from ssat.training.evaluation import find_checkpoint, load_network

TEST_IMAGES, TEST_CLIPS = 256, 16  # that are compared unless asked otherwise; a clip is as large as 16 images
BATCH = 32


def test_images(
    config: Run, phase: Phase, moments: dict[str, list[float]], wanted: int | None
) -> tuple[Iterable[Tensor], str]:
    """Batches of test images, or first clips of test videos; or none, and why.

    Args:
        config: of the run.
        phase: its last.
        moments: mean and standard deviation that the run has measured or was given.
        wanted: how many, spread over the classes; 0 = every test image, of videos every segment; None = a sample.
    """
    own = Moments(tuple(moments["mean"]), tuple(moments["std"]))  # it was measured, and need not be again
    plain = replace(config.data, num_workers=0, statistics=replace(config.data.statistics, own=own))
    try:
        data = build_data(replace(config, data=plain), phase)
        data.setup("test")
        if wanted == 0:
            return (batch.images for batch in data.predict_dataloader()), ""
        images = data.fixed_batch(wanted or (TEST_IMAGES if config.data.frames is None else TEST_CLIPS)).images
    except UserError as error:
        return [], str(error)
    return images.split(BATCH), ""


def export_run(
    run: Path,
    name: str,
    out: Path,
    *,
    checkpoint: str = "best",
    force: bool = False,
    images: int | None = None,
    say: Callable[[str], Any] = lambda line: None,
) -> dict[str, Any]:
    """Write the network of a run to `out` and compare it with PyTorch; returns what `model.json` holds.

    Args:
        run: its folder.
        name: of the format, one of `formats.FORMATS`.
        out: new or empty folder.
        checkpoint: best, last, or a file of that run.
        force: replace an earlier export in `out`.
        images: test images that are compared, 0 = all; None = 256 of them, or 16 clips.
        say: takes a line for each thing that is worth knowing.

    Raises:
        UserError: the run or the checkpoint is not right, or the export is refused.
    """
    if name not in FORMATS:
        raise UserError(f"format={name} is not a format: {', '.join(FORMATS)}", key="format", value=name)
    config = saved_configuration(run, ["data.download=false"])  # only data that are there are compared
    refuse_filled(out, force=force)
    phase = config.mode.phases[-1]
    if phase.lam == 0:
        raise UserError(f"run={run} has learned no labels (lam=0), so it has no head to export: fine-tune it first")
    record = finished_record(run)
    path = find_checkpoint(run, phase.name, checkpoint)
    classes = len(phase_record(record, run)["class_names"])
    module, epoch = load_network(config, run, phase, path, classes)
    assert module.head is not None
    model = Classifier(module.encoder, module.head, name=config.encoder.name)
    facts = gather(config, run, phase, record, checkpoint=checkpoint, path=path, epoch=epoch)
    of = "" if epoch is None else f", epoch {epoch} of {phase.epochs}"
    say(f"{run.name}: {path.name}{of}, {facts['num_classes']} {'labels' if config.data.multi_label else 'classes'}")
    written = write_export(
        model,
        facts,
        config,
        name=name,
        out=out,
        test_images=lambda: test_images(config, phase, facts["statistics"], images),
        force=force,
        say=say,
    )
    size = (out / written["file"]).stat().st_size / 1e6
    say(f"written to {out}: {written['file']} ({size:.1f} MB), model.json, README.md")
    return written
