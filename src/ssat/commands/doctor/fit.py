"""Do patches and masks fit the images or clips of every data set, and is the packed pass the two passes?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from ssat.commands.doctor.finding import Finding
from ssat.config.resolve import resolve
from ssat.config.schema import Run
from ssat.config.words import CONF
from ssat.core.errors import UserError
from ssat.data.sets.catalog import CATALOG
from ssat.encoders.base import Encoder
from ssat.tasks.masking import random_mask, tube_mask
from ssat.tasks.reconstruction import Reconstruction
from ssat.tasks.videomae import VideoMAE
from ssat.training.build import build_encoder
from ssat.training.tasks import build_ssl

ABSTRACT = {"vit": "a pattern for the others"}
VIDEO_SETS = ("ffpp", "dfdc", "dfdcp")
NAMED = {"timm": ["encoder.name=vit_tiny_patch16_224"]}  # an example of what the user names
QUICK_ENCODERS = ("vit_t", "cvt_13", "swin_t", "videomae_micro")
PACKED = {True: ("vit_t",), False: ("vit_t", "vit_2m8", "sl_vit", "videomae_micro")}  # by `quick`
BOUND = 1e-5
Geometry = tuple[int, int, int, int | None]  # image size, patch size, channels, frames of a clip


def composed(*overrides: str) -> Run:
    """The configuration of `python -m src.train <overrides>`, checked."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = resolve(compose("train", overrides=list(overrides)))
    return config


def geometries(names: Iterable[str]) -> dict[Geometry, list[str]]:
    """The data sets by what the encoders see of them."""
    found: dict[Geometry, list[str]] = {}
    for name in names:
        data = composed(f"data={name}").data
        found.setdefault((data.img_size, data.patch_size, data.channels, data.frames), []).append(name)
    return dict(sorted(found.items(), key=str))


def encoders(*, quick: bool) -> list[str]:
    """The options of the group `encoder`."""
    known = sorted(path.stem for path in (CONF / "encoder").glob("*.yaml") if path.stem not in ABSTRACT)
    return [name for name in known if name in QUICK_ENCODERS] if quick else known


def takes_clips(encoder: str) -> bool:
    """Whether the option of the group `encoder` is of videos."""
    return "\n  kind: videomae\n" in (CONF / "encoder" / f"{encoder}.yaml").read_text()


def shallow(config: Run) -> Run:
    """The same with one block in encoder and decoder: cut as the whole is, and built in a fraction of the time."""
    encoder = replace(config.encoder, options=_set(config.encoder.options, "depth"))
    cut = {name: replace(task, options=_set(task.options, "decoder_depth")) for name, task in config.ssl.tasks.items()}
    return replace(config, encoder=encoder, ssl=replace(config.ssl, tasks=cut))


