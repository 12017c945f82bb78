"""Where the videos of a set are: `scan` looks at a tree and opens no video."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssat.core.errors import UserError
from ssat.core.words import nearest
from ssat.data.video.layouts.dfdc import scan_dfdc
from ssat.data.video.layouts.dfdcp import scan_dfdcp
from ssat.data.video.layouts.ffpp import scan_ffpp
from ssat.data.video.layouts.folder import scan_folder
from ssat.data.video.layouts.index import Count, Index, describe

LAYOUTS: dict[str, Callable[..., Index]] = {
    "ffpp": scan_ffpp,
    "dfdc": scan_dfdc,
    "dfdcp": scan_dfdcp,
    "video_folder": scan_folder,
}


def scan(dataset: str, root: str | Path, **options: Any) -> Index:
    """The videos of `dataset` below `root`, with what the set's own lists say of them.

    Args:
        dataset: ffpp, dfdc, dfdcp or video_folder.
        root: the raw folder, see docs/video.md.
        options: of ffpp `level` and `methods`; of video_folder `group`.

    Raises:
        UserError: the tree is another, a list in it is damaged, or two files are one video.
    """
    if dataset not in LAYOUTS:
        names = list(LAYOUTS)
        text = f"data={dataset} is no set of videos{nearest(dataset, names)}: choose from {', '.join(names)}"
        raise UserError(text, key="data", value=dataset)
    return LAYOUTS[dataset](root, **options)
