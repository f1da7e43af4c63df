"""Retrieval on labelled sets: who is of my class comes first. Mean average precision and recall among the k nearest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.errors import BenchError
from bench.options import Allowed, count, words
from bench.stats import wilson
from bench.suite import Needs, Outcomes, engine_of
from suites.average_precision import along_ranks
from suites.classification import features_of
from suites.neighbours import normalised

if TYPE_CHECKING:
    from bench.card import Card
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Task

ROOM = 16_000_000
"""Similarities held at a time."""


@dataclass
class Found:
    """Per query, for those that have something to find."""

    query: np.ndarray
    """int64 [Q]: row of the query."""
    ap: np.ndarray
    """float64 [Q]: average precision over the whole ranking."""
    ap_at_r: np.ndarray
    """float64 [Q]: the same over the first R ranks alone, R the number of relevant ones (MAP@R)."""
    first: np.ndarray
    """int64 [Q]: rank, from 1, of the first relevant one."""


class Retrieval:
    """Cosine similarity of the frozen feature; queries are the test split, ranked against it or against train."""

    name = "retrieval"
    default = "retrieval/self@1"
    options: ClassVar[dict[str, Allowed]] = {"k": count(a_set=True), "bank": words("test", "train")}

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        return Needs(splits=("train", "test") if protocol.settings["bank"] == "train" else ("test",))

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        test = task.data["test"]
        bank = task.data[task.settings["bank"]]
        if bank.labels.ndim > 1:
            raise BenchError(f"{test.dataset} has many labels an image: retrieval asks for one")
        alone = bank is test
        with task.progress.stage("retrieval", len(test), "queries") as stage:
            found = ranked(
                normalised(features_of(test, "pooled")), test.labels, normalised(features_of(bank, "pooled")),
                bank.labels, own=alone, advance=stage.advance,
            )  # fmt: skip
        n = len(found.query)
        if not n:
            raise BenchError(f"no sample of {test.dataset} {test.split} has another of its class: nothing can be found")
        details: dict[str, Any] = {"bank": len(bank) - alone}
        if n < len(test):
            details["queries_without_relevant"] = len(test) - n
        common: dict[str, Any] = {
            "n": n,
            "engine": engine_of("numpy"),
            "details": details,
            "outcomes": Outcomes(
                "queries", {"query": found.query, "ap": found.ap, "ap_at_r": found.ap_at_r, "first": found.first}
            ),
        }
        yield _mean(task, "map", found.ap, {**common, "headline": True})
        yield _mean(task, "map_at_r", found.ap_at_r, common)
        for k in task.settings["k"]:
            hits = int((found.first <= k).sum())
            low, high = wilson(hits, n)
            yield task.measure(
                "recall", 100 * hits / n, interval=(100 * low, 100 * high), interval_method="wilson",
                settings={"k": k}, **common,
            )  # fmt: skip


def ranked(
    queries: np.ndarray,
    query_labels: np.ndarray,
    bank: np.ndarray,
    bank_labels: np.ndarray,
    *,
    own: bool = False,
    advance: Any = None,
) -> Found:
    """The whole ranking of ``bank`` [N, D] for every row of ``queries`` [Q, D], both of length 1.

    Similarities are summed in float64; equal ones rank by bank row. ``own``: query i is bank row i and left out.
    """
    n = len(bank)
    counts = dict(zip(*np.unique(bank_labels, return_counts=True), strict=True))
    total = np.array([int(counts.get(label, 0)) - own for label in query_labels], dtype=np.int64)
    wide = bank.astype(np.float64)
    step = max(1, ROOM // max(n, 1))
    rows, aps, at_r, firsts = [], [], [], []
    for start in range(0, len(queries), step):
        chosen = np.arange(start, min(start + step, len(queries)))
        similarity = queries[chosen].astype(np.float64) @ wide.T
        if own:
            # Last of all, and irrelevant.
            similarity[np.arange(len(chosen)), chosen] = -np.inf
        order = np.argsort(-similarity, axis=1, kind="stable")
        relevant = bank_labels[order] == query_labels[chosen][:, None]
        if own:
            relevant[:, -1] = False
        has = total[chosen] > 0
        relevant, here = relevant[has], chosen[has]
        rows.append(here)
        aps.append(along_ranks(relevant, total[here]))
        within = np.arange(1, n + 1)[None, :] <= total[here][:, None]
        at_r.append(along_ranks(relevant & within, total[here]))
        firsts.append(relevant.argmax(axis=1) + 1)
        if advance is not None:
            advance(len(chosen))
    return Found(*(np.concatenate(part) for part in (rows, aps, at_r, firsts)))


def _mean(task: Task, metric: str, values: np.ndarray, common: dict[str, Any]) -> Measurement:
    """The mean over queries with Student's interval."""
    from scipy.special import stdtrit

    n, mean = len(values), float(values.mean())
    if n < 2:
        return task.measure(metric, 100 * mean, interval_note="a single query", **common)
    half = float(stdtrit(n - 1, 0.975)) * float(values.std(ddof=1)) / n**0.5
    interval = (100 * max(0.0, mean - half), 100 * min(1.0, mean + half))
    return task.measure(metric, 100 * mean, interval=interval, interval_method="t over queries", **common)
