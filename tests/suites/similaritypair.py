"""The deterministic pair of representations, and frames in which a representation may stand."""

from __future__ import annotations

import numpy as np

from suites.similarity_measures import get, measures

ROW, COLUMN = np.arange(40)[:, None], np.arange(6)[None]
X = np.sin(0.7 * ROW + 1.3 * COLUMN) + 0.1 * np.cos(0.37 * ROW * COLUMN)
Y = np.cos(0.31 * ROW * (COLUMN + 1)) + 0.5 * X
NAMES = list(measures())


def value(name: str, x: np.ndarray, y: np.ndarray, **options) -> float:
    if name.startswith("cluster"):
        options.setdefault("k", 3)
    return get(name).compute(x, y, **options).value


def changed(kind: str, f: np.ndarray) -> np.ndarray:
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


def pair() -> tuple[np.ndarray, np.ndarray]:
    # Four clear clusters, so that k-means finds the same ones whatever the frame.
    rng = np.random.default_rng(11)
    centres = rng.standard_normal((4, 6)) * 6
    x = np.hstack([centres[np.arange(60) % 4] + rng.standard_normal((60, 6)), rng.standard_normal((60, 1))])
    y = np.hstack([x[:, :4] * [1, 2, 0.5, 1], rng.standard_normal((60, 1))])
    y[:30] += rng.standard_normal((30, 5)) * 3
    return x, y
