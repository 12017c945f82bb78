from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from ssat.config.create import load
from ssat.core.errors import UserError
from ssat.data.sets import SOURCES, manifest
from ssat.data.sets.catalog import CATALOG
from ssat.data.sets.checks import Missing
from ssat.data.sets.lists import chaoyang, domainnet, flowers, imagenet
from ssat.data.sets.readers import cifar10, cifar100, pmnist, svhn
from ssat.data.sets.sources import Source
from tests.data.official import WNIDS, WRITERS, pickled, write_cifar10, write_domainnet, write_svhn

SHARED = Path(os.environ.get("SSAT_SHARED", Path(__file__).resolve().parents[3] / "shared"))


def read(name: str, root: Path | str, verify: bool = False) -> Source:
    """The set `name` through the function that its configuration names."""
    from hydra import compose, initialize_config_dir

    from ssat.config.words import CONF

    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [f"data={name}", f"data.root={root}", f"data.verify={verify}"])
    arguments = dict(cfg.data.source)
    return load(SOURCES, arguments.pop("kind"), "data.source.kind")(**arguments)


def refused(name: str, root: Path, **options) -> str:
    with pytest.raises(UserError) as caught:
        {
            "cifar10": cifar10,
            "cifar100": cifar100,
            "svhn": svhn,
            "pmnist": pmnist,
            "flowers": flowers,
            "imagenet": imagenet,
            "clipart": lambda root, **more: domainnet("clipart", root, **more),
            "chaoyang": chaoyang,
        }[name](root, **{"verify": False} | options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture(params=sorted(WRITERS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


# --- every set


@pytest.mark.sampled
def test_the_official_files_are_read_in_their_folder_or_as_the_root(name: str, tmp_path: Path) -> None:
    folder = WRITERS[name](tmp_path)
    below, itself = read(name, tmp_path), read(name, folder)
    assert below.name == name and below.trains_on_val == (name in ("flowers", "pmnist"))
    assert below.test is not None and itself.test is not None
    assert below.train.labels.tolist() == itself.train.labels.tolist()
    assert below.train.read(0).mode == "RGB" and below.train.labels.dtype == np.int64


def test_a_set_that_is_not_there_says_how_to_get_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(Missing) as caught:
        read(name, tmp_path)
    message = str(caught.value)
    assert "\n" not in message and f"is not in data.root='{tmp_path}'" in message
    assert f"`python -m src.prepare data={name} data.root={tmp_path}" in message
    assert CATALOG[name].request in message


@pytest.mark.sampled
def test_a_part_of_a_set_shows_expected_and_found(name: str, tmp_path: Path) -> None:
    folder = WRITERS[name](tmp_path)
    mark = CATALOG[name].marks[-1]
    (folder / mark).rename(folder / "an_other")
    with pytest.raises(UserError) as caught:
        read(name, tmp_path)
    message = str(caught.value)
    if len(CATALOG[name].marks) > 1 or CATALOG[name].folder != "domainnet":
        assert f"it has no '{mark}': expected" in message and "'an_other'" in message and "\n" not in message


@pytest.mark.sampled
def test_a_wrong_number_of_images_is_refused_unless_verify_is_off(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    with pytest.raises(UserError, match=r"images, expected .* train") as caught:
        read(name, tmp_path, verify=True)
    assert f"{CATALOG[name].train:,} train" in str(caught.value) and "data.verify=false" in str(caught.value)


# --- what each reader hands out


def test_cifar10_keeps_the_order_of_the_batches_and_of_the_channels(tmp_path: Path) -> None:
    folder = write_cifar10(tmp_path)
    source = cifar10(tmp_path, verify=False)
    assert source.train.labels.tolist() == [3, 1, 4, 1] * 5 and source.classes == [f"class {n}" for n in range(10)]
    raw = pickle.loads((folder / "data_batch_2").read_bytes(), encoding="bytes")[b"data"]
    assert np.asarray(source.train.images)[4, 2, 5].tolist() == raw[0, [69, 1024 + 69, 2048 + 69]].tolist()


def test_cifar100_takes_the_fine_labels(tmp_path: Path) -> None:
    WRITERS["cifar100"](tmp_path)
    source = cifar100(tmp_path, verify=False)
    assert source.train.labels.tolist() == [99, 0, 7, 7, 0, 1] and source.classes[99] == "fine 99"


def test_a_cifar_pickle_cannot_run_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    folder = write_cifar10(tmp_path)
    (folder / "data_batch_3").write_bytes(pickled({b"data": Evil(), b"labels": []}))
    assert f"cannot read {folder}/data_batch_3 (it asks for posix.system)" in refused("cifar10", tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_truncated_cifar_pickle_is_named(tmp_path: Path) -> None:
    path = write_cifar10(tmp_path) / "test_batch"
    path.write_bytes(path.read_bytes()[:2000])
    assert f"cannot read {path} (" in refused("cifar10", tmp_path)


def test_cifar_labels_of_another_length_are_refused(tmp_path: Path) -> None:
    path = write_cifar10(tmp_path) / "test_batch"
    path.write_bytes(pickled({b"data": np.zeros((3, 3072), np.uint8), b"labels": [1, 2]}))
    assert "labels is not a list of 3 numbers" in refused("cifar10", tmp_path)


def test_svhn_has_the_zero_where_the_file_has_ten(tmp_path: Path) -> None:
    write_svhn(tmp_path)
    source = svhn(tmp_path, verify=False)
    assert source.train.labels.tolist() == [1, 9, 0, 2] and source.test is not None
    assert source.test.labels.tolist() == [0, 5] and np.asarray(source.test.images).shape == (2, 32, 32, 3)


def test_an_svhn_image_is_that_of_the_file(tmp_path: Path) -> None:
    from scipy.io import loadmat

    folder = write_svhn(tmp_path)
    expected = loadmat(folder / "train_32x32.mat")["X"][:, :, :, 2]
    assert (np.asarray(svhn(tmp_path, verify=False).train.images)[2] == expected).all()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"y": np.array([1, 2])}, "it has no X"),
        ({"X": np.zeros((3, 32, 32, 2), np.uint8), "y": np.array([1, 2])}, "X is uint8 (3, 32, 32, 2), expected"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([1])}, "2 images and 1 labels"),
    ],
)
def test_another_mat_file_is_no_svhn(tmp_path: Path, content: dict, why: str) -> None:
    savemat(write_svhn(tmp_path) / "train_32x32.mat", content)
    assert why in refused("svhn", tmp_path)


