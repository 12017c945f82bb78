"""No group (patient, video, plate) is on two sides of a split, a subset or a label budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import StratifiedGroupKFold

from ssat.core.errors import UserError
from ssat.data.choose import Choice
from ssat.data.group_subsets import Stratified
from ssat.data.groups import grouped
from ssat.data.image import ImageDataModule
from ssat.data.sets.folder import image_folder
from ssat.data.sets.sources import Groups, ImageList, Source, digits

MakeFolder = Callable[[dict[str, int]], Path]


def listed(labels: np.ndarray, groups: np.ndarray | None = None) -> ImageList:
    """Images without pixels; without `groups` each stands for itself."""
    found = None if groups is None else Groups(groups, [f"g{number}" for number in range(int(groups.max()) + 1)])
    return ImageList(np.zeros((len(labels), 1, 1), np.uint8), labels, groups=found)


def source_of(images: ImageList) -> Source:
    return Source("made", [f"c{label}" for label in range(int(images.labels.max()) + 1)], images)


def mixed(seed: int, classes: int, groups: int) -> ImageList:
    """Groups of 1 to 19 images with classes in shares of their own."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 20, groups)
    shares = rng.dirichlet(np.full(classes, 0.7), groups)
    labels = np.concatenate([rng.choice(classes, size, p=share) for size, share in zip(sizes, shares, strict=True)])
    return listed(labels, np.repeat(np.arange(groups), sizes))


def videos(make_folder: MakeFolder, frames: int = 4, each: int = 6) -> Path:
    """real/ and fake/ with `each` videos of `frames` images, numbered on through both."""
    names = [
        f"{name}/video{place * each + number:02}"
        for place, name in enumerate(("real", "fake"))
        for number in range(each)
    ]
    return make_folder(dict.fromkeys(names, frames))


def sides(root: Path, **options: object) -> dict[str, set[str]]:
    """The videos of each split."""
    data = ImageDataModule(image_folder(root), img_size=8, batch_size=1, **options)
    data.setup()
    found = {}
    for name in data.sizes:
        images, indices = data.split(name)
        found[name] = {
            str(images.images[index]).split("/")[-2] for index in indices.tolist() if images.labels[index] >= 0
        }
    return found


CHOICES = (
    {"val_fraction": 0.2},
    {"fraction": 0.4},
    {"samples_per_class": 9},
    {"label_fraction": 0.3},
    {"fraction": 0.7, "val_fraction": 0.3, "label_fraction": 0.5},
)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("seed", range(4))
def test_every_choice_takes_whole_groups(choice: dict, seed: int) -> None:
    images = mixed(seed, classes=3, groups=60)
    splits, _ = (chooser := Choice(**choice, seed=seed)).splits(source_of(images))
    labelled = chooser.labelled(*splits["train"], ["c0", "c1", "c2"])[1]
    assert images.groups is not None
    parts = [indices for _, indices in splits.values()]
    for part in [*parts, labelled]:
        assert np.isin(images.groups.numbers, images.groups.numbers[part]).sum() == len(part) > 0
    assert len(np.unique(np.concatenate(parts))) == sum(map(len, parts))
    again, _ = Choice(**choice, seed=seed).splits(source_of(images))
    assert all(np.array_equal(again[name][1], part) for name, part in zip(splits, parts, strict=True))


@pytest.mark.parametrize("choice", CHOICES)
def test_groups_of_one_image_are_chosen_as_single_images(choice: dict) -> None:
    labels = np.sort(np.random.default_rng(1).choice(4, 300, p=[0.4, 0.3, 0.2, 0.1]))
    found = []
    for images in (listed(labels), listed(labels, np.arange(300))):
        chooser = Choice(**choice, seed=3)
        splits, _ = chooser.splits(source_of(images))
        labelled = chooser.labelled(*splits["train"], ["c0", "c1", "c2", "c3"])[1]
        found.append({name: indices.tolist() for name, (_, indices) in splits.items()} | {"labels": labelled.tolist()})
    assert found[0] == found[1]


def test_classes_are_as_even_as_scikit_learn_makes_them() -> None:
    ours, theirs = [], []
    for seed in range(12):
        images = mixed(seed, classes=5, groups=100)
        assert images.groups is not None
        totals = np.bincount(images.labels)
        _, val = Stratified(images, np.arange(len(images)), list("abcde")).split(0.2, seed)
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        _, other = next(folds.split(images.labels, images.labels, images.groups.numbers))
        for errors, part in ((ours, val), (theirs, other)):
            errors.append(np.abs(np.bincount(images.labels[part], minlength=5) / totals - 0.2).max())
    assert np.mean(ours) < 1.5 * np.mean(theirs) and max(ours) < 0.03


