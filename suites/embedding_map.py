"""Two networks' samples in one plane: t-SNE (scikit-learn) or UMAP (umap-learn) of both networks' logits."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np

from bench.errors import BenchError
from suites.logit_structure import standardised

SHOWN = 10
"""Classes in a map; more colours nobody tells apart."""


class Plane(NamedTuple):
    """Of M samples."""

    teacher: np.ndarray
    """float64 [M, 2]."""
    student: np.ndarray
    """float64 [M, 2], the same samples in the same order."""
    target: np.ndarray
    """int64 [M]: columns of the logits."""


def check(method: str) -> None:
    """Raises `BenchError` when the library of ``method`` is not installed."""
    if method == "umap" and find_spec("umap") is None:
        raise BenchError("logits.embedding=umap needs umap-learn: install bench-representations[umap], or take tsne")


def plane(
    teacher: np.ndarray,
    student: np.ndarray,
    target: np.ndarray,
    *,
    method: str,
    samples: int,
    perplexity: float,
    seed: int,
) -> Plane:
    """Both networks' standardised logits [N, C] embedded together, of at most ``samples`` samples of 10 classes.

    The classes are those with most samples (the first among equals). Distances between far groups mean little, as in
    all such maps. Refused for fewer than 5 samples.
    """
    counts = np.bincount(target, minlength=teacher.shape[1])
    classes = np.sort(np.argsort(-counts, kind="stable")[:SHOWN])
    rows = np.flatnonzero(np.isin(target, classes))
    if len(rows) > samples:
        rows = np.sort(np.random.default_rng(seed).choice(rows, samples, replace=False))
    if len(rows) < 5:
        raise BenchError(f"a map of {len(rows)} samples says nothing: 5 are needed")
    both = np.concatenate([standardised(teacher[rows]), standardised(student[rows])])
    if np.ptp(both, axis=0).max() == 0:
        raise BenchError("all logits are alike: there is nothing to spread out")
    points = _tsne(both, perplexity, seed) if method == "tsne" else _umap(both, perplexity, seed)
    return Plane(points[: len(rows)], points[len(rows) :], target[rows])


def _tsne(x: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    # The authors' bound: three times the perplexity is less than the samples.
    most = max(1.0, (len(x) - 1) / 3)
    model = TSNE(init="pca" if x.shape[1] > 1 else "random", random_state=seed, perplexity=min(perplexity, most))
    return np.asarray(model.fit_transform(x), dtype=np.float64)


def _umap(x: np.ndarray, neighbours: float, seed: int) -> np.ndarray:
    from umap import UMAP

    with warnings.catch_warnings():
        # It says that a seed costs parallelism.
        warnings.simplefilter("ignore")
        model = UMAP(random_state=seed, n_neighbors=min(round(neighbours), len(x) - 1), n_jobs=1)
        return np.asarray(model.fit_transform(x), dtype=np.float64)
