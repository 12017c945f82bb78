"""The words of Lightning, its command line and its Hydra templates, as the keys that they are called here."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from ssat.core.errors import UserError
from ssat.core.launch import say

# A key of Lightning's Trainer is known with `trainer.` before it and without.
OF_TRAINER = {
    "max_epochs": "epochs",
    "accumulate_grad_batches": "trainer.accumulate",
    "gradient_clip_val": "recipe.clip_grad",
    "log_every_n_steps": "trainer.log_every",
    "check_val_every_n_epoch": "eval_every",
    "enable_progress_bar": "trainer.progress",
    "default_root_dir": "runs_dir",
    "gpus": "trainer.devices",
}
NAMES = {
    **OF_TRAINER,
    **{f"trainer.{name}": key for name, key in OF_TRAINER.items()},
    **{name: f"trainer.{name}" for name in ("devices", "num_nodes", "precision", "accelerator", "max_steps")},
    **{f"trainer.{name}": name for name in ("callbacks", "logger")},
    **dict.fromkeys(("model", "net", "model.name"), "encoder"),
    **dict.fromkeys(("datamodule", "dataset", "datamodule.name"), "data"),
    **dict.fromkeys(("optimizer.name", "optimizer._target_", "model.optimizer._target_"), "recipe.optimizer"),
    **dict.fromkeys(("lr", "learning_rate", "optimizer.lr", "model.lr", "model.optimizer.lr"), "recipe.base_lr"),
    **dict.fromkeys(("batch_size", "data.batch_size", "datamodule.batch_size"), "recipe.batch_size"),
    **{
        name: f"recipe.{name}"
        for name in ("optimizer", "weight_decay", "label_smoothing", "warmup_epochs", "drop_path")
    },
    **{f"checkpoint.{name}": f"checkpoint_{name}" for name in ("keep", "minutes")},
    **{"num_workers": "data.num_workers", "seed_everything": "seed"},
}
GROUPS = {"model": "encoder", "net": "encoder", "datamodule": "data", "optimizer": "recipe"}  # for their other keys
VALUES = {
    "trainer.precision": {"bf16-mixed": "bf16", "16-mixed": "16", "32-true": "32"},
    "trainer.accelerator": {"cuda": "gpu"},
    "trainer.progress": {"true": "auto", "false": "off", "True": "auto", "False": "off"},
    "recipe.optimizer": {name: name.rpartition(".")[2].lower() for name in ("AdamW", "SGD")}
    | {f"torch.optim.{name}": name.lower() for name in ("AdamW", "SGD")},
    "recipe.clip_grad": {"0": "null", "0.0": "null"},
}
NOTES = {"recipe.base_lr": "for 256 images; recipe.lr_rule=absolute takes it as it is"}
# What has no key of its own: what to do instead.
INSTEAD = {
    "ckpt_path": "the run continues by itself, repeat the command; mode.init_from=<run or file> starts from weights",
    "resume_from_checkpoint": "the run continues by itself, repeat the same command",
    "fast_dev_run": "epochs=1 trainer.max_steps=1 tries one step, and estimate=true measures what the run will take",
    "limit_train_batches": "data.fraction=0.1 trains on a tenth of each class, and trainer.max_steps=... ends early",
    "limit_val_batches": "eval_every=... evaluates less often, and data.max_test=... tests on fewer images",
    "limit_test_batches": "data.max_test=... tests on fewer images",
    "limit_predict_batches": "predict takes the files that you name",
    "overfit_batches": "data.samples_per_class=... trains on few images",
    "val_check_interval": "eval_every=... is counted in epochs",
    "max_time": "trainer.max_steps=... ends early, and a run that is stopped goes on when its command is repeated",
    "min_epochs": "epochs=... are all trained unless callbacks=[early_stopping] is given",
    "min_steps": "epochs=... are all trained unless callbacks=[early_stopping] is given",
    "enable_checkpointing": "checkpoints are always written: checkpoint_minutes=... and checkpoint_keep=...",
    "enable_model_summary": "callbacks=[model_summary] prints the layers",
    "scheduler": "the learning rate is a cosine with a warm-up: recipe.warmup_epochs, recipe.min_lr",
    "lr_scheduler": "the learning rate is a cosine with a warm-up: recipe.warmup_epochs, recipe.min_lr",
}
DDP = "several processes (trainer.devices=2) train with DDP in any case"
ALWAYS = {"trainer.strategy": ("auto", "ddp"), "strategy": ("auto", "ddp"), "seed_everything": ("true", "True")}


def own_names(words: Sequence[str], say: Callable[[str], None] = say) -> list[str]:
    """`words` with our key, and our value, where an override is written in Lightning's; `say` gets a line of each.

    Raises:
        UserError: there is nothing of the kind here, or a key is given under both names.
    """
    found = []
    for word in words:
        sign, key, value = re.match(r"(\+*)([^=]*)=?(.*)", word, re.DOTALL).groups()  # type: ignore[union-attr]
        if "=" not in word or sign + key == "" or word[0] == "~":
            found.append(word)
            continue
        refuse(key, value)
        if value == "auto" and NAMES.get(key, key) == "recipe.batch_size":
            say(f"{word} is called batch here: batch=auto")
            found.append("batch=auto")
            continue
        if value in ALWAYS.get(key, ()):
            say(f"{word} is left out: {DDP if 'strategy' in key else 'every run has a seed, seed=0 by default'}")
            continue
        ours, written = our_key(key), our_value(our_key(key), value, words)
        if (ours, written) == (key, value):
            found.append(word)
            continue
        both = [other for other in words if other.lstrip("+").partition("=")[0] == ours != key]
        if both:
            raise UserError(f"{both[0]} and {word} are one key: keep one of them", key=key, value=value)
        called = f"{key} is called {ours} here" if ours != key else f"{value} is called {written} here"
        note = f" ({NOTES[ours]})" if ours in NOTES else ""
        say(f"{called}: {ours}={written}{note}")
        found.append(f"{ours}={written}")
    return found


def refuse(key: str, value: str) -> None:
    """Raises: UserError: a word of Lightning's for which there is something else here."""
    name = key.removeprefix("trainer.")
    if name in INSTEAD:
        raise UserError(f"there is no {key} here: {INSTEAD[name]}", key=key, value=value)
    if name == "strategy" and value not in ALWAYS[key]:
        raise UserError(f"{key}={value} is not possible: {DDP}; leave it out", key=key, value=value)
    if name in ("devices", "gpus") and not re.fullmatch(r"auto|-1|\d+(,\d+)*", value.strip("'\"")):
        raise UserError(
            f"{key}={value} is not possible: it is a number; CUDA_VISIBLE_DEVICES=0,1 chooses among the GPUs",
            key=key,
            value=value,
        )


def our_key(key: str) -> str:
    """What Lightning's `key` is called here; any other key itself."""
    if key in NAMES:
        return NAMES[key]
    group, dot, rest = key.partition(".")
    return f"{GROUPS[group]}.{rest}" if dot and group in GROUPS else key


def our_value(key: str, value: str, words: Sequence[str]) -> str:
    """What Lightning's `value` of our `key` is written as here; of a sweep, each of its values."""
    if key == "trainer.devices" and value in ("auto", "-1"):
        return str(visible_devices(words))
    known = VALUES.get(key, {})
    return ",".join(known.get(one, one) for one in value.split(",")) if known else value


def visible_devices(words: Sequence[str]) -> int:
    """The GPUs that this process sees; 1 without one, or where `words` ask for another accelerator."""
    if {"trainer=cpu", "trainer=mps", "trainer.accelerator=cpu", "trainer.accelerator=mps"} & {*words}:
        return 1
    import torch

    return max(1, torch.cuda.device_count())
