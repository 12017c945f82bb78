"""Weights & Biases beside a training: it is told everything and can neither stop nor hold up a run.

One W&B run per phase of a run: group = experiment, job type = phase. The run that ends with the result carries the tag
`result` and the figures of the record as `result/...` in its summary. Whatever goes wrong with W&B is one line on
stderr; what was logged lies below `<run folder>/wandb` and is uploaded later with `wandb sync`.
"""

from __future__ import annotations

import atexit
import json
import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger

from src.config import Config
from src.launch import is_main_process
from src.results.wandb_names import figures
from src.wandb_start import earlier_points, kill_service, start_run, warn

MOST_WAITING = 100_000  # calls not yet handed to W&B; more means that it hangs
GRACE = 15  # seconds beyond W&B's own timeouts, before its process is given up
STEP = "trainer/global_step"
AXES = {  # metrics as define_metric takes them: x axis and what the runs' table keeps of each
    "train/*": (STEP, "last"),
    "epoch/train/*": ("epoch", "last"),
    "epoch/train/loss*": ("epoch", "min,last"),
    "test/*": ("epoch", "last"),
    "val/*": ("epoch", "last"),
    "test/acc1": ("epoch", "max,last"),
    "val/acc1": ("epoch", "max,last"),
    "test/acc5": ("epoch", "max,last"),
    "val/acc5": ("epoch", "max,last"),
    "test/loss": ("epoch", "min,last"),
    "val/loss": ("epoch", "min,last"),
    "throughput/*": ("epoch", "mean,last"),
    "reconstructions": ("epoch", "none"),
}

_open: list[WandbLogger] = []  # of this process: closed by the next phase or run of a sweep, or at its end


