"""The batched pipeline against the PIL pipeline it stands for, on scikit-learn's real photographs."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data import auto_augment as timm_ops
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torchvision.transforms import functional as pil

from ssat.core.errors import UserError
from ssat.data.ahead import on_side_stream, one_ahead
from ssat.data.image import ImageDataModule
from ssat.data.memory import Prepare, load
from ssat.data.sets.folder import image_folder
from ssat.data.sets.sources import Source
from ssat.data.transforms.augment import ERASE_DRAWS, TrainTransform, erase_boxes
from ssat.data.transforms.batched import geometry, randaugment

Make = Callable[..., ImageDataModule]
SCALE, RATIO = (0.08, 1.0), (0.75, 1.3333)
FILL = (125, 122, 114)
NORMAL = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}


def tensor(images: list[Image.Image]) -> Tensor:
    return torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])


@pytest.fixture(scope="module")
def photos() -> Callable[[int], list[Image.Image]]:
    """64 real colour pictures of the asked size: pieces of the two photographs that scikit-learn brings."""

    def cut(side: int) -> list[Image.Image]:
        pieces = []
        for picture in load_sample_images().images:
            whole = Image.fromarray(picture)
            boxes = [(x, y, x + 96, y + 96) for y in range(0, 320, 80) for x in range(0, 544, 68)]
            pieces += [whole.resize((side, side), Image.Resampling.BICUBIC, box) for box in boxes]
        return pieces

    return cut


def differences(ours: Tensor, theirs: Tensor) -> Tensor:
    return (ours.int() - theirs.int()).abs()


@pytest.mark.sampled
@pytest.mark.parametrize("side", [28, 32])
@pytest.mark.parametrize("increasing", [True, False])
@pytest.mark.parametrize("name", randaugment.OPERATIONS)
def test_every_operation_is_within_one_grey_level_of_pillow(photos, name: str, increasing: bool, side: int) -> None:
    images = photos(side)
    suffix = "Increasing" if increasing and f"{name}Increasing" in timm_ops.NAME_TO_OP else ""
    number = torch.full((len(images),), randaugment.OPERATIONS.index(name))
    for magnitude in (2.6, 6.0, 8.7, 9.4):
        for sign in (1.0, -1.0):
            options = {"img_mean": FILL, "interpolation": Image.Resampling.BICUBIC}
            operation = timm_ops.AugmentOp(name + suffix, prob=1.0, magnitude=magnitude, hparams=options)
            with mock.patch.object(random, "random", lambda negative=sign < 0: 0.9 if negative else 0.1):
                expected = tensor([operation(image) for image in images])
            ours = randaugment.apply(
                tensor(images),
                number,
                torch.full((len(images),), magnitude),
                torch.full((len(images),), sign),
                torch.tensor(FILL, dtype=torch.uint8),
                increasing=increasing,
            )
            assert differences(ours, expected).max() <= 1
            assert differences(ours, expected).float().mean() < 0.03


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_a_rotation_of_another_device_is_within_one_grey_level_of_that_of_a_cpu(photos, interpolation: str) -> None:
    images = tensor(photos(32))
    degrees, fill = torch.linspace(-30, 30, len(images)), torch.tensor(FILL, dtype=torch.uint8)
    ours = geometry._rotated(images, degrees, fill, interpolation)
    expected = geometry.rotate(images, degrees, fill, interpolation=interpolation)
    assert differences(ours, expected).max() <= 1
    assert differences(ours, expected).float().mean() < 0.03


def test_posterize_at_magnitude_ten_is_black(photos) -> None:
    ours = randaugment.apply(
        tensor(photos(8)),
        torch.full((64,), randaugment.OPERATIONS.index("Posterize")),
        torch.full((64,), 10.0),
        torch.ones(64),
        torch.zeros(3, dtype=torch.uint8),
    )
    assert ours.max() == 0


@pytest.mark.parametrize(("side", "size"), [(32, 32), (28, 28), (32, 16), (40, 28)])
def test_crops_are_within_one_grey_level_of_pillow(photos, side: int, size: int) -> None:
    images = photos(side)
    random.seed(0)
    boxes = [RandomResizedCropAndInterpolation.get_params(image, SCALE, RATIO) for image in images]
    mode = pil.InterpolationMode.BICUBIC
    expected = tensor(
        [pil.resized_crop(image, *box, [size, size], mode) for image, box in zip(images, boxes, strict=True)]
    )
    flip = torch.arange(len(images)) % 2 == 0
    expected = torch.where(flip.view(-1, 1, 1, 1), expected.flip(3), expected)
    ours = geometry.resized_crop(tensor(images), torch.tensor(boxes), flip, size)
    assert differences(ours, expected).max() <= 1
    assert differences(ours, expected).float().mean() < 0.001


@pytest.mark.parametrize(("height", "width"), [(32, 32), (50, 20), (10, 100)])
def test_crop_boxes_are_distributed_as_timms(height: int, width: int) -> None:
    count = 20_000
    image = Image.new("RGB", (width, height))
    random.seed(0)
    theirs = torch.tensor([RandomResizedCropAndInterpolation.get_params(image, SCALE, RATIO) for _ in range(count)])
    uniforms = torch.rand(count, geometry.ATTEMPTS * 2 + 2, generator=torch.Generator().manual_seed(0))
    sides = (torch.full((count,), side) for side in (height, width))
    ours = geometry.crop_boxes(uniforms, *sides, scale=SCALE, ratio=RATIO)
    assert_same_distribution(ours, theirs, max(height, width))
    assert (ours[:, :2] + ours[:, 2:] <= torch.tensor([height, width])).all()


@pytest.mark.sampled
@pytest.mark.parametrize(("area", "ratio"), [((0.02, 1 / 3), (0.3, 1 / 0.3)), ((0.1, 0.2), (1.0, 2.0))])
def test_erased_rectangles_are_distributed_as_timms(area: tuple, ratio: tuple) -> None:
    count, size = 20_000, 32
    random.seed(0)
    limits = {"min_area": area[0], "max_area": area[1], "min_aspect": ratio[0], "max_aspect": ratio[1]}
    erasing = RandomErasing(1.0, mode="const", max_count=1, device="cpu", **limits)
    theirs = []
    for _ in range(count):
        image = torch.ones(1, size, size)
        erasing(image)
        rows, columns = (image[0] == 0).nonzero(as_tuple=True)
        low, high = torch.stack([rows, columns]).amin(1), torch.stack([rows, columns]).amax(1)
        theirs.append(torch.cat([low, high - low + 1]))
    uniforms = torch.rand(count, ERASE_DRAWS, generator=torch.Generator().manual_seed(0))
    found, ours = erase_boxes(uniforms[:, 2:], size, area=area, ratio=ratio)
    assert found.all()
    assert_same_distribution(ours.long(), torch.stack(theirs), size)


def assert_same_distribution(ours: Tensor, theirs: Tensor, highest: int) -> None:
    """Two-sample Kolmogorov-Smirnov distance of each column below its 0.1 % critical value."""
    limit = 1.95 * (2 / len(ours)) ** 0.5
    for mine, other in zip(ours.unbind(1), theirs.unbind(1), strict=True):
        shares = [torch.bincount(values, minlength=highest + 1).cumsum(0) / len(values) for values in (mine, other)]
        assert (shares[0] - shares[1]).abs().max() < limit


def test_operations_and_magnitudes_are_distributed_as_the_policy_says() -> None:
    policy = randaugment.Policy.parse("rand-m9-mstd0.5-inc1")
    uniforms = torch.rand(60_000, randaugment.DRAWS, generator=torch.Generator().manual_seed(0))
    which, magnitude, sign = randaugment.draw(policy, uniforms)
    counts = torch.bincount(which + 1, minlength=16) / len(which)
    assert counts[0] == pytest.approx(0.5, abs=0.01)
    assert counts[1:].tolist() == pytest.approx([0.5 / 15] * 15, abs=0.004)
    assert magnitude.mean() == pytest.approx(9, abs=0.02)
    assert magnitude.std() == pytest.approx(0.5, abs=0.02)
    assert magnitude.max() <= 10
    assert sign.mean() == pytest.approx(0, abs=0.02)


def test_erasing_replaces_a_quarter_of_the_images_with_normal_noise(augment: dict[str, Any]) -> None:
    augment |= {"auto_augment": None, "crop_scale": [1.0, 1.0], "crop_ratio": [1.0, 1.0], "hflip": 0.0}
    transform = TrainTransform(32, **NORMAL, augment=augment)
    images = torch.zeros(2000, 3, 32, 32, dtype=torch.uint8)
    output = transform(images, generator=torch.Generator().manual_seed(0))
    erased = output != transform.normalise(images)
    assert erased.flatten(1).any(1).float().mean() == pytest.approx(0.25, abs=0.03)
    assert output[erased].mean() == pytest.approx(0, abs=0.02)
    assert output[erased].std() == pytest.approx(1, abs=0.02)
    areas = erased[:, 0].flatten(1).float().mean(1)
    assert areas[areas > 0].min() > 0.01
    assert areas.max() < 0.36


def test_an_image_is_the_same_in_any_batch(photos, augment: dict[str, Any]) -> None:
    transform = TrainTransform(32, **NORMAL, augment=augment, seed=5)
    images, indices = tensor(photos(32)), torch.arange(64) * 7
    whole = transform(images, transform.uniforms(indices, 3))
    part = torch.tensor([40, 3, 11])
    assert torch.equal(whole[part], transform(images[part], transform.uniforms(indices[part], 3)))
    assert not torch.equal(whole, transform(images, transform.uniforms(indices, 4)))


def test_evaluation_batches_are_those_of_pil(make_data: Make, toy_source: Source) -> None:
    levels = torch.tensor(NORMAL["std"]).view(3, 1, 1) * 255
    for size in (12, 20):
        timm, batched = (make_data(pipeline=name, img_size=size) for name in ("timm", "batched"))
        for expected, ours in zip(timm.val_dataloader(), batched.val_dataloader(), strict=True):
            assert torch.equal(ours.targets, expected.targets)
            assert torch.equal(ours.indices, expected.indices)
            assert ((ours.images - expected.images) * levels).abs().max() < 1.001


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Two classes of real photographs as JPEG files of different sizes."""
    root = tmp_path_factory.mktemp("photos")
    for number, picture in enumerate(load_sample_images().images):
        for split in ("train", "test"):
            for place in range(6):
                target = root / split / str(number) / f"{place}.jpg"
                target.parent.mkdir(parents=True, exist_ok=True)
                box = (40 * place, 10, 40 * place + 300 + 7 * place, 10 + 400 - 30 * place)
                Image.fromarray(picture).crop(box).save(target, quality=90)
    return image_folder(root)


