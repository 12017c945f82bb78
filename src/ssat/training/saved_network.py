"""A trained network on the disk: a run folder, a checkpoint file alone, or an exported folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from ssat.config.schema import Moments, Phase, Run
from ssat.core.checkpoints import StateDict, load_checkpoint, read_safetensors, weights_of
from ssat.core.errors import UserError
from ssat.core.files import file_sha256
from ssat.core.read import read_json
from ssat.core.tensors import built_within, fill
from ssat.runs.calibration import recorded_temperature
from ssat.runs.folder import read_record
from ssat.runs.inputs import PASSPORT, read_inputs, recorded
from ssat.runs.record import as_number, lookup
from ssat.runs.saved import COPY, saved_configuration, stored_configuration
from ssat.training.build import build_encoder, check_dimensions
from ssat.training.classification import linear_head
from ssat.training.evaluation import OTHER_FILE, find_checkpoint
from ssat.training.module import JointModule

MODEL, WEIGHTS, SCHEMA = "model.json", "model.safetensors", 1  # of an exported folder
AGAIN = "export the run again"
READ_BY = {"onnx": "onnxruntime", "timm": "timm", "torch_export": "torch.export"}  # formats that are not read here
EXPORTED = (".onnx", ".pt2", ".safetensors")  # endings of exported files
PARTS = ("encoder.", "head.")  # tensors of inference; the rest is the task's


@dataclass(frozen=True)
class Known:
    """What is known of the data that a network was trained on, as far as predicting needs it.

    Attributes:
        classes: names, in the order of the labels.
        passport: how the clips were made; {} of images.
        moments: mean and deviation of the normalisation; None where the configuration alone says them.
    """

    classes: Sequence[str]
    passport: dict[str, Any]
    moments: Moments | None = None


@dataclass(frozen=True, eq=False)
class SavedNetwork:
    """Everything that inference needs, read from the disk.

    Attributes:
        name: of the run folder, or of the file or folder that lies outside of one.
        config, phase: of the run, and the phase whose weights these are.
        known: of its data.
        path: of the file of the weights.
        run: its folder; None of a file or an exported folder alone.
        epoch: of the weights, from 1; None where it is not known.
        temperature: that the logits are divided by; None = they were not calibrated.
        tensors: of encoder and head.
        facts: what `model.json` says; {} where the network was not exported.
    """

    name: str
    config: Run
    phase: Phase
    known: Known
    path: Path
    run: Path | None = None
    epoch: int | None = None
    temperature: float | None = None
    tensors: StateDict = field(default_factory=dict, repr=False)
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def module(self) -> JointModule:
        """Encoder and head with these weights, in evaluation mode, on the CPU; the task is not built.

        Raises:
            UserError: the weights are of another network.
        """
        wrong, cure = f"{self.path} does not hold the network of {self.run or self.name}", OTHER_FILE
        if self.path.name == WEIGHTS:  # whose checksum is right
            wrong, cure = f"{self.path.parent / MODEL} describes another network than {WEIGHTS}", AGAIN
        # Drawing the first weights must not change the user's random numbers.
        with isolate_rng(), built_within(self.path, wrong, cure):
            encoder = build_encoder(self.config, self.phase)
            check_dimensions(self.config, encoder)
            head = None
            if self.phase.lam > 0:
                of_head = {"norm": self.phase.head_norm, "init": self.phase.head_init}
                head = linear_head(encoder.num_features, len(self.known.classes), **of_head)  # type: ignore[arg-type]
            average = None if self.config.data.frames is None else self.config.data.average
            options: dict[str, Any] = {"average": average, "multi_label": self.config.data.multi_label}
            module = JointModule(encoder, lam=1.0, head=head, num_classes=len(self.known.classes), **options)
            if head is None:
                module.head = None  # a run that has learned no labels still has features
        fill(module, self.tensors, wrong, cure)
        return module.eval()


def find_network(source: str | Path, checkpoint: str = "best") -> SavedNetwork:
    """What lies at `source`.

    Args:
        source: a run folder, a checkpoint file (of this version also outside its run), or a folder of
            format=safetensors.
        checkpoint: of a run folder: best, last, or a file.

    Raises:
        UserError: it is none of these, an export for another program, or damaged.
    """
    path = Path(source)
    if path.is_file():
        exported = path.suffix in EXPORTED and (path.parent / MODEL).is_file()
        return _exported(path.parent) if exported or path.name in (MODEL, WEIGHTS) else _alone(path)
    if (path / MODEL).is_file():
        return _exported(path)
    if (path / "config.yaml").is_file():
        return _of_run(path, checkpoint)
    what = "has no config.yaml of a run and no model.json of an export" if path.is_dir() else "does not exist"
    raise UserError(
        f"run={source} is no run folder, exported folder or checkpoint file: it {what}", key="run", value=str(source)
    )


def check_run_has_labels(source: str) -> None:
    """Refuse early a run folder whose last phase learns no labels, whichever of its checkpoints there are.

    Raises:
        UserError: it is one, or its configuration is damaged.
    """
    run = Path(source)
    if not (run / MODEL).is_file() and (run / "config.yaml").is_file():
        refuse_unlabelled(saved_configuration(run, []).mode.phases[-1].lam > 0, run)


def refuse_unlabelled(labelled: bool, source: Path) -> None:
    """Raises: UserError: the network of `source` has learned no labels."""
    if not labelled:
        raise UserError(
            f"run={source} has learned no labels (lam=0), so it predicts none: fine-tune it first", key="run"
        )


def _of_run(run: Path, checkpoint: str) -> SavedNetwork:
    config = saved_configuration(run, [])
    phase = config.mode.phases[-1]
    known = known_of_run(config, run)
    path = find_checkpoint(run, phase.name, checkpoint)
    content = load_checkpoint(path)
    record, epoch = phase_record(config, run), _epoch(content, phase)
    moments = _moments(lookup(record, "statistics")) or _moments(content.get("statistics"))
    return SavedNetwork(
        run.resolve().name,
        config,
        phase,
        _complete(config, phase, replace(known, moments=moments), run),
        path,
        run,
        epoch,
        recorded_temperature(record, is_last=path.stem == "last" or epoch == phase.epochs),
        tensors=_of_inference(weights_of(content, path)),
    )


def _alone(path: Path) -> SavedNetwork:
    """A checkpoint file without its run; one of an earlier version must lie in its run's folder."""
    content = load_checkpoint(path)
    config_values, inputs, name = (content.get(key) for key in ("config", "inputs", "phase"))
    run = path.resolve().parent.parent.parent
    if not isinstance(config_values, Mapping) or not isinstance(inputs, Mapping) or not isinstance(name, str):
        if (run / "config.yaml").is_file():
            return _of_run(run, str(path))
        raise UserError(
            f"run={path} does not say its configuration and classes, because another program or an earlier version"
            " wrote it: name the folder of its run, and checkpoint=<this file>",
            key="run",
            value=str(path),
        )
    config = stored_configuration(config_values, str(path))
    phase = _phase(config, name, path)
    known = replace(_known(inputs, config, str(path)), moments=_moments(content.get("statistics")))
    lies_in_run = (run / "config.yaml").is_file()
    return SavedNetwork(
        run.name if lies_in_run else path.name,
        config,
        phase,
        _complete(config, phase, known, path),
        path,
        run if lies_in_run else None,
        _epoch(content, phase),
        tensors=_of_inference(weights_of(content, path)),
    )


