"""Agreement of neighbourhoods: exact neighbours, ties by row, and the measures from them."""

from __future__ import annotations

import numpy as np
import pytest
from similaritypair import X, Y, changed, pair, value

from suites.similarity_measures import get, neighbours


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


def test_neighbours_of_duplicates_are_the_lowest_rows_whatever_the_frame() -> None:
    x = np.repeat(pair()[0], 5, axis=0)
    found = neighbours.nearest(x, 2).ids
    assert found[0].tolist() == [1, 2]
    assert found[4].tolist() == [0, 1]
    turned = neighbours.nearest(changed("rotation", x), 2).ids
    np.testing.assert_array_equal(found, turned)
    all_alike = np.vstack([np.tile(x[:1], (30, 1)), -x[:1]])
    assert neighbours.nearest(all_alike, 3).ids[7].tolist() == [0, 1, 2]


def test_a_row_of_zeros_has_similarity_zero() -> None:
    x = np.vstack([np.zeros((1, 6)), X])
    found = neighbours.nearest(x, 3)
    assert found.ids[0].tolist() == [1, 2, 3]
    assert found.similarity[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["plain", "by class", "duplicates", "all alike", "zeros"])
def test_tiles_of_the_symmetric_matrix_give_the_neighbours_of_whole_rows(
    kind: str, dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((151, 9)) + 5
    if kind == "by class":
        # The nearest come last, a tile full of better ones each time.
        x += 40 * np.repeat(np.eye(9)[:6], 26, axis=0)[:151] * np.linspace(1, 3, 151)[:, None]
    elif kind == "duplicates":
        x = np.tile(x[:31], (5, 1))[:151]
    elif kind == "all alike":
        x[:100] = x[0]
    elif kind == "zeros":
        x[::3] = 0
    x = x.astype(dtype)
    whole = {k: neighbours.nearest(x, k) for k in (1, 10, 40)}
    monkeypatch.setattr(neighbours, "BLOCK", 3000)
    for tile in (16, 50, 200):
        monkeypatch.setattr(neighbours, "TILE", tile)
        for k, expected in whole.items():
            found = neighbours.nearest(x, k)
            np.testing.assert_array_equal(found.ids, expected.ids)
            np.testing.assert_allclose(
                found.similarity, expected.similarity, atol=1e-6 if dtype == np.float32 else 1e-14
            )


def test_tiles_take_half_of_the_products(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    take = neighbours._Best.take

    def counted(self, tile, row, column):
        taken.append((tile.size, bool(tile.flags.c_contiguous)))
        take(self, tile, row, column)

    monkeypatch.setattr(neighbours, "BLOCK", 3000)
    monkeypatch.setattr(neighbours, "TILE", 20)
    monkeypatch.setattr(neighbours._Best, "take", counted)
    monkeypatch.setattr(neighbours, "_against_all", lambda x, rows, which, k: (np.empty((0, k)), np.empty((0, k))))
    x = np.random.default_rng(0).standard_normal((100, 7))
    found = neighbours.nearest(x, 5)
    products = sum(size for size, upright in taken if upright)
    assert products == 20 * 20 * 15  # of the 25 tiles
    assert sum(size for size, _ in taken) == 100 * 100
    assert found.ids.shape == (100, 5)
