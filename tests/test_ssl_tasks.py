"""The SSL tasks that compare views or follow a schedule, in real runs: two processes, a kill, pre-training."""

import pytest
import torch
from hydra import compose, initialize_config_dir

from ssat.commands.train import train as train_config
from ssat.config.resolve import resolve
from ssat.config.words import CONF
from ssat.core.errors import UserError
from ssat.training.data import build_views
from tests.helpers import TINY, command, config, largest_difference, record_of, start_and_kill, train, weights

# SGD: a step is proportional to the gradient, where Adam's would enlarge the rounding of gradients near 0.
VIEWS = ["mode=ssat", "recipe.augment=null", "trainer.max_steps=3", "seed=3", "recipe.optimizer=sgd"]
VIEWS += ["recipe.base_lr=0.1", "recipe.lr_rule=absolute", "recipe.warmup_epochs=0"]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["simclr", "dino"])
def test_two_ranks_equal_one_process_with_the_gathered_batch(tmp_path, task):
    one = train(*VIEWS, f"ssl={task}", "recipe.batch_size=16", runs=tmp_path / "one")
    command_line = [*VIEWS, f"ssl={task}", "recipe.batch_size=8", "trainer=ddp_cpu"]
    ended = command(*command_line, runs=tmp_path / "two")
    assert ended.returncode == 0, ended.stderr
    (two,) = (path.parent for path in (tmp_path / "two").glob("[!.]*/*/result.json"))
    assert largest_difference(weights(one), weights(two)) < 1e-5
    start = train(*VIEWS, f"ssl={task}", "recipe.batch_size=16", "recipe.base_lr=1e-12", runs=tmp_path / "still")
    assert largest_difference(weights(one), weights(start)) > 1e-2


@pytest.mark.parametrize(
    "task",
    [
        ["ssl=dino", "ssl.local_views=2"],
        pytest.param(["mode.lam_schedule=balanced", "mode.balance_every=3"], marks=pytest.mark.slow),
        pytest.param(["ssl=latent", "ssl.blocks=2"], marks=pytest.mark.slow),
        pytest.param(["ssl.source=weak", "ssl.mask=block", "ssl.mask_ratio=0.6"], marks=pytest.mark.slow),
        pytest.param(["ssl=simclr", "ssl.share=both_cls"], marks=pytest.mark.slow),
        pytest.param(["ssl=drloc", "ssl.schedule=drloc"], marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_a_killed_run_keeps_teachers_centres_and_schedules(tmp_path, task):
    settings = ["mode=ssat", "epochs=4", "checkpoint_minutes=0.002", *task]
    start_and_kill(*settings, runs=tmp_path / "killed")
    killed = weights(train(*settings, runs=tmp_path / "killed"))
    whole = weights(train(*settings, runs=tmp_path / "whole"))
    assert largest_difference(whole, killed) == 0
    if task[0] == "ssl=dino":
        assert whole["ssl.progress"] == 1
        assert whole["ssl.center"].abs().sum() > 0


@pytest.mark.parametrize("task", ["simclr", "dino"])
def test_pre_training_makes_both_views_itself_and_evaluates_on_views(tmp_path, task):
    record = record_of(train("mode=ssl_ft", "mode.ssl_epochs=1", "epochs=1", f"ssl={task}", runs=tmp_path))
    assert record["phases"][0]["metrics"]["test"]["loss_ssl"]["last"] > 0


@pytest.mark.slow
def test_guidance_learns_from_a_resnet_56_that_the_framework_trained(tmp_path):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [word for word in TINY if not word.startswith("encoder")]
        overrides += ["encoder=resnet_56", "mode=scratch", "recipe=resnet_56", f"run_dir={tmp_path}/teacher"]
        train_config(resolve(compose("train", overrides=overrides)))
    teacher = tmp_path / "teacher"
    run = train("ssl=guidance", f"ssl.teacher={teacher}", "epochs=1", runs=tmp_path)
    trained, held = weights(teacher, "scratch"), weights(run)
    assert torch.equal(held["ssl.teacher.conv1.weight"], trained["encoder.conv1.weight"])
    assert record_of(run)["phases"][0]["history"][0]["train/loss_ssl"] > 0


@pytest.mark.slow
def test_two_tasks_at_once_from_the_command_line(tmp_path):
    weighted = "ssl.weights={mae:0.25,drloc:0.75}"
    ended = command("ssl=[mae,drloc]", weighted, "epochs=1", runs=tmp_path)
    assert ended.returncode == 0, ended.stderr
    (path,) = tmp_path.glob("[!.]*/*/result.json")
    (row,) = record_of(path.parent)["phases"][0]["history"]
    parts = 0.25 * row["train/mae/loss"] + 0.75 * row["train/drloc/loss"]
    assert row["train/loss_ssl"] == pytest.approx(parts, abs=1e-5)
    assert list(path.parent.glob("joint/reconstructions/*.png"))


def test_views_of_images_that_must_not_be_mirrored_are_not():
    digits, flowers = config("data=digits", "ssl=dino"), config("data=flowers", "ssl=dino")
    flips = [build_views(each, each.mode.phases[0])[0].hflip for each in (digits, flowers)]
    assert flips == [0.0, 0.5]


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["ssl=simclr", "data.pipeline=timm"], "extra views"),
        (["ssl=simclr", "recipe.batch_size=1"], "batch_size=1"),
        (["ssl=simclr", "ssl.view_augment=blur"], "view_augment='blur'"),
        (["ssl=simclr", "recipe.mixup=0.8"], "ssl.share=third"),
        (["ssl=simclr", "ssl.share=thirds", "mode=ssl"], "ssl.share='thirds'"),
        (["ssl=dino", "ssl.local_views=2", "ssl.local_size=15"], "whole patches of 4"),
        (["ssl=dino", "ssl.local_views=2", "ssl.view_augment=same"], "view_augment=dino"),
        (["ssl=guidance"], "ssl.teacher="),
        (["ssl=guidance", "ssl.teacher=/proc/nowhere"], "/proc/nowhere"),
        (["ssl=several", "+ssl@ssl.tasks.mae=mae", "+ssl@ssl.tasks.drloc=drloc", "ssl.weights={mae:1}"], "ssl.weights"),
    ],
)
def test_a_users_mistake_gets_one_sentence_and_leaves_no_checkpoint(tmp_path, overrides, sentence):
    with pytest.raises(UserError) as caught:
        train(*overrides, runs=tmp_path)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("**/*.ckpt"))


def test_fine_tuning_starts_from_the_teacher_on_demand(tmp_path):
    before = train("mode=ssl", "ssl=dino", "epochs=1", runs=tmp_path)
    run = train("mode=linear", f"mode.init_from={before}", "mode.start=teacher", "epochs=1", runs=tmp_path)
    averaged, used = weights(before, "pretrain"), weights(run, "linear")
    assert torch.equal(used["encoder.norm.weight"], averaged["ssl.teacher.norm.weight"])
    assert not torch.equal(used["encoder.norm.weight"], averaged["encoder.norm.weight"])


def test_a_teacher_that_is_not_there_is_refused(tmp_path):
    before = train("mode=ssl", "epochs=1", runs=tmp_path)
    with pytest.raises(UserError, match="only ssl=dino and ssl=latent keep one"):
        train("mode=finetune", f"mode.init_from={before}", "mode.start=teacher", "epochs=1", runs=tmp_path)
