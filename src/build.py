"""From a resolved configuration to the objects of one phase."""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from timm.data.mixup import Mixup
from torch import Tensor, nn

from src.auxiliary import simclr
from src.auxiliary.base import SSLTask
from src.auxiliary.several import Several
from src.callbacks import (
    FiniteGuard,
    History,
    Meter,
    ProgressBar,
    ProgressLines,
    Reconstructions,
    SaveOnSignal,
    Stamp,
)
from src.config import PRECISIONS, Config
from src.data.image import ImageDataModule
from src.data.views import AGAIN, View, default_local_size, dino_views, simclr_views, weak_view
from src.encoders.base import Encoder
from src.errors import UserError
from src.launch import launched_externally
from src.module import JointModule, LamSchedule, Optimization
from src.probe import PROBES, ProbeMonitor
from src.weights import AtomicCheckpointIO, checkpoint_of, encoder_weights


def create(node: dict[str, Any], **kwargs: Any) -> Any:
    """The object a configuration node describes; a user's mistake comes out as it went in."""
    try:
        return instantiate(node, **kwargs)
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise


def _without_name(node: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key != "name"}


VIEWS = ("view_augment",)  # read by build_views
START_WEIGHTS = ("pretrained", "adapt_stem")  # read by phases.start_from


def build_encoder(config: Config, phase: Config) -> Encoder:
    """The encoder of the configuration, with what the phase's recipe decides filled in."""
    node = {key: value for key, value in _without_name(config["encoder"]).items() if key not in START_WEIGHTS}
    recipe = phase["recipe"]
    if node.get("drop_path", 0) is None:
        node["drop_path"] = recipe["drop_path"]
    if node.get("pos_embed", 0) is None:
        node["pos_embed"] = recipe["scratch_pos_embed"] if config["mode"]["name"] == "scratch" else "sincos"
        if config["encoder"].get("pretrained"):
            node["pos_embed"] = "learnable"  # published weights come with the table that they were trained with
    return create(node)


def ssl_nodes(config: Config) -> dict[str, dict[str, Any]]:
    """The configured SSL tasks by name: one, or those of ssl=[a,b]."""
    node = config["ssl"]
    return node["tasks"] if "tasks" in node else {node["name"]: node}


def build_ssl(config: Config, phase: Config, encoder: Encoder) -> SSLTask:
    """The SSL task, or tasks, of the configuration for `encoder`."""
    tasks = {name: build_task(config, phase, encoder, node) for name, node in ssl_nodes(config).items()}
    return Several(tasks, config["ssl"]["weights"]) if "tasks" in config["ssl"] else tasks[config["ssl"]["name"]]


def build_task(config: Config, phase: Config, encoder: Encoder, node: dict[str, Any]) -> SSLTask:
    """One SSL task for `encoder`; null values are the recipe's."""
    node = {key: value for key, value in _without_name(node).items() if key not in VIEWS}
    if phase["lam"] == 0 and node.get("share") in simclr.SHARES:
        node["share"] = "third"  # there is no classification image to share
    if "teacher" in node:
        if not node["teacher"]:
            raise UserError("ssl=guidance needs a teacher: ssl.teacher=<run of encoder=resnet_56, or its checkpoint>")
        return create(node, encoder=encoder, seed=config["seed"], teacher=partial(teacher_weights, node.pop("teacher")))
    recipe = phase["recipe"]
    if phase["lam"] == 0 and node.get("source") == "weak":
        node["source"] = "mixed"  # there is nothing to classify, so nothing to set it apart from
    if "local_size" in node:
        node["local_size"] = node["local_size"] or default_local_size(config["data"]["img_size"])
    decoder = recipe["decoder"]["default"] | recipe["decoder"].get(config["encoder"]["name"], {})
    defaults = {
        "norm_pix": recipe["norm_pix"],
        "decoder_dim": decoder["dim"],
        "decoder_depth": decoder["depth"],
        "decoder_heads": decoder["num_heads"],
    }
    node |= {key: value for key, value in defaults.items() if key in node and node[key] is None}
    return create(node, encoder=encoder, seed=config["seed"])


def teacher_weights(path: str) -> dict[str, Tensor]:
    """The encoder's tensors of a run folder or checkpoint."""
    return encoder_weights(checkpoint_of(Path(path), key="ssl.teacher"))


