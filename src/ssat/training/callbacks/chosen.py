"""The callbacks that a user has chosen (`ssat.config.callbacks`), built for one phase."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch import callbacks

from ssat.config import callbacks as named
from ssat.config import create as creation
from ssat.config.create import checked_options, create, load
from ssat.config.schema import Run
from ssat.core.errors import OwnCodeError, UserError, lacks_deterministic, refused_memory


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's, which also stays stopped where a killed run is continued after its last epoch.

    Args:
        monitor: such as val/acc1; higher is better.
        options: of the user.
    """

    def __init__(self, monitor: str, options: named.EarlyStopping) -> None:
        super().__init__(
            monitor,
            mode="max",
            patience=options.patience,
            min_delta=options.min_delta,
            stopping_threshold=options.threshold,
            check_on_train_epoch_end=False,  # after every evaluation, which need not be every epoch
        )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop at once what had stopped before its record was written."""
        trainer.should_stop |= self.stopping_reason_message is not None


def check_own(config: Run) -> None:
    """Load the user's own callbacks, which runs their code, and compare their arguments.

    Raises:
        UserError: a class does not exist, is no callback of Lightning, or does not take its options.
    """
    for each in named.chosen(config.callbacks):
        if ":" in each.kind:
            checked_options({}, each.kind, each.options, f"callbacks.{each.kind}", of=pl.Callback)
            next(build(each, None))


def build_chosen(config: Run, monitor: str | None) -> list[pl.Callback]:
    """The callbacks of a phase.

    Args:
        config: of the run.
        monitor: the number that chooses the best epoch, such as val/acc1; None = the phase learns no labels, and is
            not stopped early.

    Raises:
        UserError: one of the user's own cannot be built.
    """
    return [built for each in named.chosen(config.callbacks) for built in build(each, monitor)]


def build(each: named.Chosen, monitor: str | None) -> Iterator[pl.Callback]:
    """One callback, or none."""
    o: Any = each.options
    if each.kind == "early_stopping":
        if monitor is not None:
            yield EarlyStopping(monitor, o)
    elif each.kind == "lr_monitor":
        yield callbacks.LearningRateMonitor(logging_interval=o.interval, log_weight_decay=o.weight_decay)
    elif each.kind == "device_stats":
        yield callbacks.DeviceStatsMonitor(cpu_stats=o.cpu_stats or None)
    elif each.kind == "model_summary":
        yield callbacks.RichModelSummary(max_depth=o.max_depth)
    else:
        try:
            yield create({}, each.kind, o, f"callbacks.{each.kind}", of=pl.Callback)
        except UserError:
            raise
        except Exception as error:
            frames = [
                frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != creation.__file__
            ]
            raise _own_error(error, each.kind, "__init__", frames[1:], "correct it") from error


@contextmanager
def naming_callbacks(config: Run, callbacks: Sequence[pl.Callback], cure: Callable[[], str]) -> Iterator[None]:
    """Turns what a callback of the user's own raises into a sentence that names it and its hook.

    Args:
        config: of the run.
        callbacks: of the trainer.
        cure: what can be done then.

    Raises:
        OwnCodeError: with the lines of the user's own code.
    """
    kinds = {load({}, each.kind, "callbacks"): each.kind for each in named.chosen(config.callbacks) if ":" in each.kind}
    own = {id(each): kinds[type(each)] for each in callbacks if type(each) in kinds}
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if refused_memory(error) is not None or lacks_deterministic(error):  # of the machine, whoever asks for it
            raise
        frames = traceback.extract_tb(error.__traceback__)
        for place, (frame, _) in enumerate(traceback.walk_tb(error.__traceback__)):
            if kind := own.get(id(frame.f_locals.get("self"))):
                raise _own_error(error, kind, frame.f_code.co_name, frames[place:], cure()) from error
        raise


def _own_error(
    error: Exception, kind: str, hook: str, frames: Sequence[traceback.FrameSummary], cure: str
) -> OwnCodeError:
    shown = [frame for frame in frames if "site-packages" not in frame.filename] or [*frames]
    lines = "".join([*traceback.format_list(shown), *traceback.format_exception_only(error)]).rstrip()
    what = traceback.format_exception_only(error)[-1].split("\n")[0]
    where = f" ({Path(shown[-1].filename).name}, line {shown[-1].lineno})" if shown else ""
    return OwnCodeError(f"the callback {kind} has raised {what} in {hook}{where}: {cure}", lines)


def stopped_early(trainer: pl.Trainer, epochs: int) -> dict[str, Any] | None:
    """Where a phase of `epochs` epochs was stopped by a callback, and why; None where it was not.

    Returns:
        epoch: the last one, from 0; planned: epochs; monitor, best, reason: of early stopping, null for others.
    """
    if trainer.current_epoch >= epochs or 0 <= trainer.max_steps <= trainer.global_step:
        return None
    for each in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(each, callbacks.EarlyStopping) and each.stopping_reason_message:
            reason = each.stopping_reason_message.removesuffix(" Signaling Trainer to stop.")
            found = {"monitor": each.monitor, "best": float(each.best_score), "reason": reason}
            break
    else:
        found = {"monitor": None, "best": None, "reason": "a callback asked to stop"}
    return {"epoch": trainer.current_epoch - 1, "planned": epochs} | found
