"""Kills trainings, sweeps and `prepare` at random moments, runs them on, and compares them with uninterrupted ones.

python -m benchmarks.kills --kills 200 [--seed 0] [--what ddp,sweep,prepare] [--out <folder>]; exit status 1 where one
differs, hangs, or leaves a process or a file that cannot be read. With `--out` the same command goes on where it was
interrupted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path

from benchmarks.device import Arguments, at_least, told
from tests.faults.harness import TARGETS, campaign


def targets(text: str) -> list[str]:
    """The names in a list with commas.

    Raises:
        ArgumentTypeError: one is no target.
    """
    names = text.split(",")
    if unknown := [name for name in names if name not in TARGETS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(TARGETS)}")
    return names


def main() -> None:
    parser = Arguments(__doc__)
    parser.add_argument("--kills", type=at_least(1), default=60)
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--what", type=targets, default=list(TARGETS))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    out = args.out or Path(tempfile.mkdtemp())
    tally = campaign(args.what, args.kills, args.seed, out, partial(print, flush=True))
    kinds = Counter(f"{words[0]} to {words[3]}" for words in (kill.split() for kill in tally.kills))
    print(f"{len(tally.kills)} kills ({', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))})")
    print(f"{len(tally.faults)} faults; the slowest end {tally.longest:.1f} s after its signal")
    sys.exit(bool(tally.faults))


if __name__ == "__main__":
    told(main)
