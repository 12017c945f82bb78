"""The configuration as plain data: resolved, checked at the edge, hashed."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.data.catalog import CATALOG
from src.errors import UserError

Config = dict[str, Any]

# Keys that say where and how a run is watched, not what it computes: they do not change its identity.
NEUTRAL_KEYS = (
    "experiment",
    "runs_dir",
    "run_dir",
    "force",
    "estimate",
    "logger",
    "launcher",
    "monitor",
    "footprint",
    "reconstruct_every",
    "checkpoint_minutes",
    "data.num_workers",
    "data.download",
    "trainer.accelerator",
    "trainer.threads",
    "trainer.log_every",
    "trainer.progress",
)
BATCH_FACTORS = ("trainer.devices", "trainer.num_nodes", "trainer.accumulate")


def default_patch(img_size: int) -> int:
    """The largest patch that gives 14 to 16 patches per side (Table 14), or the one that comes nearest to it."""
    divisors = [p for p in range(1, img_size + 1) if img_size % p == 0]
    fitting = [p for p in divisors if 14 <= img_size / p <= 16]
    return max(fitting) if fitting else min(divisors, key=lambda p: abs(math.log(img_size / p / 15)))


def default_strides(img_size: int) -> list[int]:
    """CvT's strides: the official 4, 2, 2 for large images, smaller ones where little would be left of the image."""
    return [4 if img_size >= 128 else 2 if img_size >= 64 else 1, 2, 2]


def default_swin_patch(img_size: int) -> int:
    """Swin's patch: the original 4 for large images; small ones are cut finer, so that four stages have a grid left."""
    return 4 if img_size >= 128 else 2 if img_size % 16 == 0 else 1