def test_a_truncated_mat_file_is_named(tmp_path: Path) -> None:
    path = write_svhn(tmp_path) / "train_32x32.mat"
    path.write_bytes(path.read_bytes()[:3000])
    assert f"cannot read {path} (" in refused("svhn", tmp_path)


@pytest.mark.parametrize("label", [0, 11])
def test_a_label_that_svhn_does_not_have_is_named(tmp_path: Path, label: int) -> None:
    labels = np.array([[1], [2], [label]])
    savemat(write_svhn(tmp_path) / "train_32x32.mat", {"X": np.zeros((32, 32, 3, 3), np.uint8), "y": labels})
    assert "at image 2, outside 0 to 9" in refused("svhn", tmp_path)


def test_flowers_follow_the_official_lists(tmp_path: Path) -> None:
    WRITERS["flowers"](tmp_path)
    source = flowers(tmp_path, verify=False)
    assert list(source.train.images) == ["jpg/image_00003.jpg", "jpg/image_00001.jpg"]
    assert source.train.labels.tolist() == [0, 76] and source.classes[76] == "passion flower"
    assert source.val is not None and source.test is not None
    assert source.val.labels.tolist() == [76] and source.test.labels.tolist() == [4, 1, 0, 101]


def test_an_image_number_without_a_label_is_refused(tmp_path: Path) -> None:
    folder = WRITERS["flowers"](tmp_path)
    savemat(folder / "setid.mat", {"trnid": [[1, 2]], "valid": [[3]], "tstid": [[8]]})
    assert "has the image 8 in tstid, but imagelabels.mat has 7 labels" in refused("flowers", tmp_path)


def test_the_real_pmnist_has_the_counts_of_table_9() -> None:
    path = SHARED / "data" / "pneumoniamnist.npz"
    if not path.is_file():
        pytest.skip(f"needs {path} (set SSAT_SHARED to the folder that holds data/)")
    source = pmnist(path.parent)
    assert source.val is not None and source.test is not None
    assert (len(source.train) + len(source.val), len(source.test)) == (5232, 624)
    assert source.classes == ["normal", "pneumonia"] and np.bincount(source.test.labels).tolist() == [234, 390]
    assert source.train.read(0).size == (28, 28)


def test_an_npz_with_pickled_objects_is_refused(tmp_path: Path) -> None:
    path = WRITERS["pmnist"](tmp_path) / "pneumoniamnist.npz"
    np.savez(path, train_images=np.array([{"any": "object"}]))
    assert "Object arrays cannot be loaded when allow_pickle=False" in refused("pmnist", tmp_path)


def test_a_truncated_npz_is_named(tmp_path: Path) -> None:
    path = WRITERS["pmnist"](tmp_path) / "pneumoniamnist.npz"
    path.write_bytes(path.read_bytes()[:-200])
    assert f"cannot read {path} (File is not a zip file)" in refused("pmnist", tmp_path)


