"""Train a vision transformer on little data: jointly on labels and on a self-supervised auxiliary task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssat.model import load as load

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """`ssat.load`, whose module imports PyTorch, which takes seconds: only when it is asked for."""
    if name == "load":
        from ssat.model import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
