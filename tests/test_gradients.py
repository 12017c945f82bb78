"""The angle and the lengths of the two losses' gradients, and lam that moves."""

import pytest
import torch

from ssat.core.errors import UserError
from ssat.training.gradients import layer_cosines, length, shared_gradients
from ssat.training.weighing import LamSchedule
from tests.encoders.cases import build, images_for
from tests.helpers import command, largest_difference, record_of, train, weights


def test_gradients_are_those_of_backward_and_leave_none_behind():
    encoder = build("vit")
    features = encoder.forward_features(images_for(encoder))
    first, second = features.square().mean(), features.sum()
    ours, _ = shared_gradients(encoder, first, second)
    assert all(parameter.grad is None for parameter in encoder.parameters())
    first.backward()
    for name, parameter in encoder.named_parameters():
        if parameter.requires_grad:
            assert torch.allclose(ours[name], parameter.grad, atol=1e-6), name


def test_only_what_both_losses_reach_is_compared():
    encoder = build("vit")
    images = images_for(encoder)
    early = encoder.forward_blocks(images)[0].square().mean()
    gradients = shared_gradients(encoder, encoder.forward_features(images).sum(), early)
    assert gradients[0].keys() == gradients[1].keys()
    assert not any(name.startswith(("blocks.1", "blocks.2", "norm")) for name in gradients[0])


@pytest.mark.parametrize(("factor", "expected"), [(3.0, 1.0), (-0.5, -1.0)])
def test_cosine_of_a_loss_with_a_multiple_of_itself_is_plus_or_minus_1(factor, expected):
    encoder = build("cvt")
    loss = encoder.forward_features(images_for(encoder)).square().mean()
    cosines = layer_cosines(encoder, *shared_gradients(encoder, loss, factor * loss))
    assert set(cosines) == {"all", *(f"layer_{k:02d}" for k in set(encoder.layer_ids().values()))}
    assert all(value.item() == pytest.approx(expected, abs=1e-5) for value in cosines.values())


def test_cosine_is_that_of_the_concatenated_gradients():
    encoder = build("vit")
    names = [name for name, p in encoder.named_parameters() if p.requires_grad]
    first, second = ({name: torch.randn(3) for name in names} for _ in range(2))
    flat = [torch.cat([gradients[name] for name in names]) for gradients in (first, second)]
    expected = torch.nn.functional.cosine_similarity(*flat, dim=0)
    assert layer_cosines(encoder, first, second)["all"].item() == pytest.approx(expected.item(), abs=1e-5)
    assert length(first).item() == pytest.approx(flat[0].norm().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (LamSchedule(), [0.1, 0.1, 0.1]),
        (LamSchedule("linear", 0.9), [0.1, 0.5, 0.9]),
        (LamSchedule("cosine", 0.9), [0.1, 0.5, 0.9]),
        (LamSchedule("balanced"), [0.1, 0.1, 0.1]),
    ],
)
def test_lam_moves_from_its_start_to_its_end(schedule, expected):
    assert [schedule.lam(0.1, p) for p in (0, 0.5, 1)] == pytest.approx(expected)


def test_cosine_moves_slowly_at_both_ends():
    schedule = LamSchedule("cosine", 1.0)
    assert schedule.lam(0.0, 0.1) < 0.1 < 0.9 < schedule.lam(0.0, 0.9)


def test_the_monitor_changes_nothing_and_gives_every_block_a_cosine(tmp_path):
    plain = train("mode=ssat", "epochs=1", runs=tmp_path / "plain")
    watched = train("mode=ssat", "epochs=1", "monitor.conflict_every=3", runs=tmp_path / "watched")
    assert plain.name == watched.name
    assert largest_difference(weights(plain), weights(watched)) == 0
    (row,) = record_of(watched)["phases"][0]["history"]
    cosines = {name: value for name, value in row.items() if name.startswith("train/conflict/")}
    assert {"train/conflict/all", "train/conflict/layer_01", "train/conflict/layer_02"} <= cosines.keys()
    assert all(-1 <= value <= 1 for value in cosines.values())


def test_balanced_loss_weighs_gradients_of_equal_length(tmp_path):
    run = train("mode=ssat", "mode.lam_schedule=balanced", "mode.balance_every=1", "epochs=1", runs=tmp_path)
    (row,) = record_of(run)["phases"][0]["history"]
    assert weights(run)["balance"] > 0
    assert row["train/balance"] > 0


def test_scheduled_loss_is_equation_1_with_the_moving_lam(tmp_path):
    settings = ["mode.lam_schedule=linear", "mode.lam_end=0.9", "epochs=1", "trainer.log_every=1"]
    (row,) = record_of(train("mode=ssat", *settings, runs=tmp_path))["phases"][0]["history"]
    assert row["train/lam"] == pytest.approx(0.1 + 0.8 * 0.45, abs=0.01)  # mean of the steps 0 to n - 1 of n = 10
    assert row["train/loss"] != pytest.approx(0.1 * row["train/loss_cls"] + 0.9 * row["train/loss_ssl"], abs=1e-3)


@pytest.mark.slow
def test_two_ranks_measure_the_gradients_of_the_whole_batch(tmp_path):
    settings = ["mode=ssat", "mode.lam_schedule=balanced", "recipe.augment=null", "trainer.max_steps=3"]
    one = train(*settings, "recipe.batch_size=16", runs=tmp_path / "one")
    assert command(*settings, "recipe.batch_size=8", "trainer=ddp_cpu", runs=tmp_path / "two").returncode == 0
    (two,) = (path.parent for path in (tmp_path / "two").glob("[!.]*/*/result.json"))
    assert weights(one)["balance"].item() == pytest.approx(weights(two)["balance"].item(), rel=1e-4)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["mode.lam_schedule=cosin"], "did you mean cosine"),
        (["mode.lam_schedule=linear"], "set mode.lam_end"),
        (["mode.lam_end=0.5"], "not used by mode.lam_schedule=constant"),
        (["mode.lam_schedule=linear", "mode.lam_end=2"], "lam_end=2"),
        (["mode.lam_schedule=balanced", "mode.lam=1"], "needs both losses"),
        (["mode.lam_schedule=balanced", "mode.lam_end=0.5"], "not used by mode.lam_schedule=balanced"),
        (["mode.lam_schedule=balanced", "trainer.compile=true"], "trainer.compile=false"),
        (["monitor.conflict_every=5", "trainer.compile=true"], "trainer.compile=false"),
    ],
)
def test_impossible_schedules_are_refused(tmp_path, overrides, sentence):
    with pytest.raises(UserError, match=sentence):
        train("mode=ssat", *overrides, runs=tmp_path)
