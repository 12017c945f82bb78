"""What a finished run says of itself."""

from __future__ import annotations

import pytest

from ssat.runs.faithful import unfaithful_reasons
from tests.helpers import config

LAST = {"data_fingerprint": {"splits": {"train": 50_000}}, "skipped_images": [], "epochs": 100}


def reasons(*overrides: str) -> list[str]:
    chosen = config("encoder=vit_t", "data=cifar10", *overrides)
    return unfaithful_reasons(chosen, LAST | {"epochs": chosen.mode.phases[-1].epochs})


@pytest.mark.parametrize("mode", ["scratch", "ssat", "ssl_ft", "ssl_ft_50_50", "ssl_ft_100_50"])
def test_what_the_paper_ran_is_a_cell_of_it(mode: str) -> None:
    assert reasons(f"mode={mode}") == []


@pytest.mark.parametrize("batch", [["trainer.accumulate=8"], ["trainer.devices=4", "recipe.batch_size=128"]])
def test_a_step_on_imagenet_has_the_batch_of_eight_devices(batch: list[str]) -> None:
    assert reasons("data=imagenet", *batch) == []


def test_other_epochs_of_ssl_and_fine_tuning_are_no_cell() -> None:
    assert reasons("mode=ssl_ft", "mode.ssl_epochs=30") == ["30 + 100 epochs are none of Table 3's protocols"]


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["mode=linear", "mode.init_from=some/run"], "mode=linear"),
        (["ssl=latent"], "ssl=latent"),
        (["ssl.target=hog"], "ssl.target=hog"),
        (["ssl.mask=block"], "ssl.mask=block"),
        (["ssl.source=weak"], "ssl.source=weak"),
        (["mode.lam_schedule=balanced"], "mode.lam_schedule=balanced"),
        (["recipe.patch_dropout=0.5"], "recipe.patch_dropout leaves patches out"),
        (["recipe.sizes=[16]"], "recipe.sizes begins with images of fewer pixels"),
        (["trainer.devices=8"], "512 images in an optimizer step, in place of 64"),
        (["data=imagenet"], "64 images in an optimizer step, in place of 512"),
    ],
)
def test_what_the_paper_did_not_do_is_no_cell_of_it(overrides: list[str], named: str) -> None:
    (reason,) = reasons(*([] if overrides[0].startswith("mode=") else ["mode=ssat"]), *overrides)
    assert reason.startswith(named)


def test_what_a_run_does_not_use_is_no_reason() -> None:
    assert reasons("mode=scratch", "ssl.target=hog") == []
