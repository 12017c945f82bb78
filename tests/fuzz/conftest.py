"""One finished run and one server for all that is drawn by a seed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.fuzz.fields import MODE
from tests.fuzz.forked import Server
from tests.helpers import train


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two phases."""
    return train(*MODE, runs=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 30), (200, 90, 10)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"
