"""What will be tried and for how long, written once: the same command finds it and goes on with the same pilots."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from ssat.advise.budget import Round, plan_rounds
from ssat.advise.candidates import Candidate, grid, split_words
from ssat.advise.pilots import QUIET, configured, refuse_launcher
from ssat.advise.prices import Price, epochs_in, evened, prices_of, seconds_of, window_of
from ssat.config.schema import Run
from ssat.core.errors import UserError
from ssat.core.read import read_json
from ssat.core.terminal import tell
from ssat.data.video import SETS
from ssat.estimate.command import interruptible
from ssat.runs.record import write_record
from ssat.sweeps.jobs import key_of

FILE = "plan.json"
VALIDATION = "data.val_fraction=0.2"  # of the training images, where the set has no validation images of its own
FEWEST_IMAGES = 20  # for validation


@dataclass(frozen=True)
class Asked:
    """The command: overrides of the training, seconds of the budget and of all pilots, and the lambdas to try."""

    words: tuple[str, ...]
    budget: float
    pilots: float
    lams: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What the pilots are.

    Attributes:
        folder: of the advice and its pilots.
        candidates: scratch first.
        validation: the override that keeps validation images apart in the pilots; empty where the set has its own.
        pilot_prices: of each candidate, by phase, evaluated once.
        final_prices: the same with all training images, evaluated as the user's words say.
        rounds: of pilots.
    """

    folder: Path
    candidates: list[Candidate]
    validation: str
    pilot_prices: list[list[Price]]
    final_prices: list[list[Price]]
    rounds: list[Round]

    def pilot_epochs(self, number: int, seconds: float) -> tuple[int, ...]:
        """Of candidate `number`, by phase."""
        return tuple(epochs_in(self.pilot_prices[number], seconds))

    def final_epochs(self, number: int, budget: float) -> list[int]:
        """That fit into the budget, by phase."""
        return epochs_in(self.final_prices[number], budget)


def plan_of(asked: Asked) -> Plan:
    """The plan that the same command has made before, or a new one, for which short calibrations are run.

    Raises:
        UserError: words, data or encoder do not fit, or the budget is too small.
    """
    shared, share = split_words(asked.words)
    scratch = configured([*shared, "mode=scratch"])
    refuse_data(scratch)
    refuse_launcher(scratch)
    candidates = grid(asked.lams, label_fraction=scratch.data.label_fraction, share=share)
    configs = [configured([*shared, *candidate.words]) for candidate in candidates]
    refuse_encoder(configs)
    folder = Path(scratch.runs_dir) / folder_name(scratch, asked)
    known = _read(folder / FILE, candidates)
    if known is None:
        known = _priced(asked, shared, candidates, configs)
        write_record(folder, known, name=FILE)
    pilot, final = ([[Price(**each) for each in phases] for phases in known[key]] for key in ("pilots", "finals"))
    shortest = max(seconds_of(prices, [1] * len(prices)) for prices in pilot)
    rounds = plan_rounds(len(candidates), budget=asked.budget, pilots=asked.pilots, shortest=shortest)
    return Plan(folder, candidates, known["validation"], pilot, final, rounds)


def folder_name(config: Run, asked: Asked) -> str:
    """The name of the advice's folder: the same words find it again."""
    last = {key_of(word): word for word in asked.words}  # of a key that is given twice the last word counts
    text = json.dumps([sorted(last.values()), asked.budget, asked.pilots, asked.lams])
    return f"advise-{config.encoder.name}-{config.data.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def refuse_data(config: Run) -> None:
    """Raises: UserError: videos, or images with several labels each."""
    if config.data.frames is not None or config.data.source.kind in SETS:
        raise UserError(
            f"data={config.data.name} are videos, and advise compares accuracies of images: train the modes"
            " yourself, -m mode=scratch,ssl_ft,ssat",
            key="data",
        )
    if config.data.multi_label:
        raise UserError(
            "data.labels gives images several labels each, and advise compares accuracies of one class: train the modes"
            " yourself, -m mode=scratch,ssl_ft,ssat",
            key="data.labels",
        )


def refuse_encoder(configs: Sequence[Run]) -> None:
    """Raises: UserError: the encoder has no self-supervised task here, so there is nothing but scratch."""
    from ssat.training.build import build_module

    for config in configs[1:]:
        try:
            build_module(config, config.mode.phases[0], 2)
        except UserError as error:
            raise UserError(
                f"encoder={config.encoder.name} leaves nothing to advise, only scratch can be trained here: {error}",
                key="encoder",
            ) from error


def _read(path: Path, candidates: Sequence[Candidate]) -> dict[str, Any] | None:
    """The plan of before; None where there is none.

    Raises:
        UserError: it is damaged.
    """
    try:
        known = read_json(path)
        phases = [1 + candidate.two_stages for candidate in candidates]
        for key in ("pilots", "finals"):
            prices = [Price(**each) for of_phases in known[key] for each in of_phases]
            if [len(of_phases) for of_phases in known[key]] != phases or not all(map(_is_possible, prices)):
                raise ValueError(key)
        if known["validation"] not in ("", VALIDATION):
            raise ValueError("validation")
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is damaged: move it away, and the same command plans anew") from error
    return known


def _is_possible(price: Price) -> bool:
    return price.epoch > 0 and math.isfinite(price.epoch + price.fixed)


def _priced(
    asked: Asked, shared: Sequence[str], candidates: Sequence[Candidate], configs: Sequence[Run]
) -> dict[str, Any]:
    """The prices of all candidates, by calibrations."""
    validation = check_images(configs[0])
    extra = [*QUIET, *([validation] if validation else [])]
    tell(f"timing what an epoch takes, of {len(candidates)} candidates ...")
    pilots, finals, shares = [], [], []
    with interruptible():
        for candidate, config in zip(candidates, configs, strict=True):
            pilot = configured([*shared, *candidate.words, *extra])
            of_pilot, of_final, of_cpu = prices_of(pilot, config, window=window_of(asked.budget))
            pilots.append(of_pilot)
            finals.append(of_final)
            shares.append(of_cpu)
    return {
        "kind": "plan",
        "words": list(asked.words),
        "validation": validation,
        "pilots": _evened(pilots, shares),
        "finals": _evened(finals, shares),
        "cpu_shares": shares,
    }


def _evened(prices: list[list[Price]], shares: list[list[float]]) -> list[list[dict[str, float]]]:
    """Plain values of the prices of all candidates, by phase, as if all had been timed on an equally busy machine."""
    even = iter(evened([*chain(*prices)], [*chain(*shares)]))
    return [[asdict(next(even)) for _ in phases] for phases in prices]


def check_images(config: Run) -> str:
    """The override that keeps validation images apart; empty where there are some.

    Raises:
        UserError: the data cannot be read, have one class, or too few images for validation.
    """
    from ssat.training.data import build_images

    data = build_images(config, config.mode.phases[0])
    data.setup()
    if data.num_classes < 2:
        raise UserError(
            f"data={config.data.name} has one class, so there is no accuracy to compare: sort the images into classes",
            key="data",
        )
    validation = "" if "val" in data.sizes else VALIDATION
    images = data.sizes.get("val", int(0.2 * sum(data.class_counts("train").values()) / config.data.label_fraction))
    if images < FEWEST_IMAGES:
        raise UserError(
            f"data={config.data.name} leaves {images} validation images, and an accuracy of fewer than {FEWEST_IMAGES}"
            " says nothing: give more images",
            key="data.val_fraction",
        )
    return validation
