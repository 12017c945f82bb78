import json
import os
from pathlib import Path

import pytest

from ssat.results.analyses import read_analyses
from ssat.runs.record import as_number, folders, read_records, read_unfinished, write_record
from tests.results.records import failed_record, load, make_record, save


def test_a_record_is_read_back_as_it_was_written(tmp_path: Path):
    record = make_record("ssl_ft", seed=3)
    [read] = load(tmp_path, record)
    assert read.values == record
    assert read.group == "quickstart" and read.folder.name == f"vit_micro-digits-ssl_ft-s3-{record['hash']}"


def test_numbers_that_are_not_finite_become_null(tmp_path: Path):
    write_record(tmp_path, {"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": float("-inf")}})
    assert json.loads((tmp_path / "result.json").read_text()) == {"a": None, "b": [None, 1.5], "c": {"d": None}}


def test_text_is_written_as_utf_8(tmp_path: Path):
    write_record(tmp_path, {"name": "größe-猫"})
    assert "größe-猫" in (tmp_path / "result.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("old", [None, {"status": "running"}])
def test_an_interrupted_write_leaves_the_old_record_and_no_partial_file(tmp_path: Path, monkeypatch, old: dict | None):
    if old:
        write_record(tmp_path, old)

    def cut_off(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", cut_off)
    with pytest.raises(KeyboardInterrupt):
        write_record(tmp_path, {"status": "finished"})
    assert [path.name for path in tmp_path.iterdir()] == (["result.json"] if old else [])
    assert not old or json.loads((tmp_path / "result.json").read_text()) == old


def test_a_record_is_readable_for_others_as_the_umask_says(tmp_path: Path):
    before = os.umask(0o022)
    try:
        path = write_record(tmp_path, {})
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


def test_records_come_by_group_data_encoder_mode_and_seed(tmp_path: Path):
    wanted = [("a", "scratch", 0), ("a", "ssl_ft", 0), ("a", "ssat", 2), ("a", "ssat", 10), ("a", "finetune", 0)]
    wanted.append(("b", "scratch", 0))
    for group, mode, seed in reversed(wanted):
        save(tmp_path, make_record(mode, seed=seed), group=group)
    records, _ = read_records(tmp_path)
    assert [(record.group, record.mode, record.get("seed")) for record in records] == wanted


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"schema": 1, "name": ', "damaged"),
        (b"\xff\xfe\x00", "damaged"),
        (b"[" * 100_000, "damaged"),
        (b"[1, 2]", "not a record"),
        (b'{"accuracy": 3}', "not a record"),
        (b'{"schema": 2}', "schema '2', this version reads 1"),
        (b'{"schema": 1, "name": "x", "encoder": "x", "data": "x", "status": "finished"}', "mode missing"),
        (b'{"schema": 1, "name": "x", "encoder": "x", "data": "x", "mode": "x", "status": 7}', "status missing"),
    ],
)
def test_damaged_and_foreign_files_are_named_and_skipped(tmp_path: Path, content: bytes, reason: str):
    save(tmp_path, make_record())
    other = tmp_path / "other" / "run"
    other.mkdir(parents=True)
    (other / "result.json").write_bytes(content)
    records, warnings = read_records(tmp_path)
    assert len(records) == 1
    assert len(warnings) == 1 and str(other / "result.json") in warnings[0] and reason in warnings[0]


def test_replaced_runs_are_left_alone(tmp_path: Path):
    save(tmp_path, make_record(), group=".replaced")
    assert read_records(tmp_path) == ([], [])


def test_a_folder_that_cannot_be_read_is_named_once(tmp_path: Path, monkeypatch):
    for group in ("closed", "open"):
        save(tmp_path, make_record(), group=group)
    scan = os.scandir

    def refuse(folder: str):
        if Path(folder).name == "closed":
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    records, warnings = read_records(tmp_path)
    assert [record.group for record in records] == ["open"]
    assert warnings == [f"{tmp_path / 'closed'}: cannot be read (Permission denied)"]
    assert read_analyses(tmp_path) == ([], [])


def test_before_the_first_run_there_is_nothing_to_warn_of(tmp_path: Path):
    assert read_records(tmp_path / "runs") == ([], []) and read_unfinished(tmp_path / "runs") == []


def test_a_link_to_another_disk_is_followed(tmp_path: Path):
    save(tmp_path / "disk", make_record(), group="t")
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "table1").symlink_to(tmp_path / "disk" / "t")
    assert [record.group for record in read_records(runs)[0]] == ["table1"]


def test_linked_runs_are_read_whole(tmp_path: Path):
    save(tmp_path / "disk", make_record(), group="table1")
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    assert [record.group for record in read_records(tmp_path / "runs")[0]] == ["table1"]


@pytest.mark.parametrize("target", [".", "..", "table1", "latest"])
def test_a_link_to_what_is_read_anyway_adds_nothing(tmp_path: Path, target: str):
    runs = tmp_path / "runs"
    save(tmp_path / "others", make_record(seed=1), group="elsewhere")
    save(runs, make_record(), group="table1")
    (runs / "latest").symlink_to(target)  # the last one is a loop
    assert [record.group for record in read_records(runs)[0]] == ["table1"]
    assert len(folders(runs)[0]) == 3


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["g/a/config.yaml", "g/a/joint/checkpoints/last.ckpt"], ["g/a"]),
        (["g/a/config.yaml", "g/a/result.json"], []),
        (["g/a/config.yaml", "g/a/wandb/run-1/files/config.yaml"], ["g/a"]),
        (["g/a/config.yaml", "g/a/result.json", "g/a/joint/wandb/run-1/files/config.yaml"], []),
        (["g/b/config.yaml", "g/a/config.yaml", ".replaced/c/config.yaml"], ["g/a", "g/b"]),
        (["g/a/notes.txt"], []),
    ],
)
def test_runs_without_a_record_are_found(tmp_path: Path, files: list[str], names: list[str]):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("")
    assert read_unfinished(tmp_path) == names


@pytest.mark.parametrize("value", [10**400, -(10**400), 1e300, float("inf"), float("nan"), True, "1", [1], None])
def test_what_nothing_can_measure_is_no_number(value: object):
    assert as_number(value) is None


def test_runs_can_be_given_as_their_own_group_folder(tmp_path: Path):
    save(tmp_path, make_record(), group="quickstart")
    assert read_records(tmp_path / "quickstart")[0][0].group == "quickstart"


def test_values_that_are_missing_or_no_numbers_read_as_none(tmp_path: Path):
    [record] = load(tmp_path, failed_record(seconds="long", steps=True, energy=None))
    assert [record.number(key) for key in ("seconds", "steps", "energy.kwh", "metrics.test.acc1.last")] == [None] * 4


def test_the_accuracy_follows_the_recipes_choice_of_epoch(tmp_path: Path):
    last, best = load(tmp_path, make_record(seed=0), make_record(seed=1, selection="max"))
    assert (last.accuracy, best.accuracy) == (80.0, 80.5)


def test_data_without_test_images_is_judged_on_validation(tmp_path: Path):
    metrics = {"val": {"acc1": {"last": 71.0, "best": 72.0, "best_epoch": 3}}}
    [record] = load(tmp_path, make_record(metrics=metrics, data_fingerprint={"splits": {"train": 90, "val": 10}}))
    assert (record.split, record.accuracy, record.split_size) == ("val", 71.0, 10)
