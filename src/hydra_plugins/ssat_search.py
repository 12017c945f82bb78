"""`hydra/sweeper=optuna`: Hydra's Optuna sweeper, whose trials run and are told as the runs of a sweep are."""

import logging
import sys
import warnings
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from ssat.config.overrides import FAULTS
from ssat.config.search import check_options, check_space
from ssat.core.errors import UserError
from ssat.sweeps.jobs import exit_code
from ssat.sweeps.trials import Trials, report


class Search(Sweeper):
    """Optuna draws the values of one trial after the other; a trial that fails does not stop the search.

    Args:
        options: those of Hydra's Optuna sweeper, under `hydra.sweeper`.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make Optuna's sweeper: here, as Hydra reports what a constructor raises in words of its own.

        Raises:
            UserError: an option is not possible.
        """
        check_options(self.options)
        from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl

        self.sweeper = OptunaSweeperImpl(**self.options)
        self.sweeper.setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.master, self.context = config, hydra_context

    def sweep(self, arguments: list[str]) -> None:
        """Run every trial, and tell what became of them.

        Raises:
            UserError: the search cannot begin.
            SystemExit: 2 when a trial's values were refused, 1 when one crashed.
        """
        if OmegaConf.select(self.master, "estimate"):
            raise UserError(
                "estimate=true gives no accuracy to search by: leave hydra/sweeper=optuna out",
                key="estimate",
                value=True,
            )
        params = [f"{key}={value}" for key, value in (self.options.get("params") or {}).items()]
        try:
            overrides = OverridesParser.create().parse_overrides([*params, *arguments])
        except FAULTS as error:
            raise UserError(" ".join(str(error).split())[:300], key="hydra.sweeper.params") from error
        check_space(overrides, self.options)
        fixed = {each.get_key_element().lstrip("+~") for each in overrides if not each.is_sweep_override()}
        assert self.sweeper.launcher is not None, "setup() comes first"
        trials = Trials(self.sweeper, self.sweeper.launcher, self.context, self.master, frozenset(fixed))
        self.sweeper.launcher = trials  # type: ignore[assignment]  # it has what Optuna's sweeper calls
        quiet()
        try:
            self.sweeper.sweep(arguments)
        except Exception as error:
            if not trials.begun:  # by the values under hydra.sweeper, or a storage that cannot be opened
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                raise UserError(
                    f"hydra/sweeper=optuna: Optuna refuses the search ({type(error).__name__}: {reason}): correct the"
                    " ranges or the values under hydra.sweeper",
                    key="hydra/sweeper",
                    value="optuna",
                ) from error
            if not trials.stopped_by(error):
                raise
        finally:
            if trials.begun:
                report(trials, list(self.master.hydra.overrides.task))
        if code := exit_code(trial.outcome for trial in trials.done):
            sys.exit(code)


def quiet() -> None:
    """Drop what Optuna and its sweeper log: the trials are told here."""
    import optuna

    optuna.logging.disable_default_handler()
    logging.getLogger("hydra_plugins.hydra_optuna_sweeper").setLevel(logging.CRITICAL)
    # The sweeper is written for an older form of Optuna's distributions.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(optuna|hydra_plugins)\b")
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
