"""k nearest neighbours with a weighted vote (Wu et al. 2018; Caron et al. 2021, eval_knn.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.axes import FROZEN
from bench.errors import BenchError
from bench.options import Allowed, count, positive, spell, words
from bench.suite import Needs
from suites import euclidean, portrait
from suites.classification import accuracies, features_of, labels_of
from suites.euclidean import Raw
from suites.neighbours import ENGINE, ROWS, Neighbours, bank_of, normalised, passes, search
from suites.targets import is_multilabel, precisions, targets_of
from suites.vote import QUERIES, decide, headline_of, log_weights

if TYPE_CHECKING:
    from bench.card import Card
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Task
    from suites.candidates import Bank


class KNN:
    """Top-1 and top-5 at every k and temperature from one exact search at the largest k."""

    name = "knn"
    default = "knn/dino@1"
    axes: ClassVar[tuple[str, ...]] = FROZEN
    options: ClassVar[dict[str, Allowed]] = {
        "k": count(a_set=True),
        "headline_k": count(),
        "temperature": Allowed(least=1e-6, most=1e6, a_set=True),
        "headline_temperature": Allowed(least=1e-6, most=1e6),
        "weight": words("exp", "softmax", "l2", "inverse", "one"),
        # Those of few-shot protocols.
        "n_per_class": count(a_set=True),
        "percent": positive(100, a_set=True),
        "largest_k": words("class", "bank"),
        "tries": count(most=10_000),
    }

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        headline_of(protocol.settings, "k")
        headline_of(protocol.settings, "temperature")
        if (protocol.settings["weight"] == "inverse") != (protocol.feature["norm"] == "none"):
            raise BenchError(
                f"{protocol.id}: weight=inverse votes by distances of features as they are, every other weight by "
                f"similarities of features of length 1: take --protocol knn=solo-l2 for the one, another for the others"
            )
        return Needs()

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        settings = task.settings
        if "n_per_class" in settings:
            from suites import knn_tries

            yield from knn_tries.evaluate(task)
            return
        if is_multilabel(task):
            yield from _precisions(task)
            return
        labels = labels_of(task)
        found, reached, common = nearest(task)
        headline = headline_of(settings, "k"), headline_of(settings, "temperature")
        for k in settings["k"]:
            details = {**({"neighbours": reached[k]} if reached[k] < k else {}), **common}
            for temperature in settings["temperature"]:
                votes = decide(found, labels, reached[k], settings["weight"], temperature)
                # Of fewer than five neighbours no five classes have votes: the best k count (DINO's min(5, k)).
                yield from accuracies(
                    task,
                    labels,
                    votes.top[:, : min(5, k)],
                    votes.share,
                    engine=ENGINE,
                    outcome=f"k{k}-T{spell(temperature)}",
                    metrics=("top1", "top5"),
                    headline=(k, temperature) == headline,
                    details=details,
                    confidence=votes.confidence,
                    settings={"k": k, "temperature": temperature},
                )
                # A picture's neighbours are told with their similarities, which distances are not.
                if (k, temperature) == headline and settings["weight"] != "inverse":
                    portrait.keep(task, labels, found, votes.top[:, 0])


def nearest(task: Task) -> tuple[Neighbours, dict[int, int], dict[str, Any]]:
    """(neighbours at the largest k, the neighbours that there are for each k asked for, what a record says of it)."""
    train, test = task.data["train"], task.data["test"]
    queries = features_of(test, "pooled")
    zero = 0
    bank: Bank
    if task.settings["weight"] == "inverse":
        bank = Raw(train, "pooled")
    else:
        zero = int((~queries.any(axis=1)).sum())
        queries = normalised(queries)
        bank, empty = bank_of(train, "pooled")
        zero += empty
    own = _own(train.ids, test.ids) if train.fingerprint == test.fingerprint else None
    # Features made elsewhere are fingerprinted by their labels alone: two splits may share those and nothing else.
    same = own is not None and _are_the_rows(bank, own, queries)
    available = len(bank) - (1 if same else 0)
    reached = {k: min(k, available) for k in task.settings["k"]}
    most = max(reached.values())
    with task.progress.stage("kNN search", len(bank) * passes(len(queries), most), "rows") as stage:
        left_out = own if same else None
        if isinstance(bank, Raw):
            found = euclidean.nearest(bank, queries, most, own=left_out, device=task.device, stage=stage)
        else:
            found = search(bank, queries, most, own=left_out, device=task.device, stage=stage)
    details: dict[str, Any] = {}
    if same:
        details["own_sample_left_out"] = True
    if zero:
        details["zero_features"] = zero
    return found, reached, details


def _precisions(task: Task) -> Iterator[Measurement]:
    """Several labels a sample: a class scores the share of the votes whose neighbours carry it.

    Of the votes of the first k; with ``weight`` at ``softmax`` of those of the largest k (DINOv3's), which ranks
    samples otherwise.
    """
    settings = task.settings
    targets = targets_of(task)
    found, reached, common = nearest(task)
    headline = headline_of(settings, "k"), headline_of(settings, "temperature")
    carried = targets.train > 0
    for k in settings["k"]:
        details = {**({"neighbours": reached[k]} if reached[k] < k else {}), **common}
        for temperature in settings["temperature"]:
            scores = np.empty(targets.test.shape)
            for start in range(0, len(scores), QUERIES):
                rows = slice(start, start + QUERIES)
                every = None if settings["weight"] == "softmax" else reached[k]
                logs = log_weights(found.similarity[rows, :every], settings["weight"], temperature)
                weights = np.exp(logs - logs.max(axis=1, keepdims=True))
                weights /= weights.sum(axis=1, keepdims=True)
                scores[rows] = np.einsum(
                    "qk,qkc->qc", weights[:, : reached[k]], carried[found.index[rows, : reached[k]]]
                )
            yield from precisions(
                task, targets, scores, engine=ENGINE, outcome=f"k{k}-T{spell(temperature)}",
                headline="map" if (k, temperature) == headline else None, details=details,
                settings={"k": k, "temperature": temperature},
            )  # fmt: skip


def _own(train: Sequence[str], test: Sequence[str]) -> np.ndarray:
    """Bank row of each query's own sample, by id."""
    where = {name: row for row, name in enumerate(train)}
    return np.array([where.get(name, -1) for name in test], dtype=np.int64)


def _are_the_rows(bank: Bank, own: np.ndarray, queries: np.ndarray) -> bool:
    """Whether every query is, number for number, the bank row that ``own`` names."""
    if (own < 0).any():
        return False
    for first, block in bank.blocks(ROWS):
        mine = np.flatnonzero((own >= first) & (own < first + len(block)))
        if not np.array_equal(block[own[mine] - first], queries[mine]):
            return False
    return True