def _set(options: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return {**options, key: 1} if key in options else options


def cells(config: Run) -> str:
    """How images or clips are cut, such as '8x8 cells of 2 px, 16 of 64 kept'; what does not fit raises.

    Raises:
        UserError: as training would.
        ValueError: the cells do not cover the image, or a mask keeps another number than int(L * (1 - ratio)), of tubes
            L - int(L * ratio) in every slot of frames.
    """
    phase = config.mode.phases[0]
    encoder: Encoder = build_encoder(config, phase)
    if encoder.mask_style is None:
        return "no masked pass"
    task: Any = build_ssl(config, phase, encoder)
    grid, unit, size = encoder.mask_grid, encoder.mask_cell_px, config.data.img_size
    shown, slots = f"{'x'.join(map(str, grid))} cells of {unit} px", 1
    if encoder.takes_clips:
        slots, frames = grid[0], config.data.frames or 0
        shown += f" x {frames // slots} frames"
        if frames % slots or encoder.img_size[0] != frames:
            raise ValueError(f"{shown} do not cover {frames} frames")
    if any(side * unit != size for side in grid[-2:]):
        raise ValueError(f"{shown} do not cover {size} px")
    if not isinstance(task, (Reconstruction, VideoMAE)):
        return shown
    length, tubes = math.prod(grid), math.prod(grid[-2:])
    expected = int(length * (1 - task.mask_ratio))
    if encoder.takes_clips:
        expected = slots * (tubes - int(tubes * task.mask_ratio))
    kept = (~task.fixed_mask(torch.arange(4))).sum(1).tolist()
    if kept != [expected] * 4:
        raise ValueError(f"masks keep {kept} of {length} cells, expected {expected}")
    return f"{shown}, {expected} of {length} kept"


def check_fit(names: list[str], *, quick: bool) -> Iterator[Finding]:
    """One finding per encoder, over the sizes of the data sets; one that does not fit must fit enlarged to 224 px."""
    sizes = {False: geometries(names or CATALOG), True: geometries(VIDEO_SETS)}
    for encoder in encoders(quick=quick):
        yield fit_of(encoder, sizes[takes_clips(encoder)])


def fit_of(encoder: str, sizes: dict[Geometry, list[str]]) -> Finding:
    """How the encoder cuts the images or clips of every size."""
    fits: dict[str, list[str]] = {}
    enlarged: list[str] = []
    problems: list[str] = []
    for geometry, data in sizes.items():
        overrides = [f"encoder={encoder}", f"data={data[0]}", *NAMED.get(encoder, [])]
        try:
            seen = f"{geometry[0]} px" + (f" x {geometry[3]} frames" if geometry[3] else "")
            fits.setdefault(cells(shallow(composed(*overrides))), []).append(seen)
        except UserError as error:
            try:
                cells(shallow(composed(*overrides, "input=up224")))
                enlarged += data
            except (UserError, ValueError):
                problems.append(f"{', '.join(data)}: {error}")
        except ValueError as error:
            problems.append(f"{', '.join(data)}: {error}")
    text = "; ".join(f"{', '.join(where)}: {how}" for how, where in fits.items())
    if list(fits) == ["no masked pass"]:
        text = f"{', '.join(fits['no masked pass'])}: no masked pass, for mode=scratch and finetune"
    text += f"; {', '.join(enlarged)} with input=up224 only" if enlarged else ""
    details = {"fits": fits, "input=up224 only": enlarged, "problems": problems}
    if problems:
        cure = f"compare conf/encoder/{encoder}.yaml and conf/data with the repository's"
        return Finding(f"fit {encoder}", "failed", "; ".join(problems), cure, details)
    return Finding(f"fit {encoder}", "ok", text.removeprefix("; "), details=details)


def check_packed(*, quick: bool) -> Iterator[Finding]:
    """The largest difference between the packed pass and the full and the masked pass, one after the other, in fp32."""
    torch.set_num_threads(1)  # trainings hold the other cores, and threads that wait for each other slow them all
    worst = {name: packed_difference(name) for name in PACKED[quick]}
    text = f"{', '.join(f'{name} {value:.1e}' for name, value in worst.items())} (bound {BOUND:.0e})"
    if max(worst.values()) <= BOUND:
        yield Finding("packed pass", "ok", f"largest difference from two passes: {text}", details=worst)
        return
    cure = "the packed step is not the paper's on this machine: report it with the file of out=<file.json>"
    yield Finding("packed pass", "failed", f"differs from two passes: {text}", cure, worst)


@torch.no_grad()
def packed_difference(name: str) -> float:
    """Largest difference in features and latents on 2 random images of CIFAR-10's size, or clips (2, 3, 16, 64, 64)."""
    data = ["data=ffpp", "data.img_size=64"] if takes_clips(name) else ["data=cifar10"]
    config = composed(f"encoder={name}", *data)
    torch.manual_seed(0)
    encoder = build_encoder(config, config.mode.phases[0]).eval()
    images = torch.randn(2, encoder.in_chans, *encoder.img_size)
    ratio = config.ssl.tasks[config.ssl.name].options["mask_ratio"]
    if encoder.takes_clips:
        mask = tube_mask(torch.rand(2, math.prod(encoder.mask_grid[1:])), ratio, encoder.mask_grid[0])
    else:
        mask = random_mask(2, encoder.mask_grid, ratio)
    features, latent = encoder.forward_joint(images, mask)
    alone = encoder.forward_masked_plain(images, mask)
    pairs = [(features, encoder.forward_features(images)), *zip(latent.maps, alone.maps, strict=True)]
    return max((packed - plain).abs().max().item() for packed, plain in pairs)
