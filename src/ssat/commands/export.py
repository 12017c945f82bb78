"""Export a trained network. python -m src.export run=<run folder> format=onnx out=<folder>"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ssat.config.command_line import run_words
from ssat.core.errors import UserError
from ssat.core.options import is_true, read_options
from ssat.core.words import nearest
from ssat.runs.saved import saved_configuration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ssat.config.schema import Run

USAGE = """\
python -m src.export run=<run folder> format=<format> [key=value ...]

Writes the encoder and the head of a finished run, without its decoder, for other programs: the model's file, model.json
(classes, preprocessing, configuration, metrics) and a model card. The file is read again and compared with PyTorch, on
random input and on up to 256 test images; one that computes something else is refused.

  run=<folder>            of python -m src.train
  format=<format>         safetensors (tensors, for ssat.load), timm (plain ViTs, for timm.create_model), onnx
                          (onnxruntime; needs pip install "ssat[export]"), torch_export (torch.export.load)
  out=<folder>            new or empty; by default exports/<run>-<format>
  checkpoint=best         best, last, or a checkpoint file of that run
  force=true              replace an earlier export in out
  --config-dir <folder>   with configuration files of your own, where a run was trained with them
"""
NAMES = ("safetensors", "timm", "onnx", "torch_export")
OWN = {"run": "<run folder>", "format": "onnx", "out": "<folder>", "checkpoint": "best", "force": "true"}
DEFAULTS = {"checkpoint": "best", "force": "false"}
TEST_IMAGES, TEST_CLIPS = 256, 16  # most that are compared; a clip is as large as 16 images
BATCH = 32


def parse(words: list[str]) -> dict[str, str]:
    """The options, checked; "" where none was given and none is the default.

    Raises:
        UserError: an unknown word, or a value that is not possible.
    """
    given, flags, _ = read_options(words, OWN, names=("force",))
    options = {**dict.fromkeys(OWN, ""), **DEFAULTS, **given, **dict.fromkeys(flags, "true")}
    if not options["run"]:
        raise UserError("say which run: run=<folder that python -m src.train has made>", key="run")
    name = options["format"]
    if name not in NAMES:
        said = f"format={name} is not a format{nearest(name, [*NAMES])}" if name else "say which format"
        raise UserError(f"{said}: {', '.join(NAMES)}", key="format", value=name or None)
    is_true("force", options["force"])
    return options


def test_images(config: Run, phase: Any, moments: dict[str, list[float]]) -> tuple[Sequence[Tensor], str]:
    """Batches of test images, or first clips of test videos, spread over the classes; or none, and why."""
    from ssat.config.schema import Moments
    from ssat.training.data import build_data

    own = Moments(tuple(moments["mean"]), tuple(moments["std"]))  # it was measured, and need not be again
    plain = replace(config.data, num_workers=0, statistics=replace(config.data.statistics, own=own))
    try:
        data = build_data(replace(config, data=plain), phase)
        data.setup("test")
        images = data.fixed_batch(TEST_IMAGES if config.data.frames is None else TEST_CLIPS).images
    except UserError as error:
        return [], str(error)
    return images.split(BATCH), ""


def export(words: list[str], console: Console) -> Path:
    """The command; returns the folder that it has written.

    Raises:
        UserError: the command line, the run or the checkpoint is not right, or the export is refused.
    """
    options = parse(words)
    run, name, force = Path(options["run"]), options["format"], is_true("force", options["force"])
    out = Path(options["out"] or f"exports/{Path(options['run']).resolve().name}-{name}")
    config = saved_configuration(run, ["data.download=false"])  # only data that are there are compared
    # Heavy imports only for a command line that can be right.
    from ssat.export.classifier import Classifier
    from ssat.export.facts import finished_record, gather, phase_record
    from ssat.export.folder import refuse_filled, write_export
    from ssat.training.evaluation import find_checkpoint, load_network

    refuse_filled(out, force=force)
    phase = config.mode.phases[-1]
    if phase.lam == 0:
        raise UserError(f"run={run} has learned no labels (lam=0), so it has no head to export: fine-tune it first")
    record = finished_record(run)
    path = find_checkpoint(run, phase.name, options["checkpoint"])
    classes = len(phase_record(record, run)["class_names"])
    module, epoch = load_network(config, run, phase, path, classes)
    assert module.head is not None
    model = Classifier(module.encoder, module.head, name=config.encoder.name)
    facts = gather(config, run, phase, record, checkpoint=options["checkpoint"], path=path, epoch=epoch)
    of = "" if epoch is None else f", epoch {epoch} of {phase.epochs}"
    console.print(f"{run.name}: {path.name}{of}, {facts['num_classes']} classes", markup=False)
    written = write_export(
        model,
        facts,
        config,
        name=name,
        out=out,
        test_images=lambda: test_images(config, phase, facts["statistics"]),
        force=force,
        say=lambda line: console.print(line, markup=False),
    )
    size = (out / written["file"]).stat().st_size / 1e6
    console.print(f"written to {out}: {written['file']} ({size:.1f} MB), model.json, README.md", markup=False)
    return out


def main() -> None:
    """The command."""
    console = Console(highlight=False, soft_wrap=True)
    run_words(lambda words: export(words, console), USAGE, interrupted="nothing was written", config_dir=True)
