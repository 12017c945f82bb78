from __future__ import annotations

import re

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from ssat.config.words import CONF
from ssat.data.sets.card import Card
from ssat.data.sets.catalog import CATALOG
from ssat.data.sets.obtain import READERS

IMAGENET_STATISTICS = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
# Table 9 (train, test, classes) and Table 14 (input size, patch size).
PAPER = {
    "cifar10": (50_000, 10_000, 10, 32, 2),
    "cifar100": (50_000, 10_000, 100, 32, 2),
    "flowers": (2_040, 6_149, 102, 224, 16),
    "svhn": (73_257, 26_032, 10, 32, 2),
    "imagenet": (1_281_167, 100_000, 1000, 224, 16),
    "clipart": (33_525, 14_604, 345, 224, 16),
    "infograph": (36_023, 15_582, 345, 224, 16),
    "sketch": (50_416, 21_850, 345, 224, 16),
    "chaoyang": (4_021, 2_139, 4, 512, 32),
    "pmnist": (5_232, 624, 2, 28, 2),
}


def data_config(name: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", [f"data={name}"]).data


@pytest.fixture(params=sorted(PAPER))
def card(request: pytest.FixtureRequest) -> Card:
    return CATALOG[request.param]


def test_the_catalog_has_the_ten_sets_and_the_digits() -> None:
    assert set(CATALOG) == {*PAPER, "digits"} == set(READERS)
    assert all(name == card.name for name, card in CATALOG.items())


def test_counts_are_those_of_table_9_or_the_note_says_which(card: Card) -> None:
    train, test, classes, _, _ = PAPER[card.name]
    ours = (card.train + (card.val or 0 if card.trains_on_val else 0), card.test)
    if ours != (train, test):
        printed = f"{test:,}" if card.name == "imagenet" else f"{train:,} + {test:,}"
        assert printed in card.note
    assert card.classes == classes and (card.name in ("imagenet", "sketch")) == (ours != (train, test))


@pytest.mark.sampled
def test_the_configuration_has_the_sizes_of_table_14(card: Card) -> None:
    config = data_config(card.name)
    assert (config.img_size, config.patch_size) == PAPER[card.name][3:] == (card.img_size, config.patch_size)
    assert config.name == card.name and config.channels == 3 and config.root == "data" and config.verify is True


@pytest.mark.sampled
def test_the_configuration_names_a_reader_of_the_set(card: Card) -> None:
    source = data_config(card.name).source
    assert source.kind == ("domainnet" if card.folder == "domainnet" else card.name)


@pytest.mark.sampled
def test_the_official_statistics_are_imagenets_but_for_cifar10(card: Card) -> None:
    assert (data_config(card.name).statistics.official == IMAGENET_STATISTICS) == (card.name != "cifar10")


def test_class_names_are_as_many_as_the_classes_and_differ(card: Card) -> None:
    if card.class_names is not None:
        assert len(set(card.class_names)) == len(card.class_names) == card.classes


def test_every_card_says_licence_citation_homepage_and_how_to_get_it(card: Card) -> None:
    assert card.licence and card.citation and card.homepage.startswith("http") and card.tree and card.marks
    assert bool(card.downloads) != bool(card.request)


def test_every_download_has_an_address_and_a_well_formed_md5(card: Card) -> None:
    for file in card.downloads:
        assert file.url.startswith("http") and file.name and file.megabytes > 0
        assert file.md5 is None or re.fullmatch("[0-9a-f]{32}", file.md5)


def test_addresses_and_hashes_are_those_of_torchvision() -> None:
    from torchvision.datasets import CIFAR10, CIFAR100, SVHN, Flowers102

    known = {(CIFAR10.url, CIFAR10.tgz_md5), (CIFAR100.url, CIFAR100.tgz_md5)}
    known |= {(SVHN.split_list[split][0], SVHN.split_list[split][2]) for split in ("train", "test")}
    known |= {(Flowers102._download_url_prefix + name, md5) for name, md5 in Flowers102._file_dict.values()}
    ours = {
        (file.url, file.md5) for name in ("cifar10", "cifar100", "svhn", "flowers") for file in CATALOG[name].downloads
    }
    assert ours == known
    assert list(CATALOG["cifar10"].contents.items())[:-1] == [tuple(x) for x in CIFAR10.train_list + CIFAR10.test_list]


def test_the_pages_of_the_documentation_name_every_set() -> None:
    text = (CONF.parent / "docs" / "datasets.md").read_text()
    for card in CATALOG.values():
        assert f"`{card.name}`" in text and card.homepage in text and f"{card.train:,}" in text
