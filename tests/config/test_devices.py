"""A run continues on the devices it was begun with; another number is answered with the words to type."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssat.config.identity import check_same_run
from ssat.core.errors import UserError
from tests.helpers import config


@pytest.mark.parametrize(
    ("begun", "now", "sentence"),
    [
        (
            ["trainer.devices=4"],
            ["trainer.devices=2"],
            "trainer.devices=4 to continue it, or trainer.devices=2 trainer.accumulate=2 force=true to train anew on as"
            " many images a step",
        ),
        (
            ["trainer.devices=2", "trainer.accumulate=2"],
            ["trainer.devices=4", "trainer.accumulate=2"],
            "trainer.devices=2 to continue it, or trainer.devices=4 trainer.accumulate=1 force=true to train anew on as"
            " many images a step",
        ),
        (["trainer.devices=4"], ["trainer.devices=3"], "trainer.devices=4 to continue it, or force=true to train anew"),
    ],
    ids=["fewer", "more", "uneven"],
)
def test_another_number_of_devices_is_answered_with_the_words_to_type(
    begun: list[str], now: list[str], sentence: str
) -> None:
    words = ["data=digits", "encoder=vit_micro", "mode=scratch", "trainer=ddp_cpu"]
    with pytest.raises(UserError) as refused:
        check_same_run(config(*words, *now), config(*words, *begun).values, Path("run"))
    assert str(refused.value).endswith(sentence)