def test_an_npz_without_a_split_says_what_it_has(tmp_path: Path) -> None:
    path = WRITERS["pmnist"](tmp_path) / "pneumoniamnist.npz"
    np.savez(path, images=np.zeros(3))
    assert "it has no 'train_images', only images" in refused("pmnist", tmp_path)


def test_the_224_pixel_file_is_not_taken_for_pmnist(tmp_path: Path) -> None:
    path = WRITERS["pmnist"](tmp_path) / "pneumoniamnist.npz"
    np.savez(path, train_images=np.zeros((2, 64, 64), np.uint8), train_labels=np.zeros((2, 1), np.uint8))
    assert "train_images is uint8 (2, 64, 64), expected uint8 (N, 28, 28)" in refused("pmnist", tmp_path)


def test_training_images_of_one_class_are_refused(tmp_path: Path) -> None:
    path = WRITERS["pmnist"](tmp_path) / "pneumoniamnist.npz"
    with np.load(path) as file:
        content = dict(file)
    np.savez(path, **content | {"train_labels": np.ones((6, 1), np.uint8)})
    assert "are all of one class, and a classifier needs two" in refused("pmnist", tmp_path)


def test_the_validation_images_of_imagenet_are_its_test_set(tmp_path: Path) -> None:
    WRITERS["imagenet"](tmp_path)
    source = imagenet(tmp_path, verify=False)
    assert source.classes == list(WNIDS) and source.train.labels.tolist() == [0, 1, 1, 2, 2, 2]
    assert source.test is not None and source.val is None
    assert list(source.test.images)[2] == f"val/{WNIDS[2]}/ILSVRC2012_val_00000002.JPEG"


def test_unsorted_validation_images_of_imagenet_name_the_cure(tmp_path: Path) -> None:
    folder = WRITERS["imagenet"](tmp_path)
    for wnid in WNIDS:
        for path in (folder / "val" / wnid).iterdir():
            path.rename(folder / "val" / path.name)
        (folder / "val" / wnid).rmdir()
    assert "val has no class folders" in refused("imagenet", tmp_path)
    assert "python -m src.prepare data=imagenet" in refused("imagenet", tmp_path)


def test_a_class_that_only_one_split_of_imagenet_has_is_named(tmp_path: Path) -> None:
    folder = WRITERS["imagenet"](tmp_path)
    (folder / "val" / WNIDS[1]).rename(folder / "val" / "n09999999")
    assert f"differ in '{WNIDS[1]}', 'n09999999'" in refused("imagenet", tmp_path)


def test_a_domain_follows_its_lists(tmp_path: Path) -> None:
    write_domainnet(tmp_path)
    source = domainnet("clipart", tmp_path, verify=False)
    assert source.classes == ["aircraft_carrier", "airplane", "alarm_clock"]
    assert source.train.labels.tolist() == [0, 0, 1, 1, 2, 2] and source.test is not None and len(source.test) == 3


def test_a_domain_is_not_taken_for_another(tmp_path: Path) -> None:
    write_domainnet(tmp_path, "sketch")
    assert "ClipArt is not in data.root=" in refused("clipart", tmp_path)


@pytest.mark.parametrize("line", ["clipart/airplane/x.jpg", "real/airplane/x.jpg 1", "clipart/x.jpg 1", "a b c"])
def test_another_line_in_a_domains_list_is_refused(tmp_path: Path, line: str) -> None:
    path = write_domainnet(tmp_path) / "clipart_train.txt"
    path.write_text(path.read_text() + line + "\n")
    assert f"line 7 of {path} is '{line}', expected 'clipart/<class>/<file> <label>'" in refused("clipart", tmp_path)


def test_a_list_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (write_domainnet(tmp_path) / "clipart_train.txt").write_bytes(bytes(range(128, 256)))
    assert "it is damaged or not the official list" in refused("clipart", tmp_path)


def test_a_label_with_two_class_names_is_refused(tmp_path: Path) -> None:
    path = write_domainnet(tmp_path) / "clipart_train.txt"
    path.write_text(path.read_text().replace("000002.jpg 1", "000002.jpg 2"))
    assert "gives the label 2 to 'airplane' and to 'alarm_clock'" in refused("clipart", tmp_path)


def test_a_list_cannot_name_files_outside_its_folder(tmp_path: Path) -> None:
    path = write_domainnet(tmp_path) / "clipart_test.txt"
    path.write_text("clipart/../secret.jpg 0\n")
    assert "names the file 'clipart/../secret.jpg', outside its folder" in refused("clipart", tmp_path)


def test_missing_image_files_are_counted_and_the_first_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    folder = write_domainnet(tmp_path)
    monkeypatch.setitem(CATALOG, "clipart", replace(CATALOG["clipart"], train=6, test=3, classes=3))
    assert len(domainnet("clipart", tmp_path).train) == 6
    (folder / "clipart/airplane/clipart_002_000001.jpg").unlink()
    message = refused("clipart", tmp_path, verify=True)
    assert f"lacks 1 image files, the first is {folder}/clipart/airplane/clipart_002_000001.jpg" in message


