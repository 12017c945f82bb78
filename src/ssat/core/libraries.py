"""Imports the training's libraries without what they import only because it is installed, which costs CPU seconds."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate

# timm's summaries (wandb), torchmetrics' plots, audio and text metrics; none of them is used here.
UNUSED = ("wandb", "matplotlib", "scienceplots", "scipy", "transformers")


def load(*names: str) -> None:
    """Import the libraries `names`, which find none of UNUSED meanwhile; later imports find them again."""
    for name in names:
        if name in sys.modules:
            continue
        before = set(sys.modules)
        try:
            with absent(*UNUSED):
                importlib.import_module(name)
        except ImportError:  # a version of it that cannot do without
            for orphan in [new for new in sys.modules if new not in before and not _has_parents(new)]:
                del sys.modules[orphan]
            importlib.import_module(name)


def _has_parents(module: str) -> bool:
    """False for a part of a package whose import failed: a second import would not make it the package's attribute."""
    return all(parent in sys.modules for parent in accumulate(module.split(".")[:-1], "{}.{}".format))


@contextmanager
def absent(*packages: str) -> Iterator[None]:
    """As if `packages` were not installed, for those that are not imported yet.

    None in sys.modules makes an import fail; the second half answers libraries that ask for the installed version.
    """
    hidden = [package for package in packages if package not in sys.modules]
    distribution = importlib.metadata.Distribution
    original = vars(distribution)["from_name"]

    def from_name(name: str) -> importlib.metadata.Distribution:
        if name in hidden:
            raise importlib.metadata.PackageNotFoundError(name)
        return original.__func__(distribution, name)

    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    distribution.from_name = from_name  # type: ignore[method-assign]
    try:
        yield
    finally:
        distribution.from_name = original  # type: ignore[method-assign]
        for package in hidden:
            sys.modules.pop(package, None)
