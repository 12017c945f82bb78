from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.data.image import ImageDataModule
from ssat.data.sets.folder import image_folder
from ssat.data.sets.sources import ImageList, Source, digits

Make = Callable[..., ImageDataModule]


def epoch_of(data: ImageDataModule, epoch: int = 0) -> list[Batch]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def as_rank(data: ImageDataModule, rank: int, world: int) -> ImageDataModule:
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world)  # type: ignore[assignment]
    return data


def same(first: Batch, second: Batch) -> bool:
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in ("images", "targets", "indices"))


def by_index(batches: list[Batch]) -> dict[int, torch.Tensor]:
    return {int(index): image for batch in batches for index, image in zip(batch.indices, batch.images, strict=True)}


# --- what a batch is


@pytest.mark.parametrize("num_workers", [0, 2])
def test_evaluation_images_of_a_training_are_decoded_once(tmp_path: Path, num_workers: int) -> None:
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(3):
                pixels = draw.integers(0, 256, (20, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{number}.png")
    options: dict[str, Any] = {"img_size": 12, "batch_size": 2, "num_workers": num_workers}
    alone = list(ImageDataModule(image_folder(tmp_path), **options).val_dataloader())
    loader = as_rank(ImageDataModule(image_folder(tmp_path), **options), 0, 1).val_dataloader()
    first = list(loader)
    shutil.rmtree(tmp_path / "test")
    again = list(loader)
    assert all(map(same, first, alone)) and all(map(same, again, alone))
    loader.close()


def test_evaluation_images_that_take_more_than_the_limit_are_not_kept(make_data: Make) -> None:
    data = as_rank(make_data(memory_gb=0), 0, 1)
    assert data.val_dataloader().dataset.kept is None  # type: ignore[attr-defined]


def test_a_batch_has_normalised_images_class_numbers_and_indices(make_data: Make, toy_source: Source) -> None:
    batch = epoch_of(make_data())[0]
    assert isinstance(batch, Batch) and batch.views == ()
    assert batch.images.shape == (8, 3, 12, 12) and batch.images.dtype == torch.float32
    assert batch.targets.dtype == batch.indices.dtype == torch.int64
    assert batch.targets.tolist() == toy_source.train.labels[batch.indices].tolist()


def test_evaluation_pixels_are_those_of_the_source(make_data: Make, toy_source: Source) -> None:
    batch = next(iter(make_data(eval_crop_pct=1.0).val_dataloader()))
    raw = torch.from_numpy(toy_source.test.images[batch.indices]).permute(0, 3, 1, 2) / 255
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])
    torch.testing.assert_close(batch.images, (raw - mean[:, None, None]) / std[:, None, None])


def test_grey_batches_have_one_channel(make_data: Make) -> None:
    data = make_data(channels=1, mean=(0.5,), std=(0.2,))
    assert epoch_of(data)[0].images.shape == data.fixed_batch(8).images.shape == (8, 1, 12, 12)


def test_without_augmentation_a_training_image_is_the_same_in_every_epoch(make_data: Make) -> None:
    data = make_data(augment=None)
    first, later = by_index(epoch_of(data, 0)), by_index(epoch_of(data, 5))
    assert first.keys() == later.keys() and all(torch.equal(first[index], later[index]) for index in first)


# --- determinism


def test_worker_processes_change_nothing(make_data: Make) -> None:
    alone, workers = epoch_of(make_data(), 3), epoch_of(make_data(num_workers=2), 3)
    assert len(alone) == 15 and all(same(a, b) for a, b in zip(alone, workers, strict=True))


def test_two_ranks_see_together_what_one_process_sees(make_data: Make) -> None:
    alone = epoch_of(make_data(batch_size=16), 1)
    ranks = [epoch_of(as_rank(make_data(), rank, 2), 1) for rank in (0, 1)]
    for whole, *parts in zip(alone, *ranks, strict=True):
        indices, images = (torch.cat([getattr(part, name) for part in parts]) for name in ("indices", "images"))
        order, expected = indices.argsort(), whole.indices.argsort()
        assert torch.equal(indices[order], whole.indices[expected])
        assert torch.equal(images[order], whole.images[expected])


