import math

import pytest
import torch
from torch import nn

from ssat.training.optim import adamw, effective_lr, lr_at, parameter_groups, warmup_cosine
from ssat.training.steps import seed_step
from tests.helpers import only_run, record_of, train

SCHEDULE = {"lr": 1e-3, "min_lr": 1e-6, "warmup_lr": 0.0, "warmup_steps": 5, "total_steps": 100}


def test_effective_lr_follows_the_linear_rule_of_the_authors():
    assert effective_lr(1e-3, "linear", 64) == pytest.approx(2.5e-4)
    assert effective_lr(1e-3, "linear", 64 * 8) == pytest.approx(2e-3)


@pytest.mark.parametrize(("images", "lr"), [(256, 1e-3), (1024, 2e-3), (64, 5e-4)])
def test_the_square_root_rule_is_the_base_rate_at_256_images_and_twice_it_at_four_times_as_many(images, lr):
    assert effective_lr(1e-3, "sqrt", images) == pytest.approx(lr)


def test_absolute_lr_ignores_the_batch():
    assert effective_lr(1e-3, "absolute", 4096) == 1e-3


def test_the_first_step_of_the_official_warm_up_has_lr_zero():
    assert lr_at(0, **SCHEDULE) == 0.0


def test_warm_up_is_linear_per_step_from_its_start_value():
    values = [lr_at(step, **(SCHEDULE | {"warmup_lr": 1e-6})) for step in range(6)]
    steps = [b - a for a, b in zip(values, values[1:], strict=False)]
    assert values[0] == 1e-6
    assert steps == pytest.approx([(1e-3 - 1e-6) / 5] * 5)


def test_cosine_passes_its_known_points():
    assert lr_at(5, **SCHEDULE) == pytest.approx(1e-3)
    assert lr_at(5 + 95 // 2, **(SCHEDULE | {"total_steps": 99})) == pytest.approx((1e-3 + 1e-6) / 2)
    assert lr_at(100, **SCHEDULE) == pytest.approx(1e-6)
    assert lr_at(1000, **SCHEDULE) == pytest.approx(1e-6)


def test_schedule_equals_the_formula_of_mae_in_fractional_epochs():
    """He et al.'s adjust_learning_rate, computed from the epoch instead of the step."""
    per_epoch, epochs, warmup = 7, 10, 2
    for step in range(per_epoch * epochs):
        epoch = step / per_epoch
        if epoch < warmup:
            expected = 1e-3 * epoch / warmup
        else:
            turn = math.pi * (epoch - warmup) / (epochs - warmup)
            expected = 1e-6 + (1e-3 - 1e-6) * 0.5 * (1 + math.cos(turn))
        ours = lr_at(
            step, lr=1e-3, min_lr=1e-6, warmup_lr=0.0, warmup_steps=warmup * per_epoch, total_steps=epochs * per_epoch
        )
        assert ours == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_scheduler_drives_every_group_at_its_scale():
    groups = [
        {"params": [nn.Parameter(torch.zeros(2, 2))], "lr_scale": 0.5, "weight_decay": 0.1},
        {"params": [nn.Parameter(torch.zeros(2))], "lr_scale": 1.0, "weight_decay": 0.0},
    ]
    optimizer = adamw(groups, lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
    scheduler = warmup_cosine(optimizer, **SCHEDULE)
    for step in range(20):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * lr_at(step, **SCHEDULE))
        assert optimizer.param_groups[1]["lr"] == pytest.approx(lr_at(step, **SCHEDULE))
        optimizer.step()
        scheduler.step()
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]


def named(*shapes):
    return [(name, nn.Parameter(torch.zeros(shape))) for name, shape in shapes]


def test_only_matrices_are_decayed():
    parameters = named(("w", (3, 3)), ("b.bias", (3, 1)), ("norm", (3,)), ("kept", (1, 4, 3)), ("token", (1, 1, 3)))
    groups = parameter_groups(parameters, weight_decay=0.05, no_decay={"kept"}, layer_ids={})
    names = {id(parameter): name for name, parameter in parameters}
    decayed = {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {"w", "token"}


def test_layer_decay_scales_are_those_of_a_twelve_block_vit():
    parameters = named(("patch", (2, 2)), ("block12", (2, 2)), ("head", (2, 2)))
    groups = parameter_groups(
        parameters,
        weight_decay=0.05,
        no_decay=set(),
        layer_ids={"patch": 0, "block12": 12, "norm": 13},
        layer_decay=0.75,
    )
    scales = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert [scales[id(p)] for _, p in parameters] == pytest.approx([0.0238, 0.75, 1.0], abs=1e-4)


def test_frozen_parameters_are_in_no_group():
    parameters = named(("w", (2, 2)), ("table", (2, 2)))
    parameters[1][1].requires_grad = False
    groups = parameter_groups(parameters, weight_decay=0.05, no_decay=set(), layer_ids={})
    assert sum(len(group["params"]) for group in groups) == 1


def test_step_seed_depends_on_seed_step_and_rank_only():
    def draw(*key):
        seed_step(*key)
        return torch.rand(4).tolist()

    assert draw(0, 3, 1) == draw(0, 3, 1)
    assert len({tuple(draw(*key)) for key in [(0, 3, 1), (1, 3, 1), (0, 4, 1), (0, 3, 0)]}) == 4


def trained(optimizer_of, steps: int = 20) -> tuple[list[torch.Tensor], torch.optim.Optimizer]:
    """Weights after steps with known gradients, and the optimizer."""
    generator = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((7, 5), (5,))]
    optimizer = optimizer_of(
        [
            {"params": [weight], "lr_scale": 1.0, "weight_decay": decay}
            for weight, decay in zip(weights, (0.05, 0.0), strict=True)
        ]
    )
    for _ in range(steps):
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator)
        optimizer.step()
    return weights, optimizer


def test_adamw_on_a_cpu_is_pytorchs_adamw():
    betas, eps = (0.9, 0.999), 1e-8
    ours, optimizer = trained(lambda groups: adamw(groups, lr=1e-2, betas=betas, eps=eps))
    plain, _ = trained(lambda groups: torch.optim.AdamW(groups, lr=1e-2, betas=betas, eps=eps, fused=False))
    assert all(group["fused"] for group in optimizer.param_groups)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_adamw_goes_on_from_the_state_of_pytorchs_default_form():
    betas, eps = (0.9, 0.999), 1e-8
    _, plain = trained(lambda groups: torch.optim.AdamW(groups, lr=1e-2, betas=betas, eps=eps))
    weights, ours = trained(lambda groups: adamw(groups, lr=1e-2, betas=betas, eps=eps), steps=0)
    ours.load_state_dict(plain.state_dict())
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    ours.step()
    assert all(state["step"] == 21 for state in ours.state.values())
    assert not any(group["fused"] for group in ours.param_groups)  # the form of the state


def test_gradients_are_clipped_under_bf16_on_a_cpu(tmp_path):
    train("recipe.clip_grad=1", "trainer.precision=bf16", "trainer.max_steps=2", runs=tmp_path)
    assert record_of(only_run(tmp_path))["status"] == "finished"