def test_chaoyang_takes_the_agreed_label(tmp_path: Path) -> None:
    WRITERS["chaoyang"](tmp_path)
    source = chaoyang(tmp_path, verify=False)
    assert source.classes == ["normal", "serrated", "adenocarcinoma", "adenoma"]
    assert source.train.labels.tolist() == [0, 3, 1, 2, 0] and source.test is not None
    assert source.test.read(1).size == (12, 12)


def test_chaoyang_is_found_in_the_folder_that_its_makers_pack(tmp_path: Path) -> None:
    WRITERS["chaoyang"](tmp_path).rename(tmp_path / "chaoyang-data")
    assert len(chaoyang(tmp_path, verify=False).train) == 5
    (tmp_path / "chaoyang-data" / "test.json").unlink()
    assert f"{tmp_path}/chaoyang-data is not the tree of Chaoyang" in refused("chaoyang", tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "[{",
        '[{"name": "train/a.JPG", "label": 1.5}]',
        '{"name": 1}',
        '[{"name": "train/a.JPG"}]',
        '[{"name": "a", "label": "x"}]',
    ],
)
def test_another_json_is_no_chaoyang(tmp_path: Path, text: str) -> None:
    path = WRITERS["chaoyang"](tmp_path) / "train.json"
    path.write_text(text)
    assert f"cannot read {path} (" in refused("chaoyang", tmp_path)


def test_a_label_above_three_is_no_chaoyang(tmp_path: Path) -> None:
    path = WRITERS["chaoyang"](tmp_path) / "test.json"
    path.write_text(json.dumps([{"name": "test/a.JPG", "label": 4}]))
    assert "the test split of Chaoyang" in refused("chaoyang", tmp_path)
    assert "has the label 4 at image 0, outside 0 to 3" in refused("chaoyang", tmp_path)


def write_whole_pmnist(root: Path, per_class: dict[str, tuple[int, int]]) -> Path:
    """A file of the official sizes; its images are grey."""
    folder = root / "pneumoniamnist"
    folder.mkdir(parents=True, exist_ok=True)
    content = {}
    for split, counts in per_class.items():
        content[f"{split}_images"] = np.full((sum(counts), 28, 28), 128, dtype=np.uint8)
        content[f"{split}_labels"] = np.repeat([0, 1], counts).astype(np.uint8)[:, None]
    np.savez_compressed(folder / "pneumoniamnist.npz", **content)
    return folder


PMNIST = {"train": (1214, 3494), "val": (135, 389), "test": (234, 390)}


def test_as_many_images_with_other_labels_are_refused(tmp_path: Path) -> None:
    write_whole_pmnist(tmp_path, PMNIST | {"train": (1614, 3094)})  # 400 labels are others
    with pytest.raises(UserError, match="has 1,614 train images of class 'normal', expected 1,214: replace them"):
        pmnist(tmp_path)
    write_whole_pmnist(tmp_path, PMNIST | {"test": (390, 234)})
    with pytest.raises(UserError, match="has 390 test images of class 'normal', expected 234"):
        pmnist(tmp_path)
    assert len(pmnist(tmp_path, verify=False).train) == 4708


def test_labels_that_are_swapped_within_their_counts_are_refused(tmp_path: Path, monkeypatch) -> None:
    write_whole_pmnist(tmp_path, PMNIST)
    with pytest.raises(UserError, match="the train images or labels of PMNIST in .* are not the official ones"):
        pmnist(tmp_path)
    monkeypatch.setitem(manifest.FROZEN, "pmnist", manifest.describe(pmnist(tmp_path, verify=False)))
    assert len(pmnist(tmp_path).train) == 4708
    path = tmp_path / "pneumoniamnist" / "pneumoniamnist.npz"
    content = dict(np.load(path))
    content["train_images"][0] = 1
    np.savez_compressed(path, **content)
    with pytest.raises(UserError, match="the train images or labels"):
        pmnist(tmp_path)


def test_the_counts_by_class_of_every_card_add_up_to_its_images() -> None:
    known = {name: manifest.official_counts(card) for name, card in CATALOG.items()}
    for name, card in CATALOG.items():
        for split, counts in {**card.per_class, **known[name]}.items():
            assert len(counts) == card.classes and sum(counts) == card.counts[split], (name, split)
    assert {name for name in known if "test" in known[name]} == {
        *("digits", "cifar10", "cifar100", "svhn", "imagenet", "chaoyang", "pmnist")
    }


def test_a_card_of_other_sizes_knows_no_counts(tmp_path: Path) -> None:
    assert manifest.official_counts(replace(CATALOG["pmnist"], train=6, val=2, test=3)) == {}
