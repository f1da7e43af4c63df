"""t-SNE (van der Maaten & Hinton 2008) of some hundred samples, by its exact gradient.

A figure beside a record must not cost more than the record: scikit-learn's takes some seconds, import included, where
this takes a fraction of one. The divergence that theirs reaches is what the tests measure this one by.
"""

from __future__ import annotations

import numpy as np

EXAGGERATION = 12.0
EARLY = 100
"""Steps with the affinities exaggerated."""


def late(n: int) -> int:
    """Steps with the affinities as they are: few samples settle late, and cost little."""
    return min(max(120_000 // n, 300), 900)


def tsne(x: np.ndarray, perplexity: float) -> np.ndarray:
    """float64 [N, 2], places of the rows of ``x`` [N, D]: neighbours lie together, far distances mean little.

    Starts from the first two principal components, so nothing is drawn at random; at most 1e4 rows make sense (N x N).
    ``perplexity``: neighbours that count, cut to a third of N - 1. N of 3 at least.
    """
    from threadpoolctl import threadpool_limits

    n = len(x)
    # One thread: sums in another order would draw another map.
    with threadpool_limits(1):
        p = affinities(x, min(perplexity, (n - 1) / 3)).astype(np.float32)
        y = principal(x, 2)
        spread = y[:, 0].std() if y.shape[1] else 0.0
        start = np.zeros((n, 2), dtype=np.float32)
        start[:, : y.shape[1]] = y / (spread if spread > 0 else 1.0) * 1e-4
        return _descend(p, start).astype(np.float64)


def principal(x: np.ndarray, components: int) -> np.ndarray:
    """float64 [N, at most components]: projections on the principal components that vary, largest first.

    Signs are fixed: the sample furthest out in a component lies on its positive side.
    """
    from threadpoolctl import threadpool_limits

    x = np.asarray(x, dtype=np.float64)
    x = x - x.mean(axis=0)
    with threadpool_limits(1):
        left, values, _ = np.linalg.svd(x, full_matrices=False)
    kept = min(components, int((values > values.max(initial=0) * 1e-10).sum()))
    found = left[:, :kept] * values[:kept]
    furthest = np.abs(found).argmax(axis=0)
    return np.asarray(found * np.where(found[furthest, np.arange(kept)] < 0, -1.0, 1.0))


def affinities(x: np.ndarray, perplexity: float) -> np.ndarray:
    """Symmetric float64 [N, N] of sum 1, diagonal 0: Gaussian neighbourhoods whose widths give the perplexity.

    A sample with more copies of itself than that has the entropy of its copies.
    """
    x = np.asarray(x, dtype=np.float64)
    n = len(x)
    squares = np.einsum("ij,ij->i", x, x)
    distance = np.maximum(squares[:, None] + squares - 2 * (x @ x.T), 0)
    # Of the others; each sample's nearest at 0, so that the nearest never underflows.
    np.fill_diagonal(distance, np.inf)
    distance -= distance.min(axis=1, keepdims=True)
    np.fill_diagonal(distance, 0)
    scale = distance.mean() or 1.0
    distance /= scale
    wanted = np.log(perplexity)
    low, high, beta = np.zeros(n), np.full(n, np.inf), np.ones(n)
    for _ in range(60):
        p = np.exp(-distance * beta[:, None])
        np.fill_diagonal(p, 0)
        total = p.sum(axis=1)
        entropy = np.log(total) + beta * np.einsum("ij,ij->i", distance, p) / total
        if np.abs(entropy - wanted).max() < 1e-5:
            break
        wide = entropy > wanted
        low, high = np.where(wide, beta, low), np.where(wide, high, beta)
        beta = np.where(np.isinf(high), 2 * beta, (low + np.where(np.isinf(high), 0, high)) / 2)
        # Copies alone remain: nothing further changes.
        beta = np.minimum(beta, 1e12)
    p /= total[:, None]
    return np.asarray((p + p.T) / (2 * n))


def divergence(p: np.ndarray, y: np.ndarray) -> float:
    """KL(P || Q) in nats of the affinities ``p`` [N, N] and the places ``y`` [N, 2]: what t-SNE makes small."""
    q = 1 / (1 + ((y[:, None] - y[None]) ** 2).sum(axis=2))
    np.fill_diagonal(q, 0)
    q /= q.sum()
    there = p > 0
    return float((p[there] * np.log(p[there] / q[there])).sum())


def _descend(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Gradient descent with momentum and gains, as the authors' code; learning rate N / exaggeration (Belkina 2019)."""
    n = len(y)
    rate = max(n / EXAGGERATION, 2.0)
    step, gain = np.zeros_like(y), np.ones_like(y)
    kernel, pull = np.empty_like(p), np.empty_like(p)
    p = p * np.float32(EXAGGERATION)
    for number in range(EARLY + late(n)):
        if number == EARLY:
            p /= np.float32(EXAGGERATION)
        squares = np.einsum("ij,ij->i", y, y)
        np.matmul(y, -2 * y.T, out=kernel)
        kernel += squares[:, None]
        kernel += squares + 1
        # Rounding may leave 1 + d^2 below 1.
        np.maximum(kernel, 1, out=kernel)
        np.reciprocal(kernel, out=kernel)
        kernel.flat[:: n + 1] = 0
        np.multiply(kernel, -1 / kernel.sum(), out=pull)
        pull += p
        pull *= kernel
        gradient = 4 * (pull.sum(axis=1)[:, None] * y - pull @ y)
        against = (step > 0) == (gradient > 0)
        gain = np.maximum(np.where(against, gain * np.float32(0.8), gain + np.float32(0.2)), np.float32(0.01))
        momentum = np.float32(0.5 if number < EARLY else 0.8)
        step = momentum * step - np.float32(rate) * gain * gradient
        y = y + step
        y -= y.mean(axis=0)
    return y
