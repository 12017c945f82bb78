"""`batch=auto` finds the largest batch of which a step fits, and so does a training that has run out of memory."""

import json
import re
import subprocess
import sys

import pytest
import torch
from torch import nn

from ssat.config.identity import config_hash
from ssat.config.overrides import composed
from ssat.config.resolve import resolve
from ssat.core.errors import NotEnoughMemory, UserError
from ssat.training.batch_auto import fits_memory, largest_divisor, largest_fitting, naming_the_batch, with_batch
from tests.helpers import ROOT, TINY, command, config, fail_of, only_run


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
    assert "a larger batch is no faster on a CPU, recipe.batch_size=64 is used" in capsys.readouterr().out


def test_on_a_cpu_a_batch_is_no_larger_than_the_images_of_each_process():
    few = ("batch=auto", "data=digits", "data.samples_per_class=2", "trainer=ddp_cpu", "trainer.devices=2")
    assert with_batch(config(*few)).recipe.batch_size == 10  # of 20 images


def test_processes_that_were_started_outside_do_not_all_look_for_it(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="find the number on one GPU, and give recipe.batch_size=<number>"):
        with_batch(config("batch=auto", "trainer=cpu"))


@pytest.mark.parametrize(("memory", "found"), [(63, 32), (31, 16), (1, 1), (0, None)])
def test_the_largest_divisor_that_fits_is_found_by_bisection(memory, found):
    tried = []
    assert largest_divisor(lambda size: tried.append(size) or size <= memory, 64) == found
    assert len(tried) <= 3  # of 1, 2, 4, 8, 16, 32


@pytest.mark.parametrize("refused", [MemoryError(), RuntimeError("could not create a primitive")])
def test_a_batch_of_one_cannot_be_made_smaller_and_is_refused_without_a_try(refused, capsys):
    smallest = config("recipe.batch_size=1", "trainer=cpu")
    with pytest.raises(NotEnoughMemory, match="the run does not fit"), naming_the_batch(smallest, []):
        raise refused
    assert not capsys.readouterr().out


LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))
os.execv(sys.executable, [sys.executable, "-m", "src.train", *sys.argv[1:]])
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux limits the memory of a process like this")
def test_a_training_that_runs_out_of_memory_names_words_with_which_it_fits(tmp_path):
    def limited(*words: str) -> subprocess.CompletedProcess[str]:
        images = ("data.img_size=64", "data.samples_per_class=null", "trainer.max_steps=1", f"runs_dir={tmp_path}")
        line = [sys.executable, "-c", LIMITED, *TINY, *images, *words]
        return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)

    failed = limited("recipe.batch_size=1004")
    assert failed.returncode == 2 and "Traceback" not in failed.stderr, failed.stderr
    size, accumulate = re.search(r"type (recipe\.batch_size=\d+) (trainer\.accumulate=\d+)", failed.stderr).groups()
    assert int(size.split("=")[1]) * int(accumulate.split("=")[1]) == 1004
    assert json.loads((only_run(tmp_path) / "result.json").read_text())["status"] == "failed"
    done = limited(size, accumulate)
    assert done.returncode == 0, done.stderr


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
