"""Self-supervised tasks from a configuration."""

from __future__ import annotations

from typing import Any

from ssat.config.create import checked_options, create, defaults_of, load
from ssat.config.schema import Component, Moments, Phase, Run
from ssat.core.errors import UserError
from ssat.encoders.base import Encoder
from ssat.tasks import TASKS
from ssat.tasks.base import Task
from ssat.tasks.contract import check_contract, task_class
from ssat.tasks.several import Several


def build_ssl(config: Run, phase: Phase, encoder: Encoder) -> Task:
    """The SSL task, or tasks, of the configuration for `encoder`."""
    tasks = {name: build_task(config, phase, encoder, task) for name, task in config.ssl.tasks.items()}
    if list(tasks) == [config.ssl.name]:
        return tasks[config.ssl.name]
    return Several(tasks, dict(config.ssl.weights) if config.ssl.weights else None)


def build_task(config: Run, phase: Phase, encoder: Encoder, task: Component) -> Task:
    """One SSL task for `encoder`."""
    check_contract(load(TASKS, task.kind, "ssl.kind"), encoder, kind=task.kind, name=task.name)
    options = task_options(config, phase, task)
    return create(TASKS, task.kind, options, "ssl", encoder=encoder, seed=config.seed)


def class_of(task: Component) -> type[Task]:
    """The class of a task."""
    return task_class(load(TASKS, task.kind, "ssl.kind"), task.kind)


def normalisation(config: Run, phase: Phase) -> dict[str, tuple[float, ...]]:
    """`mean` and `std` with which the data of this phase are normalised; empty where only the data will tell."""
    moments: Moments | None = getattr(config.data.statistics, phase.recipe.statistics)
    if moments is None:
        return {}
    given = 1 if config.data.channels == 1 else None  # of grey images the first
    return {"mean": moments.mean[:given], "std": moments.std[:given]}


def task_options(config: Run, phase: Phase, task: Component) -> dict[str, Any]:
    """All options of a task in this phase: null ones are the recipe's, those that are not given have their default."""
    recipe = phase.recipe
    decoder = recipe.decoder.get(config.encoder.name, recipe.decoder["default"])
    of_recipe: dict[str, Any] = {"norm_pix": recipe.norm_pix}
    if class_of(task).clips:  # the recipe's decoders are of images
        of_recipe |= normalisation(config, phase)
    else:
        of_recipe |= {
            "decoder_dim": decoder.dim,
            "decoder_depth": decoder.depth,
            "decoder_heads": decoder.num_heads,
        }
    given = dict(task.options)
    given |= {key: value for key, value in of_recipe.items() if key in given and given[key] is None}
    if class_of(task).clips and given.get("mean", ()) is None:
        raise UserError(
            f"ssl={task.name} needs the mean and std of the data, and recipe.statistics={recipe.statistics} measures"
            " them later: give data.statistics.own={mean:[...],std:[...]}, or choose recipe.statistics=official",
            key="recipe.statistics",
            value=recipe.statistics,
        )
    defaults = defaults_of(TASKS, task.kind, "ssl.kind")
    defaults.pop("seed", None)
    options = checked_options(TASKS, task.kind, defaults | given, "ssl")
    return class_of(task).alone(options) if phase.lam == 0 else options
