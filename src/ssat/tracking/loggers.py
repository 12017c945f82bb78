"""The loggers of a phase: the CSV file always, and beside it what `logger=` names."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import loggers
from lightning.pytorch.utilities import rank_zero_only

from ssat.config.create import create
from ssat.config.identity import config_hash
from ssat.config.loggers import Tracker, check_logger, trackers
from ssat.config.schema import Phase, Run
from ssat.core.launch import is_main_process
from ssat.tracking.final import final_figures, log_final, numbers, texts
from ssat.tracking.guarded import Guarded, kept_id
from ssat.tracking.names import columns

_waiting: list[tuple[Any, Path]] = []  # of this process: loggers of a phase's folder that have no final figures yet


def build_loggers(config: Run, phase: Phase, folder: Path) -> list[Any]:
    """The CSV file always, and what is asked for beside it; those of the phase before are closed.

    Raises:
        UserError: one of them is not installed.
    """
    check_logger(config.logger)
    close_loggers()
    further = [_build(each, config, phase, folder) for each in trackers(config.logger)]
    _waiting.extend((each, folder) for each in further)
    return [loggers.CSVLogger(str(folder), name="csv"), *further]


def close_loggers() -> None:
    """Give what is open in this process the final figures of its phase or run, whose record is written by now."""
    while _waiting:
        logger, folder = _waiting.pop(0)
        log_final(logger, final_figures(folder.parent, folder) if is_main_process() else {})


def _build(each: Tracker, config: Run, phase: Phase, folder: Path) -> Any:
    if each.kind == "tensorboard":
        return TensorBoardLogger(str(folder), name="tensorboard")
    if each.kind == "wandb":
        from ssat.tracking.logger import WandbLogger
        from ssat.tracking.start import run_id

        return WandbLogger(config, phase, folder, run_id(folder, config_hash(config)))
    make: Callable[[], Any]
    if each.kind in ("mlflow", "trackio"):
        opener = open_mlflow if each.kind == "mlflow" else open_trackio

        def make() -> Any:
            return opener(config, phase, folder)
    else:

        def make() -> Any:
            return create({}, each.kind, each.options, f"logger.{each.kind}", of=loggers.Logger)

    return Guarded(each.kind, make)


def described(config: Run, phase: Phase, folder: Path) -> dict[str, Any]:
    """What a tracker says of a run: the flat columns in which runs differ, and its folder."""
    return columns(config, phase) | {"seed": config.seed, "run_folder": str(folder.parent)}


class TensorBoardLogger(loggers.TensorBoardLogger):
    """Lightning's, with the final figures."""

    @rank_zero_only
    def log_final(self, values: dict[str, Any]) -> None:
        """Numbers as points, the rest as text."""
        if not values:
            return
        step = values.get("result/steps")
        self.log_metrics(numbers(values), step)
        for name, text in texts(values).items():
            self.experiment.add_text(name, text, step)
        self.finalize("success")


class MlflowLogger(loggers.MLFlowLogger):
    """Lightning's, without the metric `epoch`: in its file store `epoch/train/loss` lies in a folder of that name."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log one row; `step` is the number of optimizer steps."""
        super().log_metrics({name: value for name, value in metrics.items() if name != "epoch"}, step)

    def log_final(self, values: dict[str, Any]) -> None:
        """Numbers as metrics, the rest as tags."""
        self.log_metrics(numbers(values), values.get("result/steps"))
        for name, text in texts(values).items():
            self.experiment.set_tag(self.run_id, name, text)


def open_mlflow(config: Run, phase: Phase, folder: Path) -> Any:
    """Lightning's MLflow logger: a file store below `runs_dir`, unless MLFLOW_TRACKING_URI names a server."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # a server that is away holds up no training
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    logging.getLogger("lightning.pytorch.loggers.mlflow").setLevel(logging.ERROR)  # it warns of the first run of all
    path = folder / "mlflow_id"
    known = path.read_text().strip() if path.is_file() else None
    store = (Path(config.runs_dir) / ".mlflow").absolute()
    logger = MlflowLogger(
        experiment_name=config.experiment or config.logger.project,
        run_name=f"{config.name}-{phase.name}",
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or store.as_uri(),
        tags={"project": config.logger.project, "mode": config.mode.name, "phase": phase.name},
        run_id=known,
    )
    if known is None:
        logger.log_hyperparams(described(config, phase, folder))
        kept_id(path, str(logger.run_id))
    return logger


def open_trackio(config: Run, phase: Phase, folder: Path) -> Any:
    """A trackio run, in a database below `runs_dir` unless trackio's own variables name another place."""
    from ssat.tracking.trackio_logger import TrackioLogger

    return TrackioLogger(config, phase, folder, described(config, phase, folder))