def test_equal_groups_of_one_class_give_every_class_its_exact_share() -> None:
    labels = np.repeat([0, 1], 200)
    images = listed(labels, np.repeat(np.arange(40), 10))
    for seed in range(5):
        _, val = Stratified(images, np.arange(400), ["a", "b"]).split(0.2, seed)
        assert np.bincount(labels[val]).tolist() == [40, 40]


def test_another_seed_chooses_other_groups() -> None:
    images = mixed(0, classes=2, groups=80)
    chosen = {tuple(Stratified(images, np.arange(len(images)), ["a", "b"]).split(0.2, seed)[1]) for seed in range(5)}
    assert len(chosen) == 5


def test_a_group_that_is_most_of_its_class_is_not_taken_for_validation() -> None:
    labels = np.repeat([0, 1], 100)
    groups = np.concatenate([np.repeat([0, 1, 2], [80, 10, 10]), np.repeat(np.arange(3, 13), 10)])
    for seed in range(10):
        _, val = Stratified(listed(labels, groups), np.arange(200), ["a", "b"]).split(0.2, seed)
        assert 0 not in groups[val] and 10 <= (labels[val] == 0).sum() <= 20


@pytest.mark.parametrize("group", ["1", r"(video\d+)/", r"^([^/]+)"])
def test_a_level_and_a_pattern_keep_each_video_on_one_side(make_folder: MakeFolder, group: str) -> None:
    found = sides(videos(make_folder), group=group, val_fraction=0.3)
    assert found["train"] | found["val"] == {f"video{number:02}" for number in range(12)}
    assert not found["train"] & found["val"] and len(found["val"]) in (3, 4)


def test_one_name_in_two_classes_is_one_group(make_folder: MakeFolder) -> None:
    root = make_folder({f"{name}/video{number}": 3 for name in ("real", "fake") for number in range(6)})
    found = sides(root, group="1", val_fraction=0.3)
    assert len(found["val"]) == 2 and not found["train"] & found["val"]


def test_a_deeper_level_takes_the_whole_path_to_it(make_folder: MakeFolder) -> None:
    root = make_folder({f"{name}/{site}/p{number}": 2 for name in "ab" for site in ("x", "y") for number in range(3)})
    images = grouped(image_folder(root), "2").train
    assert images.groups is not None and set(images.groups.names) == {f"{s}/p{n}" for s in "xy" for n in range(3)}


@pytest.mark.parametrize("form", ["{name}", "{root}/{name}", "./{name}", "{stem}", "{below}"])
@pytest.mark.parametrize("separator", [",", ";"])
def test_a_table_may_write_the_names_in_several_ways(
    make_folder: MakeFolder, tmp_path: Path, form: str, separator: str
) -> None:
    root = videos(make_folder)
    source = image_folder(root)
    lines = [separator.join(("number", "patient", "photo"))]
    for number, name in enumerate(map(str, source.train.images)):
        written = form.format(name=name, root=root, stem=name.rpartition(".")[0], below=name.partition("/")[2])
        lines.append(separator.join((str(number), name.split("/")[1][-2:], written)))
    table = tmp_path / "patients.csv"
    table.write_text("\ufeff" + "\n".join(lines) + f"\n99{separator}none{separator}other.png\n", encoding="utf-8")
    images = grouped(source, f"{table}:patient").train
    assert images.groups is not None
    found = [images.groups.names[number] for number in images.groups.numbers]
    assert found == [str(name).split("/")[1][-2:] for name in images.images]


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("2", "data.group=2 names the folder at level 2 below the class folder, and 48 files do not lie that deep"),
        ("0", "is no folder level"),
        ("-1", "is no folder level"),
        ("video", "with no capture group"),
        (r"(video)(\d)", "with 2 capture groups"),
        ("(video", "is not understood as a regular expression"),
        (r"(video0\d)", "finds no group in the names of 8 files, the first is 'video10/000.png'"),
        (r"(video0\d)?", "finds no group in the names of 8 files"),
        ("gone.csv:patient", "cannot be read, 'gone.csv': No such file"),
    ],
)
def test_a_group_that_cannot_be_is_one_sentence(make_folder: MakeFolder, group: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        grouped(image_folder(videos(make_folder)), group)
    assert message in str(caught.value) and caught.value.key == "data.group"


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("file,patient\nreal/1.png,a\n", "patent", "no column 'patent' (did you mean patient?)"),
        ("file,patient\nreal/1.png,a\n", "", "names a table and no column"),
        ("file,patient\n{0},a\n", "patient", "has no row for 3 files, the first is"),
        ("file,patient\nx,a\n", "patient", "a table without a column of file names"),
        ("file,patient\n{all}{0},b\n", "patient", "two groups, 'a' and 'b'"),
        ("file,patient\n{0},\n", "patient", "has no value in line 2"),
        ("file,patient\n000.png,a\n", "patient", "is the name of 2 files"),
        ("", "patient", "is an empty table"),
    ],
)
def test_a_table_that_does_not_tell_the_groups_is_one_sentence(
    make_folder: MakeFolder, tmp_path: Path, text: str, column: str, message: str
) -> None:
    source = image_folder(make_folder({"real": 2, "fake": 2}))
    names = [str(name) for name in source.train.images]
    table = tmp_path / "t.csv"
    table.write_text(text.replace("{all}", "".join(f"{name},a\n" for name in names)).replace("{0}", names[0]))
    with pytest.raises(UserError) as caught:
        grouped(source, f"{table}:{column}")
    assert message in str(caught.value) and "data.group=" in str(caught.value)


