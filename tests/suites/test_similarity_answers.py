"""Similarity measures: known answers, and second computations by other libraries or from the definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from similaritypair import X, Y, value

from suites.similarity_measures import cca, cka, clusters, get, matrices, rkd
from suites.similarity_measures.alignment import alignment, uniformity
from suites.spectrum import nesum, rankme


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cka", 0.53387), ("cka_debiased", 0.50416), ("procrustes", 0.86531), ("cca", 0.52651), ("cca_r2", 0.39570),
        ("pwcca", 0.66336), ("rsa", 0.44925), ("distance_correlation", 0.70404), ("mutual_knn", 0.3975),
    ],
)  # fmt: skip
def test_known_answers_of_the_deterministic_pair(name: str, expected: float) -> None:
    assert value(name, X, Y) == pytest.approx(expected, abs=5.1e-6)


def test_known_answers_without_a_second_network() -> None:
    assert uniformity(X) == pytest.approx(-1.66527, abs=5e-6)
    assert alignment(X, Y) == pytest.approx(1.05930, abs=5.1e-6)
    assert rankme(X) == pytest.approx(2.95881, abs=5e-6)
    assert nesum(X) == pytest.approx(1.71352, abs=5e-6)


def test_kornbliths_demo() -> None:
    random = np.random.RandomState(1337)
    x = random.randn(100, 10)
    y = random.randn(100, 10) + x
    assert value("cka", x, y) == pytest.approx(0.55761, abs=5e-6)
    assert value("cka_debiased", x, y) == pytest.approx(0.51346, abs=5e-6)
    assert value("cka_rbf", x, y, threshold=0.5) == pytest.approx(0.65483, abs=5e-6)


def _hsic(k: np.ndarray, m: np.ndarray) -> float:
    h = np.eye(len(k)) - 1 / len(k)
    return float(np.trace(k @ h @ m @ h))


def test_cka_by_centring_matrices() -> None:
    k, m = X @ X.T, Y @ Y.T
    assert value("cka", X, Y) == pytest.approx(_hsic(k, m) / np.sqrt(_hsic(k, k) * _hsic(m, m)), abs=1e-12)


def test_rbf_cka_by_scikit_learns_kernel() -> None:
    from sklearn.metrics.pairwise import euclidean_distances, rbf_kernel

    kernels = []
    for f in (X, Y):
        median = np.median(euclidean_distances(f, squared=True))
        kernels.append(rbf_kernel(f, gamma=1 / (2 * 0.8**2 * median)))
    k, m = kernels
    expected = _hsic(k, m) / np.sqrt(_hsic(k, k) * _hsic(m, m))
    assert value("cka_rbf", X, Y, threshold=0.8) == pytest.approx(expected, abs=1e-9)


def test_debiased_hsic_is_its_definition_over_quadruples() -> None:
    """Song et al. 2012: the mean of h(i, j, q, r) over ordered quadruples of distinct samples."""
    x, y = X[:7], Y[:7]
    k, m = x @ x.T, y @ y.T

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        terms = [
            a[i, j] * (b[i, j] + b[q, r] - 2 * b[i, q]) for i, j, q, r in itertools.permutations(range(7), 4)
        ]  # fmt: skip
        return float(np.mean(terms))

    assert value("cka_debiased", x, y) == pytest.approx(hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m)), abs=1e-10)


@pytest.mark.parametrize("shape", [(30, 50, 4), (200, 5, 3), (12, 7, 7)])
def test_both_forms_of_cka_are_one_number(shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    n, p, q = shape
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, p))
    y = x[:, :q] + rng.standard_normal((n, q)) if q <= p else rng.standard_normal((n, q))
    found = []
    for by_samples in (True, False):
        monkeypatch.setattr(cka, "_by_samples", lambda x, y, answer=by_samples: answer)
        found.append([get(name).compute(x, y) for name in ("cka", "cka_debiased")])
    for one, other in zip(*found, strict=True):
        assert one.value == pytest.approx(other.value, abs=1e-12)
        np.testing.assert_allclose(one.influence, other.influence, atol=1e-12)


def test_float32_blocks_agree_with_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((900, 40)) + 30  # a large common offset is where float32 would lose
    y = x @ rng.standard_normal((40, 25)) + rng.standard_normal((900, 25))
    names = ["cka", "cka_debiased", "procrustes", "mutual_knn"]
    x, y = x.astype(np.float32), y.astype(np.float32)
    exact = [value(name, x, y) for name in names]
    monkeypatch.setattr(matrices, "EXACT", 0)
    monkeypatch.setattr(matrices, "ROWS", 128)
    streamed = [value(name, x, y) for name in names]
    np.testing.assert_allclose(streamed, exact, atol=2e-5)
    np.testing.assert_allclose(streamed[:2], exact[:2], atol=2e-6)


def test_minibatch_is_the_ratio_of_sums_over_batches() -> None:
    order = np.random.default_rng(5).permutation(40)
    terms = np.zeros(3)
    for part in np.array_split(order, 4):
        x, y = X[part], Y[part]
        terms += cka._unbiased_by_samples(x, y)  # the estimate does not see a shift: no centring here
    assert value("cka_minibatch", X, Y, batch=10, seed=5) == pytest.approx(
        terms[0] / np.sqrt(terms[1] * terms[2]), abs=1e-12
    )
    assert value("cka_minibatch", X, Y, batch=40) == pytest.approx(value("cka_debiased", X, Y), abs=1e-12)


def test_canonical_correlations_are_those_of_the_generalised_eigenproblem() -> None:
    from scipy.linalg import eigh

    x, y = X - X.mean(0), (Y - Y.mean(0))[:, :4]
    cross = x.T @ y
    squared = eigh(cross.T @ np.linalg.solve(x.T @ x, cross), y.T @ y, eigvals_only=True)[::-1]
    np.testing.assert_allclose(cca.canonical(x, y).correlations, np.sqrt(squared), atol=1e-8)


def test_svcca_is_cca_of_scikit_learns_components() -> None:
    from sklearn.decomposition import PCA

    reduced = [PCA(0.99, svd_solver="full").fit_transform(f) for f in (X, Y)]
    assert value("svcca", X, Y) == pytest.approx(value("cca", *reduced), abs=1e-10)
    assert value("svcca", X, Y, variance=1.0) == pytest.approx(value("cca", X, Y), abs=1e-10)


def test_procrustes_is_the_residual_of_scipys_best_rotation() -> None:
    from scipy.linalg import orthogonal_procrustes

    x, y = (f - f.mean(0) for f in (X, Y))
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    rotation, _ = orthogonal_procrustes(x, y)
    assert value("procrustes", X, Y) == pytest.approx(np.linalg.norm(x @ rotation - y) ** 2, abs=1e-12)
    padded = np.hstack([Y, np.zeros((40, 3))])
    assert value("procrustes", X, padded) == pytest.approx(value("procrustes", X, Y), abs=1e-12)


def test_rsa_is_scipys() -> None:
    from scipy.spatial.distance import pdist
    from scipy.stats import spearmanr

    expected = spearmanr(pdist(X, "correlation"), pdist(Y, "correlation")).statistic
    assert value("rsa", X, Y) == pytest.approx(expected, abs=1e-9)


def test_distance_correlation_by_sums_over_pairs() -> None:
    def centred(f: np.ndarray) -> np.ndarray:
        d = np.array([[np.linalg.norm(a - b) for b in f] for a in f])
        h = np.eye(len(f)) - 1 / len(f)
        return h @ d @ h

    a, b = centred(X), centred(Y)
    expected = np.sqrt((a * b).mean() / np.sqrt((a * a).mean() * (b * b).mean()))
    assert value("distance_correlation", X, Y) == pytest.approx(expected, abs=1e-12)


def test_rkd_by_loops() -> None:
    from scipy.stats import pearsonr

    x, y = X[:9], Y[:9]

    def huber(d: float) -> float:
        return 0.5 * d * d if abs(d) < 1 else abs(d) - 0.5

    distances = []
    for f in (x, y):
        d = np.array([np.linalg.norm(f[i] - f[j]) for i, j in itertools.combinations(range(9), 2)])
        distances.append(d / d.mean())
    a, b = distances
    assert value("rkd_distance", x, y) == pytest.approx(np.mean([huber(v) for v in a - b]), abs=1e-12)
    assert value("rkd_distance_corr", x, y) == pytest.approx(pearsonr(a, b).statistic, abs=1e-12)

    def cosine(f: np.ndarray, i: int, j: int, k: int) -> float:
        u, v = f[i] - f[j], f[k] - f[j]
        return float(u @ v / (np.linalg.norm(u) * np.linalg.norm(v)))

    triples = [(i, j, k) for j in range(9) for i, k in itertools.combinations([m for m in range(9) if m != j], 2)]
    u, v = (np.array([cosine(f, *t) for t in triples]) for f in (x, y))
    assert value("rkd_angle", x, y) == pytest.approx(np.mean([huber(d) for d in u - v]), abs=1e-12)
    assert value("rkd_angle_corr", x, y) == pytest.approx(pearsonr(u, v).statistic, abs=1e-12)


def test_smooth_l1_is_torchs() -> None:
    import torch

    d = np.linspace(-3, 3, 61)
    expected = torch.nn.functional.smooth_l1_loss(torch.tensor(d), torch.zeros(61).double(), reduction="none")
    np.testing.assert_allclose(rkd.smooth_l1(d), expected.numpy(), atol=1e-15)


def test_the_measures_of_clusterings_are_the_scores_of_k_means_partitions() -> None:
    rng = np.random.default_rng(0)
    y = 50.0 * np.eye(2)[np.array([0, 0, 0, 1, 1, 1])] + rng.standard_normal((6, 2))
    assert get("cluster_fmi").compute(y, y, k=2).value == pytest.approx(1.0)
    two = 50.0 * np.eye(2)[np.array([0, 0, 1, 1, 1, 1])] + rng.standard_normal((6, 2))
    assert get("cluster_acc").compute(two, y, k=2).value == pytest.approx(5 / 6)
    # Together in both: 1 + 3 pairs; in one 1 + 6, in the other 3 + 3.
    assert get("cluster_fmi").compute(two, y, k=2).value == pytest.approx(4 / np.sqrt(7 * 6))


def test_partition_scores_on_hand_made_partitions() -> None:
    a = np.array([0, 0, 1, 1, 2, 2])
    renamed = np.array([2, 2, 0, 0, 1, 1])
    split = np.array([0, 0, 0, 1, 1, 1])
    scores = (clusters.normalised_mutual_information, clusters.adjusted_rand, clusters.fowlkes_mallows)
    for score in (*scores, clusters.matched_accuracy):
        assert score(a, renamed) == pytest.approx(1.0)
    assert clusters.matched_accuracy(a, split) == pytest.approx(4 / 6)
    # Two pairs are together in both, of three in one and six in the other.
    assert clusters.fowlkes_mallows(a, split) == pytest.approx(2 / np.sqrt(3 * 6))
    entropy = np.log(3), np.log(2)
    both = -(2 * (1 / 3) * np.log(1 / 3) + 2 * (1 / 6) * np.log(1 / 6))
    mutual = entropy[0] + entropy[1] - both
    assert clusters.normalised_mutual_information(a, split) == pytest.approx(2 * mutual / sum(entropy), abs=1e-12)
