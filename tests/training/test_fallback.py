"""A damaged last checkpoint falls back to the one before, and the run ends as if nothing had been."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ssat.core.checkpoints import load_checkpoint, write_checkpoint
from ssat.core.errors import UserError
from ssat.core.tensors import non_finite, tensors_in
from ssat.training.earlier import earlier, keep_earlier, put_back_best
from tests.helpers import killed_after, largest_difference, record_of, train, weights

WORDS = ["mode=scratch", "epochs=4", "recipe.drop_path=0.1", "checkpoint_keep=3"]
FOLDER = Path("scratch/checkpoints")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    return train(*WORDS, f"run_dir={folder}", runs=folder.parent)


@pytest.fixture
def begun(whole: Path, tmp_path: Path) -> Path:
    """A copy as it was before its last phase had a record."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "result.json").unlink()
    (run / "scratch/phase.json").unlink()
    return run


def step_of(path: Path) -> int:
    return load_checkpoint(path)["global_step"]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def nan_in(part: str) -> Callable[[Path], None]:
    """Writes NaN into a tensor of the checkpoint, with a right checksum."""

    def change(path: Path) -> None:
        content = load_checkpoint(path)
        tensors = [value for _, value in tensors_in(content[part]) if value.is_floating_point() and value.ndim]
        tensors[-1].view(-1)[0] = torch.nan
        write_checkpoint(content, path)

    return change


def test_so_many_checkpoints_are_kept_one_an_epoch(whole: Path) -> None:
    folder = whole / FOLDER
    steps = [step_of(earlier(folder / "last.ckpt", number)) for number in range(3)]
    an_epoch = record_of(whole)["steps"] // 4
    assert steps == [4 * an_epoch, 3 * an_epoch, 2 * an_epoch]
    assert not earlier(folder / "last.ckpt", 3).exists() and not list(folder.glob(".*"))


@pytest.mark.slow
def test_by_default_the_one_before_is_kept_while_a_phase_trains_and_no_longer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["mode=scratch", "epochs=3", f"run_dir={tmp_path / 'run'}"]
    with killed_after("last.ckpt", 2):
        train(*words, runs=tmp_path)
    folder = tmp_path / "run" / FOLDER
    flip(folder / "last.ckpt")
    train(*words, runs=tmp_path)
    assert "going on from the checkpoint before it, last-1.ckpt" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == {"last.ckpt", "best.ckpt", "last.damaged"}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flip, "damaged (the checksum"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "damaged"),
        (lambda path: path.write_bytes(b""), "is not a readable checkpoint"),
        (nan_in("state_dict"), "is not finite"),
        (nan_in("optimizer_states"), "is not finite"),
    ],
    ids=["flip", "cut", "empty", "nan in weights", "nan in the optimizer"],
)
def test_a_damaged_last_checkpoint_falls_back_and_the_run_ends_the_same(
    whole: Path, begun: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], Any], said: str
) -> None:
    damage(begun / FOLDER / "last.ckpt")
    train(*WORDS, f"run_dir={begun}", runs=begun.parent)
    out = capsys.readouterr().out
    assert said in out and "going on from the checkpoint before it, last-1.ckpt" in out and "move it away" not in out
    assert largest_difference(weights(begun, "scratch"), weights(whole, "scratch")) == 0
    ours, theirs = record_of(begun), record_of(whole)
    assert ours["metrics"] == theirs["metrics"]
    assert step_of(begun / FOLDER / "best.ckpt") == step_of(whole / FOLDER / "best.ckpt")
    assert (begun / FOLDER / "last.damaged").is_file()


def test_two_damaged_checkpoints_fall_back_to_the_third(whole: Path, begun: Path) -> None:
    for name in ("last", "last-1"):
        flip(begun / FOLDER / f"{name}.ckpt")
    train(*WORDS, f"run_dir={begun}", runs=begun.parent)
    assert largest_difference(weights(begun, "scratch"), weights(whole, "scratch")) == 0
    assert step_of(begun / FOLDER / "best.ckpt") == step_of(whole / FOLDER / "best.ckpt")


