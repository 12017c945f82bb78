"""The official splits of FaceForensics++ (Rössler et al. 2019): 360, 70 and 70 pairs of originals."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from ssat.core.errors import UserError
from ssat.core.read import read_json
from ssat.core.words import nearest

METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")  # Table 13
FURTHER_METHODS = ("FaceShifter", "DeepFakeDetection")  # later additions, in no table of the paper
ORIGINAL = "original"
TABLE_13 = {"train": 720, "val": 140, "test": 140}  # videos of each method, and originals
LEVELS = ("raw", "c23", "c40")
DEFAULT_LEVEL = "c23"  # assumed: the paper does not say
PLACES = ("", "splits", "dataset/splits")  # of the official files, below the root
PACKAGED = Path(__file__).with_name("ffpp_splits.json")

Pair = tuple[str, str]


@dataclass(frozen=True)
class OfficialSplits:
    """Which originals, and with them which fakes, are in which split.

    Attributes:
        pairs: of video numbers, by split: it has both originals of a pair, and of every method the fakes a_b and b_a.
        source: the file or folder they were read from.
    """

    pairs: Mapping[str, tuple[Pair, ...]]
    source: str

    @cached_property
    def _places(self) -> dict[str, tuple[str, Pair]]:
        return {number: (split, pair) for split, pairs in self.pairs.items() for pair in pairs for number in pair}

    def place_of(self, name: str) -> tuple[str, str]:
        """Split and group of the original `071` or the fake `071_054`; the split is empty where the two are no pair.

        The group is the pair in sorted order, so that source and donor are in one group.
        """
        numbers = name.split("_")
        split, pair = self._places[numbers[0]]
        if len(numbers) == 2 and set(numbers) != set(pair):
            return "", "_".join(sorted(numbers))
        return split, "_".join(sorted(pair))


def official_splits(root: Path | None = None) -> OfficialSplits:
    """The splits in `<root>/`, `<root>/splits/` or `<root>/dataset/splits/`, else those that the package holds.

    Raises:
        UserError: a file is damaged, some of the three lack, or they are not 360, 70 and 70 pairs of 000 to 999.
    """
    for place in PLACES if root is not None else ():
        assert root is not None
        files = {split: root / place / f"{split}.json" for split in TABLE_13}
        lacking = [file for file in files.values() if not file.is_file()]
        if len(lacking) == len(files):
            continue
        folder = root / place
        if lacking:
            raise _refusal(folder, f"{', '.join(file.name for file in lacking)} is not there")
        return _checked({split: _read(file) for split, file in files.items()}, folder)
    packaged = json.loads(PACKAGED.read_text(encoding="utf-8"))
    return _checked({split: [word.split("_") for word in packaged[split]] for split in TABLE_13}, PACKAGED)


def choose_level(present: Collection[str], asked: str | None, where: str) -> str:
    """The level to use: the one that is asked for, else c23 if it is there, else the only one (of c40 and raw c40).

    Args:
        present: levels that there are; not empty.
        asked: raw (or c0), c23, c40 or None.
        where: of `present`, for the message.

    Raises:
        UserError: it is none of the levels, or not there.
    """
    if asked is None:
        return DEFAULT_LEVEL if DEFAULT_LEVEL in present else min(present)
    level = "raw" if asked == "c0" else asked
    if level not in LEVELS:
        text = f"data.level={asked} is no level of FaceForensics++{nearest(str(asked), list(LEVELS))}"
        raise UserError(f"{text}: choose raw, c23 or c40", key="data.level", value=asked)
    if level not in present:
        there = ", ".join(sorted(present))
        text = f"data.level={asked} is not in {where}, which has {there}: choose that, or get the videos of {asked}"
        raise UserError(text, key="data.level", value=asked)
    return level


def check_method(name: str, key: str, allowed: Collection[str] = METHODS + FURTHER_METHODS) -> str:
    """`name`, if it is a method.

    Raises:
        UserError: it is none.
    """
    if name not in allowed:
        text = f"{key}={name} is no method of FaceForensics++{nearest(str(name), list(allowed))}"
        raise UserError(f"{text}: choose from {', '.join(allowed)}", key=key, value=name)
    return name


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise _refusal(path, str(error)) from error


def _checked(found: Mapping[str, Any], source: Path) -> OfficialSplits:
    for split, pairs in found.items():
        if not isinstance(pairs, list):
            raise _refusal(source, f"the {split} split is no list of pairs")
        for number, pair in enumerate(pairs):
            if not (isinstance(pair, list) and len(pair) == 2 and all(_is_number(each) for each in pair)):
                raise _refusal(source, f"entry {number} of the {split} split is {pair!r}, not two numbers of videos")
        if len(pairs) != TABLE_13[split] // 2:
            raise _refusal(source, f"the {split} split has {len(pairs)} pairs, not {TABLE_13[split] // 2}")
    numbers = sorted(chain.from_iterable(pair for pairs in found.values() for pair in pairs))
    if twice := [one for one, other in zip(numbers, numbers[1:], strict=False) if one == other]:
        raise _refusal(source, f"video {twice[0]} is in two pairs")
    # 1,000 numbers of three digits, none twice: they are 000 to 999.
    pairs = {split: tuple((str(one), str(other)) for one, other in pairs) for split, pairs in found.items()}
    return OfficialSplits(pairs, str(source))


def _is_number(text: Any) -> bool:
    return isinstance(text, str) and len(text) == 3 and text.isascii() and text.isdigit()


def _refusal(source: Path, what: str) -> UserError:
    return UserError(
        f"the splits of FaceForensics++ in {source} cannot be used ({what}): get train.json, val.json and test.json"
        " from its repository, or remove them and the same lists in this package are used",
        key="data.raw",
    )
