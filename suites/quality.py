"""Quality without labels: RankMe, alpha-ReQ, NESum and uniformity of the training features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.axes import FROZEN
from bench.errors import BenchError
from bench.options import Allowed, count, positive, words
from bench.suite import Needs, engine_of
from suites.neighbours import normalised
from suites.spectrum import alpha_req, nesum_of, rankme_of

if TYPE_CHECKING:
    from bench.card import Card
    from bench.featureset import FeatureSet
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Task

ROWS = 4096
"""Rows read at once."""
PAIRS = 1024
"""Rows compared with all others at once."""


class Quality:
    """Four numbers from the spectrum and the spread of the features; labels are not read."""

    name = "quality"
    default = "quality/standard@2"
    axes: ClassVar[tuple[str, ...]] = FROZEN
    options: ClassVar[dict[str, Allowed]] = {
        # 0: all of them.
        "samples": count(0),
        "epsilon": Allowed(least=0, most=1),
        "first": count(),
        "last": count(),
        "pairs_of": count(2),
        "t": positive(1e3),
        # Those of quality/views.
        "images": count(2),
        "views": count(2, 10_000),
        "delta": positive(1e6),
        "alpha": positive(100),
        "interpolation": words("bilinear", "bicubic"),
    }

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        settings = protocol.settings
        if "views" in settings:
            return Needs(features=(), splits=("train",), backbone=True)
        if not settings["first"] < settings["last"]:
            raise BenchError(
                f"quality.last={settings['last']} (an eigenvalue's rank) must come after "
                f"quality.first={settings['first']}"
            )
        return Needs(splits=("train",))

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        settings = task.settings
        if "views" in settings:
            from suites import views

            yield from views.evaluate(task)
            return
        train = task.data["train"]
        if len(train) < 2:
            raise BenchError(f"{train.dataset} {train.split} holds {len(train)} samples: a spectrum needs two or more")
        rows = drawn(len(train), settings["samples"], task.seed)
        pairs = rows[drawn(len(rows), settings["pairs_of"], task.seed)]
        with task.progress.stage("spectrum", len(train), "samples") as stage:
            moments, kept = _read(train, rows, pairs, stage)
        uncentred, centred = moments.spectra()
        dim = len(uncentred)
        facts: dict[str, Any] = {"samples": len(rows), "width": dim}
        common: dict[str, Any] = {
            "split": "train",
            "unit": "",
            "engine": engine_of("numpy"),
            "interval_note": "a statistic of the whole feature set, compared only at equal samples and width",
            "seeds": [task.seed],
        }
        # Of X'X, as many eigenvalues as X has singular values.
        sigma = np.sqrt(uncentred[: len(rows)])
        yield task.measure(
            "rankme", rankme_of(sigma, settings["epsilon"]), n=len(rows), headline=True, details=facts, **common
        )
        found = alpha_req(centred, settings["first"], settings["last"])
        if found is not None:
            alpha, last = found
            yield task.measure(
                "alpha_req", alpha, n=len(rows), higher_is_better=False,
                details={**facts, "eigenvalues": [settings["first"], last], "best": "closest to 1"}, **common,
            )  # fmt: skip
        yield task.measure("nesum", nesum_of(centred), n=len(rows), details=facts, **common)
        zero = int((~kept.any(axis=1)).sum())
        if zero:
            facts = {**facts, "zero_features_left_out": zero}
            kept = kept[kept.any(axis=1)]
        if len(kept) < 2:
            raise BenchError("fewer than two samples have features that are not zero: uniformity needs a pair")
        with task.progress.stage("uniformity", len(kept), "samples") as stage:
            value = uniformity(kept, settings["t"], stage)
        yield task.measure(
            "uniformity", value, n=len(kept), higher_is_better=False, details={**facts, "samples": len(kept)}, **common
        )  # fmt: skip


class Moments:
    """Sums of x and of x x' about a point near the mean, added up block by block in float64."""

    def __init__(self, about: np.ndarray) -> None:
        self._about = about
        self._n = 0
        self._sum = np.zeros(len(about))
        self._products = np.zeros((len(about), len(about)))

    def add(self, x: np.ndarray) -> None:
        shifted = x - self._about
        self._n += len(x)
        self._sum += shifted.sum(axis=0)
        self._products += shifted.T @ shifted

    def spectra(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues float64 [D], largest first, of X'X and of the covariance (over N)."""
        mean = self._sum / self._n
        cross = np.outer(self._about, self._sum)
        uncentred = self._products + cross + cross.T + self._n * np.outer(self._about, self._about)
        centred = self._products / self._n - np.outer(mean, mean)
        first, second = (np.linalg.eigvalsh(m)[::-1].clip(min=0) for m in (uncentred, centred))
        return first, second


def drawn(n: int, wanted: int, seed: int) -> np.ndarray:
    """int64: ``wanted`` of ``n`` rows, ascending, by a seeded draw; all of them where wanted is 0 or not fewer."""
    if wanted == 0 or wanted >= n:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, wanted, replace=False))


def uniformity(x: np.ndarray, t: float = 2.0, stage: Any = None) -> float:
    """log of the mean over pairs i < j of exp(-t |z_i - z_j|^2), z the rows of ``x`` [N, D] at length 1."""
    z = normalised(x).astype(np.float64)
    total = 0.0
    for start in range(0, len(z), PAIRS):
        block = z[start : start + PAIRS]
        squared = np.maximum(2 - 2 * (block @ z[start:].T), 0)
        # Of each row, the columns right of the diagonal: every pair once.
        total += float(np.triu(np.exp(-t * squared), k=1).sum())
        if stage is not None:
            stage.advance(len(block))
    if not total > 0:
        raise BenchError("uniformity is log 0 at this t: set quality.t lower")
    return float(np.log(total / (len(z) * (len(z) - 1) / 2)))


def _read(train: FeatureSet, rows: np.ndarray, pairs: np.ndarray, stage: Any) -> tuple[Moments, np.ndarray]:
    """(the moments of ``rows``, the features float32 of ``pairs``) in one pass over the split."""
    moments: Moments | None = None
    kept = []
    for start, block in train.blocks("pooled", ROWS):
        bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if len(bad):
            raise BenchError(
                f"{train.dataset} {train.split} has features that are not finite (NaN or Inf), "
                f"first {train.ids[start + int(bad[0])]}: mend the features"
            )
        here, compared = (
            wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, start + len(block))] - start
            for wanted in (rows, pairs)
        )
        if len(here):
            chosen = block[here].astype(np.float64)
            if moments is None:
                moments = Moments(chosen.mean(axis=0))
            moments.add(chosen)
            kept.append(block[compared])
        stage.advance(len(block))
    assert moments is not None  # there are two rows or more
    return moments, np.concatenate(kept)