def test_a_checkpoint_that_was_moved_away_is_the_one_before(whole: Path, begun: Path) -> None:
    (begun / FOLDER / "last.ckpt").unlink()
    train(*WORDS, f"run_dir={begun}", runs=begun.parent)
    assert largest_difference(weights(begun, "scratch"), weights(whole, "scratch")) == 0


def test_what_is_no_file_is_moved_aside_once_more(whole: Path, begun: Path) -> None:
    folder = begun / FOLDER
    (folder / "last.ckpt").unlink()
    for name in ("last.ckpt", "last.damaged"):
        (folder / name).mkdir()
        (folder / name / "x").touch()
    train(*WORDS, f"run_dir={begun}", runs=begun.parent)
    assert (folder / "last.damaged-2" / "x").exists()
    assert largest_difference(weights(begun, "scratch"), weights(whole, "scratch")) == 0


def test_where_all_are_damaged_the_newest_is_named(begun: Path) -> None:
    for path in (begun / FOLDER).glob("last*.ckpt"):
        flip(path)
    with pytest.raises(UserError, match=r"last\.ckpt is not a readable checkpoint"):
        train(*WORDS, f"run_dir={begun}", runs=begun.parent)


def numbered(path: Path, number: int) -> None:
    write_checkpoint({"global_step": number}, path)


def test_the_best_goes_back_with_the_last(tmp_path: Path) -> None:
    best = tmp_path / "best.ckpt"
    for step in (10, 20, 30):
        keep_earlier(best, 3)
        numbered(best, step)
    assert put_back_best(best, 20) and step_of(best) == 20
    assert not put_back_best(best, 15) and not best.exists()


def test_a_file_system_without_links_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise OSError("Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    path = tmp_path / "last.ckpt"
    for step in (1, 2, 3):
        keep_earlier(path, 2)
        numbered(path, step)
    assert [step_of(path), step_of(earlier(path, 1))] == [3, 2]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last-1.ckpt", "last.ckpt"]


def test_non_finite_numbers_are_found_and_a_sum_that_overflows_is_not_taken_for_one() -> None:
    huge = torch.full((4,), 3e38)
    assert (
        non_finite({"huge": huge, "half": torch.full((9,), 6e4, dtype=torch.float16), "steps": torch.arange(3)}) is None
    )
    opposite = torch.tensor([torch.inf, -torch.inf])
    assert non_finite({"huge": huge, "opposite": opposite}) == "opposite"
    assert non_finite({"empty": torch.empty(0), "nan": torch.tensor([1.0, torch.nan])}) == "nan"
    assert non_finite({}) is None


def test_a_damaged_best_is_put_aside_and_said_and_the_training_goes_on(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    with killed_after("last.ckpt", 2):
        train(*WORDS, f"run_dir={run}", runs=tmp_path)
    flip(run / FOLDER / "best.ckpt")
    train(*WORDS, f"run_dir={run}", runs=tmp_path)
    assert "it is best.damaged now, and a best.ckpt comes with the next better epoch" in capsys.readouterr().out
    assert (run / FOLDER / "best.damaged").is_file()
    assert largest_difference(weights(run, "scratch"), weights(whole, "scratch")) == 0
    rows = [row["test/acc1"] for row in record_of(run)["phases"][0]["history"]]
    assert (run / FOLDER / "best.ckpt").is_file() == (max(rows[2:]) > max(rows[:2]))
    assert ("best" in record_of(run)["phases"][0]["checkpoints"]) == (run / FOLDER / "best.ckpt").is_file()


def test_where_no_checkpoint_is_sound_all_are_named(begun: Path) -> None:
    for name in ("last", "last-1", "last-2"):
        flip(begun / FOLDER / f"{name}.ckpt")
    with pytest.raises(
        UserError, match="and so are the 2 before it: move all of them away, and the phase begins anew$"
    ):
        train(*WORDS, f"run_dir={begun}", runs=begun.parent)
