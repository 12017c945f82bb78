from __future__ import annotations

import io
import sys
import types

import numpy as np
import pytest
from PIL import Image

from ssat.core.errors import UserError
from ssat.data.sets.hub import hf


class FakeColumn(list):
    """A `datasets.Dataset` of two columns, as far as the reader uses it."""

    def __init__(self, files: list[bytes], labels: list, features: dict) -> None:
        super().__init__(
            {"img": {"bytes": data, "path": None}, "label": y} for data, y in zip(files, labels, strict=True)
        )
        self.features = features

    def __getitem__(self, key):
        return [row["label"] for row in self] if key == "label" else super().__getitem__(key)

    def select_columns(self, names: list[str]) -> FakeColumn:
        return self

    def cast_column(self, name: str, feature: object) -> FakeColumn:
        return self


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """A stand-in for the `datasets` package, whose hub holds one set of three encoded images."""

    class HubImage:
        def __init__(self, decode: bool = True) -> None:
            pass

    class ClassLabel:
        names = ("cat", "dog")

    buffer = io.BytesIO()
    Image.new("L", (5, 4), 7).save(buffer, "PNG")
    file = buffer.getvalue()
    features = {"img": HubImage(), "label": ClassLabel()}
    hub = types.SimpleNamespace(
        Image=HubImage,
        ClassLabel=ClassLabel,
        splits={
            "train": FakeColumn([file, file, b"broken"], [0, 1, 0], features),
            "validation": FakeColumn([file], [1], features),
        },
        load_dataset=lambda path, config, cache_dir: hub.splits,
    )
    monkeypatch.setitem(sys.modules, "datasets", hub)  # type: ignore[arg-type]
    return hub


def test_a_hub_set_is_read_and_its_validation_split_evaluates(fake_hub: types.SimpleNamespace) -> None:
    source = hf("owner/animals")
    assert source.name == "animals" and source.classes == ["cat", "dog"] and source.val is None
    assert source.train.labels.tolist() == [0, 1, 0] and source.test is not None and len(source.test) == 1
    assert source.train.read(0).size == (5, 4) and source.train.read(0).mode == "RGB"


def test_a_broken_image_of_a_hub_set_is_found_and_named(fake_hub: types.SimpleNamespace) -> None:
    train = hf("owner/animals").train
    good, bad = train.readable()
    assert good.tolist() == [0, 1] and bad == ["image number 2"]
    with pytest.raises(UserError, match="cannot read the image number 2"):
        train.read(2)


def test_the_digest_of_a_hub_set_follows_its_content(fake_hub: types.SimpleNamespace) -> None:
    train = hf("owner/animals").train
    assert train.digest(np.array([0, 1])) != train.digest(np.array([0, 2]))


def test_an_unlabelled_split_of_a_hub_set_is_refused(fake_hub: types.SimpleNamespace) -> None:
    fake_hub.splits["test"] = FakeColumn([b""], [-1], fake_hub.splits["train"].features)
    with pytest.raises(UserError, match="image 0 of the split test of owner/animals has no label"):
        hf("owner/animals")


def test_a_hub_set_without_training_images_is_refused(fake_hub: types.SimpleNamespace) -> None:
    del fake_hub.splits["train"]
    with pytest.raises(UserError, match="has no split 'train', only 'validation'"):
        hf("owner/animals")


def test_a_column_that_is_not_there_lists_those_that_are(fake_hub: types.SimpleNamespace) -> None:
    with pytest.raises(
        UserError, match="data.image='picture' is no column of 'owner/animals', which has 'img', 'label'"
    ):
        hf("owner/animals", image="picture")


def test_without_the_package_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="pip install datasets"):
        hf("owner/animals")


def test_labels_without_names_are_their_own_names(fake_hub: types.SimpleNamespace) -> None:
    train = fake_hub.splits["train"]
    features = train.features | {"label": object()}
    fake_hub.splits = {"train": FakeColumn([b"", b"", b""], ["dog", "cat", "dog"], features)}
    source = hf("owner/animals")
    assert source.classes == ["cat", "dog"] and source.train.labels.tolist() == [1, 0, 1] and source.test is None


def test_lists_of_labels_are_no_classes(fake_hub: types.SimpleNamespace) -> None:
    features = fake_hub.splits["train"].features | {"label": object()}
    fake_hub.splits = {"train": FakeColumn([b"", b""], [[0, 1], [1]], features)}
    with pytest.raises(UserError, match="image 0 of the split train of owner/animals has no label"):
        hf("owner/animals")