def build_views(config: Config, phase: Config) -> list[View | str]:
    """What the phase's SSL task needs beside the classification image, as its `share` says."""
    views: list[View | str] = []
    for node in ssl_nodes(config).values() if phase["lam"] < 1 else ():
        if node.get("source") == "weak" and phase["lam"] > 0:
            views.append(weak_view(config["data"]["img_size"]))
        if "share" not in node:
            continue
        size, made = config["data"]["img_size"], node["view_augment"]
        if made not in ("simclr", "dino", "same"):
            raise UserError(f"ssl.view_augment={made!r} is not one of simclr, dino, same")
        local_views = node.get("local_views", 0)
        wanted: list[View | str] = [AGAIN, AGAIN]
        if made == "simclr":
            wanted = list(simclr_views(size))
        elif made == "dino":
            wanted = list(dino_views(size, local_views, node["local_size"]))
        if made != "dino" and local_views:
            raise UserError(f"ssl.local_views={local_views} needs ssl.view_augment=dino")
        alone = phase["lam"] == 0 or node["share"] == "third"
        views += wanted if alone else wanted[1:]
    hflip = config["data"]["hflip"]
    if hflip is not None:  # a mirrored digit is another digit
        views = [view if isinstance(view, str) else replace(view, hflip=hflip) for view in views]
    return views


def build_head(encoder: Encoder, num_classes: int, init: str, *, norm: bool = False) -> nn.Module:
    """Linear classifier; `xavier` as the authors', `small` (std 2e-5) as MAE's fine-tuning.

    `norm`: batch norm without affine before it, as MAE's linear probing.
    """
    head = nn.Linear(encoder.num_features, num_classes)
    nn.init.xavier_uniform_(head.weight) if init == "xavier" else nn.init.trunc_normal_(head.weight, std=2e-5)
    nn.init.zeros_(head.bias)
    if norm:
        return nn.Sequential(nn.BatchNorm1d(encoder.num_features, affine=False, eps=1e-6), head)
    return head


def build_data(config: Config, phase: Config) -> ImageDataModule:
    """The data of the configuration under the phase's augmentation, batch size and statistics."""
    data, recipe = config["data"], phase["recipe"]
    statistics = data["statistics"][recipe["statistics"]]
    augment = recipe["augment"]
    if augment is not None and data["hflip"] is not None:
        augment = augment | {"hflip": data["hflip"]}
    channels = data["channels"]
    views = build_views(config, phase)
    return ImageDataModule(
        create(data["source"]),
        img_size=data["img_size"],
        channels=channels,
        mean=statistics["mean"][:channels],
        std=statistics["std"][:channels],
        augment=augment,
        eval_crop_pct=recipe["eval_crop_pct"],
        batch_size=recipe["batch_size"],
        num_workers=num_workers(config),
        val_fraction=data["val_fraction"],
        fraction=data["fraction"],
        label_fraction=data.get("label_fraction", 1.0) if phase["lam"] > 0 else 1.0,  # pre-training reads no label
        unlabelled="keep" if phase["lam"] < 1 else "drop",
        samples_per_class=data["samples_per_class"],
        seed=config["seed"],
        on_bad_image=data["on_bad_image"],
        subset=data["subset"],
        protocol=data["protocol"],
        pipeline=data["pipeline"] or ("batched" if views else "timm"),
        views=views,
        eval_views=phase["lam"] == 0,
        memory_gb=data["memory_gb"],
        pin_memory=config["trainer"]["accelerator"] != "cpu" and torch.cuda.is_available(),
    )


