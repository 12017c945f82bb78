"""Signals: a training waits for a moment that can be saved, anything else ends at once."""

import os
import signal

import pytest

from ssat.core.interrupts import Stopped
from ssat.training.stop import Stop


@pytest.fixture
def stop():
    stop = Stop()
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stop.listening():
        yield stop
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_saves_nothing_ends_at_once(stop, number, code):
    with pytest.raises(Stopped) as caught:
        os.kill(os.getpid(), number)
    assert caught.value.code == code


def test_a_training_remembers_the_first_signal_and_a_second_ctrl_c_ends_it(stop, capfd):
    stop.waits = True
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), number)
    assert stop.received == signal.SIGTERM
    assert capfd.readouterr().err.strip().startswith("stopping: saving after this batch")
    with pytest.raises(Stopped):
        os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stop().listening():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
