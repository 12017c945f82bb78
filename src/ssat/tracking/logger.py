"""Weights & Biases beside a training: it is told everything and can neither stop nor hold up a run.

One W&B run per phase of a run: group = experiment, job type = phase. The run that ends with the result carries the tag
`result` and the figures of the record as `result/...` in its summary. Whatever goes wrong with W&B is one line on
stderr; what was logged lies below `<run folder>/wandb` and is uploaded later with `wandb sync`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from html import escape
from pathlib import Path
from typing import Any

from lightning.pytorch import loggers

from ssat.config.schema import Phase, Run
from ssat.tracking.names import AXES, STEP
from ssat.tracking.service import end_service
from ssat.tracking.start import open_run, warn

GRACE = 5  # seconds beyond logger.finish_timeout after which W&B's own process is given up
ROWS_PER_STEP = 10  # more than a training logs
CAPTIONS = {"reconstructions": "original | masked | reconstructed"}


class WandbLogger(loggers.WandbLogger):
    """Lightning's W&B logger of one phase; only rank 0's records.

    A thread makes the calls of W&B one after another, so that training does not wait for them. After a success it stays
    open for the record, which is written later.
    """

    def __init__(self, config: Run, phase: Phase, folder: Path, run_id: str) -> None:
        self._run_dir = folder.parent
        self._finish_timeout = config.logger.finish_timeout
        self._epoch, self._has_rows = 0, False
        self._run_dir.mkdir(parents=True, exist_ok=True)
        self._lost: list[str] = []
        self._run = open_run(config, phase, self._run_dir, run_id, self._lost)
        super().__init__(project=config.logger.project, save_dir=self._run_dir, experiment=self._run)
        self._thread = ThreadPoolExecutor(1, "wandb")
        for metric, (axis, kept) in AXES.items():
            self._call(self._run.define_metric, metric, step_metric=axis, summary=kept, step_sync=False)
        self._is_open = True

    def _call(self, function: Callable[..., Any], *values: Any, **options: Any) -> Future[Any]:
        call = self._thread.submit(function, *values, **options)
        call.add_done_callback(self._check)
        return call

    def _check(self, call: Future[Any]) -> None:
        error = call.exception()
        if self._lost or error:
            self._warn(self._lost[0] if self._lost else str(error) or type(error).__name__)

    def _warn(self, problem: str) -> None:
        option = "" if self._run.offline else "--include-online "
        recording = Path(self._run.dir).parent
        warn(self._run_dir, problem, f"upload what is missing with: wandb sync {option}{recording}")

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log one row; `step` is the number of optimizer steps."""
        self._epoch = metrics.get("epoch", self._epoch)
        row = {**metrics, "epoch": self._epoch} | ({} if step is None else {STEP: step})
        # W&B counts rows: those of a run that is continued offline must not have the numbers of the earlier ones.
        number = None if self._has_rows else max(self._run.step, ROWS_PER_STEP * (step or 0))
        self._has_rows = True
        self._call(self._run.log, row, step=number, commit=True)

    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        """Log pictures, (H, W, 3) uint8 arrays or files."""
        captions = {"caption": [CAPTIONS[key]] * len(images)} if key in CAPTIONS else {}
        try:
            super().log_image(key, images, step, **captions, **kwargs)
        except Exception as error:
            self._warn(f"a picture was not logged ({error})")

    def finalize(self, status: str) -> None:
        """Close after a failure."""
        if status == "failed":
            self.log_final({})

    def log_final(self, values: dict[str, Any]) -> None:
        """Add the record's figures and end the W&B run within `logger.finish_timeout`; only the first call counts."""
        if not self._is_open:
            return
        self._is_open = False
        if values:
            self._call(log_result, self._run, values)
        end = self._call(self._run.finish, exit_code=0 if values else 1)
        if wait([end], self._finish_timeout + GRACE).not_done:
            self._warn("W&B does not answer any more")
            end_service()
        self._thread.shutdown()


def log_result(run: Any, values: dict[str, Any]) -> None:
    """Put `result/...` into the summary, for the table of runs, and a small table on the run's own page."""
    import wandb

    run.summary.update(values)
    texts = ((escape(name.removeprefix("result/")), escape(str(value))) for name, value in values.items())
    rows = "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in texts)
    run.log({"record": wandb.Html(f"<table>{rows}</table>")})  # a wandb.Table would ask the service and wait