def build_module(config: Config, phase: Config, num_classes: int) -> JointModule:
    """The encoder first, so that every mode of one seed starts from the same encoder weights."""
    recipe, lam = phase["recipe"], phase["lam"]
    pl.seed_everything(config["seed"], verbose=False)
    encoder = build_encoder(config, phase)
    head = None
    if lam > 0:
        head = build_head(encoder, num_classes, phase["head_init"], norm=phase.get("head_norm", False))
    ssl = build_ssl(config, phase, encoder) if lam < 1 else None
    images = recipe["batch_size"] * config["trainer"]["devices"] * config["trainer"]["num_nodes"]
    if ssl is not None and images < ssl.min_batch:
        raise UserError(
            f"ssl={'+'.join(ssl_nodes(config))} compares the images of a batch, and recipe.batch_size={images} leaves"
            f" nothing to compare: use at least {ssl.min_batch}"
        )
    mixup = None
    partly_labelled = head is not None and ssl is not None and config["data"].get("label_fraction", 1.0) < 1
    if head is not None and (recipe["mixup"] or recipe["cutmix"]):
        for name, node in ssl_nodes(config).items() if ssl is not None else ():
            if node.get("share", "third") != "third":
                raise UserError(
                    f"ssl={name} compares views, and recipe.mixup or cutmix would mix the one that it shares with the"
                    " classification: set ssl.share=third, or turn them off"
                )
        if partly_labelled:
            raise UserError(
                "recipe.mixup or cutmix would mix labelled images with unlabelled ones: turn them off, or set"
                " data.label_fraction=1"
            )
        mixup = Mixup(
            mixup_alpha=recipe["mixup"],
            cutmix_alpha=recipe["cutmix"],
            prob=recipe["mix_prob"],
            switch_prob=recipe["mix_switch_prob"],
            mode=recipe["mix_mode"],
            label_smoothing=recipe["label_smoothing"],
            num_classes=num_classes,
        )
    optimization = Optimization(
        base_lr=recipe["base_lr"],
        lr_rule=recipe["lr_rule"],
        batch_size=recipe["batch_size"],
        min_lr=recipe["min_lr"],
        warmup_epochs=min(recipe["warmup_epochs"], recipe["max_warmup_share"] * phase["epochs"]),
        warmup_lr=recipe["warmup_lr"],
        betas=(recipe["betas"][0], recipe["betas"][1]),
        eps=recipe["eps"],
        weight_decay=recipe["weight_decay"],
        layer_decay=phase.get("layer_decay") or recipe["layer_decay"],
        epochs=phase["epochs"],
        decay_all=recipe.get("decay_all", False),  # runs recorded before these keys lack them
        no_decay=tuple(recipe.get("no_decay", ())),
        optimizer=recipe.get("optimizer", "adamw"),
        momentum=recipe.get("momentum", 0.9),
    )
    unknown = set(optimization.no_decay) - {name for name, _ in encoder.named_parameters()}
    if unknown:
        raise UserError(f"recipe.no_decay={sorted(unknown)} names no parameter of {config['encoder']['name']}")
    module = JointModule(
        encoder,
        lam=lam,
        head=head,
        ssl=ssl,
        num_classes=num_classes,
        optimization=optimization,
        label_smoothing=recipe["label_smoothing"],
        frozen=phase.get("frozen", False),
        schedule=LamSchedule(
            phase.get("lam_schedule", "constant"), phase.get("lam_end"), phase.get("balance_every", 10)
        ),
        conflict_every=config["monitor"]["conflict_every"] if "monitor" in config else 0,
        mixup=mixup,
        partly_labelled=partly_labelled,
        seed=config["seed"],
        log_every=log_every(config),
    )
    if config["trainer"]["compile"]:
        compile_passes(module)
    return module


def compile_passes(module: JointModule) -> None:
    """torch.compile of the passes a step calls; parameter names stay as they are."""
    for name in ("forward_features", "forward_masked", "forward_joint"):
        setattr(module.encoder, name, torch.compile(getattr(module.encoder, name)))


def build_loggers(config: Config, phase: Config, folder: Path, run_id: str) -> list[Any]:
    """The CSV file always; Weights & Biases or TensorBoard beside it when asked for."""
    loggers: list[Any] = [pl.loggers.CSVLogger(str(folder), name="csv")]
    name = config["logger"]["name"]
    if name == "tensorboard":
        loggers.append(pl.loggers.TensorBoardLogger(str(folder), name="tensorboard"))
    elif name == "wandb":
        from src.wandb_logger import WandbLogger

        loggers.append(WandbLogger(config, phase, folder, f"{run_id}-{phase['name']}"))
    return loggers


def runs_on_cpu(config: Config) -> bool:
    return config["trainer"]["accelerator"] == "cpu" or not torch.cuda.is_available()


