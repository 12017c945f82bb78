"""What a run's folder says of its network: how its data were made, on what it was trained, and what it measured."""

from __future__ import annotations

from typing import Any

from ssat.data.video.preparation import PrepareOptions
from ssat.export.facts import NOT_THE_PAPER
from ssat.runs.calibration import doubt
from ssat.runs.folder import read_record
from ssat.runs.record import as_number, lookup
from ssat.runs.saved import COPY
from ssat.training.saved_network import SavedNetwork, phase_record

FAR = 1.25  # times the highest, or below the lowest frame rate of the training videos


class Trained:
    """The records of a network's run, or what its export says of them; of a checkpoint file alone little is known.

    Args:
        saved: the network.

    Attributes:
        finished: whether the run is.

    Raises:
        UserError: the records are damaged.
    """

    def __init__(self, saved: SavedNetwork) -> None:
        self.saved, self.config, self._record = saved, saved.config, {}
        if saved.run is not None and (saved.run / "result.json").is_file():
            self._record = read_record(saved.run / "result.json", COPY)
        self.finished = self._record.get("status") == "finished"
        self._phase = {} if saved.run is None else phase_record(saved.config, saved.run)

    @property
    def checkpoint(self) -> str:
        """`best`, `last`, or the file that is neither; of an export what it was made of."""
        if exported := lookup(self.saved.facts, "checkpoint.name"):
            return str(exported)
        own = self.saved.run is not None and self.saved.path.parent.name == "checkpoints"
        return self.saved.path.stem if own else str(self.saved.path)

    def lines(self) -> list[str]:
        """On what it was trained, of which file and epoch the weights are, and what it measured."""
        saved = self.saved
        epoch = as_number(lookup(saved.facts, "checkpoint.epoch")) or saved.epoch
        of = "" if epoch is None else f", epoch {epoch:.0f} of {saved.phase.epochs}"
        name = f"{saved.path.name} of {self.checkpoint}.ckpt" if saved.facts else saved.path.name
        t = saved.temperature
        calibrated = "" if t is None else f", calibrated on its validation split (temperature {t:.3g})"
        return [
            f"network: {saved.name}, {self._trained_on()}",
            f"checkpoint: {name}{of}{calibrated}",
            f"measured: {self._measured(self.checkpoint)}",
            *(f"note: {caveat}" for caveat in self._caveats()),
        ]

    def _caveats(self) -> list[str]:
        """What the export says of its numbers; of a run whether its temperature has helped."""
        if self.saved.facts:
            listed = lookup(self.saved.facts, "caveats")
            known = [str(caveat) for caveat in listed] if isinstance(listed, list) else []
            return [caveat for caveat in known if not caveat.startswith(NOT_THE_PAPER)]  # it is nothing to predict by
        found = lookup(self._phase, "classification")
        sentence = "" if self.saved.temperature is None or found is None else doubt(found)
        return [sentence] if sentence else []

    def _trained_on(self) -> str:
        data, passport = self.config.data, self.saved.known.passport
        what = "videos" if data.frames is not None else "images"
        counts = lookup(self._phase, "data_check.counts.train")
        split = f"{passport['held_out']} held out" if passport.get("held_out") else ""
        facts = ", ".join(filter(None, (str(passport.get("level") or ""), split)))
        known = isinstance(counts, dict) and len(counts) <= 5
        of = ", ".join(f"{count} {name}" for name, count in counts.items()) if known else ""
        if exported := as_number(lookup(self.saved.facts, "data_splits.train")):
            of = f"{exported:.0f}"
        return f"trained on {data.name}{f' ({facts})' * bool(facts)}{f': {of} {what}' if of else ''}"

    def _measured(self, checkpoint: str) -> str:
        if self.saved.run is None and not self.saved.facts:
            return "what its run has recorded, which this file does not hold; nothing is known of yours"
        if self.saved.run is not None and not self.finished:
            return "nothing yet, the run is not finished"
        split = "test" if self._has("test") else "val"
        names = {
            "auc": "AUC {:.3f}",
            "acc1": "accuracy {:.1f} %",
            "balanced_acc": "balanced accuracy {:.1f} %",
            "map": "mAP {:.3f}",
        }
        values = {name: self._number(split, name, checkpoint) for name in names}
        said = [form.format(values[name]) for name, form in names.items() if values[name] is not None]
        if not said:
            return f"nothing is recorded of checkpoint={checkpoint}"
        counts = self.saved.facts.get("data_splits") or lookup(self._phase, "data_fingerprint.splits")
        count = as_number(lookup(counts, split))
        what = "videos" if self.config.data.frames is not None else "images"
        chosen_there = checkpoint == "best" and not self._has("val") and not self.saved.facts  # its caveats say it
        doubt = ", which also chose this epoch, so the numbers are optimistic" if chosen_there else ""
        own = f"its own {f'{count:.0f} ' if count else ''}{split} {what}"
        return f"{', '.join(said)} on {own}{doubt}; nothing is known of yours"

    def _has(self, split: str) -> bool:
        """Whether something is recorded of a split."""
        if self.saved.facts:
            return any(name.startswith(f"{split}/") for name in lookup(self.saved.facts, "metrics") or {})
        return bool(lookup(self._record, f"metrics.{split}"))

    def _number(self, split: str, name: str, checkpoint: str) -> float | None:
        if self.saved.facts:  # its metrics are those of its checkpoint
            return as_number((lookup(self.saved.facts, "metrics") or {}).get(f"{split}/{name}"))
        return as_number(lookup(self._record, f"metrics.{split}.{name}.{checkpoint}"))

    def notes(self, options: PrepareOptions) -> list[str]:
        """How the clips will differ from those of the training."""
        theirs = self.saved.known.passport["detector"]
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

    def about(self) -> dict[str, Any]:
        """What the JSON file says of the network."""
        saved = self.saved
        return {"run": saved.name, "network": self.lines(), "passport": saved.known.passport, "name": self.checkpoint}