class Courier:
    """Hands calls to W&B one after another in a thread of its own, so that training never waits for them."""

    def __init__(self, on_failure: Callable[[BaseException], None]) -> None:
        self._calls: queue.Queue[tuple[Callable[[], Any], bool] | None] = queue.Queue(MOST_WAITING)
        self._on_failure = on_failure
        self._broken = False
        self._thread = threading.Thread(target=self._work, name="wandb courier", daemon=True)
        self._thread.start()

    def send(self, call: Callable[[], Any], *, always: bool = False) -> None:
        """Queue `call`; once one has failed, all but those of `always` are dropped."""
        if self._broken and not always:
            return
        try:
            self._calls.put_nowait((call, always))
        except queue.Full:
            self._fail(TimeoutError("W&B takes no more data"))

    def close(self, seconds: float) -> bool:
        """Whether every call has ended in time."""
        with suppress(queue.Full):
            self._calls.put_nowait(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            call, always = item
            if self._broken and not always:
                continue
            try:
                call()
            except Exception as error:
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not self._broken:
            self._broken = True
            self._on_failure(error)


class WandbLogger(Logger):
    """Lightning's logger of one phase; every rank has one, only rank 0's does anything.

    `finalize` closes it only after a failure: after a success it stays open for the record, which is written later.
    """

    def __init__(self, config: Config, phase: Config, folder: Path, run_id: str) -> None:
        super().__init__()
        self._config, self._phase, self._folder, self._id = config, phase, folder, run_id
        self._run: Any = None
        self._courier: Courier | None = None
        self._replayed = False
        self._epoch = 0
        if not is_main_process():
            return
        close_all()
        try:
            self._start()
        except Exception as error:  # neither online nor offline: the training goes on without W&B
            warn(self.run_dir, f"W&B does not start ({error})", "the CSV file has every value")

    @property
    def run_dir(self) -> Path:
        return self._folder.parent

    @property
    def name(self) -> str:
        return self._config["logger"]["project"]

    @property
    def version(self) -> str:
        return self._id

    @property
    def save_dir(self) -> str:
        return str(self.run_dir)

    def _start(self) -> None:
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._run = start_run(self._config, self._phase, self.run_dir, self._id, self._upload_failed)
        self._courier = Courier(lambda error: self._upload_failed(str(error) or type(error).__name__))
        for metric, (axis, summary) in AXES.items():
            self._define(metric, axis, summary)
        _open.append(self)
        atexit.register(close_all)  # after wandb's own hook, hence before it

    def _define(self, metric: str, axis: str, summary: str) -> None:
        run = self._run
        self._send(lambda: run.define_metric(metric, step_metric=axis, summary=summary, step_sync=False))

    def _send(self, call: Callable[[], Any], *, always: bool = False) -> None:
        if self._courier:
            self._courier.send(call, always=always)

    def _upload_failed(self, why: str) -> None:
        found = sorted((self.run_dir / "wandb").glob(f"*run-*-{self._id}"), key=lambda path: path.stat().st_mtime)
        folder = found[-1] if found else self.run_dir / "wandb"
        option = "--include-online " if folder.name.startswith("run-") else ""
        warn(self.run_dir, why, f"upload what is missing with: wandb sync {option}{folder}")

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the whole configuration is there from the start."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Queue one row; `step` is the number of optimizer steps."""
        if not self._courier:
            return
        if not self._replayed and step is not None:
            self._replayed = True
            self._replay(step)
        self._epoch = int(metrics.get("epoch", self._epoch))
        row = dict(metrics) | ({} if step is None else {STEP: step})
        run = self._run
        self._send(lambda: run.log(row))

    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        """Queue pictures, (H, W, 3) uint8 arrays or files; they are read before this returns."""
        if not self._courier:
            return
        import wandb

        try:
            pictures = [wandb.Image(image, caption="original | masked | reconstructed") for image in images]
        except Exception as error:
            return self._upload_failed(f"a picture was not logged ({error})")
        self.log_metrics({key: pictures, "epoch": kwargs.get("epoch", self._epoch)}, step)

    def _replay(self, step: int) -> None:
        """What an interrupted run had logged before `step`, unless the service still has it.

        Two offline files of one run would overwrite each other when they are uploaded, so the newest one has it all.
        """
        if self._run.resumed:
            return
        for row in earlier_points(self._folder / "csv", before=step):
            self.log_metrics(row, int(row.pop("step")))
        if step > 1:
            for path in sorted((self._folder / "reconstructions").glob("epoch_*.png")):
                self.log_image("reconstructions", [str(path)], epoch=int(path.stem.removeprefix("epoch_")) - 1)

    def finalize(self, status: str) -> None:
        if status == "failed":
            self.close()

    def close(self) -> None:
        """Add the record's figures and end the W&B run within `logger.finish_timeout`; only the first call counts."""
        if not self._courier:
            return
        record = read_record(self.run_dir, self._folder)
        run, finished = self._run, bool(record)
        if record:
            values = figures(record)
            self._send(lambda: log_result(run, values))
        self._send(lambda: run.finish(exit_code=0 if finished else 1), always=True)
        if not self._courier.close(self._config["logger"]["finish_timeout"] + GRACE):
            self._upload_failed("W&B does not answer any more")
            kill_service()
        self._courier = None
        if self in _open:
            _open.remove(self)


def close_all() -> None:
    """Close what is open in this process."""
    for logger in list(_open):
        logger.close()


def read_record(run_dir: Path, folder: Path) -> dict[str, Any]:
    """The run's record once there is one, else the phase's; empty when the phase did not finish."""
    for path in (run_dir / "result.json", folder / "phase.json"):
        with suppress(OSError, ValueError):
            record = json.loads(path.read_text())
            if record.get("status", "finished") == "finished":
                return record
    return {}


def log_result(run: Any, values: dict[str, Any]) -> None:
    """`result/...` in the summary, for the table of runs, and a small table on the run's own page.

    The table is HTML: wandb.Table asks the service about artifacts and waits for the answer.
    """
    import wandb

    run.summary.update(values)
    rows = "".join(
        f"<tr><td>{escape(name.removeprefix('result/'))}</td><td>{escape(str(value))}</td></tr>"
        for name, value in values.items()
    )
    run.log({"record": wandb.Html(f"<table>{rows}</table>")})
