"""Resampled sums: exact totals, pairing, spread, and agreement with scipy's bootstrap."""

from __future__ import annotations

import numpy as np
import pytest

from bench.bootstrap import percentile, resampled_sums


def test_every_replicate_draws_n_rows_and_columns_stay_paired() -> None:
    x = np.random.default_rng(0).standard_normal(50)
    (sums,) = resampled_sums([np.stack([np.ones(50), x, 2 * x], axis=1)], replicates=300)
    assert (sums[:, 0] == 50).all()
    np.testing.assert_allclose(sums[:, 2], 2 * sums[:, 1], atol=1e-12)
    assert len(np.unique(sums[:, 1])) > 290


def test_sparse_and_dense_tables_share_the_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.sparse import csr_array

    table = np.random.default_rng(0).integers(0, 2, (40, 7)).astype(float)
    dense, sparse = resampled_sums([table, csr_array(table)], replicates=64, seed=3)
    np.testing.assert_array_equal(dense, sparse)
    monkeypatch.setattr("bench.bootstrap.CHUNK", 1)
    np.testing.assert_array_equal(resampled_sums([table], replicates=64, seed=3)[0], dense)
    assert (resampled_sums([table], replicates=64, seed=4)[0] != dense).any()


def test_interval_is_scipys() -> None:
    from scipy.stats import bootstrap

    x = np.random.default_rng(0).exponential(size=200)
    (sums,) = resampled_sums([x[:, None]], seed=1)
    low, high = percentile(sums[:, 0] / 200, float(x.mean()))  # type: ignore[misc]
    theirs = bootstrap((x,), np.mean, n_resamples=10_000, method="percentile", rng=2).confidence_interval
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_undefined_replicates() -> None:
    drawn = np.linspace(0, 1, 100)
    drawn[:4] = np.nan
    assert percentile(drawn, 0.5) is not None
    drawn[:6] = np.nan
    assert percentile(drawn, 0.5) is None
    assert percentile(np.full(100, 2.0), 1.0) == (1.0, 2.0)
    with pytest.raises(ValueError, match="rows"):
        resampled_sums([np.ones((3, 1)), np.ones((4, 1))])
