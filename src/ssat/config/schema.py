"""Every key of the configuration: type, default, range, help, and whether it belongs to a run's identity.

The groups of conf/ set what differs from these defaults. `row N` = docs/recipes.md: the paper against its code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ssat.config.defaults import LARGEST
from ssat.config.environment import Footprint, Launcher, Logger, Monitor, Trainer
from ssat.config.fields import key
from ssat.config.recipe import Recipe


@dataclass(frozen=True)
class Component:
    """A network, task or data reader: a name from a visible table and the arguments of its class.

    Attributes:
        kind: the short name, or the user's own `module:Class`.
        name: of the option in conf/, such as vit_t.
        options: arguments of the class, which states their types and defaults.
    """

    kind: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Encoder(Component):
    """The network, and the weights that it starts from."""

    pretrained: str | bool | None = key(None, "start weights: a file | true = timm's, fetched from its hub")
    adapt_stem: bool = key(False, "fit pretrained weights for other channels to data.channels")


@dataclass(frozen=True)
class Ssl:
    """The self-supervised side: one task, or several with weights.

    Attributes:
        name: of the option in conf/ssl, or `several`.
        tasks: by name.
        weights: of the tasks, sum 1; None = equal.
    """

    name: str
    tasks: Mapping[str, Component]
    weights: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Moments:
    """Mean and deviation of the pixels, per channel."""

    mean: tuple[float, ...] = key((0.485, 0.456, 0.406))
    std: tuple[float, ...] = key((0.229, 0.224, 0.225))


IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


@dataclass(frozen=True)
class Statistics:
    """Which one is used: recipe.statistics (row 9)."""

    imagenet: Moments = key(IMAGENET)
    official: Moments = key("${data.statistics.imagenet}", "the authors'")
    own: Moments | None = key(None, "of this set's own pixels; null = measured on the training images when asked for")


@dataclass(frozen=True)
class Data:
    """The images. A set may have keys of its own, such as `root`, which its reader takes: `extra`."""

    name: str = key()
    source: Component = key()
    img_size: int = key(224, "pixels per side", low=1, high=LARGEST)
    patch_size: int = key("${default_patch:${data.img_size}}", "Table 14's rule: 14 to 16 patches per side", low=1)
    channels: int = key(
        3, "1 = grey, 3 = colour, whatever the files hold | 2 to 16: of files with as many (TIFF, .npy)", low=1, high=16
    )
    statistics: Statistics = key({})
    value_range: tuple[float, float] | None = key(
        None, "[lo,hi]: the files' values of black and of white, e.g. [0,4095] for 12 bits; null = all of their type"
    )
    max_pixels: int = key(
        178_956_970,  # where Pillow refuses
        "pixels of the largest image file that is decoded: a file of a kilobyte can state four billion; one above it"
        " counts as unreadable",
        low=1,
        identity=False,
    )
    hflip: float | None = key(None, "share of mirrored images; null = the recipe's", low=0, high=1)
    download: bool = key(
        True, "fetch an official set that is missing, where that is allowed; false = only say how", identity=False
    )
    pipeline: Literal["timm", "batched", "auto"] | None = key(
        None,
        "timm = PIL, image by image (the authors'; the reference) | batched = the same pixels, faster, and extra views"
        " | auto = the faster one that can do the recipe; null = batched where the SSL task needs views, else timm",
    )
    memory_gb: float = key(
        4,
        "hold a split in memory up to here: with pipeline=batched (on the GPU, if it trains), and of evaluations",
        low=0,
        identity=False,
    )
    num_workers: int | None = key(
        None, "loader processes; null = 0 on a CPU, up to 8 beside a GPU; changes no result", low=0, identity=False
    )
    fraction: float = key(1.0, "stratified share of the training images", above=0, high=1)
    label_fraction: float = key(
        1.0, "of those, the share whose labels are used: L_SSAT learns from all, L_cls from these", above=0, high=1
    )
    labelled_share: float | None = key(
        None,
        "share of each batch that has labels, which come again as often as needed, with label_fraction below 1 and"
        " mode=ssat, and at least that share; null = as they come",
        above=0,
        high=1,
    )
    epoch_size: int | None = key(
        None,
        "training images (or clips) of an epoch: more than there are = they come again, so modes with more and fewer"
        " labels take as many steps; fewer = other ones each time; null = all once",
        low=1,
        high=1_000_000_000,
    )
    subset: Literal["stratified", "official"] = key(
        "stratified", "how fraction chooses: by class and seed | official = the authors' seed-127 choice (Figure 5)"
    )
    samples_per_class: int | None = key(None, "or: so many training images of each class", low=1)
    val_fraction: float = key(0.0, "stratified share of the training images kept for validation", low=0, high=1)
    test_fraction: float = key(
        0.0, "stratified share of the images kept for the test, where the set has no test images", low=0, high=1
    )
    max_test: int | None = key(
        None, "for short tries: test on a stratified part of so many images; never counted as the whole test", low=1
    )
    use_test: bool = key(
        True, "false = leave the test images alone: a search that is decided by validation images does not see them"
    )
    folds: int | None = key(
        None, "k-fold cross-validation of a set without test images: stratified parts, drawn by seed", low=2
    )
    fold: int | None = key(None, "the part that is the test, from 0; all: -m data.folds=5 data.fold=0,1,2,3,4", low=0)
    group: int | str | None = key(
        None,
        "images that belong together (a patient, a video): never on two sides of a split, a subset or a label budget:"
        " 1 = first folder below the class folder | a regular expression with one ( ) | file.csv:column",
    )
    protocol: Literal["paper", "strict"] = key(
        "paper",
        "paper = test every epoch, train on official validation images where the paper does"
        " | strict = validation decides, test once",
    )
    on_bad_image: Literal["error", "skip"] = key(
        "error", "what an unreadable file does; skips are counted and reported"
    )
    frames: int | None = key(None, "frames of a clip; null = the data are single images", low=2)
    frame_step: int = key(4, "frames of the video from one frame of a clip to the next", low=1)
    max_clips: int | None = key(None, "of each video in an evaluation; null = all of them (section 5.4)", low=1)
    average: Literal["probabilities", "logits"] = key("probabilities", "what is averaged over the clips of a video")
    extra: Mapping[str, Any] = key({}, identity=False)

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels, or none: data.labels names their table."""
        return self.source.options.get("labels") is not None


