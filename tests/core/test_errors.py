"""A user's mistake knows its key."""

import pickle

import pytest
import torch

from ssat.core.errors import NotEnoughMemory, UserError, enough_memory, refused_memory


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


def test_what_the_allocator_says_is_kept_in_one_line_and_crosses_processes() -> None:
    with pytest.raises(NotEnoughMemory) as refused, enough_memory("the run"):
        torch.empty(1 << 60, dtype=torch.uint8)
    assert refused.value.reason.startswith("DefaultCPUAllocator: ") and refused.value.reason.endswith("bytes")
    again = pickle.loads(pickle.dumps(refused.value))
    assert (str(again), again.reason) == (str(refused.value), refused.value.reason)


def test_a_form_that_onednn_does_not_know_is_not_taken_for_memory() -> None:
    assert refused_memory(RuntimeError("could not create a primitive")) == "could not create a primitive"
    assert refused_memory(RuntimeError("could not create a primitive descriptor for a matmul")) is None
