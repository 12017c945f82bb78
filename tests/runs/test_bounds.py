"""What a stranger's checkpoint or run folder claims is bounded by what its files hold, before it costs anything."""

from __future__ import annotations

import argparse
import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ssat.core.errors import UserError
from ssat.runs.saved import saved_configuration, stored_configuration
from ssat.training.evaluation import load_network
from ssat.training.saved_network import find_network
from tests.helpers import TINY, config, train

CKPT = "joint/checkpoints/last.ckpt"
Content = dict[str, Any]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    train("epochs=1", f"run_dir={folder}", runs=folder.parent)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def refusal(work: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        work()
    said = str(caught.value)
    assert said and "\n" not in said
    return said


def alone(run: Path, change: Callable[[Content], object]) -> Path:
    """The checkpoint of `run`, changed, in a folder without its run."""
    content = torch.load(run / CKPT, weights_only=True)
    change(content)
    torch.save(content, run.parent / "x.ckpt")
    return run.parent / "x.ckpt"


def test_an_unchanged_network_is_built(run: Path) -> None:
    for source in (run, alone(run, lambda content: None)):
        assert not find_network(source).module().training


def within_itself(content: Content) -> None:
    content["config"]["data"]["more"] = content["config"]


def within_a_tuple(content: Content) -> None:
    endless: list[Any] = []
    endless.append((endless,))
    content["config"]["callbacks"] = endless


def doubled(content: Content) -> None:
    """60 lists, of 2 to the 60 values once written out."""
    value: list[Any] = []
    for _ in range(60):
        value = [value, value]
    content["config"]["callbacks"] = value


def an_object(content: Content) -> None:
    space = argparse.Namespace()
    space.more = space
    content["config"]["callbacks"] = space


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (within_itself, "contains itself"),
        (within_a_tuple, "contains itself"),
        (doubled, "more than 10,000 values"),
        (an_object, "it holds a Namespace"),
    ],
)
def test_a_configuration_that_no_file_could_say_is_refused(change: Callable[[Content], None], says: str) -> None:
    content = {"config": copy.deepcopy(dict(config(*TINY).values))}
    change(content)
    assert says in refusal(lambda: stored_configuration(content["config"], "x.ckpt"))


def test_a_checkpoint_whose_configuration_contains_itself_is_refused(run: Path) -> None:
    path = alone(run, within_itself)
    said = refusal(lambda: find_network(path))
    assert said.startswith(f"{path} is damaged, of its configuration it contains itself")


@pytest.mark.parametrize("key", [3, None])
def test_weights_without_a_name_are_refused(run: Path, key: Any) -> None:
    path = alone(run, lambda content: content["state_dict"].update({key: torch.ones(1)}))
    assert "it has no state_dict of named tensors" in refusal(lambda: find_network(path))


WITHOUT_VALUES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "on the meta device": lambda value: value.to("meta"),
    "not dense": lambda value: value.to_sparse(),
    "quantized": lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
}


@pytest.mark.filterwarnings("ignore")  # torch deprecates its quantized tensors
@pytest.mark.parametrize("kind", WITHOUT_VALUES)
def test_tensors_without_plain_values_are_refused(run: Path, kind: str) -> None:
    def change(content: Content) -> None:
        name = next(name for name in content["state_dict"] if name.startswith("encoder."))
        content["state_dict"][name] = WITHOUT_VALUES[kind](content["state_dict"][name])

    path = alone(run, change)
    said = refusal(lambda: find_network(path))
    assert said.startswith(f"{path} is damaged, its tensor 'encoder.") and kind in said


def configured(run: Path, change: Callable[[Content], object]) -> None:
    values = yaml.safe_load((run / "config.yaml").read_text())
    change(values)
    (run / "config.yaml").write_text(yaml.safe_dump(values))


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("depth", 100_000_000, "encoder.depth=100000000 is not possible: it must be a whole number at least 1 and at"),
        ("embed_dim", 2_000_000, "encoder.embed_dim=2000000 is not possible"),
        ("depth", 1_000, "tensors are missing"),  # small as it is, it is built
        ("embed_dim", 4_096, "has more parameters than"),
        ("embed_dim", 1_000_000, "has more parameters than"),  # which no memory holds
    ],
)
def test_a_network_larger_than_its_weights_is_not_built(run: Path, key: str, value: int, says: str) -> None:
    configured(run, lambda values: values["encoder"].update({key: value}))
    assert says in refusal(lambda: find_network(run).module())
    settings = saved_configuration(run, [])
    assert says in refusal(lambda: load_network(settings, run, settings.mode.phases[-1], run / CKPT, 10))


@pytest.mark.parametrize("name", ["../../tmp_evil/x", "/tmp/x", "..", ".x", "a/b", "", "a\n"])
def test_a_phase_is_named_plainly(run: Path, name: str) -> None:
    configured(run, lambda values: values["mode"]["phases"][0].update(name=name))
    said = refusal(lambda: find_network(run))
    assert "name=" in said and "must be a plain folder name" in said
