"""From a resolved configuration to the objects of one phase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn

from ssat.config.create import create
from ssat.config.schema import Phase, Recipe, Run
from ssat.core.errors import UserError
from ssat.encoders import ENCODERS
from ssat.encoders.base import Encoder
from ssat.encoders.contract import check_contract
from ssat.runs.machine import log_every
from ssat.tasks.base import Task
from ssat.training.classification import linear_head, recipe_weights
from ssat.training.compiled import CompiledLosses
from ssat.training.label_loss import recipe_pos_weights
from ssat.training.mixing import Mixing
from ssat.training.module import JointModule
from ssat.training.optim import Optimization
from ssat.training.tasks import build_ssl
from ssat.training.weighing import LamSchedule


def build_encoder(config: Run, phase: Phase) -> Encoder:
    """The encoder of the configuration, with what the phase's recipe decides filled in."""
    options, recipe = dict(config.encoder.options), phase.recipe
    if options.get("drop_path", 0) is None:
        options["drop_path"] = recipe.drop_path
    if options.get("pos_embed", 0) is None:
        options["pos_embed"] = recipe.scratch_pos_embed if config.mode.name == "scratch" else "sincos"
        if config.encoder.pretrained:
            options["pos_embed"] = "learnable"  # published weights come with the table that they were trained with
    for name in ("drop_path", "attn_drop"):
        if isinstance(value := options.get(name), int | float) and not 0 <= value < 1:
            raise UserError(
                f"encoder.{name}={value:g} drops everything or nothing that there is: give at least 0 and less than 1",
                key=f"encoder.{name}",
                value=value,
            )
    encoder = create(ENCODERS, config.encoder.kind, options, "encoder")
    check_contract(encoder, config.encoder.kind)
    if recipe.patch_dropout:
        if encoder.patch_dropout is None:
            raise UserError(
                f"recipe.patch_dropout={recipe.patch_dropout:g} leaves patches out, and encoder={config.encoder.name}"
                " computes all of them: use encoder=vit_t or another plain ViT, or leave it out",
                key="recipe.patch_dropout",
                value=recipe.patch_dropout,
            )
        encoder.patch_dropout = recipe.patch_dropout
    return encoder


def build_module(
    config: Run,
    phase: Phase,
    num_classes: int,
    class_counts: Mapping[str, int] | None = None,
    images: int = 0,
) -> JointModule:
    """The encoder first, so that every mode of one seed starts from the same encoder weights.

    Args:
        config: of the run.
        phase: of the run.
        num_classes: of the data.
        class_counts: training images or videos of each class, for their weights; None = the module will not be trained.
        images: training images with labels: of several labels each, `class_counts` does not say how many.

    Raises:
        UserError: the recipe does not fit the encoder, the task or the labels; or `trainer.channels_last` the network.
    """
    recipe, lam = phase.recipe, phase.lam
    pl.seed_everything(config.seed, verbose=False)
    encoder = build_encoder(config, phase)
    head = None
    if lam > 0:
        head = linear_head(encoder.num_features, num_classes, phase.head_init, norm=phase.head_norm)
    ssl = build_ssl(config, phase, encoder) if lam < 1 else None
    check_recipe(config, phase, encoder, ssl)
    check_dimensions(config, encoder)
    multi_label, weights = config.data.multi_label, None
    if class_counts is not None and multi_label and lam > 0:
        weights = recipe_pos_weights(recipe, class_counts, images)
    elif class_counts is not None and not multi_label:
        weights = recipe_weights(recipe, class_counts)
    module = JointModule(
        encoder,
        lam=lam,
        head=head,
        ssl=ssl,
        num_classes=num_classes,
        optimization=optimization_of(phase),
        label_smoothing=recipe.label_smoothing,
        frozen=phase.frozen,
        schedule=LamSchedule(phase.lam_schedule, phase.lam_end, phase.balance_every),
        conflict_every=config.monitor.conflict_every,
        mixing=Mixing(recipe.mixup, recipe.cutmix, recipe.mix_prob, recipe.mix_switch_prob, recipe.mix_mode),
        partly_labelled=_partly_labelled(config, phase),
        seed=config.seed,
        log_every=log_every(config),
        class_weights=None if weights is None else weights.tolist(),
        focal_gamma=recipe.focal_gamma if lam > 0 else 0.0,
        normalise_weights=recipe.normalise_w,
        average=None if config.data.frames is None else config.data.average,
        multi_label=multi_label,
        sizes=recipe.sizes,
    )
    module.hparams.update(run=dict(config.values), phase=phase.name)  # enough to build it again
    if config.trainer.channels_last:
        use_channels_last(module, config.encoder.name)
    module.cuda_graph = config.trainer.cuda_graph
    if config.trainer.compile:
        module.compiled = CompiledLosses(module.losses, module, moves=module.weighing.moves)
    return module


