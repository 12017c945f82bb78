"""Command lines nobody would type, and some that somebody might: drawn from the commands' own words by a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SMALL = ["encoder=vit_micro", "encoder.depth=2", "encoder.embed_dim=32", "encoder.num_heads=2", "data=digits"]
SMALL += ["trainer=cpu", "footprint.energy=false", "monitor.pictures=false", "reconstruct_every=0"]
# Last, so that whatever comes before ends after one step.
ENDS = ["recipe.batch_size=8", "data.samples_per_class=2", "data.max_test=20", "epochs=1", "trainer.max_steps=1"]
GROUPS = ("encoder", "data", "mode", "ssl", "recipe", "trainer", "logger", "launcher", "input")
FLAGS = [
    "--help",
    "--cfg",
    "-m",
    "--config-dir",
    "--experimental-rerun",
    "--version",
    "-h",
    "--info",
    "--resolve",
    "-x",
]
OPTIONS = {
    "evaluate": ["run", "phase", "checkpoint", "split", "batch_size", "probe", "severities", "seeds", "force", "data"],
    "predict": ["run", "input", "out", "checkpoint", "top_k", "tta", "explain", "threshold", "batch_size", "device"],
    "embed": ["run", "input", "out", "split", "map", "checkpoint", "batch_size", "seed", "device"],
    "export": ["run", "format", "out", "images", "checkpoint", "force"],
    "analyze": ["runs", "analysis", "out", "images", "pictures", "split", "batch_size", "seed", "force"],
    "report": ["runs", "format", "out", "save"],
    "prepare": ["data", "data.root", "mirror"],
    "advise": ["budget", "pilots", "lam", "data", "encoder", "recipe.batch_size", "seed", "launcher"],
}
VALUES = [
    "0",
    "1",
    "-1",
    "2",
    "8",
    "1e400",
    "nan",
    "inf",
    "-0.0",
    "0.5",
    "1e-30",
    "9" * 30,
    "true",
    "false",
    "null",
    "None",
]
VALUES += [
    "",
    " ",
    "''",
    '""',
    "'",
    '"',
    "[",
    "]",
    "[]",
    "[1,2]",
    "[[[[1]]]]",
    "{",
    "{}",
    "{a:1}",
    "{a:{b:[1,'x']}}",
    "a:b",
]
VALUES += ["..", "/", "/dev/null", "/dev/zero", "/proc/self/mem", "nowhere", "a" * 5000, "a/" * 900, "\\", "%s", "{0}"]
VALUES += [
    "é",
    "日本",
    "\u202ex",
    "a\nb",
    "a\tb",
    "\x1b[31m",
    "\x07",
    "\udcff",
    "$HOME",
    "$(touch CANARY)",
    "`touch CANARY`",
]
VALUES += [
    "${oc.env:HOME}",
    "${seed}",
    "${",
    "${a",
    "${oc.create:1}",
    "${hydra:runtime.cwd}",
    "???",
    "${ssl}",
    "*",
    "?",
    "~",
    "#",
]
VALUES += [
    "os:system",
    "os.system",
    "pathlib:Path.touch",
    "builtins:eval",
    "subprocess:Popen",
    "choice(1,2)",
    "range(0,3)",
]
VALUES += [
    "interval(0,1)",
    "glob(*)",
    "x=y",
    "=",
    "==",
    ",",
    "1,",
    ",1",
    "a,b,c",
    "vit_t",
    "digits",
    "ssat",
    "scratch",
    "mae",
]


def keys() -> list[str]:
    """Every dotted key of a training, as `src.train` composes it."""
    from tests.helpers import config

    found: list[str] = []

    def walk(node: Any, prefix: str) -> None:
        for name, value in node.items():
            found.append(f"{prefix}{name}")
            if isinstance(value, dict):
                walk(value, f"{prefix}{name}.")

    walk(config().values, "")
    return found


def training(draw: random.Random, keys: Sequence[str]) -> list[str]:
    """Words of `train`: small, with one to four overrides that make no sense, or little."""
    strange = [_override(draw, keys) for _ in range(draw.randint(1, 4))]
    if draw.random() < 0.15:
        strange.insert(draw.randrange(len(strange) + 1), draw.choice(FLAGS))
    return ["train", *SMALL, *strange, *ENDS]


def _override(draw: random.Random, keys: Sequence[str]) -> str:
    key = draw.choice([draw.choice(keys), draw.choice(keys), draw.choice(GROUPS), _misspelt(draw, draw.choice(keys))])
    value = draw.choice(VALUES) if draw.random() < 0.9 else _misspelt(draw, draw.choice(VALUES) or "x")
    form = draw.choice(
        ["{k}={v}"] * 8 + ["+{k}={v}", "++{k}={v}", "~{k}", "{k}", "{k}.x={v}", "{k}@x={v}", "{k}._target_={v}"]
    )
    return form.format(k=key, v=value)


def _misspelt(draw: random.Random, text: str) -> str:
    place = draw.randrange(len(text))
    return draw.choice(
        [
            text[:place] + text[place + 1 :],
            text[:place] + draw.choice("xyz.=_-/ ") + text[place:],
            text.upper(),
            text * 2,
        ]
    )


def other(draw: random.Random, command: str, run: Path, image: Path) -> list[str]:
    """Words of another command than `train`: those that it needs, and one to three strange ones."""
    good = {"run": str(run), "runs": f"[{run}]" if command == "analyze" else str(run.parent), "input": str(image)}
    good |= {"format": "safetensors", "data": "digits"}
    names = OPTIONS[command]
    words = [
        f"{name}={good[name]}" for name in ("run", "runs", "input", "format") if name in names and draw.random() < 0.9
    ]
    for _ in range(draw.randint(1, 3)):
        name = draw.choice(names) if draw.random() < 0.8 else _misspelt(draw, draw.choice(names))
        words.append(f"{name}={draw.choice(VALUES)}" if draw.random() < 0.9 else draw.choice(FLAGS))
    draw.shuffle(words)
    return [command, *words]


def lines(seed: int, count: int, run: Path, image: Path) -> list[list[str]]:
    """`count` command lines; half of them train."""
    draw, every = random.Random(seed), keys()
    return [
        training(draw, every) if number % 2 == 0 else other(draw, draw.choice(list(OPTIONS)), run, image)
        for number in range(count)
    ]
