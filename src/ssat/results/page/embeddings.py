"""Maps of the features of a run's own images on the page, as src.embed has drawn them in the run's folder."""

from __future__ import annotations

from collections.abc import Iterator

from ssat.core.read import read_json
from ssat.results.page.pictures import Picture, data_address
from ssat.results.page.space import PageSpace
from ssat.runs.record import Record, as_number, lookup

FOLDER = "embeddings"  # of a run
METHODS = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}


def embedding_maps(record: Record, name: str, space: PageSpace) -> Iterator[Picture]:
    """The maps of a run that is called `name` on the page, one for each split; damaged files are left out."""
    for path in sorted((record.folder / FOLDER).glob("*.json")):
        try:
            about = read_json(path)
        except (OSError, ValueError):
            continue
        method = METHODS.get(str(lookup(about, "map")))
        picture = path.with_suffix(".png").name
        if method is None or not path.with_name(picture).is_file():
            continue
        accuracy = as_number(lookup(about, "knn.accuracy"))
        knn = "" if accuracy is None else f", k-NN {accuracy:.1f} %"
        caption = f"{name}: {method} of {lookup(about, 'split') or path.stem} images{knn}"
        source = data_address(record.folder / FOLDER, picture, space)
        yield Picture(caption if source else f"{caption}: see {record.folder.name}/{FOLDER}/{picture}", caption, source)
