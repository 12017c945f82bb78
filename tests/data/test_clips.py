"""Clips of stored videos: which frames, the same for any number of workers, and batches of them."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.data.sampler import EpochLoader, EpochSampler, eval_batches
from ssat.data.transforms.clip_augment import ClipAugment
from ssat.data.video.clips import EvalClips, TrainClips, collate, is_padded, normalise, random_window, segments
from ssat.data.video.manifest import Entry
from ssat.data.video.store import write_clip

LENGTHS = (5, 40, 70)


def as_it_is(clip: Tensor, rng: np.random.Generator) -> Tensor:
    return clip


@pytest.fixture
def videos(tmp_path: Path) -> list[Entry]:
    """Videos of 5, 40 and 70 frames; frame k of video v is all 10 v + k."""
    entries = []
    for number, length in enumerate(LENGTHS):
        frames = (np.full((8, 8, 3), 10 * number + k, dtype=np.uint8) for k in range(length))
        write_clip(tmp_path / f"{number}.zip", frames, {"video_id": f"v{number}", "size": 8}, coding="png")
        video = {"dataset": "toy", "video_id": f"v{number}", "path": "", "label": number % 2, "method": "original"}
        entries.append(Entry(**video, n_stored=length, clip=f"{number}.zip"))
    return entries


@pytest.fixture
def train_clips(videos: list[Entry], tmp_path: Path) -> Callable[..., TrainClips]:
    def make(**changes: Any) -> TrainClips:
        options = {"frames": 4, "step": 2, "transform": as_it_is, "seed": 3}
        return TrainClips(videos, tmp_path, **options | changes)

    return make


@pytest.mark.parametrize(
    ("n_stored", "frames", "step", "expected"),
    [
        (8, 4, 1, [[0, 1, 2, 3], [4, 5, 6, 7]]),
        (10, 4, 1, [[0, 1, 2, 3], [4, 5, 6, 7], [6, 7, 8, 9]]),
        (4, 4, 1, [[0, 1, 2, 3]]),
        (3, 4, 1, [[0, 1, 2, 2]]),
        (1, 4, 3, [[0, 0, 0, 0]]),
        (16, 4, 2, [[0, 2, 4, 6], [8, 10, 12, 14]]),  # frame 15 lies between two steps, as 1, 3 ... do
        (17, 4, 2, [[0, 2, 4, 6], [8, 10, 12, 14], [10, 12, 14, 16]]),
        (7, 4, 3, [[0, 3, 6, 6]]),
    ],
)
def test_segments_by_hand(n_stored: int, frames: int, step: int, expected: list[list[int]]) -> None:
    assert segments(n_stored, frames, step) == expected


def test_segments_cover_every_step_of_any_video_without_a_needless_clip() -> None:
    for n_stored in range(1, 90):
        for frames, step in ((4, 1), (4, 3), (16, 1), (16, 4), (1, 2)):
            clips = segments(n_stored, frames, step)
            sampled = list(range(0, n_stored, step))
            assert sorted({frame for clip in clips for frame in clip}) == sampled
            assert len(clips) == -(-len(sampled) // frames)
            assert clips[-1][-1] == sampled[-1] and {len(clip) for clip in clips} == {frames}
            assert is_padded(n_stored, frames, step) == (len(set(clips[0])) < frames)


def test_a_random_window_is_as_likely_at_every_place() -> None:
    starts = [random_window(20, 4, 3, (k + 0.5) / 1100)[0] for k in range(1100)]
    assert np.bincount(starts).tolist() == [100] * 11  # 0 to 10, the last frame being 10 + 9 = 19
    assert random_window(20, 4, 3, np.nextafter(1, 0)) == [10, 13, 16, 19]
    assert random_window(5, 4, 3, 0.9) == [0, 3, 3, 3]


def test_the_dataset_reads_the_frames_of_its_window(train_clips: Callable[..., TrainClips]) -> None:
    dataset = train_clips(repeat=2)
    assert len(dataset) == 6 and dataset.labels.tolist() == [0, 1, 0, 0, 1, 0]
    for index in range(6):
        clip, label, own, video = dataset[0, index]
        assert clip.dtype == torch.uint8 and clip.shape == (3, 4, 8, 8) and clip.is_contiguous()
        assert (own, video, label) == (index, index % 3, index % 3 % 2)
        frames = (clip[0, :, 0, 0].int() - 10 * video).tolist()
        first = frames[0]
        last = first + (LENGTHS[video] - 1 - first) // 2 * 2
        assert frames == [min(first + 2 * k, last) for k in range(4)]


def test_a_clip_is_a_function_of_seed_epoch_and_index(train_clips: Callable[..., TrainClips]) -> None:
    dataset = train_clips(transform=ClipAugment(8))
    first = dataset[4, 2][0]
    dataset[5, 1]
    assert torch.equal(dataset[4, 2][0], first) and torch.equal(train_clips(transform=ClipAugment(8))[4, 2][0], first)
    starts = {int(train_clips(seed=seed)[epoch, 2][0][0, 0, 0, 0]) for seed in (0, 1) for epoch in range(10)}
    assert len(starts) > 10


def test_global_generators_are_left_as_they_were(train_clips: Callable[..., TrainClips]) -> None:
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    dataset = train_clips(transform=ClipAugment(8, noise_prob=1.0, blur_prob=1.0))
    for epoch in range(5):
        dataset[epoch, 1]
    assert random.getstate() == states[0] and np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


def loaded(dataset: TrainClips, workers: int) -> list[Batch]:
    sampler = EpochSampler(np.arange(len(dataset)), batch_size=2, seed=1, drop_last=True)
    prepare = partial(normalise, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1), device=torch.device("cpu"))
    options = {"num_workers": workers, "persistent_workers": workers > 0, "collate_fn": collate, "prepare": prepare}
    return list(EpochLoader(dataset, batch_size=2, sampler=sampler, **options))


def test_batches_are_the_same_for_any_number_of_workers(train_clips: Callable[..., TrainClips]) -> None:
    dataset = train_clips(transform=ClipAugment(8), repeat=2)
    alone, many = loaded(dataset, 0), loaded(dataset, 2)
    assert len(alone) == len(many) == 3
    for one, other in zip(alone, many, strict=True):
        for name in ("images", "targets", "indices", "videos"):
            assert torch.equal(getattr(one, name), getattr(other, name))


def test_batches_are_normalised_by_channel(train_clips: Callable[..., TrainClips]) -> None:
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.2, 0.1])
    raw = collate([train_clips()[0, index] for index in range(3)])
    assert raw.images.dtype == torch.uint8 and raw.images.shape == (3, 3, 4, 8, 8) and raw.videos.tolist() == [0, 1, 2]
    (batch,) = normalise([raw], mean=mean.tolist(), std=std.tolist(), device=torch.device("cpu"))
    expected = (raw.images.float() / 255 - mean.view(3, 1, 1, 1)) / std.view(3, 1, 1, 1)
    assert batch.images.dtype == torch.float32
    torch.testing.assert_close(batch.images, expected, rtol=1e-5, atol=1e-5)


def test_evaluation_sees_every_segment_of_every_video(videos: list[Entry], tmp_path: Path) -> None:
    dataset = EvalClips(videos, tmp_path, frames=4, step=2, transform=as_it_is)
    expected = [(v, window) for v, length in enumerate(LENGTHS) for window in segments(length, 4, 2)]
    assert len(dataset) == len(expected)
    seen = [dataset[key] for batch in eval_batches(np.arange(len(dataset)), batch_size=3) for key in batch]
    found = [(video, (clip[0, :, 0, 0].int() - 10 * video).tolist()) for clip, _, _, video in seen]
    assert found == expected
    assert dataset.videos.tolist() == [video for video, _ in expected]
    assert dataset.labels.tolist() == [video % 2 for video, _ in expected]


def test_a_limit_takes_clips_from_the_whole_video(videos: list[Entry], tmp_path: Path) -> None:
    dataset = EvalClips(videos, tmp_path, frames=4, step=1, transform=as_it_is, max_clips=3)
    assert np.bincount(dataset.videos).tolist() == [2, 3, 3]
    assert [window[0] for window in dataset.windows[2:5]] == [4, 20, 32]  # of 10: number 1, 5 and 8


def test_a_damaged_file_is_one_sentence_or_unharmed_frames(
    train_clips: Callable[..., TrainClips], tmp_path: Path
) -> None:
    path = tmp_path / "1.zip"
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    dataset, sentences = train_clips(), []
    expected = dataset[0, 1][0]
    headers = [place for place in range(len(whole)) if whole[place : place + 2] == b"PK"]
    for trial in range(240):
        damaged = bytearray(whole[: rng.integers(len(whole))] if trial % 3 == 0 else whole)
        if trial % 3 == 1:
            damaged[rng.choice(headers) + rng.integers(0, 20)] ^= int(rng.integers(1, 256))
        elif trial % 3 == 2:
            damaged[rng.integers(len(damaged))] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            assert torch.equal(dataset[0, 1][0], expected)  # the damage is not in the frames of the window
        except UserError as error:
            sentences.append(str(error))
    assert len(sentences) > 100
    assert all(str(path) in text and "src.prepare" in text and "\n" not in text for text in sentences)
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        dataset[0, 1]


def test_a_worker_passes_on_the_sentence(train_clips: Callable[..., TrainClips], tmp_path: Path) -> None:
    (tmp_path / "0.zip").write_bytes(b"no zip")
    with pytest.raises(UserError, match=r"^the stored clip \S+0.zip cannot be read"):
        loaded(train_clips(), 1)


def test_frames_that_the_manifest_does_not_know_are_refused(
    train_clips: Callable[..., TrainClips], tmp_path: Path
) -> None:
    def stored(count: int, side: int, meta: dict[str, Any]) -> Path:
        write_clip(tmp_path / "2.zip", [np.zeros((side, side, 3), dtype=np.uint8)] * count, meta)
        return tmp_path / "2.zip"

    def refusal() -> str:
        with pytest.raises(UserError) as refused:
            train_clips()[0, 2]
        return str(refused.value)

    stored(3, 8, {"video_id": "v2"})
    assert "has 3 frames of v2, and the manifest says 70 of v2" in refusal()
    stored(70, 8, {"video_id": "v1"})  # the clip of another video in its place
    assert "has 70 frames of v1, and the manifest says 70 of v2" in refusal()
    stored(70, 9, {"video_id": "v2", "size": 8})
    assert "has 9 x 9 pixels, and 8 a side were stored" in refusal()
    # What unpacks to no one knows what size is not unpacked.
    path = stored(70, 8, {"video_id": "v2", "size": 8})
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    assert "its members are compressed" in refusal()


def test_a_video_without_frames_is_refused(videos: list[Entry], tmp_path: Path) -> None:
    lost = Entry("toy", "lost", "", 1, "Deepfakes", status="no_face", reason="no face was found")
    with pytest.raises(UserError, match=r"lost has no stored frames \(no_face: no face was found\)"):
        EvalClips([*videos, lost], tmp_path, frames=4, step=1, transform=as_it_is)