def _exported(folder: Path) -> SavedNetwork:
    path = folder / MODEL
    try:
        values = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is missing or damaged: {AGAIN}") from error
    if not isinstance(values, dict) or values.get("kind") != "ssat-model" or values.get("schema") != SCHEMA:
        raise UserError(f"{path} is no description of an exported network of schema {SCHEMA}: {AGAIN}")
    if not isinstance(values.get("config"), dict) or _moments(values.get("statistics")) is None:
        raise UserError(f"{path} is damaged, it lacks config or statistics: {AGAIN}")
    form = str(values.get("format", "safetensors"))
    if form != "safetensors":
        raise UserError(
            f"{folder} holds an export for {READ_BY.get(form, 'other programs')} (format={form:.40}): this command"
            " reads run folders and format=safetensors; export the run again with format=safetensors",
            key="run",
            value=str(folder),
        )
    config = stored_configuration(values["config"], str(path))
    phase = _phase(config, values.get("phase"), path)
    known = _known({"data": {"classes": values.get("classes"), PASSPORT: values.get(PASSPORT)}}, config, str(path))
    known = replace(known, moments=_moments(values.get("statistics")))
    temperature = as_number(values.get("temperature"))
    if temperature is not None and temperature <= 0:
        raise UserError(f"{path} is damaged, its temperature is {temperature}: {AGAIN}")
    tensors = _exported_tensors(folder, values)
    _check_described(path, values, config, known, tensors)
    return SavedNetwork(
        folder.resolve().name,
        config,
        phase,
        _complete(config, phase, known, path),
        folder / WEIGHTS,
        temperature=temperature,
        tensors=tensors,
        facts=values,
    )


