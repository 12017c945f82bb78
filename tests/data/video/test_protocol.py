"""Which videos train, validate and test: known counts, no identity on two sides, nothing dropped silently."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ssat.core.errors import UserError
from ssat.data.video.ffpp_splits import METHODS, PACKAGED, TABLE_13, official_splits
from ssat.data.video.layouts import scan
from ssat.data.video.manifest import Entry, entry_of
from ssat.data.video.protocol import dfdc_splits, dfdcp_splits, ffpp_splits, folder_splits, refuse_untrainable, table13
from ssat.data.video.sides import Splits, class_names, identities, refuse_leaks
from tests.data.video.trees import all_ffpp, dfdc_part, ffpp, ffpp_rows, prepared, touch


def kinds(rows: Sequence[Entry]) -> dict[str, int]:
    return dict(Counter(row.method for row in rows))


def numbers(rows: Sequence[Entry]) -> set[str]:
    """All originals and donors, read from the file names alone."""
    return {number for row in rows for number in Path(row.path).stem.split("_")}


def said(call: object, *args: object, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        call(*args, **options)  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def everything() -> list[Entry]:
    return ffpp_rows(all_ffpp())


# The official splits of FaceForensics++


def test_the_packaged_splits_are_the_official_ones() -> None:
    pairs = official_splits().pairs
    assert {split: len(found) for split, found in pairs.items()} == {"train": 360, "val": 70, "test": 70}
    assert sorted(number for found in pairs.values() for pair in found for number in pair) == [
        f"{number:03d}" for number in range(1000)
    ]
    assert pairs["train"][0] == ("071", "054") and pairs["val"][0] == ("720", "672")
    for split, known in {
        "val": [("004", "982")],
        "test": [("634", "660"), ("000", "003")],
        "train": [("515", "519"), ("750", "743"), ("071", "054")],
    }.items():
        assert {frozenset(pair) for pair in known} <= {frozenset(pair) for pair in pairs[split]}
    packaged = json.loads(PACKAGED.read_text(encoding="utf-8"))
    assert "Copyright 2018" in packaged["licence"][1] and "ondyari/FaceForensics" in packaged["source"]


def write_splits(folder: Path, **changed: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, pairs in official_splits().pairs.items():
        (folder / f"{split}.json").write_text(json.dumps(changed.get(split, pairs)))


@pytest.mark.parametrize("place", ["", "splits", "dataset/splits"])
def test_splits_beside_the_videos_come_first(tmp_path: Path, place: str) -> None:
    turned = [pair[::-1] for pair in official_splits().pairs["val"]]
    write_splits(tmp_path / place, val=turned)
    found = official_splits(tmp_path)
    assert found.source == str(tmp_path / place) and found.pairs["val"][0] == ("672", "720")
    assert found.place_of("672_720") == found.place_of("720_672") == ("val", "672_720")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"val": []}, "the val split has 0 pairs, not 70"),
        ({"val": [["000", "003"]] * 70}, "video 000 is in two pairs"),
        ({"val": [["000", "003"]] * 69 + [["0", "1"]]}, "entry 69 of the val split is ['0', '1']"),
        ({"val": {"a": 1}}, "the val split is no list of pairs"),
    ],
)
def test_damaged_splits_are_refused(tmp_path: Path, changed: dict[str, object], told: str) -> None:
    write_splits(tmp_path, **changed)
    text = said(scan, "ffpp", ffpp(tmp_path, ["071"]))
    assert told in text and str(tmp_path) in text


def test_an_incomplete_set_of_splits_is_refused(tmp_path: Path) -> None:
    write_splits(tmp_path / "splits")
    (tmp_path / "splits" / "val.json").unlink()
    assert "val.json is not there" in said(official_splits, tmp_path)
    (tmp_path / "splits" / "val.json").write_text("[[")
    assert "line 1 column" in said(official_splits, tmp_path)


# Cross-manipulation and zero-shot


@pytest.mark.parametrize("held_out", METHODS)
def test_cross_manipulation_has_the_counts_of_the_paper(everything: list[Entry], held_out: str) -> None:
    splits = ffpp_splits(everything, held_out=held_out)
    others = set(METHODS) - {held_out}
    for split, count in (("train", 720), ("val", 140), ("in_domain", 140)):
        assert kinds(splits[split]) == dict.fromkeys({"original", *others}, count)
    assert kinds(splits["test"]) == {held_out: 140, "original": 140}
    assert sum(row.label for row in splits["train"]) / len(splits["train"]) == 0.75
    assert splits.complete and not splits.remarks and not any(splits.unscored.values())
    assert not numbers(splits["train"]) & numbers(splits["val"])
    assert not (numbers(splits["train"]) | numbers(splits["val"])) & numbers([*splits["test"], *splits["in_domain"]])


def test_without_a_held_out_method_each_has_its_own_test(everything: list[Entry]) -> None:
    splits = ffpp_splits(everything)
    assert sorted(splits.parts) == sorted(["train", "val", "test", *(f"test_{name}" for name in METHODS)])
    assert len(splits["train"]) == 3600 and len(splits["val"]) == len(splits["test"]) == 700
    for name in METHODS:
        assert kinds(splits[f"test_{name}"]) == {name: 140, "original": 140}


def test_table_13(everything: list[Entry]) -> None:
    assert sum(count.found for count in table13(everything)) == 5000
    assert {(count.split, count.found, count.expected) for count in table13(everything)} == {
        (split, number, number) for split, number in TABLE_13.items()
    }
    lost = [replace(row, status="corrupt") if row.method == "FaceSwap" else row for row in everything]
    assert sum(count.missing for count in table13(lost)) == 1000
    splits = ffpp_splits(lost, held_out="FaceSwap")
    assert not splits.complete and splits.remarks[0].startswith("140 of the 4,140 videos")


def test_a_set_without_one_of_the_four_methods_is_not_complete(everything: list[Entry]) -> None:
    rows = [row for row in everything if row.method != "NeuralTextures"]
    splits = ffpp_splits(rows, held_out="FaceSwap")
    assert kinds(splits["train"]) == {"original": 720, "Deepfakes": 720, "Face2Face": 720}
    assert not splits.complete and splits.remarks == [
        "no video of NeuralTextures is prepared: the splits go without",
        "1,000 of the 4,140 videos of the official splits are not there or cannot be used",
    ]
    assert ffpp_splits(rows, held_out="FaceSwap", methods=["Deepfakes", "Face2Face"]).complete


def test_one_method_and_a_later_method(everything: list[Entry]) -> None:
    splits = ffpp_splits(everything, methods=["Deepfakes"])
    assert kinds(splits["train"]) == {"original": 720, "Deepfakes": 720} and splits.complete
    shifted = everything + ffpp_rows(
        name.replace("Deepfakes", "FaceShifter") for name in all_ffpp() if name.startswith("Deepfakes/")
    )
    assert "FaceShifter" not in kinds(ffpp_splits(shifted)["train"])
    assert kinds(ffpp_splits(shifted, held_out="FaceShifter")["test"]) == {"FaceShifter": 140, "original": 140}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"held_out": "Deepfake"}, "data.held_out=Deepfake is no method of FaceForensics++ (did you mean Deepfakes?)"),
        ({"held_out": "FaceSwap"}, "data.held_out=FaceSwap has no prepared video at this level"),
        ({"methods": ["FaceSwap"]}, "data.methods=FaceSwap has no prepared video"),
        ({"held_out": "Deepfakes"}, "data.held_out=Deepfakes leaves no method to train on"),
        ({"level": "c40"}, "data.level=c40 is not in the prepared videos"),
    ],
)
def test_what_is_not_there_is_refused(options: dict[str, object], told: str) -> None:
    assert told in said(ffpp_splits, ffpp_rows(["071", "Deepfakes/071_054"]), **options)


def test_level_of_the_prepared_videos() -> None:
    names = ["071", "Deepfakes/071_054"]
    both = [*ffpp_rows(names, level="c40"), *ffpp_rows(names)]
    assert {row.level for row in ffpp_splits(both)["train"]} == {"c23"}
    assert {row.level for row in ffpp_splits(both, level="c40")["train"]} == {"c40"}
    assert {row.level for row in ffpp_splits(both[:2])["train"]} == {"c40"}


def test_unusable_videos_are_left_out_of_training_and_kept_for_the_test(everything: list[Entry]) -> None:
    bad = {"no_face": 3, "corrupt": 5, "partial": 7}
    rows = []
    for number, row in enumerate(everything):
        status = next((name for name, step in bad.items() if number % 100 == step), "ok")
        rows.append(replace(row, status=status, reason=status))
    splits = ffpp_splits(rows, held_out="Deepfakes")
    whole = ffpp_splits(everything, held_out="Deepfakes")
    for name in ("test", "in_domain"):
        together = {row.video_id for row in [*splits[name], *splits.unscored[name]]}
        assert together == {row.video_id for row in whole[name]}
        assert {row.status for row in splits.unscored[name]} == {"no_face", "corrupt"}
        assert all(row.reason for row in splits.unscored[name])
    assert {row.status for row in splits["train"]} == {"ok", "partial"}
    lost = len(whole["train"]) - len(splits["train"])
    assert any(remark.startswith(f"train: {lost} of 2,880 videos are left out (") for remark in splits.remarks)
    assert "train" not in splits.unscored and not splits.complete


@pytest.mark.parametrize("seed", range(25))
def test_no_part_of_ffpp_has_an_identity_on_two_sides(everything: list[Entry], seed: int) -> None:
    chance = random.Random(seed)
    rows = chance.sample(everything, chance.choice([5, 40, 400, 3000]))
    there = sorted({row.method for row in rows} - {"original"})
    held_out = chance.choice([None, *there]) if len(there) > 1 else None
    splits = ffpp_splits(rows, held_out=held_out) if there else None
    if splits is None:
        return
    tests = [row for name, found in splits.parts.items() if name not in ("train", "val") for row in found]
    sides = [numbers(splits["train"]), numbers(splits["val"]), numbers(tests)]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
    assert held_out not in kinds([*splits["train"], *splits["val"]])
    used = {row.video_id for found in splits.parts.values() for row in found}
    unused = [row for row in rows if row.video_id not in used]
    assert all(row.method == held_out and row.split != "test" for row in unused)


# Leaks


@pytest.mark.parametrize(
    ("planted", "told"),
    [
        ({"split": "test"}, "group '054_071' is in train"),
        ({"split": "test", "group_id": "other"}, "video '071' is in train"),
        ({"split": "val", "group_id": "other", "source_id": ""}, "video '054' is in train"),
    ],
)
def test_a_planted_leak_is_refused(planted: dict[str, str], told: str) -> None:
    rows = ffpp_rows(["071", "054", "Deepfakes/071_054", "634", "Deepfakes/634_660"])
    rows[2] = replace(rows[2], **planted)
    text = said(ffpp_splits, rows)
    assert told in text and "071_054.mp4" in text


def test_a_fake_of_two_splits_is_a_leak_whatever_its_list_says() -> None:
    rows = ffpp_rows(["071", "634", "Deepfakes/071_054", "Deepfakes/634_660"])
    crossed = replace(rows[2], donor_id=rows[1].video_id, video_id="x/071_634", group_id="071_634")
    assert "video '634' is in train" in said(ffpp_splits, [*rows, crossed])


def test_tests_may_share_what_training_may_not() -> None:
    (row,) = ffpp_rows(["634"])
    refuse_leaks({"test": [row], "in_domain": [row], "train": []})
    assert "group '634_660' is in train" in said(refuse_leaks, Splits({"train": [row], "test": []}, {"test": [row]}))
    assert "is in train" in said(refuse_leaks, {"train": [row], "val": [row]})
    assert len(set(identities(row))) == 2


# DFDC


def dfdc_rows(tmp_path: Path, parts: Sequence[int], *, originals: int = 2) -> list[Entry]:
    for part in parts:
        dfdc_part(tmp_path, f"dfdc_train_part_{part}", [f"o{part}x{number}" for number in range(originals)])
    return prepared(scan("dfdc", tmp_path))


def with_test(tmp_path: Path, folder: str = "test") -> None:
    touch(tmp_path, f"{folder}/{folder}1.mp4", f"{folder}/{folder}2.mp4")
    text = f"filename,label\n{folder}1.mp4,1\n{folder}2.mp4,0\n{folder}3.mp4,0\n"
    (tmp_path / folder / "labels.csv").write_text(text)


def parts_of(rows: Sequence[Entry]) -> list[int]:
    return sorted({int(row.part.rpartition("_")[2]) for row in rows})


def test_dfdc_by_part_without_the_official_test(tmp_path: Path) -> None:
    splits = dfdc_splits(dfdc_rows(tmp_path, range(50), originals=1))
    assert parts_of(splits["val"]) == [45, 46, 47, 48, 49] and parts_of(splits["test"]) == [40, 41, 42, 43, 44]
    assert parts_of(splits["train"]) == list(range(40)) and not splits.remarks and splits.complete


def test_dfdc_with_the_official_test(tmp_path: Path) -> None:
    with_test(tmp_path)
    with_test(tmp_path, "validation")
    splits = dfdc_splits(dfdc_rows(tmp_path, [0, 1, 40, 44, 45, 49], originals=1))
    assert parts_of(splits["train"]) == [0, 1, 40, 44] and parts_of(splits["val"]) == [45, 49]
    assert [row.path for row in splits["test"]] == ["test/test1.mp4", "test/test2.mp4"]
    assert [row.path for row in splits.unscored["test"]] == ["test/test3.mp4"]
    assert len(splits["official_val"]) == 2
    assert "test: 1 of 3 videos is without a score (1 missing)" in splits.remarks
    chosen = dfdc_splits(dfdc_rows(tmp_path, [0, 1, 40, 44, 45, 49]), val_parts=[0], test_parts=[1])
    assert parts_of(chosen["val"]) == [0] and parts_of(chosen["test"]) == [1] and len(chosen["official_test"]) == 2


def test_dfdc_with_other_parts(tmp_path: Path) -> None:
    rows = dfdc_rows(tmp_path, range(20), originals=1)
    splits = dfdc_splits(rows)
    assert parts_of(splits["val"]) == [18, 19] and parts_of(splits["test"]) == [16, 17]
    assert splits.remarks == ["parts 40 to 49 are not all there: val is part 18, 19, test is part 16, 17"]
    only_val = dfdc_splits(rows, val_parts=[3])
    assert parts_of(only_val["val"]) == [3] and parts_of(only_val["test"]) == [18, 19]
    assert "data.val_parts names part 49, which is not prepared" in said(dfdc_splits, rows, val_parts=[49])
    assert "both have part 3" in said(dfdc_splits, rows, val_parts=[3], test_parts=[3, 4])


def test_few_parts_of_dfdc_are_split_by_original(tmp_path: Path) -> None:
    rows = dfdc_rows(tmp_path, [0, 1, 2], originals=10)
    splits = dfdc_splits(rows)
    assert {name: len({row.group_id for row in found}) for name, found in splits.parts.items()} == {
        "train": 24,
        "val": 3,
        "test": 3,
    }
    assert all(kinds(found)["dfdc"] == 3 * kinds(found)["original"] for found in splits.parts.values())
    assert "an actor may be on two sides" in splits.remarks[0]
    again = dfdc_splits(list(reversed(rows)))
    assert again.parts == splits.parts


def test_identities_of_dfdc_unite_groups(tmp_path: Path) -> None:
    rows = dfdc_rows(tmp_path, range(10), originals=2)
    table = tmp_path / "who.csv"
    # The actor of o0x0 is in part 9 (val) as well, that of o1x0 in part 8 (test), that of o9x1 in part 8.
    table.write_text(
        "identity,video_id\nanna,o0x0\nanna,dfdc_train_part_9/o9x0\nben,o1x0.mp4\nben,o8x0\neve,o9x1\neve,o8x1\nx,y\n"
    )
    splits = dfdc_splits(rows, identity_csv=table)
    assert {row.group_id for row in splits["val"]} == {"o0x0"}  # united with that of o9x0
    assert not {"o0x0", "o1x0"} & {row.path.partition("/")[2][:4] for row in splits["train"]}
    assert "train: 8 of 64 videos are of persons of another split, left out" in splits.remarks
    assert "val: 4 of 8 videos are of persons of another split, left out" in splits.remarks
    assert "who.csv names 1 video not among the prepared" in splits.remarks
    table.write_text("video,identity\na,b\n")
    assert "has no column 'video_id'" in said(dfdc_splits, rows, identity_csv=table)
    assert "cannot be used" in said(dfdc_splits, rows, identity_csv=tmp_path / "absent.csv")


def test_a_dfdc_original_in_two_parts_is_a_leak(tmp_path: Path) -> None:
    rows = dfdc_rows(tmp_path, range(40, 50), originals=1)
    rows[0] = replace(rows[0], group_id="o49x0")
    assert "group 'o49x0' is in" in said(dfdc_splits, rows)


# DFDC preview and own videos


def test_subjects_of_the_preview_stay_together(tmp_path: Path) -> None:
    facts = {
        f"{folder}/s{subject}/s{subject}_{number}.mp4": {
            "label": "real" if folder == "original_videos" else "fake",
            "set": "test" if subject >= 16 or (subject == 0 and number == 0) else "train",
        }
        for folder in ("original_videos", "method_A", "method_B")
        for subject in range(20)
        for number in range(2)
    }
    (tmp_path / "dataset.json").write_text(json.dumps(facts))
    touch(tmp_path, *facts)
    splits = dfdcp_splits(prepared(scan("dfdcp", tmp_path)), val_fraction=0.2)
    subjects = {name: {row.group_id for row in found} for name, found in splits.parts.items()}
    assert subjects["test"] == {"s0", "s16", "s17", "s18", "s19"} and len(subjects["val"]) == 3
    assert not subjects["val"] & subjects["train"] and len(subjects["train"]) == 12
    assert splits.remarks == ["train: 3 of 93 videos are of persons of another split, left out"]
    assert class_names(splits["test"]) == ["real", "fake"]


def own(tmp_path: Path, *, persons: int = 20, group: int | None = 1) -> list[Entry]:
    names = [f"{name}/p{person}/{take}.mp4" for name in ("real", "fake") for person in range(persons) for take in "ab"]
    return prepared(scan("video_folder", touch(tmp_path, *names), group=group))


@pytest.mark.parametrize("seed", range(3))
def test_own_videos_are_split_by_whole_groups_and_class(tmp_path: Path, seed: int) -> None:
    rows = own(tmp_path)
    splits = folder_splits(rows, val_fraction=0.25, test_fraction=0.2, seed=seed)
    assert {name: kinds(found) for name, found in splits.parts.items()} == {
        "train": {"fake": 24, "real": 24},
        "val": {"fake": 8, "real": 8},
        "test": {"fake": 8, "real": 8},
    }
    groups = [{row.group_id for row in found} for found in splits.parts.values()]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert folder_splits(rows[::-1], val_fraction=0.25, test_fraction=0.2, seed=seed).parts == splits.parts


def test_the_folders_of_the_user_are_the_splits(tmp_path: Path) -> None:
    names = [f"{split}/{name}/{number}.mp4" for split in ("train", "test") for name in "ab" for number in range(8)]
    rows = prepared(scan("video_folder", touch(tmp_path, *names)))
    splits = folder_splits(rows, val_fraction=0.25, test_fraction=0.5)
    assert {name: len(found) for name, found in splits.parts.items()} == {"train": 12, "val": 4, "test": 16}
    assert splits.remarks == ["the set has its own test split: data.test_fraction is not used"]
    assert class_names(rows) == ["a", "b"]
    leak = replace(rows[0], split="val", group_id=rows[-1].group_id)
    text = said(folder_splits, [leak, *rows[1:]])
    assert text.startswith("data.group: group") and "move the videos of a group to one split" in text


def test_own_videos_may_all_be_a_test(tmp_path: Path) -> None:
    splits = folder_splits(own(tmp_path, persons=2), test_fraction=1, val_fraction=0.1)
    assert len(splits["test"]) == 8 and not splits["train"]
    assert "the training split has no usable video" in said(refuse_untrainable, splits)
    rows = own(tmp_path, persons=2)
    one = folder_splits([row for row in rows if row.label])
    assert "only fake, one class" in said(refuse_untrainable, one)
    assert "train: all 4 usable videos are of one class (fake)" in one.remarks
    refuse_untrainable(folder_splits(rows))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"val_fraction": 1.5}, "data.val_fraction=1.5 is outside (0, 1): set the share of the videos"),
        ({"test_fraction": -0.1}, "data.test_fraction=-0.1 is outside (0, 1)"),
        ({"test_fraction": 0.01}, "data.test_fraction=0.01 of 8 videos is 0"),
    ],
)
def test_a_share_that_is_not_possible_is_refused(tmp_path: Path, options: dict[str, float], told: str) -> None:
    assert told in said(folder_splits, own(tmp_path, persons=2), **options)


def test_unusable_own_videos_stay_in_the_test(tmp_path: Path) -> None:
    rows = own(tmp_path, persons=8)
    whole = folder_splits(rows, test_fraction=0.25)
    broken = [entry_of(row, status="corrupt", reason="it ends early") for row in rows]
    splits = folder_splits(broken, test_fraction=0.25)
    assert [row.path for row in splits.unscored["test"]] == [row.path for row in whole["test"]]
    assert "test: there is no usable video" in splits.remarks and not splits.complete
