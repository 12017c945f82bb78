"""Videos to face crops: python -m src.prepare data=<ffpp|dfdc|dfdcp|video_folder> data.raw=<folder> [--dry-run]"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from ssat.commands.progress import progress
from ssat.config.words import as_typed_here, command_line
from ssat.core import interrupts
from ssat.core.errors import UserError, usable_paths
from ssat.core.files import file_sha256
from ssat.core.options import is_true, read_options, whole_number
from ssat.core.terminal import Console
from ssat.core.words import duration, many, printable
from ssat.data.video import SETS
from ssat.data.video.decode import MAX_SECONDS
from ssat.data.video.faces import BOXES_FORM, DETECTORS, of_no_video, read_boxes
from ssat.data.video.manifest import MANIFEST
from ssat.data.video.preparation import NoFace, PrepareOptions
from ssat.data.video.prepare_set import TIMEOUT, How, ensure_apart, prepare_all, selected
from ssat.data.video.prepare_set import Progress as State
from ssat.data.video.report import REPORT
from ssat.data.video.store import Coding

CODINGS: tuple[str, ...] = get_args(Coding)
NO_FACES: tuple[str, ...] = get_args(NoFace)
SOME_FAILED = 3  # exit code
LARGEST = 100_000  # of the numbers that a user gives

USAGE = f"""\
python -m src.prepare data=<{"|".join(SETS)}> data.raw=<folder> [key=value ...] [--dry-run]

Finds a face in every video, follows it, and stores its square crop of every stride-th frame below data.root, with
{MANIFEST} (what became of every video) and {REPORT}. The same command continues, and makes what is missing.

  data.raw=<folder>      the original videos, in the set's own tree (docs/video.md)
  data.root=<folder>     where the crops go; default data/<set>_clips
  data.level=c23         of ffpp: raw, c23 or c40
  data.methods=<a,b>     of ffpp: only these manipulations
  data.group=<...>       of video_folder: what belongs together (docs/video.md)
  detector=mtcnn         {", ".join(DETECTORS)}; none takes the largest square in the middle
  boxes=<file.json>      of detector=boxes: {BOXES_FORM}
  every=5                search faces in every 5th frame
  size=256               of the crops, pixels
  stride=4               store every 4th frame
  max_frames=<number>    store so many frames of a video at most
  max_seconds={MAX_SECONDS:.0f}        read so much of a video at most
  coding=jpeg            {", ".join(CODINGS)}; the last two lose nothing
  quality=95             of jpeg
  reuse_original_boxes=true   crop a fake where its original's face is
  no_face=skip           or center_crop: store the middle of the frames of a video without a face
  workers=<number>       processes; default the number of processors. 0: in this process, without time-outs
  device=cpu             or cuda, for mtcnn
  shard=3/16             the third of sixteen parts of the videos, each for one machine
  limit=<number>         so many videos only
  timeout={TIMEOUT:.0f}            seconds for a video; more for files over 20 MB
  force=true             prepare all again, also with other options
  --dry-run              show what was found and do nothing
  --help                 this text

Exit codes: 0 = all videos can be used, 3 = some cannot (the report says why), 2 = a mistake, or no video can be used,
130 = interrupted.
"""
KEYS = {
    "data": "<set>", "data.raw": "<folder>", "data.root": "<folder>", "data.level": "c23", "data.methods": "<a,b>",
    "data.group": "<pattern>", "detector": "mtcnn", "boxes": "<file.json>", "every": "5", "size": "256", "stride": "4",
    "max_frames": "128", "max_seconds": "600", "coding": "jpeg", "quality": "95", "reuse_original_boxes": "true",
    "no_face": "skip", "workers": "8", "device": "cpu", "shard": "3/16", "limit": "10", "timeout": "120",
    "force": "true",
}  # fmt: skip


def read_words(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Values by key, and flags.

    Raises:
        UserError: an unknown word, or a key without a value.
    """
    values, flags, _ = read_options(words, KEYS, names=("--dry-run", "--help"), aliases={"-h": "--help"})
    return values, flags


