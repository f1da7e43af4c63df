"""Exact search: the same neighbours as brute force in float64 whichever way the candidates are found."""

import numpy as np
import pytest
import torch
from suitehelp import feature_set

import suites.candidates
import suites.neighbours
from bench.errors import BenchError
from suites.candidates import candidates
from suites.neighbours import Rows, StoredRows, bank_of, normalised, search

WAYS = ("bf16", "fp32", "faiss")


def brute(bank: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    similarity = queries.astype(np.float64) @ bank.astype(np.float64).T
    order = np.lexsort((np.broadcast_to(np.arange(len(bank)), similarity.shape), -similarity), axis=-1)
    return order[:, :k]


@pytest.fixture
def small_tiles(monkeypatch):
    """Many tiles, thresholds and blocks in small data."""
    monkeypatch.setattr(suites.candidates, "ROWS", 128)
    monkeypatch.setattr(suites.candidates, "QUERIES", 32)
    monkeypatch.setattr(suites.candidates, "FAISS_BYTES", 300 * 4 * 24)
    monkeypatch.setattr(suites.neighbours, "ROWS", 100)


def banks(kind: str, n: int = 3000, width: int = 24) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y, t = rng.integers(0, 12, n), rng.integers(0, 12, 150)
    centres = rng.standard_normal((12, width))
    if kind == "spread":
        centres *= 0
    if kind == "sorted by class":
        y = np.sort(y)
    x, q = centres[y] + rng.standard_normal((n, width)), centres[t] + rng.standard_normal((150, width))
    if kind == "positive, nearly parallel":
        x, q = np.abs(x) + 5, np.abs(q) + 5
    bank, queries = normalised(x), normalised(q)
    if kind == "nearer and nearer":
        bank = bank[np.argsort(bank @ queries.mean(axis=0), kind="stable")]
        queries = normalised(queries.mean(axis=0) + 0.05 * queries)
    return bank, queries


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "kind", ["spread", "clusters", "sorted by class", "positive, nearly parallel", "nearer and nearer"]
)
def test_the_neighbours_of_brute_force(kind, way, small_tiles):
    bank, queries = banks(kind)
    found = search(Rows(bank), queries, 20, way=way)
    np.testing.assert_array_equal(found.index, brute(bank, queries, 20))
    similarity = np.take_along_axis(queries.astype(np.float64) @ bank.astype(np.float64).T, found.index, axis=1)
    np.testing.assert_allclose(found.similarity, similarity, atol=1e-14)


@pytest.mark.parametrize("way", WAYS)
def test_candidates_are_few_and_complete(way):
    bank, queries = banks("clusters", 20_000, 64)
    found = candidates(Rows(bank), queries, 10, way=way)
    assert not len(found.overflow)
    assert found.counts.mean() < 40
    for line, count, want in zip(found.rows, found.counts, brute(bank, queries, 10), strict=True):
        assert set(want) <= set(line[:count])
        assert (np.diff(line[:count]) > 0).all()


@pytest.mark.parametrize("order", [1, -1])
def test_every_way_gives_the_same_bits(order, small_tiles):
    bank, queries = banks("clusters")
    bank = bank[::order]
    first, *others = [search(Rows(bank.copy()), queries, 33, way=way) for way in WAYS]
    for other in others:
        np.testing.assert_array_equal(first.index, other.index)
        np.testing.assert_array_equal(first.similarity, other.similarity)


def test_queries_one_by_one_and_banks_in_another_order_give_the_same_bits(small_tiles):
    bank, queries = banks("clusters")
    whole = search(Rows(bank), queries, 15)
    alone = search(Rows(bank), queries[40:41], 15)
    np.testing.assert_array_equal(whole.similarity[40:41], alone.similarity)
    order = np.random.default_rng(3).permutation(len(bank))
    shuffled = search(Rows(bank[order]), queries, 15)
    np.testing.assert_array_equal(whole.similarity, shuffled.similarity)
    np.testing.assert_array_equal(whole.index, order[shuffled.index])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("copies", [3, 40, 390])
