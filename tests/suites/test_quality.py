"""quality: known answers, direct formulas, what must not matter, refusals."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from suitehelp import clusters, evaluate, values

from bench.errors import BenchError
from suites import quality
from suites.spectrum import alpha_req

ROW, COLUMN = np.meshgrid(np.arange(40), np.arange(6), indexing="ij")
X = np.sin(0.7 * ROW + 1.3 * COLUMN) + 0.1 * np.cos(0.37 * ROW * COLUMN)


def measured(x, **options):
    y = np.arange(len(x)) % 2
    return evaluate("quality", (x, y), (x[:2], y[:2]), **options)[0]


def test_known_answers():
    found = measured(X)
    assert values(found, "rankme") == pytest.approx(2.95881, abs=1e-5)
    assert values(found, "nesum") == pytest.approx(1.71352, abs=1e-5)
    assert values(found, "uniformity") == pytest.approx(-1.66527, abs=1e-5)
    # Of six eigenvalues three are of rank 4 or more, of five too few.
    assert [m.metric for m in found] == ["rankme", "alpha_req", "nesum", "uniformity"]
    assert [m.metric for m in measured(X[:, :5])] == ["rankme", "nesum", "uniformity"]
    assert all(m.interval is None and m.interval_note and not m.verified and m.split == "train" for m in found)


@pytest.mark.parametrize("shape", [(200, 30), (20, 50)])
def test_a_second_computation(shape, monkeypatch):
    monkeypatch.setattr(quality, "ROWS", 7)
    monkeypatch.setattr(quality, "PAIRS", 9)
    x = (np.random.default_rng(0).standard_normal(shape) * np.arange(1, shape[1] + 1) + 100).astype(np.float32)
    found = measured(x, first=2, last=12)
    wide = x.astype(np.float64)
    sigma = np.linalg.svd(wide, compute_uv=False)
    p = sigma / sigma.sum() + 1e-7
    assert values(found, "rankme") == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-6)
    spectrum = np.sort(np.linalg.eigvals(np.cov(wide.T)).real)[::-1]
    assert values(found, "nesum") == pytest.approx(spectrum.sum() / spectrum[0])
    # Normal equations with the weights 1 / rank.
    rank = np.arange(2, 13)
    design = np.stack([-np.log(rank), np.ones(len(rank))], axis=1)
    fitted = np.linalg.solve(design.T @ (design / rank[:, None]), (design / rank[:, None]).T @ np.log(spectrum[1:12]))
    assert values(found, "alpha_req") == pytest.approx(fitted[0])
    z = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    assert values(found, "uniformity") == pytest.approx(np.log(np.exp(-2 * pdist(z) ** 2).mean()), abs=1e-5)


def test_a_power_law_is_found_again():
    assert alpha_req(np.arange(1, 101) ** -1.3, 11, 50) == (pytest.approx(1.3), 50)
    assert alpha_req(np.arange(1, 31) ** -1.3, 11, 50) == (pytest.approx(1.3), 30)
    assert alpha_req(np.array([1.0, 0.0, 0.0, 0.0]), 1, 4) is None


def test_order_does_not_matter_and_scale_neither():
    x, _ = clusters(0, 120, 5, 20)
    base = measured(x)
    changed = measured(x[np.random.default_rng(3).permutation(len(x))] * 1000)
    assert [m.value for m in changed] == pytest.approx([m.value for m in base], rel=1e-5)


def test_a_draw_is_seeded_and_says_its_size():
    x, _ = clusters(0, 300, 5, 20)
    found = measured(x, samples=100, pairs_of=50)
    again = measured(x, samples=100, pairs_of=50)
    assert [m.value for m in found] == [m.value for m in again]
    assert [m.n for m in found] == [100, 100, 100, 50]
    assert values(measured(x, samples=0), "rankme") == values(measured(x), "rankme")


def test_zero_rows_are_left_out_of_uniformity_and_counted():
    x = X.copy()
    x[3] = 0
    uniform = measured(x)[-1]
    assert uniform.n == 39
    assert uniform.details["zero_features_left_out"] == 1


def test_refusals():
    x, _ = clusters(0, 20)
    with pytest.raises(BenchError, match="zero throughout"):
        measured(np.zeros_like(x))
    with pytest.raises(BenchError, match="same for every sample"):
        measured(np.ones_like(x))
    x[4, 2] = np.nan
    with pytest.raises(BenchError, match="train/4"):
        measured(x)
    with pytest.raises(BenchError, match=r"quality\.t is a number above 0"):
        measured(X, t=0.0)
    with pytest.raises(BenchError, match="two or more"):
        measured(X[:1])