def prepare_videos(words: list[str]) -> int:
    """The command; returns its exit code.

    Raises:
        UserError: a word, a file or a folder is wrong, a package is missing, or no video can be used.
    """
    values, flags = read_words(words)
    if "--help" in flags:
        print(as_typed_here(USAGE), end="")
        return 0
    dataset = values["data"]
    if "data.raw" not in values:
        raise UserError(f"data={dataset} needs the folder of its original videos: data.raw=<folder>", key="data.raw")
    raw, out = folders(values)
    options, how, boxes = options_of(values), how_of(values), boxes_of(values)
    index = found(dataset, raw, values)
    if boxes is not None:
        index.remarks.extend(of_no_video(boxes, index.known))
    console = Console(highlight=False)
    if "--dry-run" in flags:
        show(console, index, selected(index.videos, how.shard, how.limit), out)
        return 0
    index.ensure_some()
    for remark in index.remarks:
        console.print(f"note: {printable(remark)}", markup=False, soft_wrap=True)
    begin = time.monotonic()
    with usable_paths(), stoppable(), shown(console, how.workers) as tell:
        try:
            state = prepare_all(
                dataset, index.videos, index.root, out, options,
                how=how, missing=index.missing, others=index.others, classes=index.classes, boxes=boxes,
                subset=index.subset, progress=tell,
            )  # fmt: skip
        except KeyboardInterrupt:
            again = command_line("prepare", words)
            interrupts.last_word(f"what is finished is kept, and the same command goes on: {again}")
            return 130
    for remark in state.remarks:
        console.print(f"note: {remark}", markup=False, soft_wrap=True)
    return ended(console, state, index, out, time.monotonic() - begin)


def folders(values: dict[str, str]) -> tuple[Path, Path]:
    """data.raw and data.root.

    Raises:
        UserError: there is no raw folder, or one is in the other.
    """
    raw = at_home(values["data.raw"])
    out = at_home(values.get("data.root", f"data/{values['data']}_clips"))
    with usable_paths():
        if not raw.is_dir():
            raise UserError(f"data.raw={raw} is no folder: name the folder of the original videos", key="data.raw")
        ensure_apart(raw, out)
    return raw, out


def at_home(text: str) -> Path:
    """A path without its `~`, which stays where there is no such user."""
    return Path(os.path.expanduser(text))


def options_of(values: dict[str, str]) -> PrepareOptions:
    """What decides the content of the store.

    Raises:
        UserError: a value is not possible.
    """
    default = PrepareOptions()
    detector = choice(values, "detector", DETECTORS, default.detector)
    own = values.get("boxes")
    if (own is None) == (detector == "boxes"):
        text = "detector=boxes needs boxes=<file.json>" if own is None else "boxes=... needs detector=boxes"
        raise UserError(f"{text}; the file's form is {BOXES_FORM}", key="boxes", value=own)
    return PrepareOptions(
        detector=detector,
        every=number(values, "every", default.every),
        size=number(values, "size", default.size, least=16, most=2048),
        stride=number(values, "stride", default.stride),
        max_frames=number(values, "max_frames", 0) or None,
        max_seconds=float(number(values, "max_seconds", int(MAX_SECONDS))),
        coding=choice(values, "coding", CODINGS, default.coding),
        quality=number(values, "quality", default.quality, most=100),
        reuse_original_boxes=is_true("reuse_original_boxes", values.get("reuse_original_boxes", "true")),
        no_face=choice(values, "no_face", NO_FACES, default.no_face),
        boxes_sha256="" if own is None or not (file := at_home(own)).is_file() else file_sha256(file),
    )


def boxes_of(values: dict[str, str]) -> Path | None:
    """The file of the user's own boxes, which is read once to see whether it can be.

    Raises:
        UserError: it cannot.
    """
    if "boxes" not in values:
        return None
    path = at_home(values["boxes"])
    read_boxes(path)
    return path


def how_of(values: dict[str, str]) -> How:
    """How the command works.

    Raises:
        UserError: a value is not possible.
    """
    default = How(workers=processors())
    device = values.get("device", default.device)
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise UserError(f"device={device} is not one of cpu, cuda", key="device", value=device)
    return How(
        workers=number(values, "workers", default.workers, least=0, most=1024),
        device=device,
        shard=shard_of(values.get("shard", "1/1")),
        limit=number(values, "limit", 0, most=10**9) or None,
        timeout=float(number(values, "timeout", int(TIMEOUT))),
        force=is_true("force", values.get("force", "false")),
    )


