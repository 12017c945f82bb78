"""`hydra/sweeper=optuna`: what a search for the best values needs beside the words that the user types."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from ssat.core.errors import UserError

WORD = "hydra/sweeper=optuna"
PACKAGE = "hydra_plugins.hydra_optuna_sweeper"
BEST = "+hydra.callbacks.best_trial._target_=ssat.sweeps.best_trial.BestTrial"


def with_search(flags: Sequence[str], words: Sequence[str]) -> list[str]:
    """`words`, and where they choose Optuna what is usual here: the accuracy is maximised, one trial after the other.

    Raises:
        UserError: Optuna's plugin is not installed, -m is missing, or another launcher is asked for.
    """
    if WORD not in words:
        return [*words]
    if find_spec(PACKAGE) is None:
        raise UserError(
            f"{WORD} needs the package hydra-optuna-sweeper: pip install hydra-optuna-sweeper, or the extra `sweep`",
            key="hydra/sweeper",
            value="optuna",
        )
    if not {"-m", "--multirun"} & {*flags}:
        raise UserError(f"{WORD} tries several values: put -m before it", key="hydra/sweeper", value="optuna")
    for word in words:
        if word.partition("=")[0] == "launcher" and word != "launcher=local":
            raise UserError(
                f"{word} is not used by {WORD}, whose trials run one after the other in this process: leave it out",
                key="launcher",
            )
    keys = {word.lstrip("+").partition("=")[0] for word in words}
    direction = "minimize" if "mode=ssl" in words else "maximize"  # a loss, where no labels are learned
    usual = {"hydra.sweeper.direction": direction, "hydra.sweeper.n_jobs": "1"}
    return [*words, *(f"{key}={value}" for key, value in usual.items() if key not in keys), BEST]
