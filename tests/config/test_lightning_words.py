"""Lightning's own words start the run that the real keys start, and one line says what those are called."""

import pytest

from ssat.config.identity import identity
from ssat.config.lightning_words import NAMES, own_names
from ssat.config.overrides import composed, known_keys
from ssat.config.resolve import resolve
from ssat.core.errors import UserError
from tests.helpers import command, fail_of

SAME = [
    (["trainer.max_epochs=3"], ["epochs=3"]),
    (["+trainer.max_epochs=3"], ["epochs=3"]),
    (["model=vit_s", "max_epochs=3"], ["encoder=vit_s", "epochs=3"]),
    (["model.depth=3"], ["encoder.depth=3"]),
    (
        ["optimizer=sgd", "lr=0.1", "batch_size=32"],
        ["recipe.optimizer=sgd", "recipe.base_lr=0.1", "recipe.batch_size=32"],
    ),
    (["optimizer._target_=torch.optim.AdamW", "optimizer.eps=1e-6"], ["recipe.optimizer=adamw", "recipe.eps=1e-6"]),
    (["trainer.precision=bf16-mixed"], ["trainer.precision=bf16"]),
    (["trainer.precision=32-true"], []),
    (["trainer.devices=auto", "trainer=cpu"], ["trainer=cpu"]),
    (["trainer.strategy=ddp", "trainer.devices=2"], ["trainer.devices=2"]),
    (["trainer.accelerator=cuda"], ["trainer.accelerator=gpu"]),
    (["seed_everything=7"], ["seed=7"]),
    (["seed_everything=true"], []),
    (["weight_decay=0.1", "gradient_clip_val=1"], ["recipe.weight_decay=0.1", "recipe.clip_grad=1"]),
    (["trainer.gradient_clip_val=0"], []),
    (["accumulate_grad_batches=2"], ["trainer.accumulate=2"]),
    (["trainer.check_val_every_n_epoch=5"], ["eval_every=5"]),
    (["trainer.callbacks=[early_stopping]"], ["callbacks=[early_stopping]"]),
    (["trainer.enable_progress_bar=false", "num_workers=2"], ["trainer.progress=off", "data.num_workers=2"]),
    (["trainer=mps"], ["trainer.accelerator=mps"]),
]


@pytest.mark.sampled
@pytest.mark.parametrize(("theirs", "ours"), SAME, ids=lambda words: " ".join(words))
def test_the_run_is_that_of_the_real_names(theirs, ours, capsys):
    assert identity(resolve(composed(theirs))) == identity(resolve(composed(ours)))


def test_a_line_says_the_real_name():
    said = []
    assert own_names(["trainer.max_epochs=3", "mode=ssat", "lr=0.1"], said.append) == [
        "epochs=3",
        "mode=ssat",
        "recipe.base_lr=0.1",
    ]
    assert said == [
        "trainer.max_epochs is called epochs here: epochs=3",
        "lr is called recipe.base_lr here: recipe.base_lr=0.1"
        " (for 256 images; recipe.lr_rule=absolute takes it as it is)",
    ]


def test_each_value_of_a_sweep_is_translated():
    assert own_names(["precision=32-true,bf16-mixed"], lambda line: None) == ["trainer.precision=32,bf16"]


@pytest.mark.parametrize(
    ("word", "cure"),
    [
        ("ckpt_path=last.ckpt", "the run continues by itself"),
        ("trainer.fast_dev_run=true", "epochs=1 trainer.max_steps=1"),
        ("limit_train_batches=0.1", "data.fraction"),
        ("trainer.strategy=fsdp", "train with DDP"),
        ("trainer.devices=[0,1]", "CUDA_VISIBLE_DEVICES"),
        ("scheduler=cosine", "recipe.warmup_epochs"),
    ],
)
def test_what_has_no_key_here_is_refused_with_what_does_the_same(word, cure):
    with pytest.raises(UserError, match=cure) as refused:
        composed([word])
    assert refused.value.key == word.partition("=")[0]


def test_one_key_under_two_names_is_refused():
    with pytest.raises(UserError, match="epochs=5 and max_epochs=3 are one key"):
        composed(["epochs=5", "max_epochs=3"])


def test_no_key_of_ours_is_taken_for_one_of_lightnings():
    known = known_keys("train", [])
    assert not {*NAMES} & {*known} and {*NAMES.values()} <= {*known, "callbacks"}


def test_the_command_says_the_real_name_before_it_refuses_the_value(tmp_path):
    result = command("trainer.precision=bf16-mixed", "gradient_clip_val=-1", runs=tmp_path)
    assert fail_of(result).startswith("error: recipe.clip_grad=-1 is not possible")
    assert "bf16-mixed is called bf16 here: trainer.precision=bf16" in result.stdout.splitlines()