def test_ties_at_the_boundary_go_to_the_lowest_rows(copies, way, small_tiles):
    """Copies of one row, up to more of them than there is room for, scattered over the bank."""
    rng = np.random.default_rng(1)
    base = normalised(rng.standard_normal((400, 33)))
    where = np.sort(rng.choice(400, copies, replace=False))
    base[where] = base[where[0]]
    k = min(copies // 2 + 1, 20)
    found = search(Rows(base), base[where[:1]], k, way=way)
    assert list(found.index[0]) == list(where[:k])
    assert len(set(found.similarity[0])) == 1


@pytest.mark.parametrize("way", WAYS)
def test_a_collapsed_representation_is_searched_all_the_same(way, small_tiles):
    """All features alike: every row ties with every other, far beyond any candidate list."""
    bank = normalised(np.ones((900, 4)))
    found = search(Rows(bank), bank[:40], 5, own=np.arange(40), way=way)
    for row in range(40):
        assert list(found.index[row]) == [i for i in range(6) if i != row][:5]


@pytest.mark.parametrize("way", WAYS)
def test_own_samples_are_left_out_by_row_not_by_rank(way, small_tiles):
    rng = np.random.default_rng(2)
    bank = normalised(rng.standard_normal((600, 5)))
    bank[7] = bank[3]
    found = search(Rows(bank), bank, 10, own=np.arange(600), way=way)
    assert not (found.index == np.arange(600)[:, None]).any()
    assert found.index[3, 0] == 7
    assert found.index[7, 0] == 3
    with_own = brute(bank, bank, 11)
    want = [[i for i in line if i != row][:10] for row, line in enumerate(with_own)]
    np.testing.assert_array_equal(found.index, want)


@pytest.mark.parametrize("way", WAYS)
def test_all_rows_but_the_own_one(way):
    bank = normalised(np.random.default_rng(2).standard_normal((60, 5)))
    assert search(Rows(bank), bank, 59, own=np.arange(60), way=way).index.shape == (60, 59)
    np.testing.assert_array_equal(search(Rows(bank), bank, 60, way=way).index, brute(bank, bank, 60))


def test_half_precision_that_errs_more_than_rounding_would_be_seen():
    """The bound is what the test above rests on: no score may be further from the truth than it says."""
    for kind in ("spread", "positive, nearly parallel"):
        bank, queries = banks(kind, 2000, 300)
        reservoir = suites.candidates._Reservoir(queries, 5, None, half=True, device="cpu")
        tile = reservoir._tile(bank)
        scores = (reservoir.queries[:, :300].float() @ tile[:, :300].float().T).numpy()
        truth = queries.astype(np.float64) @ (bank - reservoir.centre.numpy()).astype(np.float64).T
        worst = np.abs(scores - truth).max(axis=1)
        bound = reservoir._margin(slice(0, len(queries))).numpy()
        assert (worst < bound).all()
        assert worst.max() > bound.max() / 50, "a bound so wide would keep everything"
        half = (reservoir.queries @ tile.T).float().numpy()
        assert (np.abs(half - scores) <= 2.0**-8 * np.abs(scores) + 1e-6).all()


def test_a_bank_read_in_blocks_is_the_bank_in_memory(monkeypatch, small_tiles):
    x = np.random.default_rng(4).standard_normal((1000, 16)).astype(np.float32)
    x[5] = 0
    data = feature_set(x, np.zeros(1000, dtype=int))
    held, zero = bank_of(data, "pooled")
    monkeypatch.setattr(suites.neighbours, "ROOM", 0)
    read, zero_too = bank_of(data, "pooled")
    assert isinstance(read, StoredRows)
    assert isinstance(held, Rows)
    assert zero == zero_too == 1
    queries = normalised(x[:50] + 0.1)
    one, other = search(held, queries, 9), search(read, queries, 9)
    np.testing.assert_array_equal(one.index, other.index)
    np.testing.assert_array_equal(one.similarity, other.similarity)
    x[900, 3] = np.inf
    with pytest.raises(BenchError, match="1 of 1000 samples .* first train/900"):
        bank_of(data, "pooled")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_finds_the_same_bits():
    bank, queries = banks("clusters", 50_000, 64)
    here, there = search(Rows(bank), queries, 50, way="fp32"), search(Rows(bank), queries, 50, device="cuda")
    np.testing.assert_array_equal(here.index, there.index)
    np.testing.assert_array_equal(here.similarity, there.similarity)


def test_normalised_survives_extreme_scales_and_zero_rows():
    x = np.array([[3e25, 4e25], [3e-25, 4e-25], [0, 0]], dtype=np.float32)
    np.testing.assert_allclose(normalised(x), [[0.6, 0.8], [0.6, 0.8], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("width", [1, 2, 7, 100])
def test_any_bank_small_or_odd(way, width, small_tiles):
    """Duplicates, zero rows, norms from 1e-25 to 1e25, k up to N, N = 1: always the float64 ranking, ties by row."""
    rng = np.random.default_rng(width)
    for n in (1, 2, 5, 140, 1000):
        x = rng.standard_normal((n, width)) * 10 ** rng.uniform(-25, 25, (n, 1))
        x[rng.random(n) < 0.1] = 0
        copies = rng.integers(0, n, (2, n // 3))
        x[copies[0]] = x[copies[1]]
        bank = normalised(x)
        queries = normalised(np.concatenate([rng.standard_normal((20, width)), x[: min(n, 20)], np.zeros((2, width))]))
        for k in sorted({1, min(n, 3), min(n, 60), n if n < 500 else 60}):
            found = search(Rows(bank), queries, k, way=way)
            # Sums in one order for all rows: a matrix product may differ in the last bits between equal ones.
            similarity = (queries.astype(np.float64)[:, None] * bank.astype(np.float64)).sum(axis=2)
            np.testing.assert_allclose(
                found.similarity, np.take_along_axis(similarity, found.index, 1), rtol=0, atol=1e-14
            )
            want = -np.sort(-similarity, axis=1)[:, :k]
            np.testing.assert_allclose(found.similarity, want, rtol=0, atol=1e-14)
            for line, row in zip(found.similarity, found.index, strict=True):
                assert len(set(row)) == k
                tied = line[1:] == line[:-1]
                assert (row[1:] > row[:-1])[tied].all()
            for q in range(len(queries)):
                # Of rows that equal the last one found, none with a lower number was passed over.
                last = bank[found.index[q, -1]]
                same = np.flatnonzero((bank == last).all(axis=1))
                assert set(same[same < found.index[q, -1]]) <= set(found.index[q])


def test_many_queries_are_searched_in_parts(monkeypatch, small_tiles):
    bank, queries = banks("clusters")
    whole = search(Rows(bank), queries, 12, own=np.arange(150))
    monkeypatch.setattr(suites.neighbours, "_at_once", lambda k: 37)
    parts = search(Rows(bank), queries, 12, own=np.arange(150))
    np.testing.assert_array_equal(whole.index, parts.index)
    np.testing.assert_array_equal(whole.similarity, parts.similarity)
    assert suites.neighbours.passes(150, 12) == 5


def test_the_surrounding_process_keeps_its_matmul_precision():
    bank, queries = banks("spread", 500)
    torch.set_float32_matmul_precision("medium")
    try:
        found = search(Rows(bank), queries, 5, way="fp32")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    np.testing.assert_array_equal(found.index, brute(bank, queries, 5))
