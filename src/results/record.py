"""`result.json`: one record per run, the only thing that reports read."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

SCHEMA = 1


def write_record(folder: Path, record: dict[str, Any], *, name: str = "result.json") -> Path:
    """Write `record` to `folder`/`name` atomically; a number that is not finite becomes null."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_finite(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    descriptor, partial = tempfile.mkstemp(dir=folder, prefix=f".{name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(partial, folder / name)
    except BaseException:
        os.unlink(partial)
        raise
    return folder / name


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
