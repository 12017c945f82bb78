"""Maps of the features of a run's own images on the page, as src.embed has drawn them in the run's folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ssat.core.read import read_json
from ssat.results.page.pictures import Picture, data_address
from ssat.results.page.space import PageSpace
from ssat.runs.record import Record, as_number, lookup

FOLDER = "embeddings"  # of a run
METHODS = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}


def embedding_maps(record: Record, name: str, space: PageSpace) -> Iterator[Picture]:
    """The maps of a run that is called `name` on the page, one for each split; `damaged_maps` names those it lacks."""
    for path in _files(record):
        picture = path.with_suffix(".png").name
        if _fault(path) or lookup(about := read_json(path), "map") is None:
            continue
        method = METHODS[str(lookup(about, "map"))]
        accuracy = as_number(lookup(about, "knn.accuracy"))
        knn = "" if accuracy is None else f", k-NN {accuracy:.1f} %"
        caption = f"{name}: {method} of {lookup(about, 'split') or path.stem} images{knn}"
        source = data_address(record.folder / FOLDER, picture, space)
        yield Picture(caption if source else f"{caption}: see {record.folder.name}/{FOLDER}/{picture}", caption, source)


def damaged_maps(records: Sequence[Record]) -> list[str]:
    """A line for each file of src.embed in the runs' folders whose map the page cannot show."""
    return [f"{path}: {fault}" for record in records for path in _files(record) if (fault := _fault(path))]


def _files(record: Record) -> list[Path]:
    return sorted((record.folder / FOLDER).glob("*.json"))


def _fault(path: Path) -> str:
    """Why the map of this file cannot be shown; empty where it can, or where none was drawn."""
    try:
        about = read_json(path)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except ValueError:
        return "damaged, not JSON"
    if not isinstance(about, dict):
        return "not a file of src.embed"
    if (method := about.get("map")) is None:
        return ""
    if str(method) not in METHODS:
        return f"no map {str(method)[:20]!r} is known"
    picture = path.with_suffix(".png")
    return "" if picture.is_file() else f"its picture {picture.name} is not there"
