"""t-SNE against scikit-learn's, and what must hold of it."""

from __future__ import annotations

import numpy as np
import pytest

from suites.tsne import affinities, divergence, principal, tsne


def digits(n: int) -> np.ndarray:
    from sklearn.datasets import load_digits

    x = load_digits().data[:n]
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_affinities_are_those_of_scikit_learn() -> None:
    from scipy.spatial.distance import squareform
    from sklearn.manifold._t_sne import _joint_probabilities
    from sklearn.metrics import pairwise_distances

    x = digits(60)
    square = pairwise_distances(x, squared=True).astype(np.float32)
    theirs = _joint_probabilities(square, 12.0, 0)
    assert affinities(x, 12.0) == pytest.approx(squareform(theirs), abs=1e-6)
    assert affinities(x, 12.0).sum() == pytest.approx(1)


def test_reaches_the_divergence_that_scikit_learn_reaches() -> None:
    from sklearn.manifold import TSNE, trustworthiness

    x = principal(digits(200), 50)
    p = affinities(x, 30)
    theirs = TSNE(perplexity=30, init="pca", random_state=0, method="exact", max_iter=500)
    places = theirs.fit_transform(x.astype(np.float32))
    assert divergence(p, places) == pytest.approx(theirs.kl_divergence_, rel=0.01)
    mine = tsne(x, 30)
    assert divergence(p, mine) < 1.1 * theirs.kl_divergence_
    assert trustworthiness(x, mine) > 0.97
    assert divergence(p, x[:, :2]) > 2 * divergence(p, mine)


def test_principal_components_are_those_of_scikit_learn() -> None:
    from sklearn.decomposition import PCA

    x = digits(80)
    theirs = PCA(5, svd_solver="full").fit_transform(x)
    mine = principal(x, 5)
    assert np.abs(mine) == pytest.approx(np.abs(theirs), abs=1e-9)
    assert principal(-x, 5) == pytest.approx(-mine * np.sign(-mine[np.abs(mine).argmax(0), np.arange(5)]), abs=1e-9)
    # What does not vary is no component.
    assert principal(np.tile(x[:, 10:13], (1, 2)), 6).shape == (80, 3)
    assert principal(np.ones((9, 4)), 2).shape == (9, 0)


def test_same_rows_same_places_whatever_their_scale_or_shift() -> None:
    x = digits(120)
    assert np.array_equal(tsne(x, 30), tsne(x, 30))
    p = affinities(x, 30)
    assert affinities(1000 * x + 5, 30) == pytest.approx(p, abs=1e-7)


@pytest.mark.parametrize("copies", [2, 40])
def test_copies_lie_on_each_other(copies: int) -> None:
    x = np.repeat(digits(4 * 10)[:40], copies, axis=0)[: 3 * copies]
    places = tsne(x, 30)
    assert np.isfinite(places).all()
    centres = places.reshape(3, copies, 2)
    within = np.ptp(centres, axis=1).max()
    between = np.linalg.norm(centres.mean(1)[:, None] - centres.mean(1), axis=2)
    assert within < 0.5 * between[~np.eye(3, dtype=bool)].min()


def test_samples_all_alike_or_on_a_line_have_finite_places() -> None:
    assert np.isfinite(tsne(np.ones((10, 3)), 5)).all()
    line = tsne(np.arange(30.0)[:, None], 5)
    assert np.isfinite(line).all()
    # Neighbours stay neighbours.
    distance = np.linalg.norm(line[:, None] - line[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert np.abs(distance.argmin(1) - np.arange(30)).max() == 1
