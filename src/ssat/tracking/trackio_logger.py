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
        self._options: dict[str, Any] = {
            "project": config.logger.project,
            "name": kept_id(folder / "trackio_id", f"{folder.parent.name}-{phase.name}-{secrets.token_hex(2)}"),
            "group": config.experiment,
            "config": dict(about),
        }
        self._run: Any = None
        self._opened()

    def _opened(self) -> Any:
        """The run, which goes on after it was finished: a later evaluation and the record's figures are logged then."""
        import trackio

        if self._run is None:
            with redirect_stdout(io.StringIO()):  # its greetings
                self._run = trackio.init(
                    **self._options, resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False
                )
        return self._run

    @property
    def name(self) -> str:
        """The kind."""
        return "trackio"

    @property
    def version(self) -> str:
        """The run's name."""
        return str(self._options["name"])

    @property
    def experiment(self) -> Any:
        """The trackio run."""
        return self._opened()

    def log_hyperparams(self, *values: Any, **options: Any) -> None:
        """The configuration is handed over at the start."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log one row; `step` is the number of optimizer steps."""
        self._opened().log(dict(metrics), step=step)

    def log_final(self, values: dict[str, Any]) -> None:
        """One more row, with texts too."""
        self.log_metrics(values, values.get("result/steps"))
        self.finalize("success")

    def finalize(self, status: str) -> None:
        """Write what is waiting, and close."""
        import trackio

        if self._run is None:
            return
        self._run = None
        with redirect_stdout(io.StringIO()):
            trackio.finish()  # and not the run's own, which is finished again, with a line, when Python ends