def processors() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shard_of(text: str) -> tuple[int, int]:
    """`3/16` as (3, 16).

    Raises:
        UserError: it is no part of a whole.
    """
    match = re.fullmatch(r"(\d{1,5})/(\d{1,5})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"shard={text} is not possible: the parts are 1/16, 2/16 ... 16/16", key="shard", value=text)
    return int(match[1]), int(match[2])


def number(values: dict[str, str], key: str, default: int, *, least: int = 1, most: int = LARGEST) -> int:
    """The value of a count within bounds.

    Raises:
        UserError: it is not.
    """
    if key not in values:
        return default
    value = whole_number(key, values[key], least=least)
    if value > most:
        raise UserError(f"{key}={value} is not possible: it may be {most} at most", key=key, value=value)
    return value


def choice(values: dict[str, str], key: str, names: tuple[str, ...], default: str) -> Any:
    """One of `names`.

    Raises:
        UserError: it is not.
    """
    value = values.get(key, default)
    if value not in names:
        raise UserError(f"{key}={value} is not one of {', '.join(names)}", key=key, value=value)
    return value


def found(dataset: str, raw: Path, values: dict[str, str]) -> Any:
    """The index of the tree.

    Raises:
        UserError: it is another tree, or an option is of another set.
    """
    from ssat.data.video.layouts import scan

    of_set = {"ffpp": ("level", "methods"), "video_folder": ("group",)}.get(dataset, ())
    given = {key: values[f"data.{key}"] for key in ("level", "methods", "group") if f"data.{key}" in values}
    for key in given:
        if key not in of_set:
            raise UserError(f"data.{key} is no option of data={dataset}: leave it out", key=f"data.{key}")
    options: dict[str, Any] = {**given}
    if "methods" in given:
        options["methods"] = [name.strip() for name in given["methods"].strip("[]").split(",") if name.strip()]
    return scan(dataset, raw, **options)


def show(console: Console, index: Any, chosen: list[Any], out: Path) -> None:
    """What --dry-run says."""
    from ssat.data.video.layouts import describe

    console.print(describe(index))
    for remark in index.remarks:
        console.print(f"note: {printable(remark)}", markup=False, soft_wrap=True)
    said = f"this command would prepare {len(chosen):,} of {many(len(index.videos), 'video')} into {out}"
    console.print(printable(said), markup=False, soft_wrap=True)


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM, which a cluster sends before it kills, ends the command as Ctrl-C does."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def shown(console: Console, workers: int) -> Iterator[Callable[[State], None]]:
    """How far the command is."""
    with progress(console, ("preparing", "prepared"), "videos", at_once=workers) as tell:

        def update(state: State) -> None:
            counts = f"{state.statuses['ok']:,} ok, {state.statuses['partial']:,} partial, {state.failed:,} failed"
            tell(state.done, state.total, state.kept, counts)

        yield update


def ended(console: Console, state: State, index: Any, out: Path, seconds: float) -> int:
    """Say what was made; returns the exit code.

    Raises:
        UserError: none of the videos can be used.
    """
    if not state.total:
        console.print("no video is in this part of the set", markup=False)
        return 0
    counts = ", ".join(f"{count:,} {status}" for status, count in sorted(state.statuses.items()) if count)
    missing = len(index.missing)
    lacking = f"; {missing:,} more {'is' if missing == 1 else 'are'} missing" if missing else ""
    if state.failed == state.total:
        hints = "".join(f"; {hint}" for hint in state.hints if state.statuses["no_face"])
        raise UserError(
            f"none of the {many(state.total, 'video')} can be used ({counts}{lacking}{hints}): {out / REPORT} says why"
        )
    text = f"{many(state.total, 'video')} ({counts}{lacking}), {state.done:,} of them now, in {duration(seconds)}"
    notes = [f"note: {note}" for note in (index.subset, *state.hints) if note]
    lines = "\n".join([text, *map(printable, notes), f"{out / MANIFEST}, {out / REPORT}"])
    console.print(lines, markup=False, soft_wrap=True)
    return SOME_FAILED if state.failed or missing else 0
