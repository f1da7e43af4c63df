"""A task of arrays for a suite: what a run would hand it."""

import numpy as np

from bench import protocol as protocols
from bench.card import Card
from bench.featureset import ArrayFeatureSet, FeatureSet
from bench.progress import Progress
from bench.registry import resolve
from bench.suite import Task


def task(
    suite,
    train,
    test,
    *,
    protocol=None,
    seed=0,
    fingerprints=("sha256:train", "sha256:test"),
    ids=(None, None),
    **options,
):
    """``train`` and ``test``: (x, y)."""
    sets = {
        split: ArrayFeatureSet(
            {"pooled": np.asarray(x, dtype=np.float32)}, np.asarray(y), dataset="arrays", split=split,
            fingerprint=fingerprint, ids=names,
        )
        for split, (x, y), fingerprint, names in zip(("train", "test"), (train, test), fingerprints, ids, strict=True)
    }  # fmt: skip
    card = Card(
        name="arrays", spec="features:x", architecture="features", family="features", dims={}, feature="x",
        weight_digest="sha256:0",
    )  # fmt: skip
    chosen = protocols.get(suite, protocol).variant(options)
    return Task(chosen, card, sets, seed, "cpu", Progress(quiet=True))


def feature_set(x, y, split="train", **more):
    """One split of arrays."""
    return ArrayFeatureSet(
        {"pooled": np.asarray(x, dtype=np.float32)}, np.asarray(y), dataset="arrays", split=split,
        fingerprint=f"sha256:{split}", **more,
    )  # fmt: skip


class OnDisk(FeatureSet):
    """A set that can be read in blocks alone, as one too large for memory would be."""

    def __init__(self, held):
        self._held = held
        for name in ("dataset", "split", "fingerprint", "labels", "ids", "classes", "widths"):
            setattr(self, name, getattr(held, name))

    def array(self, name):
        raise AssertionError(f"{self.split} was read whole")

    def blocks(self, name, rows):
        return self._held.blocks(name, rows)


def out_of_core(made, split="train"):
    """The same task, one split on disk."""
    made.data = {**made.data, split: OnDisk(made.data[split])}
    return made


def evaluate(suite, train, test, **more):
    """(measurements, the task)."""
    made = task(suite, train, test, **more)
    runner = resolve("suites", suite)()
    runner.needs(made.protocol, made.card)
    return list(runner.evaluate(made)), made


def values(measurements, metric, **settings):
    """Value of the one measurement of ``metric`` with these settings."""
    (found,) = [
        m for m in measurements if m.metric == metric and all(m.settings.get(k) == v for k, v in settings.items())
    ]
    return found.value


def clusters(seed=0, n=300, classes=4, width=12, spread=1.0):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((classes, width)) * spread
    y = rng.integers(0, classes, n)
    return (centres[y] + rng.standard_normal((n, width))).astype(np.float32), y
