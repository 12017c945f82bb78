"""What a record says of the machine."""

import pytest
import torch

from ssat.encoders.layers import multiplies_bf16
from ssat.runs.machine import hardware, has_bf16, slow_precision
from tests.helpers import config


def test_fp32_is_never_said_to_be_slow():
    assert slow_precision(config("trainer=cpu")) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is not asked for the instructions of the processor")
def test_bf16_is_said_to_be_slow_where_the_processor_lacks_it_and_the_record_says_which():
    chosen = config("trainer=cpu", "trainer.precision=bf16")
    sentence = slow_precision(chosen)
    assert (sentence is None) == (has_bf16() is not False)
    assert sentence is None or sentence.endswith("type trainer.precision=32")
    assert hardware(chosen.trainer)["cpu_has_bf16"] in (None, multiplies_bf16())
