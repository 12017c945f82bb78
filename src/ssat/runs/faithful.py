"""Whether a run is one of the paper's, and if not, why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssat.config.identity import official_name
from ssat.config.schema import Run
from ssat.runs.own_phases import PHASES, own_settings, planned_phases
from ssat.runs.record import lookup

PAPER_EPOCHS = 100
PAPER_BATCH = 64
PAPER_MODES = ("scratch", "ssat", "ssl_ft", "finetune")
PAPER_RECONSTRUCTION = ("mae", "convmae", "paper_literal", "convmae_literal", "simmim", "swin_light", "videomae")
PAPER_SSL = (*PAPER_RECONSTRUCTION, "simclr", "dino", "drloc", "guidance")
USUAL = {"mask": "random", "target": "pixels", "source": "mixed"}
PAPER_PROTOCOLS = ([50, 50], [50, 100], [100, 50], [100, 100])  # epochs of SSL and of fine-tuning, Table 3
TWO_STAGES = "ssl_ft"  # the mode that they are protocols of
GANI_PROTOCOL = [200, 100]  # Table 7, with DINO
PRETRAINED = ("deit_tiny_patch16_224", "deit_small_patch16_224")  # Table 5, from ImageNet's weights
# Whose loss, or whose norm, sees a forward batch as a whole: accumulated batches are not one large batch to them.
COMPARE_IMAGES, BATCH_NORM = ("simclr", "dino"), ("resnet", "resnet_cifar", "cvt")
PAPER_VIDEO_ENCODERS = ("videomae_s", "videomae_b")  # section 5.4 does not state the size
PAPER_VIDEO_DATA = ("ffpp", "dfdc")
PAPER_MASK_RATIOS = (0.75, 0.95)  # Table 8
VIDEO = {"frames": 16, "img_size": 224, "max_clips": None}  # of `data`: all segments of 16 frames are tested
PAPER_ENCODERS = ("vit_t", "vit_s", "vit_b", "cvt_13", "swin_t", "resnet_50", "vit_2m8", "sl_vit", "deit_ti")
PAPER_DATA = (
    "cifar10",
    "cifar100",
    "flowers",
    "svhn",
    "imagenet",
    "clipart",
    "infograph",
    "sketch",
    "chaoyang",
    "pmnist",
)


def is_of_the_paper(record: Mapping[str, Any]) -> bool:
    """Whether a run's record is of a data set of the paper; a user's own folder may bear the name of one."""
    source = lookup(record, "config.data.source") or {}
    read = lookup(source, "domain") or lookup(source, "kind") or record.get("data")  # old records name the set alone
    return read in (*PAPER_DATA, *PAPER_VIDEO_DATA)


def beyond_the_paper(config: Run) -> list[str]:
    """What the self-supervised side of a run does that the paper does not."""
    used = [f"ssl={name}" for name in config.ssl.tasks if name not in PAPER_SSL]
    for task in config.ssl.tasks.values():
        chosen = {key: task.options.get(key, usual) for key, usual in USUAL.items()}
        used += [f"ssl.{key}={value}" for key, value in chosen.items() if value != USUAL[key]]
    schedules = {phase.lam_schedule for phase in config.mode.phases} - {"constant"}
    used += [f"mode.lam_schedule={schedule}" for schedule in sorted(schedules)]
    return [f"{what} goes beyond the paper" for what in used]


def _video_reasons(config: Run, last: dict[str, Any]) -> list[str]:
    """What of a run on videos is not as in section 5.4, as far as that says it; the level c23 is an assumption."""
    data, source = config.data, config.data.source
    reasons = []
    if source.kind not in PAPER_VIDEO_DATA:
        reasons.append(f"{data.name} is not one of the paper's sets of videos")
    elif lookup(last, "data_check.complete") is not True:
        reasons.append(f"the videos are a part of {data.name}")
    reasons += [
        f"data.{key}={getattr(data, key)}, in place of {value}"
        for key, value in VIDEO.items()
        if getattr(data, key) != value
    ]
    chosen = [key for key in ("methods", "val_parts", "test_parts", "identities") if source.options.get(key)]
    reasons += [f"data.{key}={source.options[key]} is another protocol than the paper's" for key in chosen]
    level = lookup(last, "data_fingerprint.passport.level")
    if level not in (None, "", "c23"):
        reasons.append(f"level {level}: c23 is assumed of the paper")
    if config.recipe.name != "videomae" or config.recipe.w != "auto":
        reasons.append(f"recipe={config.recipe.name}, recipe.w={config.recipe.w}, in place of videomae and auto")
    ratios = {task.options.get("mask_ratio") for task in config.ssl.tasks.values()}
    if any(phase.lam < 1 for phase in config.mode.phases) and not ratios <= {*PAPER_MASK_RATIOS}:
        reasons.append(f"ssl.mask_ratio={', '.join(map(str, ratios))} is neither 0.75 nor 0.95")
    return reasons


def _of_phases(config: Run) -> list[str]:
    """What the phases are told that conf/mode does not tell them: their number, and keys that one of them has alone."""
    name, count = config.mode.name, len(config.mode.phases)
    planned = planned_phases(name)
    if planned is not None and count != planned:
        return [f"mode={name} with {count} phases, in place of {planned}"]
    own = own_settings(config.values, name) if planned is not None else {}
    told = {key: value for key, value in own.items() if key.startswith(PHASES)}
    return [
        f"{key}={'null' if value is None else value}: no cell of the paper sets a phase apart"
        for key, value in told.items()
    ]


def unfaithful_reasons(config: Run, last: dict[str, Any]) -> list[str]:
    """Why this run's accuracy must not be read as a cell of the paper; empty when it may."""
    data, phases = config.data, config.mode.phases
    is_video = data.frames is not None
    noun, unit = ("videos", "clips") if is_video else ("images", "images")
    reasons = _video_reasons(config, last) if is_video else []
    if not is_video and official_name(config) not in PAPER_DATA:
        named = f"a folder called {data.name}" if data.name in PAPER_DATA else data.name
        reasons.append(f"{named} is not one of the paper's data sets")
    is_pretrained = config.encoder.name in PRETRAINED and config.encoder.pretrained
    encoders = PAPER_VIDEO_ENCODERS if is_video else PAPER_ENCODERS
    if config.encoder.name not in encoders and not is_pretrained:
        reasons.append(f"{config.encoder.name} is not one of the paper's encoders")
    if config.mode.name not in PAPER_MODES:
        reasons.append(f"mode={config.mode.name} is not one of the paper's")
    if any(phase.lam < 1 for phase in config.mode.phases):
        reasons += beyond_the_paper(config)
    figure_5 = data.subset == "official" and data.name == "imagenet"
    if (data.fraction < 1 and not figure_5) or data.samples_per_class or data.val_fraction or data.extra.get("classes"):
        reasons.append(
            f"trained on {last['data_fingerprint']['splits'].get('train')} {noun}, a part of the training set"
        )
    tested = last["data_fingerprint"]["splits"].get("test")
    if data.max_test is not None and tested is not None and tested >= data.max_test:
        reasons.append(f"data.max_test={data.max_test}: tested on {tested} {noun}, a part of the test set")
    if not data.use_test:
        reasons.append("data.use_test=false: the test images were left alone")
    if turns := len(last.get("rollbacks") or ()):
        reasons.append(f"on_nan=rollback: went back {turns} time{'s' * (turns > 1)} behind a loss that was not finite")
    if data.label_fraction < 1:
        reasons.append(f"data.label_fraction={data.label_fraction:g}: the labels of a part of the training set")
    if data.value_range:
        reasons.append("data.value_range changes the values of the pixels")
    if data.protocol != "paper":
        reasons.append("data.protocol=strict keeps validation images apart from the training")
    if not data.extra.get("verify", True):
        reasons.append("data.verify=false: the images were not counted against the official set")
    if last["skipped_images"]:
        reasons.append(f"{len(last['skipped_images'])} unreadable images were skipped")
    reasons += _of_phases(config)
    stages = [phase.epochs for phase in phases]
    is_ganis = stages == GANI_PROTOCOL and [*config.ssl.tasks] == ["dino"]
    if len(stages) == 2 and config.mode.name == TWO_STAGES and stages not in PAPER_PROTOCOLS and not is_ganis:
        reasons.append(f"{stages[0]} + {stages[1]} epochs are none of Table 3's protocols")
    elif len(stages) == 1 and (trained := len(last.get("history") or ()) or last["epochs"]) < PAPER_EPOCHS:
        reasons.append(f"{trained} of the paper's {PAPER_EPOCHS} epochs")
    recipe = config.recipe
    if recipe.class_weights is not None or (recipe.w is not None and not is_video):
        reasons.append("the classes have weights in the loss")
    if recipe.balance:
        reasons.append(f"recipe.balance=true: an epoch shows as many {noun} of each class")
    if recipe.focal_gamma:
        reasons.append(f"recipe.focal_gamma={recipe.focal_gamma:g}: the focal loss in place of the cross-entropy")
    if any(phase.recipe.patch_dropout for phase in phases):
        reasons.append("recipe.patch_dropout leaves patches out of the classification view")
    if any(phase.recipe.sizes for phase in phases):
        reasons.append(f"recipe.sizes begins with {unit} of fewer pixels")
    batch = recipe.batch_size * config.trainer.processes * config.trainer.accumulate
    published = PAPER_BATCH * (8 if data.name == "imagenet" else 1)  # 8 GPUs there
    if recipe.name in ("official", "paper") and batch != published:
        reasons.append(f"{batch} {unit} in an optimizer step, in place of {published}")
    tasks = {task.kind for task in config.ssl.tasks.values()} if any(phase.lam < 1 for phase in phases) else set()
    if config.trainer.accumulate > 1 and recipe.batch_size * config.trainer.processes < PAPER_BATCH:
        seen = [*sorted(tasks & {*COMPARE_IMAGES}), *({config.encoder.kind} & {*BATCH_NORM})]
        reasons += [f"{name} sees {recipe.batch_size} images at a time, however many are accumulated" for name in seen]
    if config.extend:
        reasons.append(
            f"extended from {phases[-1].planned} to {config.extend} epochs: another schedule than a whole run's"
        )
    if stopped := last.get("stopped"):
        reasons.append(f"a callback has stopped it after epoch {stopped['epoch'] + 1} of {stopped['planned']}")
    if config.trainer.max_steps:
        reasons.append(f"stopped after {config.trainer.max_steps} steps")
    return reasons