def test_files_of_different_sizes_are_evaluated_as_by_pil(make_data: Make, folder: Source) -> None:
    timm, batched = (make_data(folder, pipeline=name, img_size=64, batch_size=5) for name in ("timm", "batched"))
    levels = torch.tensor(NORMAL["std"]).view(3, 1, 1) * 255
    for expected, ours in zip(timm.val_dataloader(), batched.val_dataloader(), strict=True):
        assert ((ours.images - expected.images) * levels).abs().max() < 1.001


def test_crops_of_files_are_within_one_grey_level_of_pillow(make_data: Make, folder: Source, augment: dict) -> None:
    augment |= {"auto_augment": None, "hflip": 0.0, "re_prob": 0.0}
    data = make_data(folder, pipeline="batched", img_size=64, batch_size=12, augment=augment)
    transform = TrainTransform(64, **NORMAL, augment=augment, seed=3)
    (batch,) = data.train_dataloader()
    for image, index in zip(batch.images, batch.indices, strict=True):
        picture = folder.train.read(int(index))
        uniforms = transform.uniforms(index.view(1), 0)[:, : 2 * geometry.ATTEMPTS + 2]
        sides = (torch.tensor([side]) for side in (picture.height, picture.width))
        box = geometry.crop_boxes(uniforms, *sides, scale=SCALE, ratio=tuple(augment["crop_ratio"]))[0].tolist()
        expected = pil.resized_crop(picture, *box, [64, 64], pil.InterpolationMode.BICUBIC)
        pixels = (image - transform.normalise.shift) / transform.normalise.scale
        assert (pixels - tensor([expected])[0]).abs().max() < 1.01


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_do_not_change_batches_of_files(make_data: Make, folder: Source, workers: int) -> None:
    alone, other = (
        make_data(folder, pipeline="batched", num_workers=n, img_size=32, batch_size=4) for n in (0, workers)
    )
    for a, b in zip(alone.train_dataloader(), other.train_dataloader(), strict=True):
        assert torch.equal(a.images, b.images)