def overlapping_convolutions(module: nn.Module) -> list[nn.Conv2d]:
    """The 2-D convolutions in `module` whose windows overlap; others, as a patch embedding, are matrix products."""
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d) and layer.stride != layer.kernel_size]


def use_channels_last(module: nn.Module, name: str) -> None:
    """Lay the weights of the overlapping convolutions in `module` out as (out, height, width, in), in place.

    Such a convolution gives maps of that layout, and what follows keeps it.

    Args:
        module: encoder, task and head.
        name: of the encoder, as messages say it.

    Raises:
        UserError: there are no such convolutions.
    """
    found = overlapping_convolutions(module)
    if not found:
        raise UserError(
            f"trainer.channels_last=true is for 2-D convolutions whose windows overlap, and encoder={name} has none:"
            " set trainer.channels_last=false, or choose encoder=resnet_50",
            key="trainer.channels_last",
            value=True,
        )
    for layer in found:
        layer.to(memory_format=torch.channels_last)


def _partly_labelled(config: Run, phase: Phase) -> bool:
    return 0 < phase.lam < 1 and config.data.label_fraction < 1


def check_recipe(config: Run, phase: Phase, encoder: Encoder, ssl: Task | None) -> None:
    """Refuse what only the built encoder and task can tell.

    Raises:
        UserError: names the key.
    """
    recipe, images = phase.recipe, phase.recipe.batch_size * config.trainer.processes
    if ssl is not None and images < ssl.min_batch:
        raise UserError(
            f"ssl={'+'.join(config.ssl.tasks)} compares the images of a batch, and recipe.batch_size={images} leaves"
            f" nothing to compare: use at least {ssl.min_batch}",
            key="recipe.batch_size",
            value=recipe.batch_size,
        )
    if recipe.patch_dropout and ssl is not None and ssl.full:
        raise UserError(
            f"recipe.patch_dropout={recipe.patch_dropout:g} is for a classification view of its own, and"
            f" ssl={'+'.join(config.ssl.tasks)} reads whole images in that pass: use ssl=mae or another reconstruction,"
            " or mode=scratch",
            key="recipe.patch_dropout",
            value=recipe.patch_dropout,
        )
    if (recipe.mixup or recipe.cutmix) and _partly_labelled(config, phase):
        raise UserError(
            "recipe.mixup or cutmix would mix labelled images with unlabelled ones: turn them off, or set"
            " data.label_fraction=1",
            key="data.label_fraction",
            value=config.data.label_fraction,
        )
    unknown = set(recipe.no_decay) - {name for name, _ in encoder.named_parameters()}
    if unknown:
        raise UserError(
            f"recipe.no_decay={sorted(unknown)} names no parameter of {config.encoder.name}",
            key="recipe.no_decay",
            value=recipe.no_decay,
        )


def check_dimensions(config: Run, encoder: Encoder) -> None:
    """Refuse an encoder of images for videos, and one of clips for images.

    Raises:
        UserError: names both.
    """
    of_clips, videos = len(encoder.img_size) == 3, config.data.frames is not None
    if of_clips != videos:
        what, cure = (
            ("clips", "videomae_b or videomae_s") if videos else ("single images", "vit_t, or another of images")
        )
        raise UserError(
            f"encoder={config.encoder.name} reads {'clips' if of_clips else 'single images'}, and"
            f" data={config.data.name} gives {what}: use encoder={cure}",
            key="encoder",
            value=config.encoder.name,
        )


def optimization_of(phase: Phase) -> Optimization:
    """Schedule and optimizer as the phase's recipe has them."""
    recipe = phase.recipe
    names = {field.name for field in fields(Optimization)} & {field.name for field in fields(Recipe)}
    values: dict[str, Any] = {name: getattr(recipe, name) for name in names}
    of_phase = {"epochs": phase.epochs, "warmup_of": phase.planned}
    return Optimization(**values | of_phase | {"layer_decay": phase.layer_decay or recipe.layer_decay})