@dataclass(frozen=True)
class Phase:
    """One fit of a mode."""

    name: str = key()
    lam: float = key(help="weight of L_cls in Eq. 1: 1 = labels only, 0 = SSL only", low=0, high=1)
    epochs: int = key(low=1, high=1_000_000)
    recipe: Recipe = key()
    init_from: str | None = key(None, "start weights: `previous` phase, a run folder or a file")
    start: Literal["encoder", "teacher"] = key("encoder", "which of its networks")
    head_init: Literal["xavier", "small"] = key("xavier", "the authors' | small = std 2e-5: MAE's fine-tuning")
    head_norm: bool = key(False, "batch norm without affine before the classifier")
    layer_decay: float | None = key(None, "null = the recipe's", above=0, high=1)
    frozen: bool = key(False, "only the head learns")
    lam_schedule: Literal["constant", "linear", "cosine", "balanced"] = key("constant")
    lam_end: float | None = key(None, low=0, high=1)
    balance_every: int = key(10, "steps between two measurements of the gradients", low=1)
    planned: int | None = key(None, "set by `extend`: the epochs of the run that is extended", low=1)


@dataclass(frozen=True)
class Mode:
    """A list of phases, and the values that conf/mode fills them from: a mode has those that its file names."""

    name: str = key()
    phases: tuple[Phase, ...] = key()
    lam: float | None = key(None, "weight of L_cls in Eq. 1 (section 5: 0.1)", low=0, high=1)
    lam_schedule: Literal["constant", "linear", "cosine", "balanced"] | None = key(
        None, "linear, cosine: from lam to lam_end | balanced: L_SSAT scaled until both gradients are equally long"
    )
    lam_end: float | None = key(None, "lam at the end of linear and cosine", low=0, high=1)
    balance_every: int | None = key(None, "steps between two measurements of the gradients", low=1)
    init_from: str | None = key(None, "start weights: a run folder, our checkpoint, or one in the authors' layout")
    start: Literal["encoder", "teacher"] | None = key(
        None, "teacher = the encoder's moving average, where the SSL task keeps one (dino, latent)"
    )
    ssl_epochs: int | None = key(None, "of the self-supervised stage", low=1, high=1_000_000)
    ft_epochs: int | None = key(None, "of the fine-tuning", low=1, high=1_000_000)
    ft_layer_decay: float | None = key(None, "0.75 is MAE's fine-tuning value", above=0, high=1)
    head_init: Literal["xavier", "small"] | None = key(None, "small = std 2e-5: MAE's fine-tuning")
    head_norm: bool | None = key(None, "batch norm without affine before the classifier (He et al. 2022, A.1)")
    ssl_recipe: Recipe | None = key(None, "of the self-supervised stage")
    probe_recipe: Recipe | None = key(None, "of the linear probe")


