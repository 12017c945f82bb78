"""Features as points of a plane: PCA, t-SNE (van der Maaten & Hinton 2008), UMAP (McInnes et al. 2018)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssat.core.errors import UserError

Features = NDArray[np.float32]
MOST_OF_TSNE = 5000  # images: half a minute on one core, and its time grows faster than their number
FEWEST = 10  # images of a map of neighbours
DIMENSIONS = 50  # that t-SNE starts from, as in its paper
PERPLEXITY, NEIGHBOURS = 30.0, 15  # the libraries' defaults


def pca(features: Features, seed: int = 0) -> NDArray[np.float32]:
    """(N, D) to (N, 2): the two directions of the largest variance; the seed changes nothing."""
    return _principal(features, 2)


def tsne(features: Features, seed: int = 0) -> NDArray[np.float32]:
    """(N, D) to (N, 2): neighbours by cosine stay neighbours; distances between groups mean nothing."""
    from sklearn.manifold import TSNE

    few = _principal(_normal(features), DIMENSIONS)
    made = TSNE(perplexity=min(PERPLEXITY, (len(few) - 1) / 3), init="pca", random_state=seed, n_jobs=1)
    return made.fit_transform(few).astype(np.float32)


def umap(features: Features, seed: int = 0) -> NDArray[np.float32]:
    """(N, D) to (N, 2), as `tsne`, by the library umap-learn."""
    reducer = _umap_class()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # One job: with several the result would not be the same twice.
        made: Any = reducer(
            n_neighbors=min(NEIGHBOURS, len(features) - 1), metric="cosine", random_state=seed, n_jobs=1
        )
        return np.asarray(made.fit_transform(features), dtype=np.float32)


def _umap_class() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numba and of TensorFlow, which it can do without
        from umap import UMAP
    return UMAP


METHODS: dict[str, Callable[..., NDArray[np.float32]]] = {"pca": pca, "tsne": tsne, "umap": umap}
TITLES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}


def check_method(name: str) -> None:
    """Refuse a method whose library is missing or broken, before anything is computed.

    Raises:
        UserError: says what to install.
    """
    if name != "umap":
        return
    try:
        _umap_class()
    except Exception as error:  # a numba of another NumPy raises more than ImportErrors
        said = str(error).splitlines() or [type(error).__name__]
        missing = isinstance(error, ModuleNotFoundError) and error.name == "umap"
        what = "is missing" if missing else f"cannot be imported ({said[0]})"
        raise UserError(
            f'map=umap needs the library umap-learn, which {what}: pip install "ssat[embed]", or take map=tsne',
            key="map",
            value=name,
        ) from None


def chosen_method(name: str, images: int) -> str:
    """`auto` as what it means for so many images: t-SNE, whose groups one sees, or PCA where t-SNE says or costs much.

    Raises:
        UserError: there are too few images for the method.
    """
    if name == "auto":
        return "tsne" if FEWEST <= images <= MOST_OF_TSNE else "pca"
    if name != "pca" and images < FEWEST:
        raise UserError(
            f"map={name} needs at least {FEWEST} images, and there are {images}: take map=pca", key="map", value=name
        )
    return name


def is_flat(features: Features) -> bool:
    """Whether all rows are the same, so that there is nothing to draw."""
    return len(features) < 2 or not np.ptp(features, axis=0).any()


def _normal(features: Features) -> Features:
    """Rows of length 1: their Euclidean distances order as cosines do."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def _principal(features: Features, count: int) -> NDArray[np.float32]:
    from sklearn.decomposition import PCA

    count = min(count, *features.shape)
    found = PCA(count, svd_solver="full").fit_transform(features.astype(np.float64)).astype(np.float32)
    return found if count >= 2 else np.pad(found, ((0, 0), (0, 2 - count)))
