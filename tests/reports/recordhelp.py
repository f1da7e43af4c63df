"""Sample records with outcomes that agree with their numbers: what the suites would have written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench import stats
from bench.card import Card, Coverage, Transform
from bench.ledger import Ledger, artifact
from bench.record import Engine, Measurement, Record

Maker = Callable[..., Record]


def percent(bounds: tuple[float, float]) -> tuple[float, float]:
    return 100 * bounds[0], 100 * bounds[1]


def card(name: str = "net-a", **changes: Any) -> Card:
    given: dict[str, Any] = {
        "name": name, "spec": f"demo:{name}", "method": "supervised", "architecture": "tf_efficientnet_lite0",
        "family": "cnn", "dims": {"pooled": 1280}, "feature": "avg", "transform": Transform(), "parameters": 3_413_024,
        "weight_digest": "sha256:" + hashlib.sha256(name.encode()).hexdigest(), "container": "torch (before zip)",
        "layout": "plain", "coverage": Coverage(filled=358, total=358, heads=["classifier.*"]),
    }  # fmt: skip
    return Card(**{**given, **changes})


def outcomes(seed: int, accuracy: float, n: int, classes: int = 10, base: int | None = None) -> dict[str, np.ndarray]:
    """Labels fixed by ``base``; ``accuracy`` of the predictions right, the rest a random other class."""
    label = np.random.default_rng(99 if base is None else base).integers(0, classes, n)
    rng = np.random.default_rng(seed)
    right = rng.random(n) < accuracy
    prediction = np.where(right, label, (label + rng.integers(1, classes, n)) % classes)
    return {"label": label, "prediction": prediction, "score": rng.random(n), "correct": prediction == label}


def accuracy_measurement(table: dict[str, np.ndarray], run: str, name: str, **changes: Any) -> Measurement:
    right, n = int(table["correct"].sum()), len(table["correct"])
    given: dict[str, Any] = {
        "suite": "knn", "protocol": "knn/dino@1", "dataset": "fashion-mnist", "split": "test",
        "fingerprint": "sha256:4f0c9a1b2d3e4f", "train_fingerprint": "sha256:77", "metric": "top1",
        "value": 100 * right / n, "unit": "%", "higher_is_better": True, "n": n,
        "interval": percent(stats.wilson(right, n)), "interval_method": "wilson",
        "settings": {"k": 20, "temperature": 0.07},
        "engine": Engine(name="faiss", version="1.15.1"), "feature": {"tokens": "avg", "layers": 1, "norm": "l2"},
        "transform": Transform(), "outcomes": artifact(run, name), "seeds": [0], "seconds": 0.5,
    }  # fmt: skip
    return Measurement(**{**given, **changes})


def record(
    name: str = "net-a",
    *,
    run: str | None = None,
    seed: int = 1,
    accuracy: float = 0.8,
    n: int = 1000,
    runs: Path | None = None,
    **changes: Any,
) -> Record:
    """kNN at four k and logistic regression; written to the ledger ``runs`` where that is given.

    ``changes`` with the name of a Measurement's field are put into every measurement, others into the record.
    """
    run = run or f"run-{name}"
    tables: dict[str, dict[str, np.ndarray]] = {}
    measurements = []
    fields = {key: changes.pop(key) for key in list(changes) if key in Measurement.model_fields}
    for k in (10, 20, 100, 200):
        stem = f"knn-k{k}-T0.07"
        tables[stem] = outcomes(1000 * seed + k, accuracy, n)
        top1 = accuracy_measurement(
            tables[stem], run, stem, settings={"k": k, "temperature": 0.07}, headline=k == 20, **fields
        )
        value = min(100.0, top1.value + 15)
        top5 = top1.model_copy(update={"metric": "top5", "value": value, "headline": False, "outcomes": None})
        bounds = percent(stats.wilson(round(value * n / 100), n))
        measurements += [top1, top5.model_copy(update={"interval": bounds})]
    tables["linear-logreg"] = table = outcomes(1000 * seed + 1, accuracy + 0.03, n)
    linear: dict[str, Any] = {
        "suite": "linear", "protocol": "linear/logreg@1", "engine": Engine(name="scikit-learn", version="1.9.1"),
        "settings": {}, "selection": "holdout", "feature": {"tokens": "avg", "layers": 1, "norm": "none"},
        "details": {"path": [{"C": 0.01, "accuracy": 0.7}, {"C": 1.0, "accuracy": 0.8}], "C": 1.0},
    }  # fmt: skip
    measurements.append(accuracy_measurement(table, run, "linear-logreg", headline=True, **{**linear, **fields}))
    counts = np.bincount(table["label"])
    right = np.bincount(table["label"], weights=table["correct"]).astype(int)
    mean = {
        "metric": "mean_per_class", "value": 100 * stats.mean_per_class(right, counts),
        "interval_method": "wilson-stratified",
        "interval": percent(stats.mean_per_class_interval(right, counts)),
    }  # fmt: skip
    measurements.append(accuracy_measurement(table, run, "linear-logreg", **{**linear, **mean, **fields}))
    given: dict[str, Any] = {
        "run": run, "name": name, "seed": 0, "created": "2026-11-21T05:12:00Z", "model": card(name),
        "measurements": measurements, "environment": {"bench": "0.1.0", "device": "cpu"},
        "timings": {"load": 0.41, "decode": 3.2, "forward": 61.4, "extract": 64.0, "knn": 0.02, "total": 70.1},
    }  # fmt: skip
    made = Record(**{**given, **changes})
    if runs is not None:
        Ledger(runs).add(made, tables)
    return made
