"""Signals at any moment of a real command: one line and an exit code, never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ssat.commands.__main__ import STOPPED_AS_INTERRUPTED
from tests.helpers import ROOT, TINY

AGAIN, LEFT = "the same command begins again", "the same command continues with what is left"
# Says when the handlers are there: what Python does before its first line is not ours.
READY = """import sys; sys.argv[1:] = {words}
from ssat.commands.__main__ import main
print("go", flush=True)
main({name!r})
"""


def ended(name: str, words: list[str], delay: float, *signals: int) -> tuple[int, str]:
    """The exit code and stderr of a command that gets these signals, 20 ms apart, `delay` seconds after its start."""
    process = subprocess.Popen(
        [sys.executable, "-c", READY.format(words=words, name=name)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    assert process.stdout and process.stdout.readline() == "go\n"
    time.sleep(delay)
    for number in signals:
        process.send_signal(number)
        time.sleep(0.02)
    return process.returncode if process.poll() is not None else process.wait(60), process.communicate()[1]


COMMANDS = ["train", "evaluate", "analyze", "report", "prepare", "predict", "embed", "demo", "dashboard", "doctor"]
COMMANDS += ["advise"]


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("signals", "code", "said"),
    [
        ((signal.SIGINT,), 130, f"\ninterrupted: {AGAIN}\n"),
        ((signal.SIGINT, signal.SIGINT), 130, f"\ninterrupted: {AGAIN}\n"),
        ((signal.SIGTERM,), 143, f"stopped by SIGTERM: {AGAIN}\n"),
    ],
    ids=["ctrl-c", "twice", "sigterm"],
)
def test_a_signal_during_the_imports_is_one_line(name: str, signals: tuple, code: int, said: str) -> None:
    assert ended(name, [], 0.05, *signals) == (130 if name in STOPPED_AS_INTERRUPTED else code, said)


def test_a_sweep_that_has_not_begun_goes_on_with_what_is_left() -> None:
    code, said = ended("train", ["-m", "seed=0,1"], 0.05, signal.SIGTERM)
    assert (code, said) == (143, f"stopped by SIGTERM: {LEFT}\n")


@pytest.mark.sampled
@pytest.mark.parametrize("delay", [0.4, 0.8, 1.2, 1.6, 2.4])
def test_two_signals_while_a_training_starts_are_one_line(tmp_path: Path, delay: float) -> None:
    words = [*TINY, "mode=scratch", f"runs_dir={tmp_path}"]
    code, said = ended("train", words, delay, signal.SIGINT, signal.SIGINT)
    # Which of the two depends on whether the first has had its line when the second comes.
    assert (code, said) in [(130, f"\ninterrupted: {what}\n") for what in (AGAIN, "ended at once")]
    assert not list(tmp_path.glob("*/*/result.json"))


def test_ctrl_c_that_is_ignored_stays_ignored() -> None:
    script = (
        "import os, signal; from ssat.core import interrupts; interrupts.end_at_once(); interrupts.raise_once();"
        "os.kill(os.getpid(), signal.SIGINT); print('went on')"
    )
    process = subprocess.run(
        ["nohup", "sh", "-c", 'trap "" INT; exec "$0" -c "$1"', sys.executable, script],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    assert process.stdout == "went on\n"


@pytest.mark.slow
def test_a_training_whose_first_checkpoint_is_to_come_begins_again(tmp_path: Path) -> None:
    words = ["mode=scratch", "epochs=500", "trainer.progress=lines"]
    (tmp_path / "spy.py").write_text(
        "import os, signal\nfrom ssat.encoders.vit import VisionTransformer\n\n\nclass Spy(VisionTransformer):\n"
        "    def forward_features(self, *args, **kwargs):\n        os.kill(os.getpid(), signal.SIGINT)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n        return super().forward_features(*args, **kwargs)\n"
    )
    (tmp_path / "conf" / "encoder").mkdir(parents=True)
    (tmp_path / "conf/encoder/spy.yaml").write_text("defaults: [vit_micro]\nkind: spy:Spy\nname: spy\n")
    process = subprocess.run(
        [sys.executable, "-m", "ssat.commands", "train", "--config-dir", "conf", *TINY, "encoder=spy", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    assert process.returncode == 130 and process.stderr.endswith(f"\ninterrupted: {AGAIN}\n"), process.stderr
    assert not list(tmp_path.glob("runs/*/*/*/checkpoints/last.ckpt"))
