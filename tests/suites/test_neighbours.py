"""Exact search: the same neighbours as brute force in float64, ties by lowest row, own samples left out by row."""

import numpy as np
import pytest

from suites.neighbours import normalised, search


def brute(bank: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    similarity = queries.astype(np.float64) @ bank.astype(np.float64).T
    order = np.lexsort((np.broadcast_to(np.arange(len(bank)), similarity.shape), -similarity), axis=-1)
    return order[:, :k]


def test_the_neighbours_of_brute_force():
    rng = np.random.default_rng(0)
    bank, queries = normalised(rng.standard_normal((3000, 24))), normalised(rng.standard_normal((250, 24)))
    found = search(bank, queries, 50, boundaries=[1, 10, 50])
    want = brute(bank, queries, 50)
    for k in (1, 10, 50):
        assert all(set(a[:k]) == set(b[:k]) for a, b in zip(found.index, want, strict=True))
    rows = np.take_along_axis(queries.astype(np.float64) @ bank.astype(np.float64).T, found.index, axis=1)
    np.testing.assert_allclose(found.similarity, rows, atol=1e-6)


@pytest.mark.parametrize("copies", [3, 40])
def test_ties_at_the_boundary_go_to_the_lowest_rows(copies):
    """Copies of one row, more of them than the margin fetches, scattered over the bank."""
    rng = np.random.default_rng(1)
    base = normalised(rng.standard_normal((400, 33)))
    where = np.sort(rng.choice(400, copies, replace=False))
    base[where] = base[where[0]]
    query = base[where[:1]]
    found = search(base, query, copies // 2 + 1, boundaries=[])
    assert list(np.sort(found.index[0])) == list(where[: copies // 2 + 1])


def test_own_samples_are_left_out_by_row_not_by_rank():
    rng = np.random.default_rng(2)
    bank = normalised(rng.standard_normal((60, 5)))
    bank[7] = bank[3]
    found = search(bank, bank, 10, boundaries=[1], own=np.arange(60))
    assert not (found.index == np.arange(60)[:, None]).any()
    assert found.index[3, 0] == 7
    assert found.index[7, 0] == 3
    assert search(bank, bank, 59, boundaries=[1], own=np.arange(60)).index.shape == (60, 59)


def test_all_equal_rows_and_k_of_everything():
    bank = normalised(np.ones((30, 4)))
    assert list(search(bank, bank[:1], 5, boundaries=[2]).index[0]) == [0, 1, 2, 3, 4]
    assert sorted(search(bank, bank[:2], 30, boundaries=[]).index[1]) == list(range(30))


def test_normalised_survives_extreme_scales_and_zero_rows():
    x = np.array([[3e25, 4e25], [3e-25, 4e-25], [0, 0]], dtype=np.float32)
    np.testing.assert_allclose(normalised(x), [[0.6, 0.8], [0.6, 0.8], [0, 0]], rtol=1e-6)


def test_refining_makes_equal_rows_tie_exactly():
    rng = np.random.default_rng(3)
    bank = normalised(rng.standard_normal((100, 65)))
    bank[90] = bank[10]
    found = search(bank, bank[10:11], 20, boundaries=[])
    found.refine(np.array([0]))
    assert list(found.index[0, :2]) == [10, 90]
    assert found.similarity[0, 0] == found.similarity[0, 1]
