"""What must not matter to any suite on stored features: the order of the samples, and what the classes are called."""

import numpy as np
import pytest
from suitehelp import clusters, evaluate

TRAIN, TEST = clusters(0, 120, 4, spread=0.7), clusters(1, 60, 4, spread=0.7)

# (suite, options); where something is drawn by chance, it is switched off: which samples are drawn is the seed's.
SUITES = {
    "knn": {},
    "linear": {"C": 1.0, "tol": 1e-9},
    "ridge": {"penalty": 0.1},
    "retrieval": {},
    "retrieval/train": {"protocol": "train"},
    "quality": {},
    "fewshot": {"percent": [100.0], "shots": [1000], "draws": 1},
    "fewshot/knn": {"percent": [100.0], "shots": [1000], "draws": 1, "classifier": "knn"},
    "voc07cls": {"costs": 1.0, "tol": 1e-6},
}


def numbers(name, train, test):
    """Metric and settings -> value, interval."""
    suite = name.partition("/")[0]
    found, _ = evaluate(suite, train, test, **SUITES[name])
    return [(m.metric, m.settings, m.value, m.interval if suite != "retrieval" else None) for m in found]


def inputs(name):
    if name != "voc07cls":
        return TRAIN, TEST
    # Two labels an image.
    return [
        (x, np.where((np.eye(4, dtype=bool)[y]) | (np.eye(4, dtype=bool)[(y + 1) % 4]), 1, -1))
        for x, y in (TRAIN, TEST)
    ]


def close(first, second):
    assert [(metric, settings) for metric, settings, _, _ in first] == [(m, s) for m, s, _, _ in second]
    for (_, _, a, around), (_, _, b, again) in zip(first, second, strict=True):
        assert a == pytest.approx(b, rel=1e-6)
        if around is not None:
            assert around == pytest.approx(again, rel=1e-6)


@pytest.mark.parametrize("name", SUITES)
def test_the_order_of_the_samples(name):
    (x, y), (q, t) = inputs(name)
    rng = np.random.default_rng(2)
    one, other = rng.permutation(len(x)), rng.permutation(len(q))
    close(numbers(name, (x, y), (q, t)), numbers(name, (x[one], y[one]), (q[other], t[other])))


@pytest.mark.parametrize("name", SUITES)
def test_what_the_classes_are_called(name):
    (x, y), (q, t) = inputs(name)
    if y.ndim == 2:
        order = [2, 0, 3, 1]
        renamed = (x, y[:, order]), (q, t[:, order])
    else:
        names = np.array([40, -7, 3, 1000])
        renamed = (x, names[y]), (q, names[t])
    close(numbers(name, (x, y), (q, t)), numbers(name, *renamed))
