"""What every SSL task must keep (DESIGN section 3), parametrised over tests/auxiliary/cases.py."""

from typing import NamedTuple

import pytest
import torch

from src.auxiliary.base import SSLTask
from src.batch import Batch
from src.encoders.base import Encoder
from tests.auxiliary.cases import CASES, batch_for
from tests.encoders.cases import build


class Setting(NamedTuple):
    encoder: Encoder
    task: SSLTask
    batch: Batch


@pytest.fixture(params=list(CASES))
def setting(request) -> Setting:
    name, make = CASES[request.param]
    encoder = build(name)
    task = make(encoder)
    return Setting(encoder.train(), task.train(), batch_for(encoder, task))


def test_loss_is_a_finite_scalar_and_logs_are_detached_scalars(setting):
    loss, _, logs = setting.task(setting.encoder, setting.batch, True)
    assert loss.shape == ()
    assert loss.isfinite()
    assert loss.dtype == torch.float32
    assert all(value.ndim == 0 for value in logs.values())


def test_features_are_given_only_when_asked_for(setting):
    assert setting.task(setting.encoder, setting.batch, False).features is None
    features = setting.task(setting.encoder, setting.batch, True).features
    assert features.shape == (len(setting.batch.images), setting.encoder.num_features)


def test_features_are_those_of_the_full_images(setting):
    setting.encoder.eval()
    features = setting.task(setting.encoder, setting.batch, True).features
    assert torch.allclose(features, setting.encoder.forward_features(setting.batch.images), atol=1e-5, rtol=0)


def test_asking_for_features_does_not_change_the_loss(setting):
    setting.encoder.eval(), setting.task.eval()
    losses = [setting.task(setting.encoder, setting.batch, ask).loss.item() for ask in (False, True)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_gradient_reaches_the_encoder_and_every_own_parameter(setting):
    setting.task(setting.encoder, setting.batch, False).loss.backward()
    reached = [p for p in setting.encoder.parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert len(reached) > len(list(setting.encoder.parameters())) / 2
    for name, parameter in setting.task.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_evaluation_repeats_itself_and_changes_no_state(setting):
    setting.encoder.eval(), setting.task.eval()
    before = {name: value.clone() for name, value in setting.task.state_dict().items()}
    losses = [setting.task(setting.encoder, setting.batch, False).loss.item() for _ in range(2)]
    assert losses[0] == losses[1]
    assert all(torch.equal(value, before[name]) for name, value in setting.task.state_dict().items())


def test_a_restored_task_continues_where_the_saved_one_was(setting, request):
    with torch.no_grad():
        for _ in range(2):
            setting.task(setting.encoder, setting.batch, False)
        saved = {name: value.clone() for name, value in setting.task.state_dict().items()}
        _, make = CASES[request.node.callspec.params["setting"]]
        fresh = make(setting.encoder).train()
        fresh.load_state_dict(saved)
        for _ in range(2):
            expected = setting.task(setting.encoder, setting.batch, False).loss
            assert torch.equal(fresh(setting.encoder, setting.batch, False).loss, expected)


def test_loss_is_computed_in_fp32_under_autocast(setting):
    setting.encoder.eval(), setting.task.eval()
    expected = setting.task(setting.encoder, setting.batch, False).loss
    with torch.autocast("cpu", torch.bfloat16):
        loss = setting.task(setting.encoder, setting.batch, True).loss
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=0.05)


def test_after_step_accepts_the_whole_range_of_progress(setting):
    for progress in (0.0, 0.5, 1.0):
        setting.task.after_step(setting.encoder, progress)


def test_the_task_does_not_own_the_encoder(setting):
    shared = {id(p) for p in setting.encoder.parameters()} & {id(p) for p in setting.task.parameters()}
    assert not shared
