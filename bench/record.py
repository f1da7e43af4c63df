"""Measurement and Record: the documents that everything after a run reads. Schema version 1."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench.card import Card, Transform
from bench.errors import BenchError
from bench.protocol import Selection

SCHEMA = 1


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be finite: an undefined metric is left out of the record, never written as NaN")
    return value


Finite = Annotated[float, AfterValidator(_finite)]


def _finite_throughout(tree: Any) -> Any:
    # A loop, not recursion: a document from outside may be nested as deep as its writer liked.
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, float) and not math.isfinite(node):
            raise ValueError("holds NaN or an infinity, which JSON does not have: leave the entry out")
        if isinstance(node, dict):
            pending.extend(node.values())
        elif isinstance(node, list | tuple):
            pending.extend(node)
    return tree


Facts = Annotated[dict[str, Any], AfterValidator(_finite_throughout)]
"""A JSON object with finite numbers throughout."""


class Engine(BaseModel):
    """The library that computed the number."""

    model_config = ConfigDict(extra="forbid")
    name: str
    version: str


class Measurement(BaseModel):
    """One number: metric, value, interval, and all that makes it comparable."""

    model_config = ConfigDict(extra="forbid")

    suite: str
    protocol: str
    dataset: str
    split: str
    fingerprint: str
    train_fingerprint: str | None = None
    """Fingerprint of the split that was learned from, where one was."""
    metric: str
    value: Finite
    unit: str
    """``%`` for accuracies, AP, IoU, agreement; the empty string for natural units."""
    higher_is_better: bool
    n: int = Field(ge=1)
    interval: tuple[Finite, Finite] | None = None
    interval_method: str | None = None
    interval_note: str | None = None
    """Why there is no interval."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    settings: Facts = Field(default_factory=dict)
    headline: bool = False
    selection: Selection = "none"
    engine: Engine
    feature: Facts = Field(default_factory=dict)
    transform: Transform | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    verified: bool = True
    """False when the protocol card holds a value that nobody could confirm."""
    seeds: list[int] = Field(default_factory=list)
    sd: Finite | None = None
    outcomes: str | None = None
    """Per-sample outcomes, relative to the record's folder."""
    details: Facts = Field(default_factory=dict)
    """Facts beside the number that a page can show: the swept path, the chosen point, samples left out."""
    seconds: Finite = 0.0

    @model_validator(mode="after")
    def _interval_or_reason(self) -> Measurement:
        if self.interval is None and not self.interval_note:
            raise ValueError(f"{self.suite}/{self.metric}: no interval and no interval_note that says why")
        if self.interval is not None and self.interval[0] > self.interval[1]:
            raise ValueError(f"{self.suite}/{self.metric}: interval {self.interval} is upside down")
        return self


class Record(BaseModel):
    """One run as one JSON document; written once, never edited."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_version: Literal[1] = Field(default=1, alias="schema")
    run: str
    name: str
    seed: int
    created: str
    request: Facts = Field(default_factory=dict)
    """The run's arguments: what ``bench run --from`` repeats."""
    model: Card
    teacher: Card | None = None
    inputs: dict[str, str] = Field(default_factory=dict)
    """Fingerprint of everything that was read, by what it is: ``the weights of the model``, ``the test samples of the
    data``... ``bench run --from`` refuses to repeat the run on anything else."""
    measurements: list[Measurement]
    environment: Facts = Field(default_factory=dict)
    timings: dict[str, Finite] = Field(default_factory=dict)
    """Seconds by stage, and ``peak_memory_mb``-like figures are in ``environment``."""
    artifacts: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of every outcome table, by its path relative to the record's folder; the ledger fills it."""

    def to_dict(self) -> dict[str, Any]:
        """The document as plain Python values."""
        return self.model_dump(by_alias=True, mode="json")

    def __getitem__(self, key: str) -> Any:
        return self.to_dict()[key]

    def to_json(self) -> str:
        """The document, indented, full precision, no NaN."""
        return self.model_dump_json(by_alias=True, indent=1) + "\n"


def parse(text: str | bytes, where: str) -> Record:
    """The Record in ``text``; refused with its first fault and its place when it is not one."""
    try:
        return Record.model_validate_json(text)
    except ValidationError as error:
        faults = error.errors()
        version = next((f["input"] for f in faults if f["loc"] == ("schema",) and f["type"] == "literal_error"), None)
        if type(version) is int and abs(version) < 1_000_000:
            raise BenchError(
                f"{where} is a record of schema {version}, and this bench reads schema {SCHEMA}: use the version of "
                f"bench that wrote it"
            ) from None
        first = faults[0]
        # Keys come from the document: keep control characters and endless names out of the sentence.
        path = ".".join(ascii(p)[1:-1] if isinstance(p, str) else str(p) for p in first["loc"])[:200] or "the document"
        raise BenchError(
            f"{where} is not a bench record of schema {SCHEMA}: {path}: {first['msg']} "
            f"(schema: bench/record.schema.json)"
        ) from None


def json_schema() -> dict[str, Any]:
    """The published JSON Schema; `bench/record.schema.json` is this, and a test holds the two together."""
    schema = Record.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "bench record", **schema}


def now() -> str:
    """UTC, to the second, ISO 8601."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
