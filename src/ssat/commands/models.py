"""Loads the runs that an analysis compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ssat.analysis.models import Model, distinct_names
from ssat.config.identity import config_hash
from ssat.core.errors import UserError
from ssat.core.files import file_sha256
from ssat.data.video.module import VideoDataModule
from ssat.results.modes import mode_name
from ssat.runs.saved import saved_configuration
from ssat.training.evaluation import Evaluator


def load_models(runs: Sequence[Path], overrides: list[str], *, checkpoint: str, split: str) -> list[Model]:
    """The last phase of every run.

    Raises:
        UserError: a run, its checkpoint or its data is not right, or the runs do not share their images of `split`.
    """
    models = [_load(run, overrides, checkpoint, split) for run in runs]
    first = models[0]
    for model in models[1:]:
        ours, theirs = (m.data.fingerprint()["content"][split] for m in (model, first))
        if ours != theirs:
            raise UserError(
                f"runs={model.facts['run']} has other {split} images than {first.facts['run']}:"
                " analyses compare networks on the same images, so give runs of the same data"
            )
        if _clip(model) != _clip(first):
            raise UserError(
                f"runs={model.facts['run']} has other clips than {first.facts['run']}: analyses compare networks on the"
                " same clips, so give runs of the same data.frames, data.frame_step and encoder.tubelet_size"
            )
    names = distinct_names([model.facts for model in models])
    return [
        replace(model, name=name, facts=model.facts | {"name": name}) for model, name in zip(models, names, strict=True)
    ]


def _clip(model: Model) -> tuple[int, ...]:
    """Frames, stored frames from one to the next, and time slots of clips; nothing of images."""
    if not isinstance(model.data, VideoDataModule):
        return ()
    return model.data.frames, model.data.step, *getattr(model.encoder, "mask_grid", ())[:1]


def _load(run: Path, overrides: list[str], checkpoint: str, split: str) -> Model:
    config = saved_configuration(run, overrides)
    found = Evaluator(
        config, run, "", checkpoint, split, 0, other_data=any(word.startswith("data.") for word in overrides)
    )
    facts = {
        "run": str(run),
        "hash": config_hash(config),
        "mode": config.mode.name,
        "name": mode_name(config.mode.name),
        "encoder": config.encoder.name,
        "data": config.data.name,
        "seed": config.seed,
        "checkpoint": str(found.path),
        "checkpoint_sha256": file_sha256(found.path),
        "epochs": [phase.epochs for phase in config.mode.phases],
        "finished": (run / "result.json").is_file(),
    }
    encoder, head = found.module.encoder, found.module.head
    return Model(str(facts["name"]), encoder, head, found.data, split, found.device, facts)
