"""A trained network on a web page of this machine. python -m src.demo run=<run folder>"""

from __future__ import annotations

import errno
import socket
import tempfile
import threading
from pathlib import Path

from ssat.commands.predict import show
from ssat.commands.predict.command import CHOICES
from ssat.config.command_line import run_words
from ssat.core.errors import UserError
from ssat.core.options import is_true, read_options, whole_number
from ssat.core.terminal import Console

USAGE = """\
python -m src.demo run=<run folder> [key=value ...]

Serves a page to this machine alone: drop an image, or choose one of the run's test images, and see the probability of
each class, what speaks for the first one (Grad-CAM, plain ViTs), and what the decoder makes of a quarter of the patches
(runs with a reconstruction task, whose checkpoints hold it). Nothing leaves the machine. Ctrl-C ends it.

  run=<folder|file>       a run folder of python -m src.train, a checkpoint file, or an export of
                          format=safetensors; of images
  checkpoint=best         best, last, or a checkpoint file of that run
  port=7860               0 = a free one
  open=false              true opens the page in the browser
  device=auto             auto (the GPU if there is one), cpu, cuda
  --config-dir <folder>   with configuration files of your own, where a run was trained with them
"""
OWN = {"run": "<run folder>", "checkpoint": "best", "port": "7860", "open": "true", "device": "auto"}
DEFAULTS = {"checkpoint": "best", "port": "7860", "open": "false", "device": "auto"}
LARGEST_PORT = 65_535


def parse(words: list[str]) -> dict[str, str]:
    """The options, checked.

    Raises:
        UserError: an unknown word, or a value that is not possible.
    """
    given, flags, _ = read_options(words, OWN, names=("open",))
    options = {**DEFAULTS, **given, **dict.fromkeys(flags, "true")}
    if not options.get("run"):
        raise UserError(f"say run={OWN['run']} (--help lists the options)", key="run")
    if options["device"] not in CHOICES["device"]:
        raise UserError(f"device={options['device']} is not one of {', '.join(CHOICES['device'])}", key="device")
    if whole_number("port", options["port"], least=0) > LARGEST_PORT:
        raise UserError(f"port={options['port']} is not possible: at most {LARGEST_PORT}", key="port")
    options["open"] = str(is_true("open", options["open"])).lower()
    return options


def free_port(port: int) -> int:
    """`port`, or a free one of this machine for 0.

    Raises:
        UserError: another program has it, or it is not for users.
    """
    with socket.socket() as sock:
        # A demo that has just ended keeps its port for a minute, which hinders nobody.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError as error:
            used = error.errno == errno.EADDRINUSE
            why = "is used by another program" if used else f"cannot be used ({error.strerror})"
            raise UserError(
                f"port={port} {why}: name another, or port=0 for a free one", key="port", value=port
            ) from None
        return int(sock.getsockname()[1])


def demo(words: list[str], console: Console) -> None:
    """The command; returns after Ctrl-C.

    Raises:
        UserError: the command line or the run is not right, the port is used, or gradio is missing.
    """
    options = parse(words)
    port = free_port(int(options["port"]))
    # Heavy imports only for a command line that can be right.
    from ssat.commands.demo.answers import Answers, write_examples
    from ssat.commands.demo.page import build, import_gradio, launch
    from ssat.commands.predict.trained import Trained
    from ssat.core.interrupts import ending_at_once
    from ssat.model import load

    with tempfile.TemporaryDirectory(prefix="ssat-demo-") as made:
        folder = Path(made)
        with ending_at_once():
            gradio = import_gradio(folder)
        device = None if options["device"] == "auto" else options["device"]
        answers = Answers(load(options["run"], options["checkpoint"], device))
        examples, why = write_examples(answers.model, folder)
        if why:
            show.line(console, f"no examples: {why}")
        facts = [*Trained(answers.model.saved).lines(), show.NO_PROOF_OF_IMAGES]
        page = build(gradio, answers, [_sentence(fact) for fact in facts], examples, folder)
        try:
            address = launch(page, port, folder, opens=options["open"] == "true")
            show.line(console, f"demo of {answers.model.saved.name}: {address} (Ctrl-C ends it)")
            console.file.flush()
            threading.Event().wait()
        except KeyboardInterrupt:
            show.line(console, "\nended")
        finally:
            page.close(verbose=False)


def _sentence(fact: str) -> str:
    return f"{fact[:1].upper()}{fact[1:]}."


def main() -> None:
    """The command."""
    console = Console(highlight=False, soft_wrap=True)
    run_words(lambda words: demo(words, console), USAGE, interrupted="nothing was begun", config_dir=True)