def default_window(img_size: int, patch_size: int) -> int:
    """Swin's window: the first usual size that divides every stage's grid which is larger than it."""
    usual = (7, 8, 4, 6, 5, 3, 2) if img_size >= 128 else (4, 7, 8, 6, 5, 3, 2)
    sides = [-(-(img_size // patch_size) // 2**stage) for stage in range(4)]
    return next((w for w in usual if all(side <= w or side % w == 0 for side in sides)), usual[0])


def default_mask_unit(img_size: int) -> int:
    """Pixels per mask cell of Swin: 8 to 16 cells per side at the usual sizes."""
    return 16 if img_size >= 128 else 8 if img_size >= 64 else 4


def default_stem(img_size: int) -> str:
    """ResNet's stem: the original one would leave a single position of a 32-pixel image."""
    return "imagenet" if img_size >= 64 else "cifar"


RESOLVERS = (default_patch, default_strides, default_swin_patch, default_window, default_mask_unit, default_stem)
for resolver in RESOLVERS:
    OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


def resolve(cfg: DictConfig) -> Config:
    """`cfg` as a plain dictionary with every interpolation resolved.

    Raises:
        UserError: a mandatory key is missing or an interpolation fails.
    """
    values = flatten(OmegaConf.to_container(cfg, resolve=False))
    missing = sorted(key for key, value in values.items() if value == "???" and not key.startswith("hydra"))
    if missing:
        raise UserError(f"{', '.join(missing)} has no default: give it on the command line, e.g. {missing[0]}=...")
    try:
        config = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"the configuration does not resolve: {str(error).splitlines()[0]}") from error
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries and lists as {'recipe.betas.0': 0.9, ...}."""
    if isinstance(config, dict):
        items = config.items()
    elif isinstance(config, list):
        items = dict(enumerate(config)).items()
    else:
        return {prefix: config}
    flat: dict[str, Any] = {}
    for key, value in items:
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def identity(config: Config) -> dict[str, Any]:
    """The flat configuration without the keys that do not change what is computed."""
    keys: tuple[str, ...] = NEUTRAL_KEYS
    data = config.get("data")
    if isinstance(data, dict) and data.get("name") in CATALOG:
        keys += ("data.root", "data.source.root")  # an official set is the same wherever it lies
    neutral = tuple(f"{key}." for key in keys)
    flat = {key: value for key, value in flatten(config).items() if not f"{key}.".startswith(neutral)}
    if flat.get("data.root", "") is None:  # a set that lies in no folder
        del flat["data.root"]
    return flat


def step_batch(batch_size: Any, flat: dict[str, Any]) -> Any:
    """Images of an optimizer step: those of a device, times BATCH_FACTORS; `batch_size` itself if that is no number."""
    numbers = [batch_size, *(flat.get(key, 1) for key in BATCH_FACTORS)]
    return math.prod(numbers) if all(isinstance(number, int) for number in numbers) else batch_size


def config_hash(config: Config) -> str:
    """Eight hexadecimal digits that name what the configuration computes."""
    text = json.dumps(identity(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def differences(ours: Config, theirs: Config) -> list[str]:
    """The keys in which two configurations compute different things, as 'key: a -> b'."""
    a, b = identity(theirs), identity(ours)
    return [f"{key}: {a.get(key)} -> {b.get(key)}" for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]


def check_same_run(config: Config, theirs: Config | None, path: Path) -> None:
    """Refuse to continue in `path` what was begun under another configuration.

    Raises:
        UserError: names the first differences.
    """
    if theirs is None:
        raise UserError(f"{path} is not of a run of ours: move it away, or start from it with mode.init_from")
    changed = differences(config, theirs)
    if changed:
        listed = "; ".join(changed[:5]) + (f"; and {len(changed) - 5} more" if len(changed) > 5 else "")
        raise UserError(
            f"{path} belongs to another configuration ({listed}): use another run_dir, or force=true to start afresh"
        )


def nearest(word: str, options: list[str]) -> str:
    """' (did you mean x?)' for the option most like `word`, by its whole name or its last part; else ''."""

    def likeness(option: str) -> float:
        whole = difflib.SequenceMatcher(None, word, option).ratio()
        leaf = difflib.SequenceMatcher(None, word.rpartition(".")[2], option.rpartition(".")[2]).ratio()
        return max(whole, leaf)

    best = max(options, key=likeness, default="")
    return f" (did you mean {best}?)" if best and likeness(best) > 0.5 else ""


def _shown(key: str) -> str:
    """The key as the user knows it: a phase's recipe is the recipe."""
    return re.sub(r"^mode\.phases\.\d+\.", "", key)


def _check_number(config: Config, key: str, low: float, high: float = math.inf, *, open_low: bool = False) -> None:
    flat = flatten(config)
    value = flat.get(key)
    if value is None:
        return
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value > high or value < low or (open_low and value == low):
        span = f"{'above' if open_low else 'at least'} {low:g}" + ("" if high == math.inf else f" and at most {high:g}")
        raise UserError(f"{_shown(key)}={value!r} is not possible: it must be a number {span}")


def _check_choice(config: Config, key: str, options: tuple[Any, ...]) -> None:
    value = flatten(config).get(key)
    if value not in options:
        listed = ", ".join(str(option) for option in options)
        raise UserError(
            f"{_shown(key)}={value!r} is not one of {listed}{nearest(str(value), [str(o) for o in options])}"
        )


PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def check(config: Config) -> None:
    """Refuse values that cannot work, before anything is built or written.

    Raises:
        UserError: names the key, its value and what is possible.
    """
    flat = flatten(config)
    for index, phase in enumerate(config["mode"]["phases"]):
        where = f"mode.phases.{index}"
        lam = phase["lam"]
        if not isinstance(lam, (int, float)) or isinstance(lam, bool) or not 0 <= lam <= 1:
            raise UserError(
                f"lam={lam!r} of phase '{phase['name']}' is outside [0, 1]: set mode.lam to the weight of L_cls"
            )
        schedule = phase.get("lam_schedule", "constant")
        if schedule != "constant":
            _check_choice(config, f"{where}.lam_schedule", ("constant", "linear", "cosine", "balanced"))
            _check_number(config, f"{where}.balance_every", 1)
            _check_number(config, f"{where}.lam_end", 0, 1)
            if not 0 < lam < 1:
                raise UserError(
                    f"mode.lam_schedule={schedule} needs both losses: set mode.lam between 0 and 1, not {lam}"
                )
            if schedule != "balanced" and phase.get("lam_end") is None:
                raise UserError(f"mode.lam_schedule={schedule} needs an end: set mode.lam_end")
        if schedule in ("constant", "balanced") and phase.get("lam_end") is not None:
            raise UserError(
                f"mode.lam_end={phase['lam_end']} is not used by mode.lam_schedule={schedule}: choose linear or cosine"
            )
        if flat["trainer.compile"] and (schedule == "balanced" or flat.get("monitor.conflict_every")):
            # Measured: the second gradient of one compiled graph can be wrong by percents.
            raise UserError(
                "mode.lam_schedule=balanced and monitor.conflict_every read the gradients of a step more than once, and"
                " compiled passes do not give them exactly: set trainer.compile=false"
            )
        _check_number(config, f"{where}.epochs", 1)
        if not isinstance(phase["epochs"], int):
            raise UserError(f"epochs={phase['epochs']!r} of phase '{phase['name']}' is not a whole number")
        recipe = f"{where}.recipe"
        _check_choice(config, f"{where}.head_init", ("xavier", "small"))
        if "start" in phase:
            _check_choice(config, f"{where}.start", ("encoder", "teacher"))
        for key in ("base_lr", "batch_size", "eval_crop_pct"):
            _check_number(config, f"{recipe}.{key}", 0, open_low=True)
        for key in ("min_lr", "warmup_lr", "warmup_epochs", "weight_decay", "mixup", "cutmix"):
            _check_number(config, f"{recipe}.{key}", 0)
        for key in ("drop_path", "label_smoothing", "mix_prob", "mix_switch_prob", "max_warmup_share", "ema_decay"):
            _check_number(config, f"{recipe}.{key}", 0, 1)
        _check_number(config, f"{recipe}.layer_decay", 0, 1, open_low=True)
        _check_number(config, f"{recipe}.clip_grad", 0, open_low=True)
        _check_number(config, f"{where}.layer_decay", 0, 1, open_low=True)
        _check_choice(config, f"{recipe}.lr_rule", ("linear", "absolute"))
        _check_choice(config, f"{recipe}.optimizer", ("adamw", "sgd"))
        _check_number(config, f"{recipe}.momentum", 0, 1)
        _check_choice(config, f"{recipe}.statistics", ("official", "own", "imagenet"))
        _check_choice(config, f"{recipe}.report", ("last", "max"))
        _check_choice(config, f"{recipe}.scratch_pos_embed", ("sincos", "learnable"))
        if not isinstance(phase["recipe"]["batch_size"], int):
            raise UserError(
                f"recipe.batch_size={phase['recipe']['batch_size']!r} is not possible: it must be a whole number"
            )
        if (phase["recipe"]["mixup"] or phase["recipe"]["cutmix"]) and phase["recipe"]["batch_size"] % 2:
            raise UserError(
                f"recipe.batch_size={phase['recipe']['batch_size']} is odd, and mixup pairs images: make it even"
            )
    data = config["data"]
    if data.get("root") is not None and "root" not in data.get("source", {}):
        raise UserError(
            f"data.root={data['root']} is not read by data={data['name']}, which lies in no folder: leave it out, or"
            " choose another data set"
        )
    starts = config["mode"].get("init_from"), config["encoder"].get("pretrained")
    if config["mode"]["name"] in ("finetune", "linear") and not any(starts):
        raise UserError(
            f"mode={config['mode']['name']} needs start weights: mode.init_from=<run folder or file> or"
            " encoder.pretrained=..."
        )
    if all(starts):
        raise UserError(
            f"mode.init_from={starts[0]} and encoder.pretrained={starts[1]} are both given: keep one of them"
        )
    for key in ("trainer.devices", "trainer.num_nodes", "trainer.accumulate", "eval_every", "trainer.log_every"):
        _check_number(config, key, 1)
    _check_number(config, "reconstruct_every", 0)
    _check_number(config, "monitor.knn_every", 0)
    _check_number(config, "monitor.linear_every", 0)
    _check_number(config, "monitor.conflict_every", 0)
    _check_number(config, "checkpoint_minutes", 0, open_low=True)
    _check_number(config, "data.num_workers", 0)
    _check_number(config, "data.memory_gb", 0)
    _check_number(config, "seed", 0, 2**32 - 1)
    _check_number(config, "footprint.intensity", 0)
    if str(flat["trainer.precision"]) not in PRECISIONS:
        raise UserError(f"trainer.precision={flat['trainer.precision']} is not one of {', '.join(PRECISIONS)}")
    _check_choice(config, "trainer.accelerator", ("auto", "cpu", "gpu", "mps"))
    _check_choice(config, "trainer.progress", ("auto", "bar", "lines", "off"))
    if Path(str(config["name"])).name != str(config["name"]):
        raise UserError(f"name={config['name']!r} must be a plain folder name, without a path separator")
