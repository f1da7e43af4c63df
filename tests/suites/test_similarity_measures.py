"""Similarity measures: known answers, second computations, declared invariances, degenerate representations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bench.errors import BenchError
from suites.similarity_measures import cca, cka, clusters, get, matrices, measures, neighbours, rkd, rsa
from suites.similarity_measures.alignment import alignment, uniformity
from suites.spectrum import nesum, rankme

ROW, COLUMN = np.arange(40)[:, None], np.arange(6)[None]
X = np.sin(0.7 * ROW + 1.3 * COLUMN) + 0.1 * np.cos(0.37 * ROW * COLUMN)
Y = np.cos(0.31 * ROW * (COLUMN + 1)) + 0.5 * X
NAMES = list(measures())


def value(name: str, x: np.ndarray, y: np.ndarray, **options) -> float:
    if name.startswith("cluster"):
        options.setdefault("k", 3)
    return get(name).compute(x, y, **options).value


# Known answers ------------------------------------------------------------------------------------------------------


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


# Second computations ------------------------------------------------------------------------------------------------


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


def test_mutual_knn_by_scikit_learn() -> None:
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(0)
    x = rng.standard_normal((150, 7)).astype(np.float32)
    y = x[:, :5] + rng.standard_normal((150, 5)).astype(np.float32)
    sets = [
        NearestNeighbors(n_neighbors=8, metric="cosine").fit(f).kneighbors(return_distance=False) for f in (x, y)
    ]  # fmt: skip
    shares = [len(set(a) & set(b)) / 8 for a, b in zip(*sets, strict=True)]
    found = get("mutual_knn").compute(x, y, k=8)
    assert found.value == pytest.approx(np.mean(shares), abs=1e-12)
    np.testing.assert_allclose(found.per_sample, shares)


def test_cknna_by_dense_masks_and_as_debiased_cka_with_all_neighbours() -> None:
    def dense(k: int) -> float:
        kernels, masks = [], []
        for f in (X, Y):
            z = f / np.linalg.norm(f, axis=1, keepdims=True)
            kernel = z @ z.T
            hidden = kernel - 1e9 * np.eye(40)
            mask = np.zeros((40, 40))
            np.put_along_axis(mask, np.argsort(-hidden, axis=1)[:, :k], 1.0, axis=1)
            kernels.append(kernel * (1 - np.eye(40)))
            masks.append(mask)

        def hsic(a: np.ndarray, b: np.ndarray) -> float:
            n = 40
            total = (a * b.T).sum() + a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 * (a @ b).sum() / (n - 2)
            return float(total / (n * (n - 3)))

        both = masks[0] * masks[1]
        xy = hsic(kernels[0] * both, kernels[1] * both)
        own = [hsic(kernel * mask, kernel * mask) for kernel, mask in zip(kernels, masks, strict=True)]
        return xy / np.sqrt(own[0] * own[1])

    for k in (5, 10, 25):
        assert value("cknna", X, Y, k=k) == pytest.approx(dense(k), abs=1e-10)
    unit = [f / np.linalg.norm(f, axis=1, keepdims=True) for f in (X, Y)]
    assert value("cknna", X, Y, k=39) == pytest.approx(value("cka_debiased", *unit), abs=1e-10)


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


def test_partition_scores_on_hand_made_partitions() -> None:
    a = np.array([0, 0, 1, 1, 2, 2])
    renamed = np.array([2, 2, 0, 0, 1, 1])
    split = np.array([0, 0, 0, 1, 1, 1])
    scores = (clusters.normalised_mutual_information, clusters.adjusted_rand, clusters.fowlkes_mallows)
    for score in (*scores, clusters.matched_accuracy):
        assert score(a, renamed) == pytest.approx(1.0)
    assert clusters.matched_accuracy(a, split) == pytest.approx(4 / 6)
    entropy = np.log(3), np.log(2)
    both = -(2 * (1 / 3) * np.log(1 / 3) + 2 * (1 / 6) * np.log(1 / 6))
    mutual = entropy[0] + entropy[1] - both
    assert clusters.normalised_mutual_information(a, split) == pytest.approx(2 * mutual / sum(entropy), abs=1e-12)


# Invariances --------------------------------------------------------------------------------------------------------


def _changed(kind: str, f: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(7)
    p = f.shape[1]
    if kind == "permutation":
        return f[:, rng.permutation(p)]
    if kind == "rotation":
        return f @ np.linalg.qr(rng.standard_normal((p, p)))[0]
    if kind == "scale":
        return f * 17.5
    if kind == "shift":
        return f + rng.uniform(-40, 40, p)
    # The last column is noise: stretched, it hides what the others show.
    return f @ (0.3 * rng.standard_normal((p, p)) + np.diag([*np.ones(p - 1), 80.0]))


def _pair() -> tuple[np.ndarray, np.ndarray]:
    # Four clear clusters, so that k-means finds the same ones whatever the frame.
    rng = np.random.default_rng(11)
    centres = rng.standard_normal((4, 6)) * 6
    x = np.hstack([centres[np.arange(60) % 4] + rng.standard_normal((60, 6)), rng.standard_normal((60, 1))])
    y = np.hstack([x[:, :4] * [1, 2, 0.5, 1], rng.standard_normal((60, 1))])
    y[:30] += rng.standard_normal((30, 5)) * 3
    return x, y


@pytest.mark.parametrize("kind", ["permutation", "rotation", "scale", "shift", "linear"])
@pytest.mark.parametrize("name", NAMES)
def test_declared_invariances_hold_and_no_others(name: str, kind: str) -> None:
    measure = get(name)
    x, y = _pair()
    options = {"k": 4} if name.startswith("cluster") else {}
    before = value(name, x, y, **options)
    for declared, after in (
        (kind in measure.first, value(name, _changed(kind, x), y, **options)),
        (kind in measure.second, value(name, x, _changed(kind, y), **options)),
    ):
        if declared:
            assert after == pytest.approx(before, abs=1e-8)
        else:
            assert abs(after - before) > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_symmetry_order_of_samples_and_bounds(name: str) -> None:
    measure = get(name)
    x, y = _pair()
    options = {"k": 4} if name.startswith("cluster") else {}
    if name == "cka_minibatch":
        options["batch"] = 60  # otherwise the order decides what a batch holds
    there = value(name, x, y, **options)
    back = value(name, y, x, **options)
    if measure.symmetric:
        assert back == pytest.approx(there, abs=1e-10)
    else:
        assert abs(back - there) > 1e-4
    order = np.random.default_rng(0).permutation(len(x))
    assert value(name, x[order], y[order], **options) == pytest.approx(there, abs=1e-8)
    low, high = measure.bounds
    assert low <= there <= high


# Degenerate representations -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
def test_a_representation_against_itself_gives_exactly_the_identity(name: str, dtype: type) -> None:
    for x in (X, *_pair()):
        assert value(name, x.astype(dtype), x.astype(dtype)) == get(name).identity


@pytest.mark.parametrize("name", NAMES)
def test_constant_features_are_refused(name: str) -> None:
    flat = np.tile([1.0, 2.0, 3.0], (40, 1))
    for pair, which in (((flat, Y), "first"), ((X, flat), "second")):
        with pytest.raises(BenchError, match=f"{which} network's features are the same for every sample"):
            value(name, *pair)


@pytest.mark.parametrize("name", NAMES)
def test_one_constant_column_changes_nothing_that_is_finite(name: str) -> None:
    found = value(name, np.hstack([X, np.zeros((40, 1))]), Y)
    assert np.isfinite(found)
    if name != "rsa":  # correlates over the features: another zero is another number
        assert found == pytest.approx(value(name, X, Y), abs=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_fewer_samples_than_features(name: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((12, 40)), rng.standard_normal((12, 30))
    if name in {"cca", "cca_r2", "svcca", "pwcca"}:
        with pytest.raises(BenchError, match="more samples than both networks' features together"):
            value(name, x, y)
    elif name == "cka":
        assert 0.6 < value(name, x, y) < 1.0  # the known bias, that the debiased estimate does not have
        assert abs(value("cka_debiased", x, y)) < 0.3
    else:
        low, high = get(name).bounds
        assert low <= value(name, x, y) <= high


@pytest.mark.parametrize("name", NAMES)
def test_duplicate_samples(name: str) -> None:
    x, y = (np.repeat(f, 3, axis=0) for f in _pair())
    low, high = get(name).bounds
    assert low <= value(name, x, y) <= high
    assert value(name, x, x) == get(name).identity


def test_neighbours_of_duplicates_are_the_lowest_rows_whatever_the_frame() -> None:
    x = np.repeat(_pair()[0], 5, axis=0)
    found = neighbours.nearest(x, 2).ids
    assert found[0].tolist() == [1, 2]
    assert found[4].tolist() == [0, 1]
    turned = neighbours.nearest(_changed("rotation", x), 2).ids
    np.testing.assert_array_equal(found, turned)
    all_alike = np.vstack([np.tile(x[:1], (30, 1)), -x[:1]])
    assert neighbours.nearest(all_alike, 3).ids[7].tolist() == [0, 1, 2]


def test_a_row_of_zeros_has_similarity_zero() -> None:
    x = np.vstack([np.zeros((1, 6)), X])
    found = neighbours.nearest(x, 3)
    assert found.ids[0].tolist() == [1, 2, 3]
    assert found.similarity[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("factor", [1e-150, 1e-30, 1e30, 1e140])
def test_tiny_and_huge_features(factor: float) -> None:
    for name in NAMES:
        assert value(name, X * factor, Y) == pytest.approx(value(name, X, Y), abs=1e-8), name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        (X[:20], Y, "20 and 40 samples"),
        (X[:, 0], Y, "shape"),
        (np.where(np.arange(40)[:, None] == 4, np.nan, X), Y, "first: sample 4"),
        (X[:1], Y[:1], "samples or more; there are 1"),
    ],
)
def test_refusals(name: str, x: np.ndarray, y: np.ndarray, sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        value(name, x, y)


def test_refusals_of_single_measures() -> None:
    with pytest.raises(BenchError, match="7 cannot be compared"):
        neighbours.nearest(X[:7], 7)
    with pytest.raises(BenchError, match="equal features throughout"):
        rsa.rsa(np.vstack([np.ones((1, 6)), X]), np.vstack([Y[:1], Y]))
    with pytest.raises(BenchError, match="distinct samples"):
        value("cluster_nmi", np.repeat(X[:2], 20, axis=0), Y, k=3)
    with pytest.raises(BenchError, match="median distance"):
        value("cka_rbf", np.vstack([np.tile(X[:1], (39, 1)), X[1:2]]), Y)
    with pytest.raises(BenchError, match="batches of 4"):
        value("cka_minibatch", X, Y, batch=3)
    with pytest.raises(BenchError, match="unknown similarity measure 'ckaa'; nearest: cka"):
        get("ckaa")


# Standard errors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cka", "cka_debiased", "distance_correlation", "procrustes"])
def test_influence_gives_the_spread_over_fresh_samples(name: str) -> None:
    """The infinitesimal jackknife's standard error against the spread of the value over independent samples."""
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((4, 3))
    values, errors = [], []
    for _ in range(200):
        x = rng.standard_normal((150, 4))
        found = get(name).compute(x, x @ mix + 2 * rng.standard_normal((150, 3)))
        assert found.influence is not None
        assert abs(found.influence.sum()) < 1e-9
        values.append(found.value)
        errors.append(np.sqrt(np.square(found.influence).sum()))
    assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=0.2)
