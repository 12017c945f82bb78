"""Lightning's trainer with its loggers and callbacks for one phase."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.profilers import PassThroughProfiler

from ssat.config.check import PRECISIONS
from ssat.config.schema import Phase, Run
from ssat.core.standing import standing_file
from ssat.runs.machine import log_every, runs_on_cpu
from ssat.training.callbacks.averaging import MovingAverage
from ssat.training.callbacks.checkpoints import AGREE_EVERY, Checkpoints
from ssat.training.callbacks.chosen import build_chosen
from ssat.training.callbacks.history import History
from ssat.training.callbacks.meter import Meter
from ssat.training.callbacks.pictures import Reconstructions, parts_with_pictures
from ssat.training.callbacks.progress import ProgressBar, ProgressFile, ProgressLines
from ssat.training.callbacks.safety import FiniteGuard, Stamp
from ssat.training.checkpoint_io import AtomicCheckpointIO
from ssat.training.data import AnyData
from ssat.training.ddp import strategy_of
from ssat.training.earlier import checkpoints_kept
from ssat.training.loss_scale import scaled_precision
from ssat.training.module import JointModule
from ssat.training.plain_step import PlainOptimization
from ssat.training.probe import PROBES, ProbeMonitor
from ssat.training.remarks import evaluated_every
from ssat.training.spectrum import RankMonitor
from ssat.training.stop import Stop


def progress_style(config: Run) -> str:
    """`bar`, `lines` or `off`."""
    style = config.trainer.progress
    if style == "auto":
        return "bar" if os.isatty(1) and os.environ.get("TTY_COMPATIBLE") != "0" else "lines"
    return style


def build_callbacks(
    config: Run,
    phase: Phase,
    folder: Path,
    data: AnyData,
    module: JointModule,
    history: History,
    meter: Meter,
    inputs: dict[str, Any],
    stop: Stop,
    *,
    back: int = 0,
    rollbacks: Sequence[Mapping[str, Any]] = (),
) -> list[Callback]:
    """History first: the others read its rows; checkpoints last: they save what the others hold.

    `back`: how many checkpoints before the last one the training goes on from; `rollbacks`: of the phase so far.
    """
    label = f"{config.mode.name}/{phase.name}"
    callbacks: list[Callback] = [
        history,
        FiniteGuard(folder, every=guarded_every(config), rollbacks=rollbacks),
        meter,
        Stamp(config.values, inputs, drop_last=data.drop_last, phase=phase.name, mean=data.mean, std=data.std),
    ]
    style = progress_style(config)
    if style == "bar":
        callbacks.append(ProgressBar(history, label))
    if style != "off":
        callbacks.append(ProgressLines(history, label, data.decides))  # they stay where the bar vanishes
        if file := standing_file():
            callbacks.append(ProgressFile(file, history, config.mode.phases, phase, data.decides))
    if phase.lam < 1 and config.reconstruct_every and any(parts_with_pictures(module.ssl)):
        callbacks.append(
            Reconstructions(
                folder / "reconstructions",
                data.fixed_batch(8),
                list(data.mean),
                list(data.std),
                config.reconstruct_every,
            )
        )
    for name in PROBES:
        if getattr(config.monitor, f"{name}_every"):
            callbacks.append(ProbeMonitor(name, getattr(config.monitor, f"{name}_every"), data))
    if config.monitor.rank_every:
        callbacks.append(RankMonitor(config.monitor.rank_every, folder, data))
    if phase.recipe.ema_decay:
        callbacks.append(MovingAverage(phase.recipe.ema_decay))
    monitor = f"{data.eval_split}/{data.decides}" if phase.lam > 0 else None
    callbacks += build_chosen(config, monitor)
    callbacks.append(
        Checkpoints(
            folder / "checkpoints",
            history,
            stop,
            seconds=config.checkpoint_minutes * 60,
            monitor=monitor,
            whole=bool(phase.recipe.ema_decay),  # only that holds the averaged weights, those that were evaluated
            keep=checkpoints_kept(config),
            back=back,
        )
    )
    return callbacks


def guarded_every(config: Run) -> int:
    """Steps between two looks at the losses: on a CPU they cost nothing, unless processes wait for one another."""
    if not runs_on_cpu(config):
        return log_every(config)
    return 1 if config.trainer.processes == 1 else AGREE_EVERY


def quiet() -> None:
    """Keep Lightning's warnings, drop its greetings; ours say the same in fewer words."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*module\\(s\\) in eval mode at the start of training.*")  # teachers
    warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint.*")  # of other versions


class Unprofiled(PassThroughProfiler):
    """Measures nothing, at a tenth of the cost: Lightning enters a profile for every hook of every callback."""

    def profile(self, action_name: str) -> Any:
        """A block that nothing is done around."""
        return _NOTHING


_NOTHING = nullcontext()


def _batch_and_index(kwargs: dict[str, Any], batch: Any, batch_idx: int) -> Any:
    """What `training_step` takes; Lightning reads its signature anew at every step."""
    return kwargs | {"batch": batch, "batch_idx": batch_idx}


def build_trainer(
    config: Run, phase: Phase, folder: Path, loggers: list[Any], callbacks: list[Callback], data: AnyData
) -> pl.Trainer:
    """Lightning's trainer for one phase on `data`, which are set up."""
    t = config.trainer
    scaled = [scaled_precision("cuda" if torch.cuda.is_available() else "mps")] if t.precision == "16" else []
    trainer = pl.Trainer(
        accelerator=t.accelerator,
        devices=t.devices,
        num_nodes=t.num_nodes,
        strategy=strategy_of(t),
        precision=None if scaled else PRECISIONS[t.precision],  # type: ignore[arg-type]
        max_epochs=phase.epochs,
        max_steps=t.max_steps or -1,
        accumulate_grad_batches=t.accumulate,
        gradient_clip_val=phase.recipe.clip_grad,
        check_val_every_n_epoch=evaluated_every(config, phase, data),
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        logger=loggers,
        profiler=Unprofiled(),
        callbacks=callbacks,
        enable_progress_bar=progress_style(config) == "bar",
        enable_model_summary=False,
        plugins=[AtomicCheckpointIO(checkpoints_kept(config)), *scaled],
        use_distributed_sampler=False,
        deterministic=t.deterministic,
        default_root_dir=str(folder),
    )
    # Its handler of SIGTERM makes the ranks exchange a word from the midst of any other exchange, which locks them up.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    # Without it nothing is to be told at each step, for which the host would wait on every rank.
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._build_kwargs = _batch_and_index  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop.automatic_optimization = PlainOptimization(trainer)
    return trainer
