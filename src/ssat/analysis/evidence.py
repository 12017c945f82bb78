"""What each patch of a clip adds to the score of its class, and when: Grad-CAM (Figure 10) where it is exact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ssat.analysis.models import Curve, Measured, Model, Strip, pixels
from ssat.core.errors import UserError
from ssat.data.video.manifest import Entry
from ssat.data.video.module import VideoDataModule

TOLERANCE = 1e-4  # between the tokens' mean logits and the network's own, relative to the larger of 1 and the logits
MOST_FRAMES = 8  # of a film strip


def log_odds(logits: Tensor, classes: Tensor) -> Tensor:
    """Logit of each sample's class minus the mean of the other logits, (B, ..., K) to (B, ...).

    Of two classes it is the log-odds of the class: its sigmoid is the probability.
    """
    count = logits.shape[-1]
    index = classes.view(-1, *[1] * (logits.ndim - 1)).expand(*logits.shape[:-1], 1)
    return (count * logits.gather(-1, index).squeeze(-1) - logits.sum(-1)) / (count - 1)


def token_logits(model: Model, clips: Tensor) -> Tensor:
    """Logits (B, N, K) of each token, whose mean over the tokens is the clip's logits.

    The encoder averages its tokens and the classifier is linear, so that no gradient is needed. Grad-CAM where the
    tokens are averaged is this, up to constants and its ReLU, if the scale of the encoder's norm is held fixed.

    Raises:
        RuntimeError: their mean is not what the network itself computes, so the classifier is not linear.
    """
    assert model.head is not None
    tokens = model.encoder.forward_tokens(clips)
    logits: Tensor = model.head(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
    whole = model.logits(clips)
    error = float((logits.mean(1) - whole).abs().max() / whole.abs().max().clamp_min(1))
    if not error <= TOLERANCE:
        raise RuntimeError(f"the mean of the tokens' logits is off by {error:.1e}: the classifier is not linear")
    return logits


def evidence(model: Model, clips: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, K), and the evidence for `classes` (B,) per token (B, t, h, w): its mean is the clip's `log_odds`."""
    logits = token_logits(model, clips)
    return logits.mean(1), log_odds(logits, classes).unflatten(1, model.encoder.mask_grid)


def check(model: Model) -> None:
    """Raises: UserError: the model has no class scores, or its encoder does not average its tokens."""
    if model.head is None:
        raise UserError(f"run {model.facts['run']} has learned no labels: there is no evidence for a class")
    if not model.encoder.implements("forward_tokens"):
        raise UserError(
            f"{type(model.encoder).__name__} has no forward_tokens, whose mean the classifier reads, so its evidence is"
            " not known per patch: encoder=videomae_s or another videomae_*"
        )


def names_of(entries: Sequence[Entry], classes: Sequence[str]) -> list[str]:
    """What figures call the videos: file, method and class; the whole identity where two would have one name."""
    short = [PurePosixPath(entry.video_id).name for entry in entries]
    again = Counter(zip(short, (entry.method for entry in entries), strict=True))
    names = []
    for entry, name in zip(entries, short, strict=True):
        told = name if again[name, entry.method] == 1 else entry.video_id
        kind = dict.fromkeys((entry.method, classes[entry.label]))  # the method of a video_folder is its class
        names.append(f"{told} ({', '.join(kind)})")
    return names


@torch.inference_mode()
def class_evidence(model: Model, indices: Sequence[int], *, batch_size: int) -> Measured:
    """Figure 10 on clips: for each video the evidence for its class as a film strip, and as a curve over time.

    Raises:
        UserError: the run has learned no labels, or its encoder does not average its tokens.
    """
    check(model)
    assert isinstance(model.data, VideoDataModule)
    entries = [model.data.entries(model.split)[index] for index in indices]
    titles = names_of(entries, model.data.class_names)
    rows: list[dict[str, Any]] = []
    series, strips = {}, {}
    seconds = [model.data.first_seconds(model.split, index) for index in indices]
    for batch in model.batches(indices, batch_size):
        assert batch.targets is not None
        logits, found = evidence(model, batch.images, batch.targets)
        frames, probabilities = torch.from_numpy(pixels(batch.images, model.data)), logits.softmax(1).cpu()
        for i, maps in enumerate(found.float().cpu()):
            times, row = seconds[len(rows)], _described(model, entries[len(rows)], probabilities[i], maps)
            title, says = titles[len(rows)], f"says {row['predicted']}, {100 * row['probability']:.0f} %"
            series[title] = Curve(times[:: len(times) // len(maps)], row["evidence_of_slots"])
            strips[title] = film_strip(frames[i], times, maps, says)
            rows.append(row)
    right = sum(row["correct"] for row in rows)
    summary = {
        "right, %": 100 * right / len(rows),
        "evidence for the true class, mean": sum(row["evidence"] for row in rows) / len(rows),
    }
    return Measured(series, {"clips": rows}, summary, strips=strips)


def film_strip(frames: Tensor, seconds: Sequence[float], maps: Tensor, caption: str) -> Strip:
    """Frames (T, H, W, 3) and evidence (t, h, w) as the first frames of up to MOST_FRAMES of the t slots.

    Args:
        frames: of a clip.
        seconds: (T,) of them.
        maps: the evidence.
        caption: of the network's row, to which the largest evidence of the clip is added.
    """
    slots = torch.arange(0, len(maps), -(-len(maps) // MOST_FRAMES))
    places = slots * (len(frames) // len(maps))
    shown, largest = frames[places], float(maps.abs().max())
    large = F.interpolate(maps[slots].unsqueeze(1), size=shown.shape[1:3], mode="nearest").squeeze(1)
    times = [seconds[place] for place in places.tolist()]
    return Strip(shown.numpy(), times, large.numpy(), largest, f"{caption}\nat most ±{largest:.2g}")


def _described(model: Model, entry: Entry, probabilities: Tensor, maps: Tensor) -> dict[str, Any]:
    names, best = model.data.class_names, int(probabilities.argmax())
    return {
        "video": entry.video_id,
        "method": entry.method,
        "true": names[entry.label],
        "predicted": names[best],
        "probability": float(probabilities[best]),
        "correct": best == entry.label,
        "evidence": float(maps.mean()),
        "evidence_of_slots": maps.mean((1, 2)).tolist(),
        "evidence_of_patches": [[round(value, 4) for value in row] for row in maps.mean(0).tolist()],
        "map": [[[round(value, 4) for value in row] for row in slot] for slot in maps.tolist()],
    }
