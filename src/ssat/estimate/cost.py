"""What one phase costs on this machine, from its real fit, cut short."""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from ssat.config.schema import Logger, Phase, Run
from ssat.core.errors import enough_memory
from ssat.core.launch import is_main_process
from ssat.data.memory import CPU_PIXELS, GPU_PIXELS
from ssat.data.video.module import VideoDataModule
from ssat.estimate.calibration import WINDOW_SECONDS, Calibration
from ssat.runs.machine import peak_memory_bytes, runs_on_cpu
from ssat.runs.record import write_record
from ssat.tracking.loggers import build_loggers
from ssat.training.build import build_module
from ssat.training.callbacks.history import History
from ssat.training.callbacks.meter import Meter
from ssat.training.data import AnyData, build_data
from ssat.training.fit import build_callbacks, build_trainer, quiet
from ssat.training.stop import Stop

EVAL_BATCHES = {True: 8, False: 64}  # at most, on a CPU and elsewhere
ENDLESS = 10**6  # epochs: the calibration ends the fit, not the schedule
MERGED = 20  # steps; what comes round at least so often is part of the timed batches


@dataclass(frozen=True)
class Cost:
    """Seconds, watts and bytes of the parts of a fit.

    Attributes:
        once: beside all that follows: codecarbon's start, images into memory, the first steps, compilation.
        batch: one training batch of every process, with its loading and its share of an optimizer step.
        epoch: an epoch beside its batches and its evaluation: the loader's start, checkpoints, logging.
        evaluation, eval_batch: an evaluation takes `evaluation` + its batches * `eval_batch`.
        checkpoint, picture: writing one; 0 where the task draws no pictures.
        end: from the last epoch to the end of the fit.
        watts: mean power in the timed batches as codecarbon has it; None without it.
        kg_per_kwh: its CO2.
        source: where `watts` comes from.
        data_wait: share of the training time that waited for data.
        cpu_share: CPU seconds of a process per second and thread; below 1 it waits, or others use the processor.
        peak_memory: bytes, as in a record.
        last_bytes, best_bytes, picture_bytes, csv_bytes: of a file, and of one line of the CSV file.
        timed: batches.
        seconds: that the calibration took in all.
    """

    once: float
    batch: float
    epoch: float
    evaluation: float
    eval_batch: float
    checkpoint: float
    picture: float
    end: float
    watts: float | None
    kg_per_kwh: float
    source: str | None
    data_wait: float
    cpu_share: float
    peak_memory: int
    last_bytes: int
    best_bytes: int
    picture_bytes: int
    csv_bytes: float
    timed: int
    seconds: float


def shortened(config: Run, index: int) -> tuple[Run, Phase]:
    """Configuration and phase of a calibration: nothing is shown or uploaded, and the schedule does not end."""
    phase = replace(config.mode.phases[index], epochs=ENDLESS)
    short = replace(
        config,
        logger=Logger(),
        callbacks=(),
        trainer=replace(config.trainer, progress="off", max_steps=None),
        monitor=replace(config.monitor, knn_every=0, linear_every=0, rank_every=0),
        reconstruct_every=ENDLESS if config.reconstruct_every else 0,
        eval_every=1,
    )
    return short, phase


def gradient_period(config: Run, phase: Phase) -> int:
    """Steps between two measurements of the losses' gradients; 0 = none."""
    balanced = phase.balance_every if phase.lam_schedule == "balanced" else 0
    found = [every for every in (balanced, config.monitor.conflict_every) if every and 0 < phase.lam < 1]
    return min(found, default=0)


def prepared_together(config: Run, data: AnyData) -> int:
    """Batches that the loader makes in one call, see `Prepare.together`."""
    if isinstance(data, VideoDataModule) or data.pipeline != "batched":
        return 1
    return max(1, (CPU_PIXELS if runs_on_cpu(config) else GPU_PIXELS) // (data.batch_size * data.img_size**2))


def calibrate_phase(config: Run, index: int, folder: Path, window: float = WINDOW_SECONDS) -> Cost:
    """The real fit of a phase with its data, loader, checkpoints and CSV file in `folder`, over when it is timed."""
    begun, epochs = time.perf_counter(), config.mode.phases[index].epochs
    config, phase = shortened(config, index)
    data = build_data(config, phase)
    data.setup()
    module = build_module(config, phase, data.num_classes)  # random weights: others cost the same
    module.eval_split = data.eval_split
    footprint = config.footprint
    history, meter = History(), Meter(footprint.country if footprint.energy else None)
    together, every = prepared_together(config, data), gradient_period(config, phase)
    period = math.lcm(together, config.trainer.accumulate, every if 0 < every <= MERGED else 1)
    calibration = Calibration(meter, folder, together=together, period=period, epochs=epochs, window=window)
    callbacks = [calibration, *build_callbacks(config, phase, folder, data, module, history, meter, {}, Stop())]
    loggers = build_loggers(config, phase, folder)
    trainer = build_trainer(config, phase, folder, loggers, callbacks, data)
    trainer.limit_val_batches = max(EVAL_BATCHES[runs_on_cpu(config)], 2 * together)
    trainer.fit(module, datamodule=data)
    files = {path.stem: path.stat().st_size for path in (folder / "checkpoints").glob("*.ckpt")}
    lines = [path.read_bytes() for path in folder.glob("csv/*/metrics.csv")]
    return Cost(
        **calibration.parts(),
        **calibration.power(),
        data_wait=sum(row["throughput/data_wait"] for row in history.rows[1:]) / len(history.rows[1:]),
        cpu_share=calibration.cpu_share / torch.get_num_threads(),
        peak_memory=peak_memory_bytes(),
        last_bytes=calibration.last_bytes,
        best_bytes=files.get("best", 0),
        picture_bytes=calibration.picture_bytes,
        csv_bytes=sum(map(len, lines)) / max(1, sum(text.count(b"\n") for text in lines)),
        timed=sum(lap.timed[1] for lap in calibration.laps[1:]),
        seconds=time.perf_counter() - begun,
    )


def calibrate(config: Run, index: int, folder: Path, window: float | None = None) -> None:
    """Time phase `index` in this process, together with the run's other ones, and write `folder`/cost.json.

    `window`: seconds of timed batches; None = `WINDOW_SECONDS`.

    Raises:
        UserError: what the run itself would raise, or it does not fit into the device's memory.
    """
    quiet()
    t = config.trainer
    if t.threads or t.devices > 1:  # as in run_phases
        torch.set_num_threads(t.threads or max(1, (os.cpu_count() or 1) // t.devices))
    forget_peak_memory()
    with enough_memory(config.name):
        cost = calibrate_phase(config, index, folder, window or WINDOW_SECONDS)
    if is_main_process():
        write_record(folder, asdict(cost), name="cost.json")


def forget_peak_memory() -> None:
    """Start the peaks of this process anew, where the system can."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak that getrusage reports