def test_an_image_is_augmented_anew_in_every_epoch(make_data: Make) -> None:
    def image(epoch: int) -> torch.Tensor:
        return next(b.images[b.indices == 7][0] for b in epoch_of(make_data(), epoch) if 7 in b.indices)

    assert torch.equal(image(1), image(1)) and not torch.equal(image(1), image(2))


def test_an_image_keeps_index_and_augmentation_in_a_subset(make_data: Make) -> None:
    whole = by_index(epoch_of(make_data(drop_last=False)))
    part = by_index(epoch_of(make_data(fraction=0.25, drop_last=False)))
    assert len(part) == 30 and all(torch.equal(whole[index], image) for index, image in part.items())


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loading_leaves_the_global_generators_alone(make_data: Make, num_workers: int) -> None:
    data = make_data(num_workers=num_workers)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    epoch_of(data)
    list(data.val_dataloader())
    data.fixed_batch(4)
    assert random.getstate() == states[0] and np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_an_image_does_not_depend_on_the_global_generators(make_data: Make) -> None:
    torch.manual_seed(1)
    first = epoch_of(make_data())
    torch.manual_seed(2)
    random.seed(2)
    np.random.seed(2)
    assert all(same(a, b) for a, b in zip(first, epoch_of(make_data()), strict=True))


# --- splits and subsets


def test_without_a_validation_split_the_test_images_evaluate(make_data: Make) -> None:
    data = make_data()
    assert data.eval_split == "test" and data.sizes == {"train": 120, "test": 37}
    assert [b.indices.tolist() for b in data.val_dataloader()] == [b.indices.tolist() for b in data.test_dataloader()]


def test_val_fraction_keeps_training_images_apart(make_data: Make) -> None:
    data = make_data(val_fraction=0.2, drop_last=False)
    train = {int(i) for batch in epoch_of(data) for i in batch.indices}
    val = {int(i) for batch in data.val_dataloader() for i in batch.indices}
    assert data.eval_split == "val" and data.sizes == {"val": 24, "train": 96, "test": 37}
    assert not train & val and train | val == set(range(120))


def test_the_validation_images_come_from_the_subset(make_data: Make) -> None:
    whole = {int(i) for batch in epoch_of(make_data(fraction=0.5, drop_last=False)) for i in batch.indices}
    data = make_data(fraction=0.5, val_fraction=0.2, drop_last=False)
    val = {int(i) for batch in data.val_dataloader() for i in batch.indices}
    assert data.sizes["train"] + data.sizes["val"] == 60 and val < whole


def test_samples_per_class_gives_every_class_as_many(make_data: Make) -> None:
    assert make_data(samples_per_class=5).class_counts("train") == {"a": 5, "b": 5, "c": 5, "d": 5}


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_counts_every_image_once_over_the_ranks(make_data: Make, world: int) -> None:
    ranks = [list(as_rank(make_data(), rank, world).val_dataloader()) for rank in range(world)]
    assert sorted(int(i) for rank in ranks for batch in rank for i in batch.indices) == list(range(37))
    assert len({len(rank) for rank in ranks}) == 1


def test_printing_a_module_says_its_splits(make_data: Make, toy_source: Source) -> None:
    assert str(make_data()) == "ImageDataModule(120 train, 37 test)"
    assert str(ImageDataModule(toy_source, img_size=12)) == "ImageDataModule(not set up)"


def test_a_fixed_batch_is_spread_over_the_classes(make_data: Make) -> None:
    batch = make_data(digits(), img_size=8).fixed_batch(20)
    assert np.bincount(batch.targets).tolist() == [2] * 10


def test_a_fixed_batch_is_not_larger_than_its_split(make_data: Make) -> None:
    assert make_data().fixed_batch(100).indices.sort().values.tolist() == list(range(37))


