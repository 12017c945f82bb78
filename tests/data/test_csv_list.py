"""A table of images is read as it is written, and what is wrong in it is one sentence."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from ssat.core.errors import UserError
from ssat.data.image import ImageDataModule
from ssat.data.sets.csv_list import csv_list

HEADER = "path,label"
ROWS = ["a.png,cat", "b.png,dog", "sub/c.png,cat", "d.png,dog"]


def table(folder: Path, *rows: str, header: str = HEADER, text: str | None = None) -> str:
    path = folder / "labels.csv"
    path.write_bytes((text if text is not None else "\n".join([header, *rows]) + "\n").encode())
    return str(path)


def test_paths_and_labels_in_the_order_of_the_paths(folder: Path) -> None:
    source = csv_list(table(folder, *ROWS[::-1]))
    assert source.classes == ["cat", "dog"] and source.test is None and source.val is None
    assert list(source.train.images) == ["a.png", "b.png", "d.png", "sub/c.png"]
    assert source.train.labels.tolist() == [0, 1, 1, 0]
    assert np.asarray(source.train.read(1))[0, 0].tolist() == [40] * 3
    assert csv_list(table(folder, *ROWS)).train.digest(np.arange(4)) == source.train.digest(np.arange(4))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_what_spreadsheets_write_is_the_same_table(folder: Path, separator: str, ending: str, mark: str) -> None:
    text = mark + ending.join([HEADER, *ROWS, ""]).replace(",", separator) + ending
    assert list(csv_list(table(folder, text=text)).train.images) == list(csv_list(table(folder, *ROWS)).train.images)


def test_whole_numbers_are_in_order_of_their_size(folder: Path) -> None:
    rows = [f"{name}.png,{label}" for name, label in zip("abdef", ["2", "10", "10", "2", "2"], strict=True)]
    assert csv_list(table(folder, *rows)).classes == ["2", "10"]


def test_splits_and_groups_of_the_table(folder: Path) -> None:
    rows = ["a.png,x,p1,train", "b.png,y,p1,train", "sub/c.png,x,p2,Val", "d.png,y,p2,val", "e.png,x,p3,test"]
    source = csv_list(table(folder, *rows, header="path,label,group,split"))
    assert [None if part is None else list(part.images) for part in (source.train, source.val, source.test)] == [
        ["a.png", "b.png"],
        ["d.png", "sub/c.png"],
        ["e.png"],
    ]
    assert source.train.groups is not None and source.train.groups.names == ("p1", "p2", "p3")
    without = csv_list(table(folder, *rows, header="path,label,group,split"), columns={"group": None, "split": None})
    assert without.train.groups is None and without.test is None and len(without.train) == 5


def test_other_names_of_columns_and_another_root(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("tables")
    path = table(elsewhere, *ROWS[:3], f"{folder}/d.png,dog", header="file,diagnosis")
    source = csv_list(path, str(folder), columns={"path": "file", "label": "diagnosis"})
    assert [source.train.read(index).size for index in range(4)] == [(4, 4)] * 4


def test_rows_that_repeat_a_file_and_its_label_count_once_and_are_said(folder: Path) -> None:
    source = csv_list(table(folder, *ROWS, "./b.png,dog", "sub/../d.png,dog"))
    assert len(source.train) == 4
    assert source.remarks == (
        "2 rows of labels.csv repeat a file and its label, the first is 'b.png' in line 6: it counts once",
    )
    data = ImageDataModule(source, img_size=4, val_fraction=0.5, batch_size=2, augment=None)
    data.setup()
    assert source.remarks[0] in data.overview().lines()[1]


def test_classes_chosen_by_name_leave_the_others_out(folder: Path) -> None:
    path = table(folder, *ROWS, "e.png,dgo", "f.png,bird")
    assert len(csv_list(path, classes=["cat", "dog"]).train) == 4
    rows = ["a.png,x,train", "b.png,y,train", "d.png,x,test", "e.png,y,test", "f.png,z,train"]
    assert csv_list(table(folder, *rows, header="path,label,split"), classes="common").classes == ["x", "y"]


@pytest.mark.parametrize(
    ("rows", "header", "says"),
    [
        ([], HEADER, "has a header and no row"),
        (ROWS, "file,label", "has no column 'path', it has 'file', 'label': name the one that holds the path with"),
        (ROWS, "path,labels", "has no column 'label' (did you mean labels?)"),
        (ROWS, "path,path", "has 2 columns 'path': rename all but one"),
        ([*ROWS, "e.png,"], HEADER, "has no label in line 6: fill it in"),
        ([*ROWS, ",dog"], HEADER, "has no path in line 6"),
        ([*ROWS, "a.png,dog"], HEADER, "gives 'a.png' two labels, 'cat' in line 2 and 'dog' in line 6"),
        (
            [*ROWS, "x.png,dog", "y.png,cat"],
            HEADER,
            "2 of 6, the first are 'x.png', 'y.png'; relative paths count from",
        ),
        (["x.png,dog", "y.png,cat", "z.png,cat", "w.png,dog"], HEADER, "none of its files exists: 4 of 4"),
        ([*ROWS, "e.png,dgo"], HEADER, "has 1 label with one image only, 'dgo' in line 6 (did you mean dog?)"),
        (["a.png,cat", "b.png,cat"], HEADER, "has one label only ('cat')"),
        (["a.png,x,train", "b.png,y,tset"], "path,label,split", "has the split 'tset' in line 3 (did you mean test?)"),
        (
            ["a.png,x,train", "b.png,y,test", "d.png,y,test", "e.png,x,train"],
            "path,label,split",
            "has no training image of 'y'",
        ),
        (["a.png,x,test", "b.png,y,test", "d.png,y,test", "e.png,x,test"], "path,label,split", "no row of the split"),
        (
            ["a.png,x,g,train", "b.png,y,g,test", "d.png,y,h,train", "e.png,x,h,train"],
            "path,label,group,split",
            "has the group 'g' in train (line 2) and in test (line 3)",
        ),
        (["a.png,x,train", "b.png,y,train", "a.png,x,test"], "path,label,split", "gives 'a.png' two splits"),
    ],
)
def test_bad_tables_are_one_sentence(folder: Path, rows: list[str], header: str, says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)) as refused:
        csv_list(table(folder, *rows, header=header))
    assert "data.file=" in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "is an empty table"), (b"\xff\xfe\x00x", "is not UTF-8 text"), (None, "No such file")]
)
def test_files_that_are_no_table(tmp_path: Path, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(UserError, match=says):
        csv_list(str(tmp_path / "labels.csv"))


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"lable": "x"}, "data.columns.lable: a column is one of path, label, group, split (did you mean label?)"),
        ({"path": None}, "data.columns.path=null: every table has this column"),
        ({"group": "patient"}, "has no column 'patient'"),
    ],
)
def test_bad_names_of_columns(folder: Path, columns: dict[str, str | None], says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        csv_list(table(folder, *ROWS), columns=columns)
