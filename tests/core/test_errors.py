"""A user's mistake knows its key."""

import pytest

from ssat.core.errors import UserError, enough_memory


@pytest.mark.parametrize(
    ("message", "key"),
    [
        ("data.channels=7 is not possible: use 3 or 1", "data.channels"),
        ("--config-dir=x is not a folder", "--config-dir"),
        ("seed=-1 is not possible", "seed"),
        ("runs/x/last.ckpt is damaged: move it away", None),
        ("LamSchedule(kind=linear) has no end", None),
    ],
)
def test_a_message_that_begins_with_a_key_is_about_that_key(message: str, key: str | None) -> None:
    assert UserError(message).key == key
    assert UserError(message, key="other").key == "other"


def test_a_refused_allocation_is_one_sentence_and_other_errors_stay() -> None:
    with pytest.raises(UserError, match="the run does not fit into the device's memory"), enough_memory("the run"):
        bytearray(1 << 62)
    with pytest.raises(RuntimeError, match="something else"), enough_memory("the run"):
        raise RuntimeError("something else")