def test_the_fingerprint_changes_with_the_choice_of_images(make_data: Make) -> None:
    prints = [make_data(**change).fingerprint() for change in ({}, {}, {"fraction": 0.5}, {"fraction": 0.5, "seed": 4})]
    assert prints[0] == prints[1] and prints[0]["splits"] == {"train": 120, "test": 37}
    assert len({str(p["sha256"]["train"]) for p in prints}) == 3 and len({p["sha256"]["test"] for p in prints}) == 1


# --- bad values


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"batch_size": 121},
            "batch_size=121 is more than the 120 training images: set recipe.batch_size to at most 120",
        ),
        ({"fraction": 0}, "data.fraction=0 is outside (0, 1]"),
        ({"fraction": 1.5}, "data.fraction=1.5 is outside (0, 1]"),
        ({"val_fraction": 1.0}, "data.val_fraction=1.0 is outside [0, 1)"),
        ({"fraction": 0.5, "samples_per_class": 3}, "both choose the training images: set one of them only"),
        ({"on_bad_image": "ignore"}, "data.on_bad_image='ignore' is not one of error, skip"),
        ({"mean": (0.5,)}, "mean=[0.5] has 1 values, but data.channels=3 needs as many as channels"),
        ({"std": (0.5, 0.0, 0.5)}, "must be above 0"),
        (
            {"channels": 17, "mean": [0] * 4, "std": [1] * 4},
            "data.channels=17 is not possible: use 3 (colour), 1 (grey), or 2 to 16",
        ),
        ({"img_size": 0}, "data.img_size=0 must be at least 1"),
        ({"batch_size": 0}, "recipe.batch_size=0 must be at least 1"),
        ({"eval_crop_pct": 1.2}, "recipe.eval_crop_pct=1.2 is outside (0, 1]"),
    ],
)
def test_an_impossible_value_is_answered_in_one_sentence(
    make_data: Make, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError) as caught:
        make_data(**changes)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_a_batch_of_all_ranks_larger_than_the_set_is_refused(make_data: Make) -> None:
    with pytest.raises(UserError, match="batch_size=64 on each of 2 processes is more than the 120 .* at most 60"):
        as_rank(make_data(batch_size=64), 1, 2).train_dataloader()


def test_a_source_without_evaluation_images_asks_for_val_fraction(make_data: Make, toy_source: Source) -> None:
    alone = Source("toy", toy_source.classes, toy_source.train)
    with pytest.raises(UserError, match=r"toy has no evaluation images: .* data.val_fraction=0.2"):
        make_data(alone)
    assert make_data(alone, val_fraction=0.2).eval_split == "val"


def test_val_fraction_beside_validation_images_is_refused(make_data: Make, toy_source: Source) -> None:
    source = Source("toy", toy_source.classes, toy_source.train, toy_source.test, toy_source.test)
    with pytest.raises(UserError, match="data.val_fraction=0.2, but toy has its own validation images: set it to 0"):
        make_data(source, val_fraction=0.2)
    assert make_data(source).eval_split == "val"


# --- bad files


