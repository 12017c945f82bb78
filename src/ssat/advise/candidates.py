"""What is tried: the modes, lambdas and make-up of batches that differ between the pilots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ssat.core.errors import UserError
from ssat.results.modes import mode_name
from ssat.runs.settings import SHARE
from ssat.sweeps.jobs import key_of

SCRATCH, TWO_STAGES, JOINT = "scratch", "ssl_ft", "ssat"
FEW_LABELS = 0.5  # of the training images; below it a batch of SSAT has few labelled images as they come
# What advise decides itself, and why a user cannot.
OURS = {
    "mode": "advise tries the modes itself",
    "recipe.lam": "lam= lists the weights that it tries",
    "epochs": "budget= says how long the training is",
    "experiments": "the rows and columns of an experiment file are no part of it, so give the keys themselves",
    "experiment": "the pilots have a folder of their own",
    "name": "the pilots have names of their own",
    "run_dir": "the pilots have folders of their own",
    "extend": "pilots are whole runs",
    "estimate": "advise estimates by itself",
    "force": "move the folder of the advice away to begin anew",
    "batch": "find the number once, with python -m src.train batch=auto, and give recipe.batch_size",
    "trainer.max_steps": "budget= says how long the training is",
    "data.use_test": "the pilots leave the test images alone anyway",
    "data.frames": "advise is of images",
}


@dataclass(frozen=True)
class Candidate:
    """One way to train.

    Attributes:
        name: as it is shown.
        words: the overrides that make it, without its epochs.
        two_stages: it has epochs of pre-training, too.
    """

    name: str
    words: tuple[str, ...]
    two_stages: bool = False

    def epoch_words(self, epochs: Sequence[int]) -> list[str]:
        """The overrides that set the epochs of each phase."""
        ssl = [f"mode.ssl_epochs={epochs[0]}"] if self.two_stages else []
        return [*ssl, f"epochs={epochs[-1]}"]


def refuse_ours(words: Sequence[str]) -> None:
    """Raises: UserError: a word sets what advise decides itself."""
    for word in words:
        key = key_of(word)
        owner = "mode" if key.startswith("mode.") else key
        if word.startswith("-"):
            raise UserError(f"{word} is no key of advise: write key=value (--help lists them)", key=word)
        if owner in OURS:
            raise UserError(f"{key} is not possible here, {OURS[owner]}: leave it out", key=key)


def split_words(words: Sequence[str]) -> tuple[list[str], str | None]:
    """The words of all candidates, and that of SSAT alone which says how much of a batch has labels."""
    shares = [word for word in words if key_of(word) == SHARE]
    return [word for word in words if word not in shares], shares[-1] if shares else None


def grid(lams: Sequence[str], *, label_fraction: float, share: str | None = None) -> list[Candidate]:
    """Scratch first, then SSL+FT and SSAT with each lambda.

    Where few images have labels, half of each batch of SSAT has one; with the first lambda also as they come.

    Args:
        lams: weights of the classification loss.
        label_fraction: share of the training images with labels.
        share: the user's own word for the share of a batch that has labels.
    """
    found = [
        Candidate(mode_name(SCRATCH), (f"mode={SCRATCH}",)),
        Candidate(mode_name(TWO_STAGES), (f"mode={TWO_STAGES}",), two_stages=True),
    ]
    few = label_fraction < FEW_LABELS
    batches = [share] if share else [f"{SHARE}=0.5"] if few else [None]
    for place, lam in enumerate(lams):
        for batch in [*batches, *([None] if few and not share and place == 0 else [])]:
            made = f", {SHARE.partition('.')[2]} {batch.partition('=')[2]}" if batch else ""
            words = (f"mode={JOINT}", f"mode.lam={lam}", *([batch] if batch else []))
            found.append(Candidate(f"{mode_name(JOINT)}, lambda {lam}{made}", words))
    return found
