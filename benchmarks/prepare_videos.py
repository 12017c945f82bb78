"""Seconds, efficiency and memory of src.prepare with one worker and with several, interleaved.

python -m benchmarks.prepare_videos --videos <folder with *.mp4> [--workers 2] [--copies 4] [--repeats 3] [size=128 ...]
"""

from __future__ import annotations

import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from benchmarks.device import Arguments, at_least, told


def tree_of(videos: Path, copies: int, folder: Path) -> int:
    """Links to the videos as classes a and b of a video_folder; returns their number."""
    count = 0
    for video in sorted(videos.rglob("*.mp4")):
        for copy in range(copies):
            link = folder / "ab"[count % 2] / f"{video.stem}_{copy}.mp4"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(video.resolve())
            count += 1
    return count


class Peak(threading.Thread):
    """The most memory that a process below `pid` has taken, bytes."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.root, self.bytes, self.over = psutil.Process(pid), 0, False

    def run(self) -> None:
        """Look ten times a second."""
        while not self.over:
            try:
                sizes = [child.memory_info().rss for child in self.root.children(recursive=True)]
            except psutil.Error:
                sizes = []
            self.bytes = max([self.bytes, *sizes])
            time.sleep(0.1)


def prepare(raw: Path, workers: int, words: list[str]) -> tuple[float, float, int]:
    """Wall seconds, CPU seconds and the largest worker's bytes of one command."""
    out = Path(tempfile.mkdtemp())
    command = [sys.executable, "-m", "src.prepare", "data=video_folder", f"data.raw={raw}", f"data.root={out}/clips"]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen([*command, f"workers={workers}", *words], stdout=subprocess.DEVNULL)
    peak = Peak(process.pid)
    peak.start()
    code = process.wait()
    wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    peak.over = True
    shutil.rmtree(out)
    if code not in (0, 3):
        raise SystemExit(code)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak.bytes


def main() -> None:
    parser = Arguments(__doc__)
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--workers", type=at_least(1), default=2)
    parser.add_argument("--copies", type=at_least(1), default=4)
    parser.add_argument("--repeats", type=at_least(1), default=3)
    args, words = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        count = tree_of(args.videos, args.copies, Path(folder))
        efficiencies, memory = [], 0
        for _ in range(args.repeats):
            one, several = prepare(Path(folder), 1, words), prepare(Path(folder), args.workers, words)
            efficiencies.append(one[0] / (args.workers * several[0]))
            memory = max(memory, one[2], several[2])
            print(
                f"{count} videos: 1 worker {one[0]:.1f} s wall, {one[1]:.1f} s CPU; {args.workers} workers"
                f" {several[0]:.1f} s wall, {several[1]:.1f} s CPU; efficiency {efficiencies[-1]:.2f}",
                flush=True,
            )
    low, high = min(efficiencies), max(efficiencies)
    print(
        f"parallel efficiency {statistics.median(efficiencies):.2f} ({low:.2f} to {high:.2f}),"
        f" largest worker {memory / 1e9:.2f} GB"
    )


if __name__ == "__main__":
    told(main)