@pytest.mark.parametrize("seen", [1, 3])
def test_a_batched_loader_goes_on_with_the_next_batch(make_data: Make, seen: int) -> None:
    whole = list(make_data(pipeline="batched").train_dataloader())
    loader = make_data(pipeline="batched").train_dataloader()
    loader.load_state_dict({"epoch": 0, "batches": seen})
    for a, b in zip(loader, whole[seen:], strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.indices, b.indices)


def test_grey_channels_are_the_luminance(make_data: Make) -> None:
    options = {"channels": 1, "mean": (0.5,), "std": (0.2,)}
    timm, batched = (make_data(pipeline=name, **options) for name in ("timm", "batched"))
    expected, ours = next(iter(timm.val_dataloader())).images, next(iter(batched.val_dataloader())).images
    assert ours.shape == expected.shape == (8, 1, 12, 12)
    assert ((ours - expected) * 0.2 * 255).abs().max() < 1.001


def test_the_state_of_the_global_generators_is_left_alone(make_data: Make) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    list(make_data(pipeline="batched").train_dataloader())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"auto_augment": "augmix-m5-w4-d2"}, "use data.pipeline=timm"),
        ({"auto_augment": "rand-m9-tweights"}, "use data.pipeline=timm"),
        ({"interpolation": "random"}, "interpolation='random' is not possible with data.pipeline=batched"),
        ({"re_count": 3}, "re_count=3 is not possible"),
        ({"auto_augment": None, "color_jitter": 0.4}, "color_jitter=0.4 is not possible"),
        ({"croop_scale": 1}, "did you mean crop_scale"),
    ],
)
def test_what_only_pil_can_do_is_refused(make_data: Make, augment: dict, change: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence.replace("(", r"\(")):
        make_data(pipeline="batched", augment=augment | change)


