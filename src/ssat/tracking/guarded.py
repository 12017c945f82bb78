"""A tracker that can neither stop nor hold up a training: its first failure is one line on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from ssat.core.errors import UserError
from ssat.core.files import write_text
from ssat.core.launch import is_main_process
from ssat.core.terminal import tell
from ssat.tracking.final import log_final


class Guarded(Logger):
    """Lightning's logger `make()`, which only rank 0 has and which is dropped when it fails.

    Args:
        kind: as the user names it.
        make: opens it.

    Raises:
        UserError: the options do not fit the user's own class.
    """

    def __init__(self, kind: str, make: Callable[[], Any]) -> None:
        self._kind, self._inner = kind, None
        if is_main_process():
            self._inner = self._tried(make)

    def _tried(self, call: Callable[..., Any], *values: Any, **options: Any) -> Any:
        try:
            return call(*values, **options)
        except UserError:
            raise
        except Exception as error:
            self._inner = None
            reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
            tell(
                f"logger={self._kind}: {reason}; training goes on without it; the CSV file has every value",
                file=sys.stderr,
            )

    def _do(self, name: str, *values: Any, **options: Any) -> None:
        if self._inner is not None and hasattr(self._inner, name):
            self._tried(getattr(self._inner, name), *values, **options)

    @property
    def name(self) -> str:
        """The kind."""
        return self._kind

    @property
    def version(self) -> str:
        """None of its own."""
        return ""

    @property
    def experiment(self) -> Any:
        """The tracker's own object; None where it has failed."""
        return getattr(self._inner, "experiment", None)

    @rank_zero_only
    def log_hyperparams(self, *values: Any, **options: Any) -> None:
        """Pass on."""
        self._do("log_hyperparams", *values, **options)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Pass one row on; `step` is the number of optimizer steps."""
        self._do("log_metrics", dict(metrics), step)

    @rank_zero_only
    def log_final(self, values: dict[str, Any]) -> None:
        """Pass the figures of the record on: the training has ended."""
        if self._inner is not None and values:
            self._tried(log_final, self._inner, values)

    @rank_zero_only
    def save(self) -> None:
        """Pass on."""
        self._do("save")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close it."""
        self._do("finalize", status)


def kept_id(path: Path, made: str) -> str:
    """The id in `path`, so that a continued run goes on with its curve; `made` is written where there is none."""
    if path.is_file() and (known := path.read_text().strip()):
        return known
    write_text(path, made + "\n")
    return made
