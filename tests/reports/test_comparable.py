"""Law 2: which measurements share a column, field by field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.card import Card, Transform
from bench.record import Engine, Measurement, Record
from reports.comparable import called, column_of, differences, differing, exact_column

CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "protocol": ({"protocol": "knn/dino@1+k=7"}, "protocol"),
    "engine version": ({"engine": Engine(name="faiss", version="1.14.0")}, "engine"),
    "engine": ({"engine": Engine(name="torch", version="1.15.1")}, "engine"),
    "selection": ({"selection": "best_on_test"}, "selection rule"),
    "precision": ({"precision": "bf16"}, "precision"),
    "data set": ({"dataset": "cifar10"}, "data set"),
    "fingerprint": ({"fingerprint": "sha256:other"}, "data fingerprint"),
    "training data": ({"train_fingerprint": "sha256:other"}, "training data"),
    "split": ({"split": "val"}, "split"),
    "feature norm": ({"feature": {"tokens": "avg", "layers": 1, "norm": "none"}}, "feature"),
    "feature layers": ({"feature": {"tokens": "avg", "layers": 4, "norm": "l2"}}, "feature"),
    "feature tokens": ({"feature": {"tokens": "cls", "layers": 1, "norm": "l2"}}, "feature"),
    "transform": ({"transform": Transform(resize=512, crop=448)}, "transform"),
    "settings": ({"settings": {"k": 21, "temperature": 0.07}}, "settings"),
    "metric": ({"metric": "top5"}, "metric"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_any_of_these_fields_keeps_two_apart(make: Callable[..., Record], name: str) -> None:
    changes, said = CHANGES[name]
    record = make()
    first = record.measurements[0]
    other = first.model_copy(update=changes)
    assert [called(f) for f in differing(column_of(first, record.model), column_of(other, record.model))] == [said]
    [difference] = differences(exact_column(first), exact_column(other))
    assert difference.startswith(f"{said} (")
    assert " against " in difference


def test_what_says_nothing_of_comparability_does_not_part(make: Callable[..., Record]) -> None:
    record = make()
    first = record.measurements[0]
    changes = {"value": 1.0, "n": 5, "interval": (0.0, 2.0), "seconds": 9.0, "headline": True, "outcomes": None}
    other = first.model_copy(update={**changes, "settings": {"temperature": 0.07, "k": 10.0}, "details": {"a": 1}})
    assert column_of(first, record.model) == column_of(other, record.model)
    assert exact_column(first) == exact_column(other)


def _as_of(m: Measurement, card: Card) -> Measurement:
    return m.model_copy(update={"transform": card.transform, "feature": {**m.feature, "tokens": card.feature}})


def test_transform_and_pooled_token_belong_to_the_model(make: Callable[..., Record]) -> None:
    """Two networks, each by its own transform and pooled feature, are one column; one network twice is not."""
    record = make()
    m, cnn = record.measurements[0], record.model
    vit = cnn.model_copy(update={"feature": "cls", "transform": Transform(resize=592, crop=518)})
    assert column_of(_as_of(m, vit), vit) == column_of(m, cnn)
    assert differing(exact_column(_as_of(m, vit)), exact_column(m)) == ["feature", "transform"]
    # A protocol that asks the ViT for another token, or a transform that is not the ViT's, is another rule.
    assert differing(column_of(m.model_copy(update={"transform": vit.transform}), vit), column_of(m, cnn)) == [
        "feature"
    ]
    own_token = m.model_copy(update={"feature": {**m.feature, "tokens": "cls"}})
    assert differing(column_of(own_token, vit), column_of(m, cnn)) == ["transform"]