def _exported_tensors(folder: Path, values: Mapping[str, Any]) -> StateDict:
    """Those of the weights beside model.json, if they are the ones that it was written for."""
    weights = folder / WEIGHTS
    tensors = read_safetensors(weights)
    if file_sha256(weights) != values.get("sha256"):
        raise UserError(
            f"{weights} is not the file that {folder / MODEL} was written for (its SHA-256 is another one): {AGAIN}"
        )
    return tensors


def _check_described(
    path: Path, values: Mapping[str, Any], config: Run, known: Known, tensors: Mapping[str, Tensor]
) -> None:
    """Refuse a model.json that contradicts itself or the head."""
    twice = [name for name, count in Counter(known.classes).items() if count > 1]
    if twice:
        raise UserError(f"{path} is damaged, it names the class {twice[0]!r:.40} twice: {AGAIN}")
    outputs = next(
        (len(value) for name, value in tensors.items() if name.startswith("head.") and value.ndim == 2), None
    )
    if outputs != len(known.classes):
        head = "no head" if outputs is None else f"a head of {outputs}"
        raise UserError(f"{path} is damaged, it names {len(known.classes)} classes, and {WEIGHTS} has {head}: {AGAIN}")
    said, statistics = values.get("preprocessing"), values["statistics"]
    expected = {"img_size": config.data.img_size, "channels": config.data.channels}
    expected |= {name: statistics[name] for name in ("mean", "std")}
    for name, value in expected.items():
        given = lookup(said, name)
        if given != value:
            raise UserError(
                f"{path} is damaged, its preprocessing.{name} is {given!r:.60} and its configuration has {value!r:.60}:"
                f" {AGAIN}"
            )


def known_of_run(config: Run, run: Path) -> Known:
    """Classes and passport of a run's own records.

    Raises:
        UserError: they are damaged, or too old to say it.
    """
    return _known(read_inputs(run, COPY) or recorded(phase_record(config, run)), config, f"run={run}")


def phase_record(config: Run, run: Path) -> dict[str, Any]:
    """The record of the run's last phase; {} before its end."""
    path = run / config.mode.phases[-1].name / "phase.json"
    if path.is_file():
        return read_record(path, COPY)
    phases = lookup(read_record(run / "result.json", COPY) if (run / "result.json").is_file() else {}, "phases")
    return phases[-1] if isinstance(phases, list) and phases and isinstance(phases[-1], dict) else {}


def _known(inputs: Mapping[str, Any], config: Run, where: str) -> Known:
    classes, passport = lookup(inputs, "data.classes"), lookup(inputs, f"data.{PASSPORT}")
    if not isinstance(classes, list) or len(classes) < 2 or not all(isinstance(name, str) for name in classes):
        raise UserError(f"{where} does not say its classes: it has not begun its training, or is damaged")
    if config.data.frames is not None and not isinstance(passport, dict):
        raise UserError(f"{where} does not say how its clips were made (inputs.json has no passport): train it again")
    return Known(classes, passport or {})


def _complete(config: Run, phase: Phase, known: Known, where: Path) -> Known:
    """Refuse images whose normalisation nobody has written down."""
    written = known.moments is not None or getattr(config.data.statistics, phase.recipe.statistics) is not None
    if config.data.frames is None and not written:
        raise UserError(f"run={where} is not finished, and recipe.statistics=own is recorded at its end", key="run")
    return known


def _phase(config: Run, name: Any, path: Path) -> Phase:
    phases = {phase.name: phase for phase in config.mode.phases}
    if name not in phases:
        raise UserError(f"{path} is damaged, its phase {name!r:.40} is none of {', '.join(phases)}: {COPY}")
    return phases[name]


def _moments(values: Any) -> Moments | None:
    mean, std = lookup(values, "mean"), lookup(values, "std")
    if not isinstance(mean, list) or not isinstance(std, list) or not mean or len(mean) != len(std):
        return None
    if any(as_number(value) is None for value in [*mean, *std]):
        return None
    return Moments(tuple(mean), tuple(std))


def _epoch(content: Mapping[str, Any], phase: Phase) -> int | None:
    epoch = content.get("epoch")
    return min(epoch + 1, phase.epochs) if isinstance(epoch, int) else None


def _of_inference(tensors: StateDict) -> StateDict:
    return {name: value for name, value in tensors.items() if name.startswith(PARTS)}
