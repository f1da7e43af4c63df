"""Transfer: a linear probe on each set of a published table, by that set's metric, and the average over all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.axes import FROZEN
from bench.card import digest_of
from bench.errors import BenchError
from bench.options import Allowed, count, positive, words
from bench.suite import Needs, engine_of
from suites import logreg_probe
from suites.classification import accuracies, features_of, labels_of, rank
from suites.logreg_probe import grid_of, prepared, probe, remarks
from suites.transfer_sets import SETS, set_of
from suites.validation import validation_of

if TYPE_CHECKING:
    from bench.card import Card
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Task


class Transfer:
    """One headline a set, in the metric of its table; ``average`` only when every set is here and whole."""

    name = "transfer"
    default = "transfer/kornblith@2"
    axes: ClassVar[tuple[str, ...]] = FROZEN
    options: ClassVar[dict[str, Allowed]] = {
        "sets": words(*SETS, once=True),
        **logreg_probe.CHOICE,
        "split": words("stratified", "random"),
        # Of equals, and of VOC2007's objects that are hard to see.
        "ties": words("strongest", "weakest"),
        "difficult": words("unjudged", "absent"),
        # Those of transfer/dcd.
        "lr": positive(1e6),
        "momentum": Allowed(least=0, below=1),
        "weight_decay": Allowed(least=0, most=1e6),
        "epochs": positive(1e6),
        "steps": positive(1e6, a_set=True),
        "batch": count(2),
    }

    def data_sets(self, protocol: Protocol) -> tuple[str, ...]:
        return tuple(protocol.settings["sets"])

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        for spec in protocol.settings["sets"]:
            set_of(spec)
        if "momentum" in protocol.settings:
            from suites import cifar_transfer

            if protocol.axes:
                raise BenchError(
                    f"{protocol.id}: this recipe learns at 32 x 32 from the whole network: leave "
                    f"transfer.{min(protocol.axes)} out"
                )
            cifar_transfer.check(protocol.settings["sets"], card)
            return Needs(features=(), backbone=True)
        grid_of(protocol.settings)
        return Needs()

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        row = set_of(task.source)
        train, test = task.data["train"], task.data["test"]
        facts: dict[str, Any] = {"whole": len(train) == row.train and len(test) == (row.test or len(test))}
        if not facts["whole"]:
            facts["published"] = {"train": row.train, "test": row.test or len(test)}
            facts["here"] = {"train": len(train), "test": len(test)}
        if row.group:
            facts["group"] = row.group
        if "momentum" in task.settings:
            from suites import cifar_transfer

            yield from cifar_transfer.evaluate(task, facts)
            return
        if train.labels.ndim > 1:
            from suites import logreg_multilabel

            yield from logreg_multilabel.evaluate(task, facts, headline=row.metric)
            return
        if row.metric == "map11":
            raise BenchError(f"{task.source} has one label an image here, and its table counts many")
        labels = labels_of(task)
        how = task.settings["normalise"]
        x = prepared(features_of(train, "pooled"), how)
        # As ssl-transfer's and DINOv2's codes choose it: by what is reported.
        chosen, path, fit = probe(task, labels, x, held=validation_of(train), metric=row.metric)
        top, score = rank(fit.logits(prepared(features_of(test, "pooled"), how)), labels)
        for measurement in accuracies(
            task, labels, top, score, engine=engine_of("torch", "bench-lbfgs+torch"), outcome=f"C{chosen:g}",
            selection="none" if task.settings["C"] is not None else "holdout", seeds=[task.seed],
            feature={**task.feature(), "norm": how},
            details={"path": path, "chosen": chosen, **remarks(task.settings, path, chosen, fit), **facts,
                     "chosen_on": "published validation part" if validation_of(train) is not None else "hold-out"},
        ):  # fmt: skip
            yield measurement.model_copy(update={"headline": measurement.metric == row.metric})

    def summary(
        self, protocol: Protocol, measurements: list[Measurement], missing: Mapping[str, str]
    ) -> Iterator[Measurement]:
        """The unweighted mean of the sets' headlines, and of each group's; nothing unless all are here and whole."""
        heads = [m for m in measurements if m.headline]
        wanted = protocol.settings["sets"]
        if missing or len(wanted) < 2 or len(heads) < len(wanted) or not all(m.details["whole"] for m in heads):
            return
        yield mean_of(protocol, heads, "average", headline=True)
        groups = dict.fromkeys(m.details["group"] for m in heads if "group" in m.details)
        for group in groups if len(groups) > 1 else ():
            yield mean_of(protocol, [m for m in heads if m.details.get("group") == group], f"average_{group}")


def mean_of(protocol: Protocol, heads: list[Measurement], metric: str, headline: bool = False) -> Measurement:
    n = len(heads)
    value = float(np.mean([m.value for m in heads]))
    spans = [(m.value - m.interval[0], m.interval[1] - m.value) for m in heads if m.interval is not None]
    interval = None
    if len(spans) == n:
        # The sets are independent samples: their intervals add in quadrature (MOVER).
        below, above = (float(np.sqrt(np.square([s[i] for s in spans]).sum())) / n for i in (0, 1))
        interval = (max(0.0, value - below), min(100.0, value + above))
    return heads[0].model_copy(
        update={
            "dataset": f"{protocol.id.partition('@')[0].replace('/', '-')}-{n}",
            "split": "test",
            "fingerprint": f"sha256:{digest_of([m.fingerprint for m in heads])}",
            "train_fingerprint": f"sha256:{digest_of([m.train_fingerprint for m in heads])}",
            "metric": metric,
            "value": value,
            "n": sum(m.n for m in heads),
            "interval": interval,
            "interval_method": "mover" if interval else None,
            "interval_note": None if interval else "not every set has an interval",
            "settings": {},
            "headline": headline,
            "outcomes": None,
            "details": {"sets": {m.dataset: m.value for m in heads}, "metrics": {m.dataset: m.metric for m in heads}},
            "seconds": 0.0,
        }
    )