@pytest.fixture
def broken(make_folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty images in two classes, of which train/a/003.png is truncated and test/b/001.png is text."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = make_folder({"train/a": 10, "train/b": 10, "test/a": 10, "test/b": 10})
    whole = (root / "train/a/003.png").read_bytes()
    (root / "train/a/003.png").write_bytes(whole[: len(whole) // 2])
    (root / "test/b/001.png").write_text("text")
    return root


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bad_image_stops_training_with_one_sentence(make_data: Make, broken: Path, num_workers: int) -> None:
    data = make_data(image_folder(broken), num_workers=num_workers, batch_size=4)
    with pytest.raises(UserError) as caught:
        epoch_of(data)
    message = str(caught.value)
    assert message.startswith(f"cannot read the image {broken}/train/a/003.png (") and "\n" not in message


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bad_image_stops_evaluation_with_one_sentence(make_data: Make, broken: Path, num_workers: int) -> None:
    data = make_data(image_folder(broken), num_workers=num_workers, batch_size=4)
    with pytest.raises(UserError, match=r"^cannot read the image .*test/b/001.png \(not an image\): .*skip$"):
        list(data.val_dataloader())


def test_skipped_images_are_listed_and_left_out(make_data: Make, broken: Path) -> None:
    data = make_data(image_folder(broken), on_bad_image="skip", batch_size=19)
    assert data.skipped == [f"{broken}/train/a/003.png", f"{broken}/test/b/001.png"]
    assert data.sizes == {"train": 19, "test": 19}
    assert sorted(int(i) for batch in epoch_of(data) for i in batch.indices) == [i for i in range(20) if i != 3]


def test_skipping_does_not_move_the_other_images(make_data: Make, broken: Path) -> None:
    skipping = make_data(image_folder(broken), on_bad_image="skip", batch_size=19)
    seen = epoch_of(skipping)[0]
    Image.new("RGB", (10, 8)).save(broken / "train/a/003.png")
    whole = make_data(image_folder(broken), batch_size=20)
    later = epoch_of(whole)[0]
    places = [later.indices.tolist().index(i) for i in seen.indices.tolist()]
    assert torch.equal(later.images[places], seen.images)


def test_a_class_with_only_bad_images_is_named(make_data: Make, broken: Path) -> None:
    for path in (broken / "train/b").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="none of the training images of class 'b' can be read"):
        make_data(image_folder(broken), on_bad_image="skip", batch_size=4)


# --- real images


def test_real_cifar_images_pass_the_whole_pipeline(make_data: Make, cifar_jpeg: Path) -> None:
    data = make_data(image_folder(cifar_jpeg), img_size=32, samples_per_class=20, batch_size=50)
    batches = epoch_of(data)
    assert data.sizes == {"train": 200, "test": 10_000} and len(batches) == 4
    assert all(torch.isfinite(batch.images).all() for batch in batches)


def test_in_memory_pixels_and_png_files_give_the_same_batches(
    make_data: Make, toy_source: Source, tmp_path: Path
) -> None:
    names = [f"{label}/{index:03}.png" for index, label in enumerate(toy_source.train.labels)]
    for name, pixels in zip(names, toy_source.train.images, strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name)
    files = ImageList(names, toy_source.train.labels, tmp_path)
    on_disk = make_data(Source("toy", toy_source.classes, files, toy_source.test))
    assert all(same(a, b) for a, b in zip(epoch_of(make_data()), epoch_of(on_disk), strict=True))


def with_validation(source: Source) -> Source:
    return replace(source, val=source.test, trains_on_val=True)


def test_the_papers_protocol_trains_on_official_validation_images(make_data: Make, toy_source: Source) -> None:
    data = make_data(with_validation(toy_source))
    assert data.sizes == {"train": 120 + 37, "test": 37}
    assert data.eval_split == "test"


def test_the_strict_protocol_selects_on_official_validation_images(make_data: Make, toy_source: Source) -> None:
    data = make_data(with_validation(toy_source), protocol="strict")
    assert data.sizes == {"train": 120, "val": 37, "test": 37}
    assert data.eval_split == "val"


def test_the_strict_protocol_keeps_a_tenth_apart_where_there_is_no_validation_split(make_data: Make) -> None:
    data = make_data(protocol="strict")
    assert data.sizes == {"train": 108, "val": 12, "test": 37}
    assert make_data(protocol="strict", val_fraction=0.2).sizes["val"] == 24


def test_the_official_subset_counts_all_training_images(make_data: Make) -> None:
    data = make_data(fraction=0.5, subset="official")
    chosen = np.random.RandomState(127).choice(120, 60, replace=False)
    assert {*np.concatenate([batch.indices for batch in data.train_dataloader()])} <= {*chosen.tolist()}
    assert data.sizes["train"] == 60


@pytest.mark.parametrize("key", ["protocol", "subset"])
def test_an_unknown_choice_names_the_possible_ones(make_data: Make, key: str) -> None:
    with pytest.raises(UserError, match=f"data.{key}='x' is not one of"):
        make_data(**{key: "x"})
