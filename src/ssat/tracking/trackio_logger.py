"""trackio as a logger of Lightning, which has none for it."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger

from ssat.config.schema import Phase, Run
from ssat.tracking.guarded import kept_id


class TrackioLogger(Logger):
    """One trackio run for one phase; a continued run goes on with it."""

    def __init__(self, config: Run, phase: Phase, folder: Path, about: Mapping[str, Any]) -> None:
        os.environ.setdefault("TRACKIO_DIR", str((Path(config.runs_dir) / ".trackio").absolute()))  # read at the import
        import trackio

        name = kept_id(folder / "trackio_id", f"{folder.parent.name}-{phase.name}-{secrets.token_hex(2)}")
        with redirect_stdout(io.StringIO()):  # its greetings
            self._run = trackio.init(
                project=config.logger.project,
                name=name,
                group=config.experiment,
                config=dict(about),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    @property
    def name(self) -> str:
        """The kind."""
        return "trackio"

    @property
    def version(self) -> str:
        """The run's name."""
        return str(self._run.name)

    @property
    def experiment(self) -> Any:
        """The trackio run."""
        return self._run

    def log_hyperparams(self, *values: Any, **options: Any) -> None:
        """The configuration is handed over at the start."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log one row; `step` is the number of optimizer steps."""
        self._run.log(dict(metrics), step=step)

    def finalize(self, status: str) -> None:
        """Write what is waiting, and close."""
        import trackio

        with redirect_stdout(io.StringIO()):
            trackio.finish()  # and not the run's own, which is finished again, with a line, when Python ends