def num_workers(config: Config) -> int:
    """Loader processes of one training process; null = none on a CPU, whose cores the model needs, else up to 8."""
    given = config["data"]["num_workers"]
    if given is not None:
        return given
    return 0 if runs_on_cpu(config) else min(8, (os.cpu_count() or 1) // config["trainer"]["devices"])


def log_every(config: Config) -> int:
    """Steps between two logged values."""
    return config["trainer"]["log_every"] or (5 if runs_on_cpu(config) else 50)


def progress_style(config: Config) -> str:
    """`bar`, `lines` or `off`."""
    style = config["trainer"]["progress"]
    if style == "auto":
        return "bar" if os.isatty(1) else "lines"
    return style


def build_callbacks(
    config: Config, phase: Config, folder: Path, data: ImageDataModule, history: History, meter: Meter
) -> list[Callback]:
    """History first: the others read its rows; checkpoints last: they save what the others hold."""
    label = f"{config['mode']['name']}/{phase['name']}"
    checkpoints = folder / "checkpoints"
    callbacks: list[Callback] = [
        history,
        FiniteGuard(folder, every=1 if runs_on_cpu(config) else log_every(config)),
        meter,
        Stamp(config),
        SaveOnSignal(checkpoints / "last.ckpt"),
    ]
    style = progress_style(config)
    if style == "bar":
        callbacks.append(ProgressBar(history, label))
    elif style == "lines":
        callbacks.append(ProgressLines(history, label))
    if (
        phase["lam"] < 1
        and config["reconstruct_every"]
        and any(node.get("target") == "pixels" for node in ssl_nodes(config).values())
    ):
        callbacks.append(
            Reconstructions(
                folder / "reconstructions",
                data.fixed_batch(8),
                list(data.mean),
                list(data.std),
                config["reconstruct_every"],
            )
        )
    for name in PROBES:
        if config["monitor"][f"{name}_every"]:
            callbacks.append(ProbeMonitor(name, config["monitor"][f"{name}_every"], data))
    if phase["recipe"]["ema_decay"]:
        callbacks.append(EMAWeightAveraging(decay=phase["recipe"]["ema_decay"], use_buffers=False))
    shared: dict[str, Any] = {"dirpath": checkpoints, "enable_version_counter": False}
    callbacks.append(ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **shared))
    callbacks.append(
        ModelCheckpoint(filename="last", train_time_interval=timedelta(minutes=config["checkpoint_minutes"]), **shared)
    )
    if phase["lam"] > 0:
        monitor = f"{data.eval_split}/acc1"
        callbacks.append(
            # Only a whole checkpoint holds the averaged weights, those that were evaluated.
            ModelCheckpoint(
                filename="best",
                monitor=monitor,
                mode="max",
                save_weights_only=not phase["recipe"]["ema_decay"],
                **shared,
            )
        )
    return callbacks


def quiet() -> None:
    """Keep Lightning's warnings, drop its greetings; ours say the same in fewer words."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*could not find the monitored key.*")  # max_steps ends before it
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*module\\(s\\) in eval mode at the start of training.*")  # teachers
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*ModelCheckpoint.*same directory.*")


def build_trainer(
    config: Config, phase: Config, folder: Path, loggers: list[Any], callbacks: list[Callback]
) -> pl.Trainer:
    """Lightning's trainer for one phase."""
    t = config["trainer"]
    processes = t["devices"] * t["num_nodes"]
    strategy: Any = "auto"
    if processes > 1:
        strategy = DDPStrategy(gradient_as_bucket_view=True)
    return pl.Trainer(
        accelerator=t["accelerator"],
        devices=t["devices"],
        num_nodes=t["num_nodes"],
        strategy=strategy,
        precision=PRECISIONS[str(t["precision"])],  # type: ignore[arg-type]
        max_epochs=phase["epochs"],
        max_steps=t["max_steps"] or -1,
        accumulate_grad_batches=t["accumulate"],
        gradient_clip_val=phase["recipe"]["clip_grad"],
        check_val_every_n_epoch=min(config["eval_every"], phase["epochs"]),
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        logger=loggers,
        callbacks=callbacks,
        enable_progress_bar=progress_style(config) == "bar",
        enable_model_summary=False,
        plugins=[AtomicCheckpointIO()],
        use_distributed_sampler=False,
        deterministic=t["deterministic"],
        default_root_dir=str(folder),
    )


def check_hardware(config: Config) -> None:
    """Refuse devices that this machine does not have.

    Raises:
        UserError: says what was asked for and what there is.
    """
    t = config["trainer"]
    if t["num_nodes"] > 1 and not launched_externally():
        raise UserError(
            f"trainer.num_nodes={t['num_nodes']} needs one process per device to be started on every node: "
            "use srun, or torchrun --nnodes ... -m src.train"
        )
    gpus = torch.cuda.device_count()
    if t["accelerator"] == "gpu" and not gpus:
        raise UserError("trainer.accelerator=gpu, but PyTorch sees no GPU here: use trainer=cpu (or trainer=ddp_cpu)")
    if t["accelerator"] == "gpu" and t["devices"] > gpus:
        raise UserError(
            f"trainer.devices={t['devices']}, but this machine has {gpus} GPU(s): set trainer.devices={gpus}"
        )
    if str(t["precision"]) == "16" and runs_on_cpu(config):
        raise UserError("trainer.precision=16 needs a GPU: use trainer.precision=bf16 or 32 on a CPU")
    if t["accelerator"] == "mps" and not torch.backends.mps.is_available():
        raise UserError("trainer.accelerator=mps, but there is no Apple GPU here: use trainer=cpu")
