"""Record: what it refuses, and that the published JSON Schema is the one the code uses."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from bench.card import Card, Transform
from bench.record import Engine, Measurement, Record, json_schema, now, parse


def measurement(**changes: Any) -> Measurement:
    given: dict[str, Any] = {
        "suite": "knn", "protocol": "knn/dino@1", "dataset": "demo", "split": "test", "fingerprint": "sha256:11",
        "metric": "top1", "value": 76.1, "unit": "%", "higher_is_better": True, "n": 1000, "interval": (75.0, 77.0),
        "engine": Engine(name="faiss", version="1"), "transform": Transform(),
    }  # fmt: skip
    return Measurement(**{**given, **changes})


def record(**changes: Any) -> Record:
    card = Card(
        name="net", spec="demo:net", architecture="resnet50", family="cnn", dims={"pooled": 4}, feature="avg",
        weight_digest="sha256:00", transform=Transform(resize=(224, 200), crop=None),
    )  # fmt: skip
    given: dict[str, Any] = {
        "run": "r1", "name": "net", "seed": 0, "created": now(), "model": card, "measurements": [measurement()],
    }  # fmt: skip
    return Record(**{**given, **changes})


def test_published_schema_is_the_models_schema() -> None:
    published = json.loads(files("bench").joinpath("record.schema.json").read_text(encoding="utf-8"))
    assert published == json_schema(), "bench/record.schema.json is stale: write json_schema() into it"


def test_schema_is_valid_and_accepts_a_record() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    jsonschema.Draft202012Validator.check_schema(json_schema())
    document = json.loads(record().to_json())
    validator.validate(document)
    for change in ({"schema": 2}, {"surprise": 1}, {"measurements": [{}]}, {"seed": "x"}):
        assert not validator.is_valid({**document, **change})


def test_round_trip() -> None:
    first = record(timings={"load": 0.1 + 0.2}, request={"suite": ["knn"], "limit": None})
    again = parse(first.to_json(), "x")
    assert again == first
    assert again.to_json() == first.to_json()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", ["value", "sd", "seconds", "interval", "settings", "details", "feature"])
def test_nothing_infinite_gets_in(bad: float, where: str) -> None:
    inside: Any = {"interval": (1.0, bad)}.get(where, {"a": [{"b": (bad,)}]} if where in _TREES else bad)
    with pytest.raises(ValidationError):
        measurement(**{where: inside})


_TREES = {"settings", "details", "feature"}


@pytest.mark.parametrize("where", ["request", "environment", "timings"])
def test_nothing_infinite_gets_into_the_record(where: str) -> None:
    with pytest.raises(ValidationError):
        record(**{where: {"x": float("nan")}})


def test_no_interval_needs_a_reason() -> None:
    with pytest.raises(ValidationError, match="interval_note"):
        measurement(interval=None)
    assert measurement(interval=None, interval_note="selected on test").interval is None
    with pytest.raises(ValidationError, match="upside down"):
        measurement(interval=(77.0, 75.0))


@pytest.mark.parametrize("confidence", [0, 1, 2, -0.5, float("nan")])
def test_a_confidence_is_a_share(confidence: float) -> None:
    with pytest.raises(ValidationError, match="confidence"):
        measurement(confidence=confidence)
