"""Export a trained network. python -m src.export run=<run folder> format=onnx out=<folder>"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ssat.config.command_line import run_words
from ssat.core.errors import UserError
from ssat.core.options import is_true, read_options
from ssat.core.terminal import Console
from ssat.core.words import nearest

USAGE = """\
python -m src.export run=<run folder> format=<format> [key=value ...]

Writes the encoder and the head of a finished run, without its decoder, for other programs: the model's file, model.json
(classes, preprocessing, configuration, metrics) and a model card. The file is read again and compared with PyTorch, on
random input and on test images; one that computes something else is refused.

  run=<folder>            of python -m src.train
  format=<format>         safetensors (tensors, for ssat.load), timm (plain ViTs, for timm.create_model), onnx
                          (onnxruntime; needs pip install "ssat[export]"), torch_export (torch.export.load)
  out=<folder>            new or empty; by default exports/<run>-<format>
  checkpoint=best         best, last, or a checkpoint file of that run
  images=256              test images that are compared, spread over the classes; all = every one of them
  force=true              replace an earlier export in out
  --config-dir <folder>   with configuration files of your own, where a run was trained with them
"""
NAMES = ("safetensors", "timm", "onnx", "torch_export")
OWN = {
    "run": "<run folder>",
    "format": "onnx",
    "out": "<folder>",
    "checkpoint": "best",
    "images": "all",
    "force": "true",
}
DEFAULTS = {"checkpoint": "best", "force": "false"}


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
    wanted_images(options["images"])
    return options


def wanted_images(text: str) -> int | None:
    """The number of test images that images=... asks for; 0 = all, None = not said.

    Raises:
        UserError: it is no number above 0 and not the word all.
    """
    if text in ("", "all"):
        return 0 if text else None
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise UserError(f"images={text} is neither a number of test images nor all", key="images", value=text)


def export(words: list[str], console: Console) -> Path:
    """The command; returns the folder that it has written.

    Raises:
        UserError: the command line, the run or the checkpoint is not right, or the export is refused.
    """
    options = parse(words)
    run, name, force = Path(options["run"]), options["format"], is_true("force", options["force"])
    out = Path(options["out"] or f"exports/{Path(options['run']).resolve().name}-{name}")
    # Heavy imports only for a command line that can be right.
    from ssat.export.run import export_run

    export_run(
        run,
        name,
        out,
        checkpoint=options["checkpoint"],
        force=force,
        images=wanted_images(options["images"]),
        say=partial(console.print, markup=False),
    )
    return out


def main() -> None:
    """The command."""
    console = Console(highlight=False, soft_wrap=True)
    run_words(lambda words: export(words, console), USAGE, interrupted="nothing was written", config_dir=True)
