"""Tables of several labels for each image: read as they are written, and what is wrong in one is one sentence."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssat.core.batch import NO_LABEL
from ssat.core.errors import UserError
from ssat.data.image import ImageDataModule
from ssat.data.sets.csv_list import csv_list
from ssat.data.sets.folder import image_folder
from ssat.data.sets.sources import Source

HEADER = "path,even,loop"
ROWS = ["a.png,1,0", "b.png,0,1", "sub/c.png,1,1", "d.png,0,0"]


def read(folder: Path, *rows: str, header: str = HEADER, **options: object) -> Source:
    path = folder / "labels.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return csv_list(labels=str(path), **options)  # type: ignore[arg-type]


def test_columns_of_0_and_1_are_the_labels_of_each_image(folder: Path) -> None:
    source = read(folder, *ROWS[::-1])
    assert source.multi_label and source.classes == ["even", "loop"]
    assert list(source.train.images) == ["a.png", "b.png", "d.png", "sub/c.png"]
    assert source.train.hot is not None and source.train.hot.tolist() == [[1, 0], [0, 1], [0, 0], [1, 1]]
    assert source.train.targets([3, 0]).tolist() == [[1, 1], [1, 0]] and source.train.targets([0]).dtype == np.float32


@pytest.mark.parametrize("separator", [";", "|"])
def test_one_column_of_names_says_the_same(folder: Path, separator: str) -> None:
    cells = ["even", "loop", f"loop {separator} even", ""]
    rows = [f'{row.split(",")[0]},"{cell}"' for row, cell in zip(ROWS, cells, strict=True)]
    names, flags = read(folder, *rows, header="path,tags"), read(folder, *ROWS)
    assert names.classes == flags.classes
    assert names.train.content(np.arange(4)) == flags.train.content(np.arange(4))


def test_other_labels_of_the_same_images_are_other_data(folder: Path) -> None:
    one, other = (read(folder, *rows) for rows in (ROWS, ["a.png,1,1", *ROWS[1:]]))
    assert one.train.digest(np.arange(4)) != other.train.digest(np.arange(4))
    assert one.train.content(np.arange(4)) != other.train.content(np.arange(4))


def test_columns_are_chosen_and_ordered_by_name(folder: Path) -> None:
    rows = ["a.png,1,0,17", "b.png,0,1,8", "sub/c.png,1,1,9", "d.png,0,0,3"]
    source = read(folder, *rows, header="path,even,loop,age", label_columns=["loop", "even"])
    assert source.classes == ["loop", "even"]
    assert source.train.hot is not None and source.train.hot[0].tolist() == [0, 1]


def test_splits_and_groups_are_those_of_the_table(folder: Path) -> None:
    rows = ["a.png,1,0,p,train", "b.png,0,1,p,train", "d.png,0,0,q,val", "e.png,1,1,r,test"]
    source = read(folder, *rows, header="path,even,loop,group,split")
    assert [len(part) for part in (source.train, source.val, source.test) if part is not None] == [2, 1, 1]
    assert source.train.groups is not None and source.train.groups.names == ("p", "q", "r")


def test_a_table_beside_split_folders_takes_their_splits_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "train/c", "test/d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / f"{name}.png")
    table = tmp_path / "labels.csv"
    table.write_text("path,x,y\ntrain/a.png,1,0\ntrain/b.png,0,1\ntest/d.png,1,1\n")
    source = image_folder(tmp_path, labels=str(table))
    assert list(source.train.images) == ["train/a.png", "train/b.png"] and source.test is not None
    assert source.remarks[-1] == ("1 image file is in no row of labels.csv and not read, the first is 'train/c.png'")
    table.write_text("path,x,y\ntrain/a.png,1,0\ntrain/b.png,0,1\nd.png,1,1\n")
    with pytest.raises(UserError, match=r"names 'd\.png' in line 4, which lies in none of train/, val/ and test/"):
        image_folder(tmp_path, labels=str(table))


def test_images_without_a_label_and_labels_of_one_image_are_said(folder: Path) -> None:
    source = read(folder, "a.png,1,0", "b.png,1,1", "d.png,0,0", "e.png,0,0", "a.png,1,0")
    data = ImageDataModule(source, img_size=4, val_fraction=0.25, batch_size=2, augment=None)
    data.setup()
    lines = data.overview().lines()
    assert "train 3 images" in lines[0] and "with each label" in lines[0] and "without one" in lines[0]
    assert "one training image only has the label 'loop'" in lines[1] and "1 row of labels.csv repeats" in lines[1]


@pytest.mark.parametrize(
    ("rows", "header", "says"),
    [
        ([*ROWS, "e.png,2,0"], HEADER, "has the value '2' in column 'even', line 6: a label is 0 or 1"),
        ([*ROWS, "e.png,,0"], HEADER, "has no value in column 'even', line 6"),
        ([*ROWS, "a.png,0,0"], HEADER, "gives 'a.png' two labels, 'even' in line 2 and 'no label' in line 6"),
        ([*ROWS, "x.png,1,0"], HEADER, "1 of 5, the first is 'x.png'; relative paths count from"),
        (["a.png,1,0", "b.png,0,0"], HEADER, "has 1 label that no training image has, 'loop'"),
        (["a.png,1,0", "b.png,1,1"], HEADER, "has 1 label that every training image has, 'even'"),
        (["a.png", "b.png"], "path", "has no column of labels"),
        (["a.png,1", "b.png,0"], "path,even", "has one column of labels only, 'even', which holds 0 and 1"),
        (["a.png,x|y", "b.png,x"], "path,tags", "has 1 label that every training image has, 'x'"),
        (['a.png,"x;y"', "b.png,x|z"], "path,tags", "by ';' in line 2 and by '|' in line 3: use one of the two"),
        (['a.png,"x,y"', "b.png,z"], "path,tags", "has the label 'x,y' in line 2: separate names by ';' or '|'"),
        (ROWS, "file,even,loop", "has no column 'path', it has 'file', 'even', 'loop'"),
        (ROWS, "path,even,even", "has the column 'even' twice"),
        (
            ["a.png,1,0,p,train", "b.png,0,1,p,test"],
            "path,even,loop,group,split",
            "has the group 'p' in train (line 2) and in test (line 3)",
        ),
    ],
)
def test_a_wrong_table_is_one_sentence(folder: Path, rows: list[str], header: str, says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)) as caught:
        read(folder, *rows, header=header)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("data.labels=")


def test_what_does_not_go_together_is_one_sentence(folder: Path) -> None:
    with pytest.raises(UserError, match="has no column of labels 'loops' \\(did you mean loop"):
        read(folder, *ROWS, label_columns=["even", "loops"])
    with pytest.raises(UserError, match="has no column of labels 'path'.* which is read as path"):
        read(folder, *ROWS, label_columns=["even", "path"])
    with pytest.raises(UserError, match=r"data\.classes is of images with one label each"):
        read(folder, *ROWS, classes=["even"])
    with pytest.raises(UserError, match=r"data\.file is of images with one label each"):
        read(folder, *ROWS, file="labels.csv")
    with pytest.raises(UserError, match=r"data\.columns\.label is of a table with one label"):
        read(folder, *ROWS, columns={"label": "even"})
    with pytest.raises(UserError, match=r"data\.label_columns names columns of the table data\.labels"):
        csv_list(str(folder / "labels.csv"), label_columns=["even"])
    with pytest.raises(UserError, match=r"name it with data\.file=labels\.csv, or data\.labels=labels\.csv"):
        csv_list()


@pytest.mark.parametrize("pipeline", ["timm", "batched"])
def test_batches_hold_the_labels_and_those_beyond_the_budget_are_hidden(folder: Path, pipeline: str) -> None:
    source = read(folder, *ROWS)
    data = ImageDataModule(
        source,
        img_size=4,
        batch_size=4,
        augment=None,
        test_fraction=0.0,
        val_fraction=0.25,
        label_fraction=0.67,
        unlabelled="keep",
        pipeline=pipeline,
    )
    data.setup()
    (batch,) = list(data.train_dataloader())
    assert batch.targets.shape == (3, 2) and batch.targets.is_floating_point()
    hidden = batch.targets[:, 0] == NO_LABEL
    assert hidden.sum() == 1 and (batch.targets[hidden] == NO_LABEL).all() and data.labelled_images("train") == 2
    assert source.train.hot is not None
    shown = batch.targets[~hidden].numpy()
    assert (shown == source.train.hot[batch.indices[~hidden].numpy()]).all()


def test_folds_are_parts_of_all_images(folder: Path) -> None:
    source = read(folder, *ROWS)
    tests = []
    for fold in range(2):
        data = ImageDataModule(source, img_size=4, batch_size=2, augment=None, folds=2, fold=fold)
        data.setup()
        tests += data.split("test")[1].tolist()
    assert sorted(tests) == [0, 1, 2, 3]
