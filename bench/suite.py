"""Suite: evaluates a protocol and yields Measurements. This is all that a suite may know of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from bench.record import Engine, Measurement

if TYPE_CHECKING:
    from pathlib import Path

    from bench.backbone import Backbone
    from bench.card import Card
    from bench.dataset import Dataset
    from bench.featureset import FeatureSet
    from bench.progress import Progress
    from bench.protocol import Protocol as ProtocolCard


MOST_NAMES = 1_000
"""Classes whose names a record says: ImageNet's."""


class Needs(NamedTuple):
    """What a suite reads, said before the run so that one pass serves all suites."""

    features: tuple[str, ...] = ("pooled",)
    splits: tuple[str, ...] = ("train", "test")
    teacher: bool = False
    """True when the suite reads a teacher's features of the same samples."""
    backbone: bool = False
    """True when the suite forwards the network itself (fine-tune, detection): stored features are not enough. With no
    ``features``, ``Task.data`` holds labels alone, and ``Task.images`` the samples themselves."""
    others: tuple[tuple[str, str], ...] = ()
    """(role, SPEC) of further models whose features of the same samples the suite reads: a baseline, an ensemble."""


class Other(NamedTuple):
    """A further model of the comparison."""

    card: Card
    data: Mapping[str, FeatureSet]


@dataclass
class Outcomes:
    """Per-sample arrays that several measurements share; the runner writes each table once, as npz.

    Classification holds ``label``, ``prediction``, ``score`` (of the true class) and ``correct``, rows in the order of
    the data set's samples.
    """

    name: str
    """File name stem, unique within the suite, e.g. ``k20-T0.07``."""
    arrays: dict[str, np.ndarray]


@dataclass
class Task:
    """The inputs of one suite in one run."""

    protocol: ProtocolCard
    card: Card
    data: Mapping[str, FeatureSet]
    """``train`` (to learn from) and ``test`` (to report on), where needed."""
    seed: int
    device: str
    progress: Progress
    backbone: Backbone | None = None
    teacher: Mapping[str, FeatureSet] | None = None
    teacher_card: Card | None = None
    teacher_backbone: Backbone | None = None
    """The teacher's network, for a suite that forwards both; None where the teacher is stored features."""
    others: Mapping[str, Other] = field(default_factory=dict)
    """By role, as `Needs.others` asked for them."""
    images: Mapping[str, Dataset] = field(default_factory=dict)
    """For a suite that forwards the network itself: the samples, by ``train`` and ``test``."""
    batch: int | None = None
    """Images that go through the network at once, where the user said so."""
    workers: int | None = None
    """Processes that make images, where the user said so."""
    folder: Path | None = None
    """Where the suite may keep what it has not finished: there again when the same request is run again, and removed
    when its record is written. None where no record is written."""
    source: str = ""
    """The SPEC of the data set."""
    outcomes: dict[int, Outcomes | str] = field(default_factory=dict)
    """Outcome tables by measurement index, filled by `measure`; the runner writes them."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Files kept beside the record, by name: drawings (``.png``) and documents (``.json``). A name that `measure` was
    given as its ``outcomes`` is what the measurement points to."""
    _count: int = 0

    @property
    def settings(self) -> dict[str, Any]:
        return self.protocol.settings

    def measure(
        self,
        metric: str,
        value: float,
        *,
        n: int,
        engine: Engine,
        unit: str = "%",
        higher_is_better: bool = True,
        interval: tuple[float, float] | None = None,
        interval_method: str | None = None,
        interval_note: str | None = None,
        split: str = "test",
        outcomes: Outcomes | str | None = None,
        selection: str | None = None,
        feature: dict[str, Any] | None = None,
        **more: Any,
    ) -> Measurement:
        """A Measurement with everything that the protocol, the card and the data already say filled in.

        ``more``: settings, headline, seeds, sd, details, seconds. ``outcomes``: a table, or the name of one of `files`.
        """
        data = self.data[split]
        train = self.data.get("train")
        if more.get("headline") and isinstance(outcomes, Outcomes) and "label" in outcomes.arrays:
            more["details"] = {**self._class_names(), **more.get("details", {})}
        measurement = Measurement(
            suite=self.protocol.suite,
            protocol=self.protocol.id,
            dataset=data.dataset,
            split=data.split,
            fingerprint=data.fingerprint,
            train_fingerprint=train.fingerprint if train is not None else None,
            metric=metric,
            value=float(value),
            unit=unit,
            higher_is_better=higher_is_better,
            n=n,
            interval=interval,
            interval_method=interval_method,
            interval_note=interval_note,
            selection=selection or self.protocol.selection,  # type: ignore[arg-type]
            engine=engine,
            feature=feature if feature is not None else self.feature(),
            transform=self.card.transform,
            precision=self.protocol.precision,
            verified=self.protocol.verified,
            **more,
        )
        if outcomes is not None:
            self.outcomes[self._count] = outcomes
        self._count += 1
        return measurement

    def _class_names(self) -> dict[str, Any]:
        """``class_names``, the name of every label, so that a report can say them; nothing where labels are numbers."""
        names = {int(label): name for data in self.data.values() for label, name in data.classes.items()}
        if len(names) > MOST_NAMES or all(name == str(label) for label, name in names.items()):
            return {}
        return {"class_names": {str(label): name for label, name in sorted(names.items())}}

    def feature(self) -> dict[str, Any]:
        """The card's feature description with ``pooled`` resolved to what it is for this model (cls, avg...)."""
        from bench import axes

        described = {"tokens": "pooled", "layers": 1, "norm": "none", **self.protocol.feature}
        described |= axes.described(self.protocol.axes, self.card)
        if described["tokens"] == "pooled":
            described["tokens"] = self.card.feature
        return described


@runtime_checkable
class Suite(Protocol):
    """What the registry's ``suites`` room holds: a class without state, one per suite.

    It may say what its options may be: ``options``, a dictionary of `bench.options.Allowed` by name; and which of
    `bench.axes.AXES` it has: ``axes``. One that brings data sets of its own is an `OverSets`.
    """

    name: str
    default: str
    """Id of the default protocol card."""

    def needs(self, protocol: ProtocolCard, card: Card) -> Needs:
        """The features and splits that ``evaluate`` will read; refuses a protocol that this model cannot serve."""

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        """Yield the measurements, the headline marked. Raises `BenchError` for data that cannot be judged."""


@runtime_checkable
class OverSets(Protocol):
    """A suite that is evaluated on several data sets of its own: one task each, whatever ``--data`` says."""

    def data_sets(self, protocol: ProtocolCard) -> tuple[str, ...]:
        """Their SPECs. Those that are not here are named and left out; the run stops when none is."""

    def summary(
        self, protocol: ProtocolCard, measurements: list[Measurement], missing: Mapping[str, str]
    ) -> Iterator[Measurement]:
        """What all sets say together. ``missing``: SPEC -> why it is not here."""


def engine_of(distribution: str, name: str | None = None) -> Engine:
    """Engine entry of an installed distribution."""
    from importlib.metadata import PackageNotFoundError, version

    for candidate in (distribution, f"{distribution}-gpu", f"{distribution}-cpu"):
        try:
            return Engine(name=name or distribution, version=version(candidate))
        except PackageNotFoundError:
            continue
    return Engine(name=name or distribution, version="unknown")
