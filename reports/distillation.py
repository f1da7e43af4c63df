"""Distillation: every student beside its teacher, and measured pairs in the columns of the published tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reports.board import Board, Cell, Model

if TYPE_CHECKING:
    from bench.card import Card
    from bench.record import Measurement

CIFAR100 = {"cifar100", "cifar-100"}
IMAGENET = {"imagenet", "imagenet-1k", "in1k"}
COMPARING = {"agreement", "similarity", "layers", "logits", "attention", "gradcam", "compression"}
"""Suites whose numbers are of a pair, not of one network."""
RETAINED_AT_MOST = 12
"""Columns of retention by suites."""

_CIFAR = (
    (re.compile(r"wrn_(\d+)_(\d+)"), r"W-\1-\2"),
    (re.compile(r"cifar_resnet(\d+(?:x4)?)"), r"R-\1"),
    (re.compile(r"cifar_vgg(\d+)"), r"VGG-\1"),
    (re.compile(r"cifar_mobilenetv2_half"), "MN-v2"),
    (re.compile(r"cifar_shufflenetv([12])"), r"SN-v\1"),
)
_LARGE = (
    (re.compile(r"resnet(\d+)"), r"ResNet-\1"),
    (re.compile(r"(?:tf_)?mobilenet_?v2(?:_100)?"), "MobileNet-v2"),
)


def cifar_name(architecture: str) -> str:
    """A CIFAR network as the papers' tables name it: ``wrn_40_2`` is ``W-40-2``; others keep their own name."""
    return _called(architecture, _CIFAR)


def large_name(architecture: str) -> str:
    """An ImageNet network as the papers' tables name it: ``resnet34`` is ``ResNet-34``."""
    return _called(architecture.partition(".")[0], _LARGE)


def _called(architecture: str, names: tuple[tuple[re.Pattern[str], str], ...]) -> str:
    for pattern, called in names:
        if match := pattern.fullmatch(architecture):
            return match.expand(called)
    return architecture


def one_family(teacher: str, student: str) -> bool:
    """Whether two names of the tables are of one family of architectures: ``W-40-2`` and ``W-16-2`` are."""
    families = [re.match(r"[A-Za-z]+", name) for name in (teacher, student)]
    return all(families) and families[0][0] == families[1][0]  # type: ignore[index]


@dataclass
class Pair:
    """A student and a teacher on one data set, with the newest of every number of theirs."""

    student: Model
    card: Card
    teacher: Card
    dataset: str
    split: str
    fingerprint: str
    found: dict[str, tuple[str, Measurement]] = field(default_factory=dict)
    """(run, measurement) by what was measured."""

    def cell(self, suite: str, metric: str, **settings: Any) -> Cell | None:
        """The newest measurement with these settings among its own, as a cell; None where there is none.

        Of an agreement they are all that its settings say beside whose logits and which teacher: the agreement of the
        baseline is not that of the student.
        """
        for run, m in reversed(self.found.values()):
            if (m.suite, m.metric) != (suite, metric) or any(m.settings.get(k) != v for k, v in settings.items()):
                continue
            if suite != "agreement" or set(m.settings) - {"logits", "teacher"} == set(settings):
                return Cell([m], [run])
        return None

    @property
    def logits(self) -> str:
        """``own`` or ``probe``: whose classifiers the agreement is of; empty where none was measured."""
        cell = self.cell("agreement", "agreement")
        return str(cell.newest.settings.get("logits", "")) if cell else ""

    def retained(self) -> Iterator[tuple[str, Cell]]:
        """(suite and metric, retention) as the suite `compression` measured it."""
        for run, m in self.found.values():
            if (m.suite, m.metric) == ("compression", "retention"):
                protocol, _, metric = str(m.settings.get("of", "")).partition(" ")
                yield f"{protocol.partition('/')[0]} {metric}", Cell([m], [run])


def pairs(board: Board) -> list[Pair]:
    """Every student that a record compares with a teacher, a pair for each data set that it was done on."""
    found: dict[tuple[Any, ...], Pair] = {}
    general: dict[tuple[Model, str], dict[str, tuple[str, Measurement]]] = {}
    for model, records in board.records.items():
        for record in records:
            if record.teacher is None:
                continue
            digest = record.teacher.weight_digest
            for m in record.measurements:
                if m.suite not in COMPARING:
                    continue
                what = f"{m.suite} {m.metric} {sorted((k, str(v)) for k, v in m.settings.items())}"
                if m.split == "synthetic":
                    # Sizes and times are of the two networks, whatever the data.
                    general.setdefault((model, digest), {})[what] = (record.run, m)
                    continue
                key = (model, digest, m.dataset, m.split, m.fingerprint)
                pair = found.setdefault(
                    key, Pair(model, record.model, record.teacher, m.dataset, m.split, m.fingerprint)
                )
                # Repeats: the newest comes last.
                pair.found.pop(what, None)
                pair.found[what] = (record.run, m)
    kept = []
    for (model, digest, *_), pair in found.items():
        # What is reported only of the training samples is no row of its own.
        if any(m.headline for _, m in pair.found.values()):
            pair.found.update(general.get((model, digest), {}))
            kept.append(pair)
    return kept


def joined(board: Board, pair: Pair) -> dict[str, tuple[float, str]]:
    """suite and metric -> (retention in percent, how) where the ledger has both networks' numbers in one column."""
    found: dict[str, tuple[float, str]] = {}
    for column, cells in board.columns.items():
        if column.suite in COMPARING or column.unit != "%" or column.direction != "higher" or pair.student not in cells:
            continue
        mine = cells[pair.student]
        guide = next((c for m, c in cells.items() if m.weights == pair.teacher.weight_digest), None)
        if guide is None or guide.value <= 0 or not mine.newest.headline:
            continue
        where = column.dataset if column.fingerprint != pair.fingerprint else ""
        name = " ".join(filter(None, (column.suite, column.metric, where)))
        how = (
            f"{column.protocol}; student {mine.value:.2f}, teacher {guide.value:.2f}; of their own records, not paired"
        )
        found[name] = (100 * mine.value / guide.value, how)
    return found