def test_an_unknown_pipeline_is_refused(make_data: Make) -> None:
    with pytest.raises(UserError, match="pipeline='dali' is not one of timm, batched"):
        make_data(pipeline="dali")


def test_a_bad_file_is_named_in_the_middle_of_an_epoch(make_data: Make, tmp_path: Path, make_folder) -> None:
    root = make_folder({"train/a": 4, "train/b": 4, "test/a": 2, "test/b": 2})
    Image.new("RGB", (300, 200)).save(root / "train/a/big.png")  # of another size: the files are read batch by batch
    (root / "train/b/001.png").write_bytes(b"no image")
    data = make_data(image_folder(root), pipeline="batched", batch_size=3)
    with pytest.raises(UserError, match=r"cannot read the image .*001\.png"):
        list(data.train_dataloader())


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every operation is computed for every image and then chosen, as where asking would wait for the device."""
    for module in (geometry, randaugment):
        monkeypatch.setattr(module, "picks", lambda images: False)


def test_computing_every_operation_for_every_image_gives_the_same(
    photos, augment: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    transform = TrainTransform(32, **NORMAL, augment=augment, seed=5)
    images, uniforms = tensor(photos(32)), transform.uniforms(torch.arange(64), 1)
    picked = transform(images, uniforms)
    request.getfixturevalue("as_on_a_gpu")
    assert torch.equal(transform(images, uniforms), picked)


@pytest.mark.parametrize("together", [1, 3, 100])
def test_batches_are_the_same_however_many_are_made_at_once(
    make_data: Make, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    expected = list(make_data(pipeline="batched", batch_size=2).train_dataloader())
    monkeypatch.setattr(Prepare, "together", lambda self, batch_size, size: together)
    batches = list(make_data(pipeline="batched", batch_size=2).train_dataloader())
    assert len(batches) == len(expected) > 2
    for batch, other in zip(batches, expected, strict=True):
        assert torch.equal(batch.images, other.images) and torch.equal(batch.indices, other.indices)


def test_augmenting_leaves_the_images_in_memory_alone(photos, augment: dict[str, Any]) -> None:
    images, indices = tensor(photos(32)), torch.arange(64)
    before = images.clone()
    for crop in (True, False):
        transform = TrainTransform(32, **NORMAL, augment=augment, crop=crop)
        transform(images, transform.uniforms(indices, 0))
    assert torch.equal(images, before)


@pytest.mark.parametrize("size_in", [32, 60])  # weights looked up in a table of all crops, and put together
def test_weights_of_a_crop_are_zero_outside_it(size_in: int) -> None:
    weights = geometry._weights_of(torch.tensor([3, 0]), torch.tensor([7, size_in]), size_in, 24, "bicubic")
    assert torch.equal(weights[0, :, 3:10], geometry.resize_weights(7, 24, "bicubic"))
    assert weights[0, :, :3].abs().sum() == weights[0, :, 10:].abs().sum() == 0
    assert torch.equal(weights[1], geometry.resize_weights(size_in, 24, "bicubic"))


def test_one_item_is_asked_for_ahead_and_the_order_stays() -> None:
    asked: list[int] = []
    items = (asked.append(number) or number for number in range(4))
    seen = [(item, len(asked)) for item in one_ahead(items)]
    assert seen == [(0, 2), (1, 3), (2, 4), (3, 4)]
    assert list(one_ahead([])) == []


@pytest.mark.gpu
def test_batches_of_a_side_stream_are_those_of_the_training_stream(make_data: Make) -> None:
    device = torch.device("cuda")
    data = make_data(pipeline="batched", batch_size=2)
    data.setup()
    keys = [[(1, 2 * number), (1, 2 * number + 1)] for number in range(2)]
    images, indices = data._splits["train"]
    held = load(images, indices, 2**30)
    dataset, prepare = data._batched.parts(images, held, device, evaluate=False, views=())
    groups = [[dataset.__getitems__(each)] for each in keys] * 20
    expected = [batch.images for group in groups for batch in prepare(group)]
    torch.cuda.synchronize()
    passed = [batch.images * 1 for made in on_side_stream(prepare, groups, device) for batch in made]
    assert all(torch.equal(a, b) for a, b in zip(passed, expected, strict=True))


@pytest.mark.gpu
def test_a_gpu_makes_the_same_batches_without_waiting(make_data: Make, augment: dict[str, Any]) -> None:
    device = torch.device("cuda")
    transform = TrainTransform(32, **NORMAL, augment=augment, seed=5)
    images = torch.randint(0, 256, (256, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    indices = torch.arange(256)
    expected = transform(images, transform.uniforms(indices, 2))
    there = TrainTransform(32, **NORMAL, augment=augment, seed=5).to(device)
    moved, moved_indices = images.to(device), indices.to(device)
    there(moved, there.uniforms(moved_indices, 2))  # fills the tables
    torch.cuda.set_sync_debug_mode("error")
    try:
        ours = there(moved, there.uniforms(moved_indices, 2))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    levels = torch.tensor(NORMAL["std"]).view(3, 1, 1) * 255
    # A value halfway between two levels may round the other way, and what follows may stretch that level.
    assert (((ours.cpu() - expected) * levels).abs() > 0.5).float().mean() < 1e-3
