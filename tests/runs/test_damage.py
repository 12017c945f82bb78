"""A damaged file of a run is named in one sentence, and nothing of it is taken for sound."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ssat.core.errors import UserError
from ssat.runs.saved import saved_configuration
from tests.helpers import train

WORDS = ("mode=ssl_ft", "epochs=2", "eval_every=1")
CKPT, PHASE = "finetune/checkpoints/last.ckpt", "pretrain/phase.json"


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose second phase has a checkpoint and no record."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    train(*WORDS, f"run_dir={folder}", runs=folder.parent)
    (folder / "result.json").unlink()
    (folder / "finetune/phase.json").unlink()
    return folder


@pytest.fixture
def copy(begun: Path, tmp_path: Path) -> Path:
    shutil.copytree(begun, tmp_path / "run")
    return tmp_path / "run"


def deep(levels: int = 100_000) -> str:
    return "[" * levels + "]" * levels


def rewritten(path: Path, change: Callable[[Any], Any]) -> None:
    """Change the content of a checkpoint or a JSON file."""
    if path.suffix == ".ckpt":
        content = torch.load(path, weights_only=True)
        torch.save(change(content), path)
    else:
        path.write_text(json.dumps(change(json.loads(path.read_text()))))


def test_the_undamaged_copy_goes_on(copy: Path) -> None:
    train(*WORDS, f"run_dir={copy}", runs=copy.parent)
    assert json.loads((copy / "result.json").read_text())["status"] == "finished"


@pytest.mark.sampled
@pytest.mark.parametrize("file", ["config.yaml", "inputs.json", PHASE])
@pytest.mark.parametrize(
    "text", ["", "[1, 2]", deep(), "\0\1", "a: &a [*a]"], ids=["empty", "list", "deep", "bytes", "loop"]
)
def test_a_file_that_is_none_is_refused(copy: Path, file: str, text: str) -> None:
    (copy / file).write_text(text)
    with pytest.raises(UserError, match=f"{Path(file).name} is (missing or )?damaged"):
        train(*WORDS, f"run_dir={copy}", runs=copy.parent)


@pytest.mark.sampled
@pytest.mark.parametrize("file", ["config.yaml", "inputs.json", PHASE])
@pytest.mark.parametrize("kind", ["folder", "pipe", "loop"])
def test_what_is_no_file_in_place_of_one_is_refused(copy: Path, file: str, kind: str) -> None:
    (copy / file).unlink()
    if kind == "folder":
        (copy / file).mkdir()
    elif kind == "pipe":  # whoever opened it would wait for ever
        os.mkfifo(copy / file)
    else:
        (copy / file).symlink_to(copy / file)
    with pytest.raises(UserError, match=f"{Path(file).name} (is (missing or )?damaged|cannot be read)"):
        train(*WORDS, f"run_dir={copy}", runs=copy.parent)


def test_a_lock_that_is_no_file_is_refused(copy: Path) -> None:
    (copy / ".lock").unlink(missing_ok=True)
    (copy / ".lock").mkdir()
    with pytest.raises(UserError, match="is no file, and it must be the lock"):
        train(*WORDS, f"run_dir={copy}", runs=copy.parent)


def test_a_begun_run_without_its_configuration_is_not_taken_for_a_new_one(copy: Path) -> None:
    (copy / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"config\.yaml is missing or damaged"):
        train(*WORDS, f"run_dir={copy}", runs=copy.parent)


@pytest.mark.sampled
@pytest.mark.parametrize(
    "change",
    [{"data": {"classes": 5}}, {"data": 3}, {"weights": [1]}, {"data": {"splits": "x"}}],
    ids=["classes", "data", "weights", "splits"],
)
@pytest.mark.parametrize("file", ["inputs.json", CKPT])
def test_inputs_of_another_type_are_refused(copy: Path, file: str, change: dict[str, Any]) -> None:
    rewritten(copy / file, lambda content: content | (change if file != CKPT else {"inputs": change}))
    with pytest.raises(UserError, match="is damaged, what the run has read is not understood"):
        train(*WORDS, f"run_dir={copy}", runs=copy.parent)


@pytest.mark.sampled
@pytest.mark.parametrize(
    "key", ["seconds", "metrics", "energy", "macs", "params", "skipped_images", "data_fingerprint"]
)
@pytest.mark.parametrize("value", ["x", None, [], {"full": "x"}], ids=str)
def test_a_phase_with_a_value_of_another_type_is_refused(copy: Path, key: str, value: Any) -> None:
    if (key, value) in (("skipped_images", []), ("metrics", {"full": "x"})):
        pytest.skip("is of the right type")
    rewritten(copy / PHASE, lambda phase: phase | {key: value})
    with pytest.raises(UserError, match=rf"phase\.json is damaged, its {key}"):
        train(*WORDS, f"run_dir={copy}", runs=copy.parent)


CHECKPOINTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list": lambda c: [c],
    "a tensor": lambda c: torch.zeros(2),
    "nothing": lambda c: {},
    "no weights": lambda c: c | {"state_dict": [1]},
    "a weight that is none": lambda c: c | {"state_dict": dict.fromkeys(c["state_dict"], 1)},
    "weights of another shape": lambda c: c | {"state_dict": {k: v[None] for k, v in c["state_dict"].items()}},
    "no loops": lambda c: c | {"loops": {}},
    "loops of numbers": lambda c: c | {"loops": dict.fromkeys(c["loops"], 3)},
    "an epoch of text": lambda c: c | {"epoch": "one"},
    "a late epoch": lambda c: c | {"epoch": 10**9},
    "a negative step": lambda c: c | {"global_step": -4},
    "no version": lambda c: {k: v for k, v in c.items() if k != "pytorch-lightning_version"},
    "two optimizers": lambda c: c | {"optimizer_states": c["optimizer_states"] * 2},
    "callbacks of others": lambda c: c | {"callbacks": {"x": {}}},
    "no optimizer": lambda c: c | {"optimizer_states": []},
    "an optimizer of numbers": lambda c: c | {"optimizer_states": [{"state": 1, "param_groups": 2}]},
    "a callback of numbers": lambda c: c | {"callbacks": dict.fromkeys(c["callbacks"], 7)},
    "a configuration of numbers": lambda c: c | {"config": 7},
}


@pytest.mark.sampled
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_that_cannot_be_continued_is_refused(copy: Path, name: str) -> None:
    rewritten(copy / CKPT, CHECKPOINTS[name])
    with pytest.raises(UserError, match=r"last\.ckpt"):
        train(*WORDS, f"run_dir={copy}", runs=copy.parent)


def test_a_checkpoint_of_another_network_is_refused_with_its_tensors(copy: Path) -> None:
    rewritten(copy / CKPT, lambda c: c | {"state_dict": {f"x{k}": v for k, v in c["state_dict"].items()}})
    with pytest.raises(
        UserError, match=r"tensors are missing \(.* more\), \d+ are unexpected \(x.* more\); move the run"
    ):
        train(*WORDS, f"run_dir={copy}", runs=copy.parent)


@pytest.mark.parametrize("text", [b"", b"PK\3\4 cut", b"\x80\x02]"], ids=["empty", "zip", "pickle"])
def test_a_cut_checkpoint_is_refused(copy: Path, text: bytes) -> None:
    (copy / CKPT).write_bytes(text)
    with pytest.raises(UserError, match=r"last\.ckpt"):
        train(*WORDS, f"run_dir={copy}", runs=copy.parent)


def test_a_garbled_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(UserError, match="no readable safetensors file"):
        train("mode=scratch", f"encoder.pretrained={path}", f"run_dir={tmp_path / 'run'}", runs=tmp_path)


def test_a_yaml_file_that_grows_when_it_is_read_is_refused(copy: Path) -> None:
    layers = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for new, old in zip("bcdefghij", "abcdefghi", strict=True):
        layers.append(f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]")
    (copy / "config.yaml").write_text("\n".join(layers))
    with pytest.raises(UserError, match=r"config\.yaml is missing or damaged"):
        saved_configuration(copy, [])


def test_the_phase_of_another_run_is_refused(copy: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    train(*WORDS, "seed=9", f"run_dir={other}", runs=tmp_path)
    shutil.copy(other / PHASE, copy / PHASE)
    with pytest.raises(UserError, match=r"phase\.json is of another run"):
        train(*WORDS, f"run_dir={copy}", runs=copy.parent)


@pytest.mark.parametrize("key", ["config", "metrics", "phases", "data_fingerprint", "inputs"])
def test_a_finished_record_with_a_value_of_another_type_does_not_count(copy: Path, key: str) -> None:
    known = json.loads((copy / PHASE).read_text())["hash"]
    (copy / "result.json").write_text(json.dumps({"status": "finished", "hash": known, key: 5}))
    with pytest.raises(UserError, match=rf"result\.json is damaged, its {key} is 5"):
        train(*WORDS, f"run_dir={copy}", runs=copy.parent)


def test_a_checkpoint_with_nan_is_not_continued(copy: Path) -> None:
    nan = float("nan")
    rewritten(copy / CKPT, lambda c: c | {"state_dict": {k: v.float() * nan for k, v in c["state_dict"].items()}})
    with pytest.raises(UserError, match=r"last\.ckpt is damaged, .* is not finite"):
        train(*WORDS, f"run_dir={copy}", runs=copy.parent)
