"""recipe.patch_dropout: what it is refused with, and that the identity of other runs is as before."""

from __future__ import annotations

import pytest

from ssat.config.identity import identity
from ssat.core.errors import UserError
from ssat.training.build import build_module
from ssat.training.module import JointModule
from tests.helpers import config

HALF = "recipe.patch_dropout=0.5"


def built(*words: str) -> JointModule:
    run = config("data=digits", "encoder=vit_micro", *words)
    return build_module(run, run.mode.phases[0], 10)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["recipe.patch_dropout=1"], "recipe.patch_dropout=1 leaves no patch"),
        ([HALF, "trainer.cuda_graph=true"], "set trainer.cuda_graph=false"),
        (["mode=ssl_ft", "mode.ssl_recipe.patch_dropout=0.5"], "the phase pretrain classifies nothing"),
        (["mode=linear", "mode.init_from=x", "mode.probe_recipe.patch_dropout=0.5"], "the phase linear keeps it"),
        ([HALF, "encoder=swin_t"], "encoder=swin_t computes all of them: use encoder=vit_t or another plain ViT"),
        ([HALF, "encoder=resnet_50", "mode=scratch"], "encoder=resnet_50 computes all of them"),
        ([HALF, "ssl=simclr"], "ssl=simclr reads whole images in that pass: use ssl=mae"),
        ([HALF, "ssl=drloc"], "ssl=drloc reads whole images in that pass"),
    ],
)
def test_what_does_not_fit_is_one_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        built(*words)


def test_it_belongs_to_the_identity_where_it_is_used_and_nowhere_else() -> None:
    plain, half = identity(config("mode=scratch")), identity(config("mode=scratch", HALF))
    assert half == plain | {"mode.phases.0.recipe.patch_dropout": 0.5}


@pytest.mark.parametrize("encoder", ["vit_t", "sl_vit", "deit_ti", "timm"])
def test_the_encoder_of_a_plain_vit_takes_it(encoder: str) -> None:
    words = ["encoder.name=test_vit", "encoder.drop_path=0"] if encoder == "timm" else ["encoder.depth=1"]
    run = config(f"encoder={encoder}", "data=digits", HALF, "mode=ssat", *words, "encoder.patch_size=4")
    assert build_module(run, run.mode.phases[0], 10).encoder.patch_dropout == 0.5
