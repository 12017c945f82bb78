"""`batch=auto` finds the largest batch of which a step fits."""

import pytest
import torch
from torch import nn

from ssat.config.identity import config_hash
from ssat.config.overrides import composed
from ssat.config.resolve import resolve
from ssat.core.errors import UserError
from ssat.training.batch_auto import fits_memory, largest_fitting, with_batch
from tests.helpers import command, config, fail_of


def trained(largest: int) -> list[int]:
    """The sizes that are tried, each by a step of a linear layer that has memory for `largest` images only."""
    layer = nn.Linear(8, 4)
    optimizer, sizes = torch.optim.SGD(layer.parameters(), lr=0.1), []

    def step(size: int) -> None:
        sizes.append(size)
        loss = layer(torch.randn(size, 8)).square().mean()
        if size > largest:
            raise torch.OutOfMemoryError("out of memory")
        loss.backward()
        optimizer.step()

    sizes.append(largest_fitting(lambda size: fits_memory(lambda: step(size)), 64, 1000))
    return sizes


@pytest.mark.sampled
@pytest.mark.sampled
@pytest.mark.parametrize(
    ("memory", "tried", "found"),
    [(300, [64, 128, 256, 512], 256), (20, [64, 32, 16], 16), (10**6, [64, 128, 256, 512], 512), (64, [64, 128], 64)],
)
def test_the_largest_doubled_or_halved_size_that_fits_is_found(memory, tried, found):
    assert trained(memory) == [*tried, found]


def test_a_network_of_which_no_image_fits_is_refused():
    with pytest.raises(UserError, match="not even one image fits"):
        trained(0)


def test_another_error_of_a_step_is_not_taken_for_memory():
    with pytest.raises(ZeroDivisionError):
        fits_memory(lambda: 1 / 0)


def test_on_a_cpu_the_recipes_batch_is_used_and_the_run_is_the_same(capsys):
    found = with_batch(config("batch=auto", "trainer=cpu"))
    assert found.batch is None and config_hash(found) == config_hash(config("trainer=cpu"))
    assert "on a CPU the batch has no such limit, recipe.batch_size=64 is used" in capsys.readouterr().out


def test_the_recipes_key_means_it_too(capsys):
    assert resolve(composed(["recipe.batch_size=auto"])).batch == "auto"
    assert resolve(composed(["batch_size=auto"])).batch == "auto"
    assert "recipe.batch_size=auto is called batch here: batch=auto" in capsys.readouterr().out


@pytest.mark.slow
def test_a_sweep_is_told_to_use_one_number(tmp_path):
    assert "give the sweep recipe.batch_size=<number>" in fail_of(command("-m", "batch=auto", "seed=0", runs=tmp_path))


@pytest.mark.gpu
def test_on_a_gpu_a_larger_batch_is_found_and_kept(tmp_path, capsys):
    asked = config("batch=auto", "trainer=gpu", "encoder=vit_micro", "data=digits", f"runs_dir={tmp_path}")
    found = with_batch(asked)
    assert found.recipe.batch_size == 1024  # of 1,437 images: digits fit into any GPU
    assert found.mode.phases[0].recipe.batch_size == 1024
    assert (tmp_path / ".batch_auto.json").is_file() and with_batch(asked).values == found.values
