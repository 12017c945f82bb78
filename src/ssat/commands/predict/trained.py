"""What a run's folder says of its network: how its data were made, on what it was trained, and what it measured."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

from ssat.config.schema import Moments, Run
from ssat.core.errors import UserError
from ssat.data.video.faces import DetectorName
from ssat.data.video.preparation import PrepareOptions
from ssat.runs.folder import read_record
from ssat.runs.inputs import PASSPORT, read_inputs, recorded
from ssat.runs.record import as_number, lookup
from ssat.runs.saved import COPY
from ssat.training.predictor import Known

FAR = 1.25  # times the highest, or below the lowest frame rate of the training videos


class Trained:
    """A run's records.

    Args:
        config: of the run.
        run: its folder.

    Attributes:
        known: what predicting needs.
        finished: whether the run is.

    Raises:
        UserError: they are damaged, or too old to say it.
    """

    def __init__(self, config: Run, run: Path) -> None:
        self.config, self.run = config, run
        self._record = self._read(run / "result.json")
        self.finished = self._record.get("status") == "finished"
        phase = self._read(run / config.mode.phases[-1].name / "phase.json")
        phases = self._record.get("phases")
        last = phases[-1] if isinstance(phases, list) and phases and isinstance(phases[-1], dict) else {}
        self._phase = phase or last
        inputs = read_inputs(run, COPY) or recorded(self._phase)
        classes, passport = lookup(inputs, "data.classes"), lookup(inputs, f"data.{PASSPORT}")
        if not isinstance(classes, list) or len(classes) < 2 or not all(isinstance(name, str) for name in classes):
            raise UserError(f"run={run} does not say its classes: it has not begun its training, or is damaged")
        if config.data.frames is not None and not passport:
            raise UserError(
                f"run={run} does not say how its clips were made (inputs.json has no passport): train it again"
            )
        self.known = Known(classes, passport or {}, self._moments())

    @staticmethod
    def _read(path: Path) -> dict[str, Any]:
        return read_record(path, COPY) if path.is_file() else {}

    def _moments(self) -> Moments | None:
        """Of a run that has measured those of its own pixels."""
        recipe = self.config.mode.phases[-1].recipe
        if self.config.data.frames is not None or getattr(self.config.data.statistics, recipe.statistics) is not None:
            return None
        mean, std = lookup(self._phase, "statistics.mean"), lookup(self._phase, "statistics.std")
        if not isinstance(mean, list) or not isinstance(std, list):
            raise UserError(f"run={self.run} is not finished, and recipe.statistics=own is recorded at its end")
        return Moments(tuple(mean), tuple(std))

    def options(self, detector: str, max_seconds: str) -> PrepareOptions:
        """How the run's own clips were made, with what the user wants otherwise; "" is nothing.

        Raises:
            UserError: the record is damaged, or the faces came from a file.
        """
        names = {field.name for field in fields(PrepareOptions)}
        try:
            options = PrepareOptions(**{key: value for key, value in self.known.passport.items() if key in names})
            numbers = [options.every, options.size, options.stride, options.max_seconds, options.quality]
            if options.detector not in get_args(DetectorName) or not all(0 < number < 1e6 for number in numbers):
                raise ValueError
        except (TypeError, ValueError):
            raise UserError(f"the passport of {self.run}/inputs.json is damaged: {COPY}") from None
        options = replace(options, no_face="skip")  # a stranger's video without a face has no score
        if max_seconds:
            options = replace(options, max_seconds=float(max_seconds))
        if detector:
            return replace(options, detector=detector)  # type: ignore[arg-type]
        if options.detector == "boxes":
            raise UserError(
                "the clips of this run were cropped by a file of boxes, which knows nothing of other videos: say"
                " detector=mtcnn, or none for videos that show a face only",
                key="detector",
            )
        return options

    def lines(self, checkpoint: str, path: Path, epoch: int | None) -> list[str]:
        """On what it was trained, of which file and epoch the weights are, and what it measured."""
        of = "" if epoch is None else f", epoch {epoch} of {self.config.mode.phases[-1].epochs}"
        return [
            f"network: {self.run.name}, {self._trained_on()}",
            f"checkpoint: {path.name}{of}",
            f"measured: {self._measured(checkpoint)}",
        ]

    def _trained_on(self) -> str:
        data, passport = self.config.data, self.known.passport
        what = "videos" if data.frames is not None else "images"
        counts = lookup(self._phase, "data_check.counts.train")
        split = f"{passport['held_out']} held out" if passport.get("held_out") else ""
        facts = ", ".join(filter(None, (str(passport.get("level") or ""), split)))
        known = isinstance(counts, dict) and len(counts) <= 5
        of = ", ".join(f"{count} {name}" for name, count in counts.items()) if known else ""
        return f"trained on {data.name}{f' ({facts})' * bool(facts)}{f': {of} {what}' if of else ''}"

    def _measured(self, checkpoint: str) -> str:
        if not self.finished:
            return "nothing yet, the run is not finished"
        split = "test" if lookup(self._record, "metrics.test") else "val"
        names = {"auc": "AUC {:.3f}", "acc1": "accuracy {:.1f} %", "balanced_acc": "balanced accuracy {:.1f} %"}
        values = {name: as_number(lookup(self._record, f"metrics.{split}.{name}.{checkpoint}")) for name in names}
        said = [form.format(values[name]) for name, form in names.items() if values[name] is not None]
        if not said:
            return f"nothing is recorded of checkpoint={checkpoint}"
        count = as_number(lookup(self._phase, f"data_fingerprint.splits.{split}"))
        what = "videos" if self.config.data.frames is not None else "images"
        chosen_there = checkpoint == "best" and not lookup(self._record, "metrics.val")
        doubt = ", which also chose this epoch, so the numbers are optimistic" if chosen_there else ""
        own = f"its own {f'{count:.0f} ' if count else ''}{split} {what}"
        return f"{', '.join(said)} on {own}{doubt}; nothing is known of yours"

    def notes(self, options: PrepareOptions) -> list[str]:
        """How the clips will differ from those of the training."""
        theirs = self.known.passport["detector"]
        if options.detector == theirs:
            return []
        return [f"faces are found by detector={options.detector}, and were by {theirs} in the training videos"]

    def note_of(self, fps: float) -> str:
        """What is unusual in a video's frame rate."""
        low, high = self._rates()
        if not fps or not high or low / FAR <= fps <= high * FAR:
            return ""
        rates = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        return f"{fps:.4g} frames per second, trained on {rates}"

    def _rates(self) -> tuple[float, float]:
        rates: Any = lookup(self._phase, "data_check.fps")
        if not isinstance(rates, list) or len(rates) != 2:
            return 0.0, 0.0
        low, high = as_number(rates[0]), as_number(rates[1])
        return (low, high) if low and high else (0.0, 0.0)

    def about(self, checkpoint: str, path: Path, epoch: int | None) -> dict[str, Any]:
        """What the JSON file says of the network."""
        network = self.lines(checkpoint, path, epoch)
        return {"run": self.run.name, "network": network, "passport": self.known.passport, "name": checkpoint}
