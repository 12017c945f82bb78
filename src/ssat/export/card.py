"""The model card: what a stranger must know of an exported network, from what model.json says."""

from __future__ import annotations

from typing import Any

from ssat.config.schema import Run
from ssat.core.words import duration, many, markdown_text
from ssat.data.sets.catalog import CATALOG
from ssat.export.parity import agreed
from ssat.export.prepare import rule

SHOWN = 20  # classes by name


def model_card(facts: dict[str, Any], config: Run, usage: str) -> str:
    """The text of README.md.

    Args:
        facts: of model.json.
        config: of the run.
        usage: Python lines that load the model.
    """
    parts = {
        "Use": f"```python\n{usage}\n```",
        "Input": _input(facts),
        "Data": _data(facts, config),
        "Training": _training(facts, config),
        "Accuracy": _accuracy(facts),
        "Same as PyTorch": _parity(facts),
        "Footprint": _footprint(facts),
        "Licence": _licence(config),
        "Hashes": _hashes(facts),
    }
    title = f"# {markdown_text(str(facts['name']))}\n\n{markdown_text(config.encoder.name)} with {facts['num_classes']}"
    title += f" {'labels' if facts.get('multi_label') else 'classes'}, as `{facts['file']}`."
    return "\n\n".join([title, *(f"## {name}\n\n{text}" for name, text in parts.items())]) + "\n"


def _input(facts: dict[str, Any]) -> str:
    given, shape = facts["preprocessing"], " x ".join(map(str, facts["input"]["shape"]))
    lines = [f"`images`: float32, {shape}, already normalised; any batch size. Output `logits`: batch x classes."]
    if "frames" in given:
        lines.append(
            f"A clip has {given['frames']} frames, {given['frame_step']} frame(s) of the video apart, fitted into"
            f" {given['img_size']} x {given['img_size']} pixels with black around."
        )
        lines.append(f"Scale to [0, 1], subtract mean {given['mean']}, divide by std {given['std']}.")
    else:
        lines.append(rule(given))
    kind = "Classes"
    if facts.get("multi_label"):
        kind = "Labels"
        lines.append("An image may have several labels: the sigmoid of each logit is the probability of its label.")
    return "\n".join([*lines, "", f"{kind}, in the order of the logits: {_classes(facts['classes'])}."])


def _classes(names: list[str]) -> str:
    shown = ", ".join(map(markdown_text, names[:SHOWN]))
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more (model.json)"


def _data(facts: dict[str, Any], config: Run) -> str:
    noun = "image" if config.data.frames is None else "video"
    counts = facts["data_splits"] or {}
    of = ", ".join(f"{split} {many(count, noun)}" for split, count in counts.items())
    card = CATALOG.get(config.data.name)
    about = f"{card.title}: {card.citation}" if card else markdown_text(config.data.name)
    return f"{about} ({of})." if of else f"{about}."


def _training(facts: dict[str, Any], config: Run) -> str:
    phases = [f"{phase.name} (lam {phase.lam:g}, {many(phase.epochs, 'epoch')})" for phase in config.mode.phases]
    epoch, at = facts["checkpoint"]["epoch"], facts["checkpoint"]["name"]
    lines = [
        markdown_text(
            f"mode={config.mode.name}: {', then '.join(phases)}; recipe={config.recipe.name}, seed={config.seed}."
        ),
        f"checkpoint={at}{f', epoch {epoch} of ' + str(facts['checkpoint']['epochs']) if epoch else ''}.",
        "The decoder and every other self-supervised part are left out. model.json has the whole configuration.",
    ]
    return "\n".join(lines)


def _accuracy(facts: dict[str, Any]) -> str:
    rows = [f"| {markdown_text(name)} | {value:.4g} |" for name, value in facts["metrics"].items()]
    table = ["| metric | value |", "|---|---|", *rows, ""] if rows else []
    notes = [f"- {caveat}" for caveat in [*facts["caveats"], "nothing is known of images from elsewhere"]]
    return "\n".join([*table, "Keep in mind:", "", *notes])


def _parity(facts: dict[str, Any]) -> str:
    found, test = facts["parity"], "test clips" if "frames" in facts["preprocessing"] else "test images"
    same = agreed(multi_label=bool(facts.get("multi_label")))
    lines = [
        f"- {found[what]['images']} {noun}: largest difference of two logits {found[what]['relative']:.1e} of the"
        f" largest, {same} on {found[what]['same_top1']}"
        for what, noun in (("random", "random inputs"), ("test", test))
        if found[what] is not None
    ]
    if found["test"] is None:
        lines.append(f"- not compared on test images: {found['test_missing']}")
    return "\n".join(lines)


def _footprint(facts: dict[str, Any]) -> str:
    spent, lines = facts["footprint"], []
    if facts["params"] is not None:
        lines.append(f"{facts['params']:,.0f} parameters")
    if facts["macs"] is not None:
        lines.append(f"{facts['macs'] / 1e6:,.1f} M multiply-adds for one image or clip")
    if spent["seconds"] is not None:
        lines.append(f"trained in {duration(spent['seconds'])} on {markdown_text(str(spent['device']))}")
    if spent["energy_kwh"] is not None:
        shared = ", of the whole machine, which did other work too" if spent["energy_shared"] else ""
        lines.append(f"{spent['energy_kwh']:.4g} kWh and {spent['co2_kg'] or 0:.4g} kg CO2, measured{shared}")
    if spent["co2_kg_lacoste"] is not None:
        lines.append(f"{spent['co2_kg_lacoste']:.2g} kg CO2 by Lacoste's formula")
    return "\n".join(f"- {line}" for line in lines)


def _licence(config: Run) -> str:
    card = CATALOG.get(config.data.name)
    data = f"the data's licence: {card.licence} ({card.homepage})" if card else "you know the licence of your data"
    start = "; start weights have a licence of their own" if config.encoder.pretrained else ""
    return f"The code is MIT. The weights follow from the data, and {data}{start}. State a licence before you publish."


def _hashes(facts: dict[str, Any]) -> str:
    lines = {
        "run": facts["hash"],
        f"SHA-256 of {facts['file']}": facts["sha256"],
        "SHA-256 of the checkpoint": facts["checkpoint"]["sha256"],
        **{f"SHA-256 of the {split} data": value for split, value in (facts["data_sha256"] or {}).items()},
        "code": facts["git_commit"],
    }
    return "\n".join(f"- {name}: `{value}`" for name, value in lines.items() if value)
