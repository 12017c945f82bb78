"""The keys that say where a run is computed, how it is watched and where a sweep's runs go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ssat.config.fields import key


@dataclass(frozen=True)
class Trainer:
    """Where and how it is computed."""

    accelerator: Literal["auto", "cpu", "gpu", "mps"] = key(
        "auto", "where it is computed; auto = the GPU if there is one", identity=False
    )
    devices: int = key(1, "processes per node; a step's batch is batch_size x devices x num_nodes x accumulate", low=1)
    num_nodes: int = key(1, low=1)
    precision: Literal["32", "bf16", "16"] = key(
        "32", "bf16 = faster on a GPU, and on a CPU with instructions for it | 16 = float16, on a GPU"
    )
    accumulate: int = key(1, "batches per optimizer step", low=1)
    grad_dtype: Literal["32", "bf16"] = key(
        "32", "in which several processes exchange gradients; bf16 sends half the bytes and rounds the gradients"
    )
    compile: bool = key(
        False, "torch.compile forward and losses of a training step; pays off on a GPU and on long runs"
    )
    cuda_graph: bool = key(
        False, "replay forward, backward and optimizer of a step as one CUDA graph; pays off where steps are small"
    )
    channels_last: bool = key(
        False, "lay images out pixel by pixel for 2-D convolutions; pays off on ResNets (docs/recipes.md)"
    )
    deterministic: bool = key(False, "bit-reproducible on a GPU too, slower")
    threads: int | None = key(None, "CPU threads; null = PyTorch's choice", low=1, identity=False)
    log_every: int | None = key(
        None, "steps between two logged values; null = 5 on a CPU, 50 on a GPU", low=1, identity=False
    )
    progress: Literal["auto", "bar", "lines", "off"] = key(
        "auto", "auto = a bar on a terminal, a line per epoch elsewhere", identity=False
    )
    max_steps: int | None = key(
        None, "stop after so many optimizer steps (for tests; the schedule stays that of `epochs`)", low=1
    )

    @property
    def processes(self) -> int:
        """Training processes on all nodes; each sees a batch of its own."""
        return self.devices * self.num_nodes


@dataclass(frozen=True)
class Monitor:
    """What is measured beside the training; it changes nothing in it."""

    knn_every: int = key(0, "epochs between two k-NN accuracies of the features, at evaluations; 0 = none", low=0)
    linear_every: int = key(0, "the same with a logistic regression on the features", low=0)
    rank_every: int = key(
        0,
        "epochs between two effective ranks (RankMe) of the features, with their spectrum as a file and an alarm where"
        " they collapse, at evaluations; 0 = none",
        low=0,
    )
    conflict_every: int = key(
        0,
        "steps between two cosines of the losses' gradients on each block; 0 = none; one costs a backward pass",
        low=0,
    )
    select: (
        Literal["acc1", "balanced_acc", "macro_f1", "auroc", "map", "micro_f1", "exact_match", "hamming_acc"] | None
    ) = key(
        None,
        "images: best.ckpt is the epoch with the highest of these; null = acc1 (of videos AUC or balanced accuracy; of"
        " data.labels map); of data.labels map, auroc, macro_f1, micro_f1, exact_match and hamming_acc",
    )
    pictures: bool = key(
        True, "images: draw confusion matrix, reliability diagram and the worst mistakes at the end", identity=False
    )


@dataclass(frozen=True)
class Footprint:
    """Energy and CO2."""

    energy: bool = key(True, "codecarbon's offline tracker")
    country: str = key("USA", "ISO 3166 alpha-3 code whose grid the CO2 is computed for")
    tdp_watts: float | None = key(
        None, "power per device for Lacoste's formula; null = what the machine reports", above=0
    )
    intensity: float = key(0.432, "kg CO2 per kWh there; reproduces Table 3 with 230 W (RTX A5000)", low=0)


@dataclass(frozen=True)
class Logger:
    """Beside the CSV file, which is always written."""

    name: Literal["csv", "tensorboard", "wandb", "mlflow", "trackio"] = key("csv")
    also: tuple[Any, ...] = key((), "further ones: logger=[wandb,tensorboard] sets both keys (docs/lightning.md)")
    project: str = key("ssat", "of W&B, MLflow and trackio")
    entity: str | None = key(None, "your user or team; null = the account's default")
    tags: tuple[str, ...] = key((), "beside encoder, data, mode and SSL task")
    notes: str | None = key(None, "null = one line of what the run is")
    init_timeout: float = key(10, "seconds to reach the service at the start; then the run goes on offline", above=0)
    finish_timeout: float = key(60, "seconds to wait for the upload at the end of a phase", above=0)


@dataclass(frozen=True)
class Launcher:
    """Where a sweep's runs go."""

    # joblib: in configurations of the time before it was called processes
    name: Literal["local", "processes", "packed", "joblib", "slurm"] = key(
        "local", "one by one | several at once | several on each device | as processes | SLURM jobs"
    )
    jobs: int = key(2, "of launcher=processes: runs at the same time", low=1)
    per_device: int | None = key(
        None, "of launcher=packed: runs that share a GPU, or the CPU; null = 2 on a GPU, on a CPU as cores allow", low=1
    )
    threads: int | None = key(None, "CPU threads of one run; null = the cores shared out", low=1)
    executor: Literal["slurm", "local"] = key("slurm", "local: the same on this machine, to try it")
    partition: str | None = key(None, "null = the cluster's default")
    account: str | None = key(None)
    timeout_min: int = key(
        1440, "minutes of one SLURM job; before its end the run saves and goes on in a new one", low=1
    )
    requeue: int = key(10, "so many times", low=0)
    gpus: int | None = key(None, "null = trainer.devices; none on a CPU", low=0)
    cpus: int = key(8, "for the loader too", low=1)
    memory_gb: float = key(32, above=0)
    parallel: int = key(64, "jobs of one array that run at the same time", low=1)
    setup: tuple[str, ...] = key((), 'shell lines before it, e.g. ["module load cuda"]')
    sbatch: Mapping[str, Any] = key({}, "any other option of sbatch: +launcher.sbatch.qos=long")
