"""What a checkpoint says of how its `JointModule` was built, and the module built again from it.

Checkpoints are read with `weights_only=True`, so that `hyper_parameters` holds nothing but plain values: encoder and
task by their short names in `ENCODERS` and `TASKS`, the options as dictionaries, and for a run of the commands its
whole configuration. What was handed over as an object is noted as GIVEN and must be handed over again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lightning.pytorch.utilities.seed import isolate_rng

from ssat.config.create import create, load
from ssat.core.checkpoints import load_checkpoint, weights_of
from ssat.core.errors import UserError
from ssat.core.tensors import Differences, built_within, compare, fill
from ssat.encoders import ENCODERS
from ssat.encoders.base import Encoder
from ssat.tasks import TASKS
from ssat.tasks.base import Task
from ssat.training.mixing import Mixing
from ssat.training.optim import Optimization
from ssat.training.weighing import LamSchedule

if TYPE_CHECKING:
    from ssat.training.module import JointModule

GIVEN = "given as an object"
RUN = ("run", "phase")  # the keys that a run of the commands adds
OPTIONS: dict[str, type[Any]] = {"optimization": Optimization, "schedule": LamSchedule, "mixing": Mixing}
Named = Mapping[str, Any]  # {"kind": "vit", "img_size": 32, ...}, the keys of a file of conf/encoder or conf/ssl
Made = TypeVar("Made", bound="JointModule")


def encoder_from(given: Encoder | Named) -> Encoder:
    """The encoder itself, or the one that `given` names.

    Raises:
        UserError: `given` names no encoder, or options that it does not take.
    """
    return given if isinstance(given, Encoder) else create(ENCODERS, *_named(given, "encoder"), "encoder")


def task_from(given: Task | Named | None, encoder: Encoder, seed: int) -> Task | None:
    """The task itself, or the one for `encoder` that `given` names.

    Raises:
        UserError: `given` names no task, options that it does not take, or a task that cannot read the encoder.
    """
    if given is None or isinstance(given, Task):
        return given
    kind, options = _named(given, "ssl")
    made: Any = load(TASKS, kind, "ssl.kind")
    made.check_encoder(encoder, kind)
    return create(TASKS, kind, options, "ssl", encoder=encoder, seed=seed)


def _named(given: Any, key: str) -> tuple[str, dict[str, Any]]:
    if not isinstance(given, Mapping) or "kind" not in given:
        raise UserError(
            f"{key}={given!r} is not possible: give the object itself, or its kind and options,"
            ' e.g. {"kind": "vit", "img_size": 32, "patch_size": 4}'
        )
    return str(given["kind"]), {name: value for name, value in given.items() if name != "kind"}


def plain_values(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A constructor's `locals()` as a checkpoint may hold them."""
    return {name: _plain(value) for name, value in arguments.items() if name not in ("self", "__class__")}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value if _is_plain(value) else GIVEN


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_plain(item) for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def rebuilt(cls: type[Made], path: str | Path, given: Mapping[str, Any], *, strict: bool = True) -> Made:
    """The module of a checkpoint with its weights, on the CPU; `given` replaces arguments of its constructor.

    Lightning's argument `weights_only` is accepted, and the file is read as if it were true in any case.

    Raises:
        UserError: the file is no such checkpoint, names code, or lacks an argument that must be given again.
    """
    given = {name: value for name, value in given.items() if name != "weights_only"}
    checkpoint = load_checkpoint(Path(path))
    saved = checkpoint.get("hyper_parameters")
    if not isinstance(saved, dict):
        raise UserError(
            f"{path} does not say how its module was built: build it, and call"
            " module.load_state_dict(torch.load(path, weights_only=True)['state_dict'])"
        )
    if "run" in saved and not given:
        module: Any = _module_of_run(saved, Path(path))
    else:
        module = cls(**_arguments(saved, given, path))
    weights = weights_of(checkpoint, Path(path))
    wrong = f"{path} has other weights than its module"
    if strict:
        fill(module, weights, wrong, "give the arguments that it was built with")
    elif misshapen := compare(module, weights).misshapen:
        raise UserError(f"{wrong}: {Differences(misshapen=misshapen)}; give the arguments that it was built with")
    else:
        module.load_state_dict(weights, strict=False)
    return module


def _module_of_run(saved: dict[str, Any], path: Path) -> JointModule:
    from ssat.runs.saved import stored_configuration
    from ssat.training.build import build_module

    run = stored_configuration(saved["run"], f"{path}: hyper_parameters")
    phase = {phase.name: phase for phase in run.mode.phases}[saved["phase"]]
    eager = replace(run, trainer=replace(run.trainer, compile=False))
    # Building seeds the generators.
    with isolate_rng(), built_within(path, f"{path} has other weights than its module", "name another file"):
        return build_module(eager, phase, saved["num_classes"])


def _arguments(saved: dict[str, Any], given: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """The constructor's arguments; no name of the file is looked up outside our tables."""
    values = {name: value for name, value in saved.items() if name not in RUN} | dict(given)
    lacking = [name for name, value in values.items() if isinstance(value, str) and value == GIVEN]
    for name, table in (("encoder", ENCODERS), ("ssl", TASKS)):
        part = values.get(name)
        if name not in given and isinstance(part, Mapping) and part.get("kind") not in table:
            lacking.append(name)  # a class of the user's own
    if lacking:
        again = ", ".join(f"{name}=..." for name in lacking)
        raise UserError(f"{path} does not hold {' and '.join(lacking)}: call load_from_checkpoint(path, {again})")
    try:
        return values | {
            name: made(**values[name]) for name, made in OPTIONS.items() if isinstance(values.get(name), Mapping)
        }
    except TypeError as error:
        raise UserError(f"{path} was written by another version: {error}") from error
