"""`ssat <command> ...`: one console command for everything."""

from __future__ import annotations

import importlib
import os
import sys

from ssat.core import interrupts
from ssat.core.allocator import use_huge_pages
from ssat.core.parent import end_with_starter

COMMANDS = {
    "train": ("ssat.commands.train", "train one run, or a sweep of runs"),
    "advise": ("ssat.commands.advise", "try in short pilots whether SSAT will help on your data"),
    "evaluate": ("ssat.commands.evaluate", "test a finished run on clean or perturbed images, or probe its features"),
    "predict": ("ssat.commands.predict.command", "say how probable each class is of videos or images of yours"),
    "embed": ("ssat.commands.embed.command", "write the features of images, and draw them as a map"),
    "demo": ("ssat.commands.demo.command", "show a trained network on a web page of this machine: drop a photo"),
    "export": ("ssat.commands.export", "write the network of a finished run for other programs: ONNX, timm ..."),
    "analyze": ("ssat.commands.analyze", "attention, tokens, Hessian and Grad-CAM of finished runs"),
    "report": ("ssat.commands.report", "all runs beside the paper, on the terminal and as a page"),
    "prepare": ("ssat.commands.prepare", "fetch and check a data set"),
    "dashboard": ("ssat.commands.dashboard", "compare all runs in a W&B report"),
    "doctor": ("ssat.commands.doctor.command", "check the installation, the machine and the data"),
}
STOPPED_AS_INTERRUPTED = ("prepare", "predict")  # SIGTERM has one exit code from their beginning to their end


def usage() -> str:
    """What `ssat --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  ssat {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(["usage: ssat <command> key=value ...", "", *lines, "", "ssat <command> --help says more"])


def main(command: str | None = None) -> None:
    """Run `command`, or the one that the command line names first."""
    if command is None:
        command = sys.argv[1] if len(sys.argv) > 1 else "--help"
        sys.argv[1:2] = []
    end_with_starter()
    if "JPY_PARENT_PID" in os.environ:  # a notebook's `!`: a bar would be thousands of lines
        os.environ.setdefault("TTY_COMPATIBLE", "0")  # rich reads it
    # The first seconds of a command are imports.
    interrupts.end_at_once(stopped=130 if command in STOPPED_AS_INTERRUPTED else 143)
    use_huge_pages()
    if command in ("--help", "-h", "help"):
        print(usage())
        return
    if command == "--version":
        from ssat import __version__

        print(__version__)
        return
    if command not in COMMANDS:
        from ssat.core.words import nearest

        print(f"error: there is no command {command!r}{nearest(command, list(COMMANDS))}\n\n{usage()}", file=sys.stderr)
        raise SystemExit(2)
    if not {"", os.getcwd()} & {*sys.path}:
        sys.path.append(os.getcwd())  # `python -m` has it there: a class of the user's own is found by `module:Class`
    try:
        run = importlib.import_module(COMMANDS[command][0]).main
        interrupts.raise_once()
        run()
        sys.stdout.flush()
    except BrokenPipeError:  # `... | head` has closed the pipe, and nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None  # as a program that SIGPIPE ends
    finally:
        interrupts.end_at_exit()


if __name__ == "__main__":
    main()
