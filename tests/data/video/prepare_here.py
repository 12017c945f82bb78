"""Prepares a folder of MP4 files as a process: python -m tests.data.video.prepare_here <raw> <out> <workers>"""

from __future__ import annotations

import sys
from pathlib import Path

from ssat.data.video.manifest import Video
from ssat.data.video.preparation import PrepareOptions
from ssat.data.video.prepare_set import How, prepare_all


def prepare_here(raw: Path, out: Path, workers: int) -> None:
    """Whole frames without loss."""
    files = sorted(str(path.relative_to(raw)) for path in raw.rglob("*.mp4"))
    videos = [Video("video_folder", path[:-4], path, 0, "real") for path in files]
    options = PrepareOptions(detector="none", size=64, stride=1, coding="png")
    prepare_all("video_folder", videos, raw, out, options, how=How(workers=workers))


if __name__ == "__main__":
    prepare_here(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