@dataclass(frozen=True)
class Run:
    """One run: what `python -m src.train` is told."""

    encoder: Encoder = key()
    data: Data = key()
    ssl: Ssl = key()
    recipe: Recipe = key()
    mode: Mode = key()  # after the recipe, whose keys it follows: a wrong value is then named by the key that was typed
    trainer: Trainer = key()
    monitor: Monitor = key({}, identity=False)
    footprint: Footprint = key({}, identity=False)
    logger: Logger = key({}, identity=False)
    launcher: Launcher = key({}, identity=False)
    epochs: int = key(
        100,
        "of the phase that learns the labels (Table 14); ssl_ft adds mode.ssl_epochs before",
        low=1,
        high=1_000_000,
    )
    batch: Literal["auto"] | None = key(
        None, "auto = the largest recipe.batch_size of which a step fits into the GPU's memory", identity=False
    )
    extend: int | None = key(
        None,
        "go on from the run of the same command without this key, to so many epochs of its last phase, as a run of its"
        " own (docs/recipes.md)",
        low=2,
        high=1_000_000,
    )
    seed: int = key(0, "weights, data order, augmentation, masks and mixing follow from it", low=0, high=2**32 - 1)
    name: str = key(
        "${encoder.name}-${data.name}-${mode.name}-s${seed}",
        "of the run's folder, before its hash; a sweep adds the keys that it varies: ...-ssat-lam=0.3-s0",
        identity=False,
    )
    experiment: str | None = key(
        None, "folder of the run under `runs_dir` and its W&B group; null = today's date", identity=False
    )
    runs_dir: str = key("runs", identity=False)
    run_dir: str | None = key(
        None, "a folder of your choice instead of runs_dir/<experiment>/<name>-<hash>", identity=False
    )
    force: bool = key(False, "train again although this run is finished; the old folder is kept", identity=False)
    estimate: bool = key(
        False, "run a short calibration, keep no weights, say what the run or sweep will take", identity=False
    )
    eval_every: int | Literal["auto"] = key(
        1,
        "epochs between two evaluations; the last epoch is always evaluated"
        " | auto = so many that evaluation takes about a tenth of the training's time",
        low=1,
    )
    callbacks: tuple[Any, ...] = key(
        (),
        "added to the training: early_stopping, lr_monitor, device_stats, model_summary, or your own (docs/extend.md)",
    )
    reconstruct_every: int = key(10, "epochs between two pictures of reconstructions; 0 = none", low=0, identity=False)
    checkpoint_minutes: float = key(10, "also save the last checkpoint inside long epochs", above=0, identity=False)
    checkpoint_keep: int | None = key(
        None,
        "so many last checkpoints: where the newest is damaged, a run goes on from the one before; null = 2 while a"
        " phase trains, 1 afterwards",
        low=1,
        identity=False,
    )
    on_nan: Literal["stop", "rollback"] = key(
        "stop",
        "a loss, weight or optimizer state that is not finite ends the run | rollback = go back to the last checkpoint"
        " and take the images that are left in another order, at most 3 times in a phase",
        identity=False,
    )
    # The plain values that this was built from; records and checkpoints hold them.
    values: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
