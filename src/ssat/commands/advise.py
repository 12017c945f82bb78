"""Will SSAT help my data? python -m src.advise encoder=vit_t data=image_folder data.root=my_images budget=2h"""

from __future__ import annotations

from collections.abc import Sequence

from ssat.advise.budget import read_pilots, read_time
from ssat.advise.candidates import refuse_ours
from ssat.advise.plan import Asked
from ssat.config.command_line import disk_space, run_words
from ssat.core.errors import UserError
from ssat.core.options import unquoted
from ssat.sweeps.jobs import key_of

USAGE = """\
python -m src.advise encoder=<name> data=<name> budget=<time> [key=value ...]

Trains short pilots from scratch, with SSL+FT and with SSAT, and says which of them to train for the whole budget, what
gain over scratch to expect, and how sure that is. Validation images, taken from the training images
(data.val_fraction=0.2), tell the accuracy of the pilots; the test images are left alone. The pilots and advice.json lie
in runs/advise-<encoder>-<data>-<hash>: the same command continues, or prints the advice again. docs/advise.md has more.

  budget=2h               time of the final training: 2h, 1h30m, 90s
  pilots=0.5              of all pilots together: a share of the budget, or a time
  lam=0.1,0.5             weights of the classification loss that SSAT is tried with
  launcher=processes      several pilots at once (launcher.jobs=2)
  encoder=... data=... data.root=... recipe.batch_size=... seed=...    any key of python -m src.train, for all pilots
                          and for the advised command; but not mode and epochs, which are the answer
  --config-dir <folder>   with configuration files of your own
"""
OWN = {"budget": "", "pilots": "0.5", "lam": "0.1,0.5"}


def parse(words: Sequence[str]) -> Asked:
    """What is asked.

    Raises:
        UserError: no budget, or a value or key that is not possible.
    """
    own = OWN | {
        key_of(word): unquoted(word.partition("=")[2]) for word in words if "=" in word and key_of(word) in OWN
    }
    rest = [word for word in words if key_of(word) not in OWN]
    if not own["budget"]:
        raise UserError("say how long the final training may take: budget=2h, 30m or 90s", key="budget")
    refuse_ours(rest)
    budget = read_time("budget", own["budget"])
    lams = own["lam"].strip("[]").replace(" ", "").split(",")
    if not all(_is_weight(lam) for lam in lams) or len({*map(float, lams)}) < len(lams):
        raise UserError(
            f"lam={own['lam']} is not possible: give different weights between 0 and 1, such as lam=0.1,0.5", key="lam"
        )
    return Asked(tuple(rest), budget, read_pilots(own["pilots"], budget), tuple(f"{float(lam):g}" for lam in lams))


def _is_weight(text: str) -> bool:
    try:
        return "_" not in text and 0 < float(text) < 1
    except ValueError:
        return False


def run(words: Sequence[str]) -> None:
    """The command: pilots, table, sentence.

    Raises:
        UserError: what is asked is not possible.
    """
    asked = parse(words)
    # Heavy imports only for a command line that can be right.
    from ssat.advise.advice import advise
    from ssat.advise.show import show
    from ssat.commands.train import train

    with disk_space():
        show(advise(asked, train))


def main() -> None:
    """The command."""
    run_words(run, USAGE, interrupted="the same command continues with what is left", config_dir=True)