def test_a_level_that_some_images_lack_names_the_first(make_folder: MakeFolder) -> None:
    root = videos(make_folder)
    Image.new("RGB", (4, 4)).save(root / "real" / "loose.png")
    with pytest.raises(UserError, match=r"1 file does not lie that deep, the first is 'real/loose.png'"):
        grouped(image_folder(root), "1")


@pytest.mark.parametrize(
    ("folders", "options", "message"),
    [
        ({"a/p1": 4, "a/p2": 4, "b/p3": 4}, {"val_fraction": 0.3}, "all 4 images of class 'b' are in one group, 'p3'"),
        ({"a/p1": 9, "a/p2": 9, "b/p3": 9, "b/p4": 9}, {"val_fraction": 0.05}, "use about 0.5"),
        ({"a/p1": 9, "a/p2": 9, "b/p3": 9, "b/p4": 9}, {"fraction": 0.1}, "data.fraction=0.1 of 36 images is 4"),
        (
            {"a/p1": 9, "a/p2": 9, "b/p3": 9, "b/p4": 9},
            {"val_fraction": 0.5, "label_fraction": 0.2},
            "data.label_fraction=0.2 of 18 images is 4",
        ),
        ({"a/p1": 9, "b/p3": 9}, {"samples_per_class": 2}, "9 images, more than twice as many"),
        ({"a/p1": 9, "b/p3": 9}, {"samples_per_class": 10}, "use at most 9"),
        ({"a/p1": 9, "b/p3": 9}, {"fraction": 0.5, "subset": "official"}, "data.subset=official chooses single images"),
    ],
)
def test_too_few_groups_are_refused(make_folder: MakeFolder, folders: dict, options: dict, message: str) -> None:
    root = make_folder(folders)
    with pytest.raises(UserError) as caught:
        sides(root, group="1", **({"val_fraction": 0.0} | options))
    assert message in str(caught.value)


def test_train_and_test_folders_that_share_a_group_are_refused(make_folder: MakeFolder) -> None:
    root = make_folder({"train/a/p1": 2, "train/b/p2": 2, "test/a/p2": 2, "test/b/p3": 2})
    with pytest.raises(UserError, match=r"1 of the groups in test are in train as well, the first is 'p2'"):
        sides(root, group="1")


def test_images_that_are_no_files_have_no_groups() -> None:
    with pytest.raises(UserError, match=r"data.group=1 needs images in files"):
        grouped(digits(), "1")


def test_the_fingerprint_says_how_many_groups_each_split_has_and_keeps_the_rest(make_folder: MakeFolder) -> None:
    root = videos(make_folder)
    found = {}
    for group in (None, "1", r"(video\d+)", r"video\d*(\d)"):
        data = ImageDataModule(image_folder(root), img_size=8, batch_size=1, group=group, val_fraction=0.25)
        data.setup()
        found[group] = data.fingerprint()
    assert found["1"]["groups"] in ({"val": 3, "train": 9}, {"val": 4, "train": 8}) and "groups" not in found[None]
    assert found["1"] == found[r"(video\d+)"]
    assert found["1"]["group_sha256"] != found[r"video\d*(\d)"]["group_sha256"]
    assert found["1"].keys() - found[None].keys() == {"groups", "group_sha256"}


def test_merged_lists_keep_their_groups(make_folder: MakeFolder) -> None:
    root = make_folder({"train/a/p1": 2, "train/b/p2": 2, "val/a/p3": 1, "val/b/p4": 1, "test/a/p5": 1, "test/b/p6": 1})
    source = replace(grouped(image_folder(root), "1"), trains_on_val=True)
    merged = source.train + source.val  # type: ignore[operator]
    assert merged.groups is not None
    assert [merged.groups.names[number] for number in merged.groups.numbers] == ["p1", "p1", "p2", "p2", "p3", "p4"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["file,who,who", "a/000.png,1,2"], "2 columns 'who'"),
        (["file,other,who", "a/000.png,b/000.png,1", "b/000.png,a/000.png,2"], "name different images"),
    ],
)
def test_a_table_that_can_be_read_in_two_ways_is_refused(make_folder, tmp_path, lines: list[str], said: str) -> None:
    root = make_folder({"a": 1, "b": 1})
    (tmp_path / "t.csv").write_text("\n".join(lines))
    with pytest.raises(UserError, match=said):
        grouped(image_folder(root), f"{tmp_path}/t.csv:who")
