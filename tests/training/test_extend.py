"""`extend=...`: a run goes on from another one's last checkpoint under the schedule of more epochs."""

import math
import shutil
from pathlib import Path

import pytest
import torch

from ssat.config.identity import config_hash
from ssat.core.errors import UserError
from ssat.results.spent import total_spent
from ssat.runs.record import Record
from tests.helpers import config, largest_difference, record_of, train, weights

MODE = ["mode=scratch", "recipe.ema_decay=0.9", "epochs=2"]
STEPS, EPOCHS, LONGER = 10, 2, 4  # steps of an epoch of 160 images in batches of 16


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> Path:
    return train(*MODE, runs=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def longer(before) -> Path:
    return train(*MODE, f"extend={LONGER}", runs=before.parents[1])


def rates(run: Path) -> list[float]:
    return [row["lr"] for row in record_of(run)["phases"][0]["history"]]


def planned(step: int) -> float:
    """By hand: the warm-up of the two epochs (a quarter of them), then the cosine of all four."""
    peak, warm, total = 1e-3 * 16 / 256, 0.25 * EPOCHS * STEPS, LONGER * STEPS
    return 1e-6 + (peak - 1e-6) * 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))


def test_the_rate_is_that_of_the_longer_schedule_from_there_on(before, longer):
    assert rates(longer)[:EPOCHS] == rates(before)  # of the past nothing changes
    assert rates(longer)[EPOCHS:] == pytest.approx([planned(3 * STEPS), planned(4 * STEPS)], rel=1e-9)
    first = longer / "scratch" / "csv"
    assert any(first.rglob("metrics.csv"))


def test_the_run_before_stays_and_the_record_names_it(before, longer):
    assert longer != before and len(record_of(before)["phases"][0]["history"]) == EPOCHS
    record = record_of(longer)
    extended = record["extended"]
    assert (extended["from"], extended["to"], extended["run"]) == (EPOCHS, LONGER, str(before))
    assert extended["at"] == {"epoch": 2, "step": 20} and extended["finished"] and extended["hash"] == before.name[-8:]
    assert record["steps"] == LONGER * STEPS and record["status"] == "finished"
    assert record_of(before)["extended"] is None
    assert any("extended from 2 to 4 epochs" in reason for reason in record["unfaithful_reasons"])
    assert record["seconds"] > record_of(before)["seconds"]


def test_the_record_says_what_it_has_inherited_and_sums_count_it_once(before, longer):
    first, second = (Record(run / "result.json", "g", record_of(run)) for run in (before, longer))
    checkpoint = torch.load(before / "scratch" / "checkpoints" / "last.ckpt", weights_only=False)
    inherited = second.number("extended.inherited.seconds")
    assert inherited == checkpoint["callbacks"]["Meter"]["seconds"] and 0 < inherited <= first.number("seconds")
    own = second.number("seconds") - inherited
    clock = sum(row["seconds"] for row in second.phases[0]["history"][EPOCHS:])
    assert clock <= own < second.number("seconds")
    assert total_spent([first, second], "seconds") == pytest.approx(first.number("seconds") + own)
    assert total_spent([second], "seconds") == second.number("seconds")  # the run before is elsewhere
    share = inherited / second.number("seconds")
    lacoste = [second.number(f"{key}.co2_kg_lacoste") for key in ("extended.inherited", "energy")]
    assert lacoste == [None, None] or lacoste[0] == pytest.approx(share * lacoste[1])


def test_the_same_command_skips_the_extended_run(longer, capsys):
    assert train(*MODE, f"extend={LONGER}", runs=longer.parents[1]) == longer
    assert "skipped, already finished" in capsys.readouterr().out


def test_a_damaged_run_is_not_extended_and_nothing_is_left(before, tmp_path):
    run = shutil.copytree(before, tmp_path / before.parent.name / before.name)
    (run / "scratch" / "checkpoints" / "last.ckpt").write_text("junk")
    with pytest.raises(UserError, match="train that run again .*force=true") as refused:
        train(*MODE, f"extend={LONGER}", runs=tmp_path)
    assert "move it away" not in str(refused.value)
    assert [path.name for path in run.parent.iterdir()] == [run.name]


def test_an_extension_that_is_interrupted_goes_on_exactly(before, longer, tmp_path, monkeypatch):
    runs = tmp_path / "runs"
    shutil.copytree(before, runs / before.parent.name / before.name)
    from ssat.training.module import JointModule

    step = JointModule.training_step

    def interrupted(self, batch, batch_idx):
        if self.trainer.current_epoch == 3:
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(JointModule, "training_step", interrupted)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train(*MODE, f"extend={LONGER}", runs=runs)
    again = train(*MODE, f"extend={LONGER}", runs=runs)
    assert largest_difference(weights(again, "scratch"), weights(longer, "scratch")) == 0
    assert rates(again) == rates(longer)


def test_an_interrupted_run_is_extended_as_a_run_of_more_epochs(before, tmp_path):
    """Interrupted after the warm-up: the weights of then, and the longer cosine from then on."""
    folder = tmp_path / before.parent.name / before.name
    shutil.copytree(before, folder)
    for name in ("result.json", "scratch/phase.json"):
        (folder / name).unlink()
    run = train(*MODE, "extend=3", runs=tmp_path)
    assert len(rates(run)) == 3 and not record_of(run)["extended"]["finished"]


@pytest.mark.slow
def test_of_two_phases_the_last_is_extended(tmp_path):
    words = ["mode=ssl_ft", "epochs=1", "reconstruct_every=0"]
    before = train(*words, runs=tmp_path)
    run = train(*words, "extend=2", runs=tmp_path)
    first, last = record_of(run)["phases"]
    assert first["history"] == record_of(before)["phases"][0]["history"] and len(last["history"]) == 2
    assert largest_difference(weights(run, "pretrain"), weights(before, "pretrain")) == 0
    assert (
        record_of(run)["extended"]["inherited"]["seconds"] > first["seconds"]
    )  # and the first epoch of the last phase


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["extend=2"], "not more than the 2 epochs"),
        (["extend=3", "run_dir=here"], "run_dir=here does not go with extend"),
        (["extend=3", "trainer.max_steps=5"], "trainer.max_steps=5 does not go with extend"),
        (["extend=3", "estimate=true"], "estimate=True does not go with extend"),
    ],
)
def test_what_cannot_be_extended_is_one_sentence(words, said):
    with pytest.raises(UserError, match=said):
        config("epochs=2", *words)


def test_there_must_be_a_run_before(tmp_path):
    with pytest.raises(UserError, match="does not exist: train the run before"):
        train(*MODE, "extend=3", runs=tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_length_is_another_run_and_none_changes_no_hash():
    assert config_hash(config("epochs=2", "extend=3")) not in (
        config_hash(config("epochs=2")),
        config_hash(config("epochs=3")),
        config_hash(config("epochs=2", "extend=4")),
    )


def test_a_checkpoint_of_it_says_its_own_configuration(longer):
    for name in ("last", "best"):
        kept = torch.load(longer / "scratch" / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert kept["config"]["extend"] == LONGER
