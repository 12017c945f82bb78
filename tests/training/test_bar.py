"""The progress bar: one line, however long the names and however narrow the terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from pathlib import Path

import pytest

from ssat.core.launch import broken
from ssat.training.callbacks.progress import fitting

VALUES = {"ETA": "3h07m", "loss": "1234.5", "test/acc1": "78.91", "clips/s": "1,234,567", "lr": "0.00025"}


@pytest.mark.parametrize("room", [0, 9, 10, 25, 200])
def test_values_fit_and_the_first_ones_are_kept(room: int) -> None:
    kept = fitting(VALUES, room)
    assert list(kept) == list(VALUES)[: len(kept)]
    assert sum(len(f"{name}: {value} ") for name, value in kept.items()) <= max(room, 0)
    assert len(fitting(VALUES, 200)) == len(VALUES)


def in_terminal(command: list[str], columns: int) -> str:
    """What a command prints into a terminal of so many columns."""
    process, terminal = pty.fork()
    if process == 0:
        os.environ.pop("COLUMNS", None)
        os.environ["TERM"] = "xterm"
        os.execv(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    shown = b""
    try:
        while part := os.read(terminal, 65536):
            shown += part
    except OSError:  # Linux's end of a terminal
        pass
    assert os.waitpid(process, 0)[1] == 0, shown.decode()
    return shown.decode()


@pytest.mark.slow
def test_a_training_draws_its_bar_on_one_line_of_80_columns(tmp_path: Path) -> None:
    words = ["encoder=vit_micro", "data=digits", "mode=ssat", "epochs=1", "data.samples_per_class=4"]
    words += ["recipe.batch_size=10", f"runs_dir={tmp_path}", "footprint.energy=false", "monitor.pictures=false"]
    shown = in_terminal([sys.executable, "-m", "src.train", *words], 80)
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown))
    bars = [line for line in lines if "━" in line]
    assert max(map(len, bars)) <= 80
    assert any("ETA" in bar and "loss" in bar for bar in bars)
    assert not [line for line in lines if line.startswith(" ") and ": " in line]  # what a bar has wrapped
    assert any(line.startswith("  test/") for line in lines)  # the epoch's fields, broken between them
    assert any(line.startswith("predict: python -m src.predict run=") for line in lines)


def test_a_line_of_fields_is_broken_between_fields_and_not_inside_one():
    line = "ssat/joint 1/2  train/loss 2.755  71 img/s  data_wait 6.4%  ETA 36 s"
    shown = broken(line, 40).splitlines()
    assert max(map(len, shown)) <= 40 and shown[-1].endswith("  ETA 36 s")
    assert "  ".join(part.strip() for part in shown) == line
    assert broken(line, 200) == line
    sentence = "a sentence is left to the terminal: " + "x" * 60
    assert broken(sentence, 40) == sentence
