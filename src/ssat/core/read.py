"""JSON, YAML and NumPy files that a stranger may have written: read within bounds, or refused as damaged."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import yaml

if TYPE_CHECKING:  # a command that only reads JSON starts without it
    from numpy.typing import NDArray

DEEPEST = 64  # levels of lists and mappings in one another; no file of ours has ten
MOST_TEXT, MOST_YAML = 64_000_000, 250_000  # bytes of a file; in memory JSON takes up to 25 times as many
MOST_VALUES, MOST_NODES = 1_000_000, 10_000  # lists and mappings in a JSON file; values of a plain YAML file
MOST_TABLE, MOST_CELLS, ROW = 512_000_000, 20_000_000, 3  # bytes; cells, and how many of them a row's list weighs
LONGEST_LINE = 16_000_000  # bytes of a line of JSON
MOST_ARRAYS = 512_000_000  # bytes of the arrays in a .npz file, which a small file can hold packed
SCALARS = (str, int, float, bool, type(None))
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # PyYAML may come without its parser in C
PLAIN_TAGS = (None, "!", *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null")))


class Endless(ValueError):
    """A file whose references lead back to themselves, or make much of little."""


def read_bytes(path: Path, most: int = MOST_TEXT) -> bytes:
    """The content of a file; a pipe or a device of its name, which may never end, is not opened.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no file, or has more than `most` bytes.
    """
    with opened(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return data


def opened(path: Path) -> BinaryIO:
    """A file to read bytes from.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no file.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError("it is no file")
    return open(path, "rb")


def read_text(path: Path, most: int = MOST_TEXT) -> str:
    """The UTF-8 text of a file; a pipe or a device of its name, which may never end, is not opened.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no UTF-8, no file, or has more than `most` bytes.
    """
    return read_bytes(path, most).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def json_lines(path: Path) -> Iterator[Any]:
    """The values of a file with JSON in each line; a line that is none, as one that was cut off, is left out.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no file.
    """
    with opened(path) as file:
        while line := file.readline(LONGEST_LINE):
            with suppress(ValueError):
                yield parse_json(line.decode())


def table_lines(file: Iterable[str], separator: str = ",") -> Iterator[str]:
    """The lines of a table, for a reader of CSV.

    Raises:
        ValueError: there are more cells than the memory takes.
    """
    cells = 0
    for line in file:
        cells += line.count(separator) + ROW
        if cells > MOST_CELLS:
            raise ValueError(f"it has more than {MOST_CELLS:,} cells (a row counts as {ROW} more): take a part of it")
        yield line


def read_json(path: Path, *, unique: bool = False) -> Any:
    """The value in a JSON file.

    Args:
        path: of the file.
        unique: whether a name that an object holds twice is refused; otherwise its last value counts.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, too large, nested too deep, or holds a name twice.
    """
    return parse_json(read_text(path), unique=unique)


def parse_json(text: str, *, unique: bool = False) -> Any:
    """The value of JSON text, see `read_json`.

    Raises:
        ValueError: it is no JSON, holds too many values, is nested too deep, or holds a name twice.
    """
    opening = text.count("[") + text.count("{")
    if opening > MOST_VALUES:
        raise ValueError(f"it holds more than {MOST_VALUES:,} lists and mappings")
    try:
        value = json.loads(text, object_pairs_hook=_unique if unique else None)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if opening > DEEPEST and _is_deep(value):
        raise ValueError("nested too deep")
    return value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST + 1):
        children = [item.values() if isinstance(item, dict) else item for item in level]
        level = [item for items in children for item in items if isinstance(item, (dict, list))]
        if not level:
            return False
    return True


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise ValueError(f"it holds {twice!r} twice")
    return found


def plain_yaml(path: Path) -> str:
    """The text of a YAML file of plain values: no references, which may make a small file endless or huge, no tags.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no YAML, too large, has references or tags, or is nested too deep.
    """
    text = read_text(path, MOST_YAML)
    depth = 0
    try:
        for number, event in enumerate(yaml.parse(text, Loader=LOADER)):
            if number > MOST_NODES:
                raise ValueError(f"it holds more than {MOST_NODES:,} values")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > DEEPEST:
                raise ValueError("it has references, or is nested too deep")
            if getattr(event, "tag", None) not in PLAIN_TAGS:
                raise ValueError(f"it asks for {event.tag}, and only plain values are read")
    except yaml.YAMLError as error:
        raise ValueError("it is no YAML") from error
    return text


def read_yaml(path: Path) -> Any:
    """The plain values of a YAML file, which may refer to parts of itself.

    Raises:
        OSError: it cannot be read.
        Endless: it refers to itself, or grows with its references.
        ValueError: it is no YAML, too large, or nested too deep.
    """
    try:
        value = yaml.load(read_text(path, MOST_YAML), LOADER)
        size = _written_out(value, {})
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError("it is no YAML, or nested too deep") from error
    if size > MOST_NODES:
        raise Endless("it refers to itself, or is too large with its references")
    return value


def _written_out(value: Any, sizes: dict[int, float]) -> float:
    """Values in `value` with every reference written out; infinite where one leads back to itself."""
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in sizes:
        sizes[id(value)] = float("inf")  # met again below itself
        children = list(value.values()) if isinstance(value, dict) else value
        sizes[id(value)] = 1 + sum(_written_out(child, sizes) for child in children)
    return sizes[id(value)]


def check_plain(value: Any, most: int = MOST_NODES) -> None:
    """Refuse what no file of plain values could say: `value` was unpickled, and may contain itself or any object.

    Raises:
        Endless: it contains itself, is nested too deep, or holds more than `most` values with references written out.
        ValueError: it holds something else than text, numbers, lists and mappings by text or number.
    """
    level, size = [value], 1
    for _ in range(DEEPEST):
        below: list[Any] = []
        for item in level:
            if not isinstance(item, (dict, list, tuple, *SCALARS)):
                raise ValueError(f"it holds a {type(item).__name__}, which is no plain value")
            if isinstance(item, SCALARS):
                continue
            size += len(item)
            if size > most:
                raise Endless(f"it contains itself, or holds more than {most:,} values")
            if isinstance(item, dict) and not all(isinstance(key, SCALARS) for key in item):
                raise ValueError("it holds a key that is no plain value")
            below += item.values() if isinstance(item, dict) else item
        if not below:
            return
        level = below
    raise Endless("it contains itself, or is nested too deep")


def read_arrays(path: Path, names: Sequence[str] | None = None, most: int = MOST_ARRAYS) -> dict[str, NDArray[Any]]:
    """Arrays of a .npz file by name; None = all of them. Nothing is unpickled.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such file, damaged, lacks an array, or unpacks to more than `most` bytes.
    """
    import numpy as np

    try:
        with open(path, "rb") as stream:
            with zipfile.ZipFile(stream) as packed:
                size = sum(member.file_size for member in packed.infolist())
            if size > most:
                raise ValueError(f"it unpacks to {size:,} bytes, and at most {most:,} are read")
            with np.load(stream, allow_pickle=False) as file:
                return {name: file[name] for name in (file.files if names is None else names)}
    except OSError:
        raise
    # Flipped bytes raise BadZipFile, zlib.error, EOFError, KeyError, RuntimeError, SyntaxError ...
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(reason) from error
