"""Several tasks at once, and their short form on the command line."""

import pytest
import torch

from ssat.config.words import expand_tasks
from ssat.core.errors import UserError
from ssat.core.views import simclr_views
from ssat.tasks.drloc import Drloc
from ssat.tasks.reconstruction import Reconstruction
from ssat.tasks.several import Several
from ssat.tasks.simclr import SimCLR
from tests.encoders.cases import build
from tests.tasks.cases import batch_for, mae


def two(weights=None) -> tuple:
    encoder = build("vit")
    task = Several({"mae": mae(encoder), "drloc": Drloc(encoder)}, weights).eval()
    return encoder, task, batch_for(encoder, task)


def test_loss_is_the_weighted_sum_of_what_each_task_says_alone():
    encoder, task, batch = two({"mae": 0.3, "drloc": 0.7})
    alone = {name: part(encoder, batch, False).loss.item() for name, part in task.tasks.items()}
    loss, _, logs = task(encoder, batch, True)
    assert loss.item() == pytest.approx(0.3 * alone["mae"] + 0.7 * alone["drloc"], abs=1e-6)
    assert {name: logs[f"{name}/loss"].item() for name in alone} == pytest.approx(alone, abs=1e-6)


def test_no_weights_are_equal_weights():
    assert two()[1].weights == {"mae": 0.5, "drloc": 0.5}


def test_features_come_from_the_task_that_makes_the_full_pass_anyway():
    assert two()[1].classifier == "drloc"


@pytest.mark.parametrize("weights", [{"mae": 0.3, "drloc": 0.8}, {"mae": 0.0, "drloc": 1.0}, {"mae": 1.0}])
def test_weights_that_do_not_name_the_tasks_or_sum_to_1_are_refused(weights):
    with pytest.raises(UserError, match="ssl.weights="):
        two(weights)


def test_two_tasks_with_views_of_their_own_are_refused():
    encoder = build("vit")
    with pytest.raises(UserError, match="a and b both need extra views"):
        Several({"a": SimCLR(encoder), "b": SimCLR(encoder)})


def test_what_a_part_needs_the_whole_needs():
    encoder = build("vit")
    task = Several({"mae": Reconstruction(encoder, decoder_dim=16), "simclr": SimCLR(encoder)})
    assert (task.masked, task.full, task.min_batch) == (True, True, 2)
    assert task.compares_images and not task.reads_unmixed
    assert task.extra_views == simclr_views(12)[1:]
    assert [view.shape for view in task.blank_views(torch.zeros(2, 3, 12, 12))] == [(2, 3, 12, 12)]


def test_unmixed_images_are_kept_for_one_part_that_reads_them():
    encoder = build("vit")
    task = Several({"mae": mae(encoder, source="unmixed"), "drloc": Drloc(encoder)})
    assert task.reads_unmixed and not two()[1].reads_unmixed


def test_list_on_the_command_line_is_several_tasks():
    assert expand_tasks(["-m", "ssl=[mae, guidance]", "seed=1"]) == [
        "-m",
        "ssl=several",
        "+ssl@ssl.tasks.mae=mae",
        "+ssl@ssl.tasks.guidance=guidance",
        "seed=1",
    ]


def test_list_of_one_is_that_task():
    assert expand_tasks(["ssl=[dino]"]) == ["ssl=dino"]


@pytest.mark.parametrize("word", ["ssl=[mae,]", "ssl=[]", "ssl=[mae,mae]", "ssl=[mae,dino],[mae]"])
def test_what_is_not_a_list_of_different_tasks_is_refused(word):
    with pytest.raises(UserError, match=r"ssl=\[.*"):
        expand_tasks([word])
